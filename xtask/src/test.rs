//! `test`: the tests of the crates, simulated clusters, then the end-to-end suites, each in a process of its own with a limit
//! on its time.
//!
//! A process of its own, because a file system that hangs takes the caller with it: the parent can always kill the suite
//! and sweep up the cluster it had started.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::suite::{self, Context, Outcome, SUITES, Suite};
use crate::{shell, verify, wait};

const UNIT_LIMIT: Duration = Duration::from_secs(25 * 60);
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
/// A suite that is told to end gets this long to stop its cluster.
const GRACE: Duration = Duration::from_secs(60);
/// Simulated clusters of these seeds are run by default, each in all shapes: some minutes on two cores. A run of all tests ends the
/// same for the same code.
const EXPLORE_SEEDS: &str = "1..800";
/// How long simulated clusters of seeds that nobody has seen are run when asked for (`--only explore`).
const EXPLORE_SECONDS: u64 = 300;
const EXPLORE_LIMIT: Duration = Duration::from_secs(15 * 60);
const PORTS_PER_SUITE: u16 = 100;
/// Where a failed suite's data and logs are kept until the next run.
const KEPT: &str = "target/xtask-test";

/// What the caller asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) quick: bool,
    /// Names of suites; all that run by default when empty.
    pub(crate) only: Vec<String>,
    pub(crate) rounds: Option<u32>,
    pub(crate) seed: Option<u64>,
    pub(crate) port_base: u16,
}

#[derive(Debug, Default)]
struct Tally {
    passed: Vec<String>,
    failed: Vec<String>,
    skipped: Vec<String>,
}

pub(crate) fn run(root: &Path, wanted: &Wanted) -> Result<()> {
    let known = || ["unit", "doc", "explore"].into_iter().chain(SUITES.iter().map(|suite| suite.name));
    if let Some(name) = wanted.only.iter().find(|name| !known().any(|suite| suite == *name)) {
        bail!("no suite {name}; there are: {}", known().collect::<Vec<_>>().join(", "));
    }
    let is_wanted = |name: &str| wanted.only.is_empty() || wanted.only.iter().any(|only| only == name);
    let mut tally = Tally::default();
    if is_wanted("unit") {
        tally.add("unit", unit(root).map(|()| Outcome::Passed));
    }
    if is_wanted("doc") {
        tally.add("doc", doc(root).map(|()| Outcome::Passed));
    }
    if is_wanted("explore") {
        let outcome = if wanted.quick {
            Ok(Outcome::Skipped("fixed seeds are enough for --quick".to_owned()))
        } else {
            explore(root, wanted.only.is_empty()).map(|()| Outcome::Passed)
        };
        tally.add("explore", outcome);
    }
    let suites: Vec<(u16, &Suite)> = (0..).zip(&SUITES).filter(|(_, suite)| is_wanted(suite.name)).collect();
    if !suites.is_empty() {
        end_to_end(root, wanted, &suites, &mut tally);
    }
    for (word, names) in [("failed", &tally.failed), ("skipped", &tally.skipped)] {
        if !names.is_empty() {
            println!("{word}: {}", names.join(", "));
        }
    }
    println!("{} passed, {} failed, {} skipped", tally.passed.len(), tally.failed.len(), tally.skipped.len());
    if tally.failed.is_empty() { Ok(()) } else { bail!("failed: {}", tally.failed.join(", ")) }
}

fn end_to_end(root: &Path, wanted: &Wanted, suites: &[(u16, &Suite)], tally: &mut Tally) {
    if !Path::new("/dev/fuse").exists() {
        for (_, suite) in suites {
            tally.add(
                suite.name,
                Ok(Outcome::Skipped("there is no /dev/fuse: NO FILE SYSTEM WAS MOUNTED".to_owned())),
            );
        }
        return;
    }
    let binary = match build(root, false) {
        Ok(binary) => binary,
        Err(error) => {
            for (_, suite) in suites {
                tally.add(suite.name, Err(anyhow::anyhow!("the binary was not built: {error:#}")));
            }
            return;
        }
    };
    for (index, suite) in suites {
        if wait::interrupted() {
            tally.add(suite.name, Err(anyhow::anyhow!("interrupted")));
            continue;
        }
        let port_base = wanted.port_base + index * PORTS_PER_SUITE;
        let outcome = one(root, wanted, &binary, port_base, suite);
        tally.add(suite.name, outcome);
    }
}

impl Tally {
    fn add(&mut self, name: &str, outcome: Result<Outcome>) {
        match outcome {
            Ok(Outcome::Passed) => {
                println!("=== {name}: passed");
                self.passed.push(name.to_owned());
            }
            Ok(Outcome::Skipped(reason)) => {
                println!("=== {name}: SKIPPED: {reason}");
                self.skipped.push(name.to_owned());
            }
            Err(error) => {
                println!("=== {name}: FAILED: {error:#}");
                self.failed.push(name.to_owned());
            }
        }
    }
}

fn unit(root: &Path) -> Result<()> {
    let nextest: &[&str] = &["nextest", "run", "--workspace", "--no-fail-fast"];
    let plain: &[&str] = &["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"];
    let words = if shell::has_program("cargo-nextest") { nextest } else { plain };
    shell::visible(&mut verify::command(root, words), UNIT_LIMIT)
}

fn doc(root: &Path) -> Result<()> {
    shell::visible(&mut verify::command(root, &["test", "--workspace", "--doc", "--quiet"]), UNIT_LIMIT)
}

/// Says which seed it begins with, and how to repeat what failed.
fn explore(root: &Path, fixed: bool) -> Result<()> {
    let time = format!("{EXPLORE_SECONDS}s");
    let which = if fixed { ["--seeds", EXPLORE_SEEDS] } else { ["--for", time.as_str()] };
    let words = ["run", "--package", "mooseng-sim", "--bin", "explore", "--", which[0], which[1], "--quiet"];
    shell::visible(&mut verify::command(root, &words), BUILD_LIMIT + EXPLORE_LIMIT)
}

/// Builds `mooseng` and answers where it is.
pub(crate) fn build(root: &Path, release: bool) -> Result<PathBuf> {
    let mut words = vec!["build", "--package", "mooseng-cli", "--bin", "mooseng"];
    words.extend(release.then_some("--release"));
    shell::visible(&mut verify::command(root, &words), BUILD_LIMIT)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |path| root.join(path));
    Ok(target.join(if release { "release" } else { "debug" }).join("mooseng"))
}

/// Runs one suite as a child, ends it at its limit, and sweeps up in every case.
fn one(root: &Path, wanted: &Wanted, binary: &Path, port_base: u16, suite: &Suite) -> Result<Outcome> {
    println!("=== {}", suite.name);
    let start = Instant::now();
    let scratch = tempfile::Builder::new().prefix("mooseng-test-").tempdir()?;
    let context = Context {
        root: root.to_owned(),
        binary: binary.to_owned(),
        scratch: scratch.path().to_owned(),
        port_base,
        quick: wanted.quick,
        rounds: wanted.rounds,
        seed: wanted.seed,
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("suite").arg(suite.name).arg("--binary").arg(binary).arg("--scratch").arg(scratch.path());
    command.arg("--port-base").arg(port_base.to_string());
    if let Some(rounds) = wanted.rounds {
        command.arg("--rounds").arg(rounds.to_string());
    }
    if let Some(seed) = wanted.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    if wanted.quick {
        command.arg("--quick");
    }
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn().context("start the suite")?;
    let limit = (suite.limit)(&context);
    let ended = wait::until(limit, &format!("the suite {}", suite.name), || Ok(child.try_wait()?.is_some()));
    if ended.is_err() {
        end(&mut child, &context);
    }
    context.sweep();
    let code = child.wait()?.code();
    println!("=== {}: {} s", suite.name, start.elapsed().as_secs());
    ended?;
    match code {
        Some(0) => Ok(Outcome::Passed),
        Some(code) if code == i32::from(suite::SKIPPED) => {
            Ok(Outcome::Skipped("it said so above".to_owned()))
        }
        _ => {
            let kept = keep(root, suite.name, scratch)?;
            bail!("see above; logs are in {}", kept.display())
        }
    }
}

/// SIGTERM lets the suite stop its own cluster. If it hangs in the mount, killing the mount daemon sets it free to die.
fn end(child: &mut Child, context: &Context) {
    shell::signal(child.id(), Signal::TERM);
    if !wait::quietly(GRACE, || !matches!(child.try_wait(), Ok(None))) {
        context.sweep();
        shell::kill_group(child);
    }
}

/// Moves the logs and journals of a failed suite to where the next reader finds them.
fn keep(root: &Path, name: &str, scratch: tempfile::TempDir) -> Result<PathBuf> {
    let place = root.join(KEPT).join(name);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    let mut directories = vec![scratch.path().to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)?.flatten() {
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "log" || end == "toml") {
                let flat = path.strip_prefix(scratch.path())?.to_string_lossy().replace('/', "_");
                fs::copy(&path, place.join(flat))?;
            }
        }
    }
    scratch.close()?;
    Ok(place)
}

/// The child's side: runs one suite in this process.
pub(crate) fn run_one(context: &Context, name: &str) -> Result<Outcome> {
    let suite = SUITES.iter().find(|suite| suite.name == name).with_context(|| format!("no suite {name}"))?;
    (suite.run)(context)
}
