//! `fuzz`: builds the targets of `fuzz/` and runs each for a while; a crash fails the run and says how to repeat it.
//!
//! No cargo-fuzz: libFuzzer comes with the `libfuzzer-sys` crate, and all that the compiler has to add is coverage
//! counters (stable flags) and AddressSanitizer, whose runtime ships with the stable toolchain but whose flag needs
//! `RUSTC_BOOTSTRAP`. Standard library and C++ code are not instrumented. What a run learns is kept below `target/`;
//! the seeds in `fuzz/corpus/` are written by `--write-seeds` only.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{shell, verify, wait};

/// What libFuzzer needs of the compiler, as cargo-fuzz passes it.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address";
/// A cold build of all crates, instrumented, on two cores that others use too.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// For one input; a decoder that takes longer hangs.
const INPUT_LIMIT_S: u64 = 10;
const MEMORY_LIMIT_MB: u64 = 2048;
/// For start and end of a run, on top of its seconds.
const RUN_SLACK: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct FuzzArgs {
    /// Only these targets (default: all).
    targets: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Writes the seeds anew and ends.
    #[arg(long)]
    write_seeds: bool,
}

pub(crate) fn run(root: &Path, args: &FuzzArgs) -> Result<()> {
    if args.seconds == 0 {
        // libFuzzer would take it for "for ever".
        bail!("--seconds must be at least 1");
    }
    let triple = host()?;
    if args.write_seeds {
        return shell::visible(&mut cargo(root, &triple, &["run", "--example", "seeds"]), BUILD_LIMIT);
    }
    let targets = chosen(targets(root)?, &args.targets)?;
    shell::visible(&mut cargo(root, &triple, &["build", "--bins"]), BUILD_LIMIT)?;
    let programs = PathBuf::from("target/fuzz").join(triple).join("release");
    let mut crashed = Vec::new();
    for target in targets {
        wait::check_interrupt()?;
        if let Err(error) = fuzz(root, &programs, &target, args.seconds) {
            wait::check_interrupt()?;
            println!("{target}: {error:#}");
            crashed.push(target);
        }
    }
    if crashed.is_empty() { Ok(()) } else { bail!("fuzz: {} failed", crashed.join(", ")) }
}

fn fuzz(root: &Path, programs: &Path, target: &str, seconds: u64) -> Result<()> {
    let (learnt, artifacts) =
        (format!("target/fuzz/corpus/{target}"), format!("target/fuzz/artifacts/{target}/"));
    for folder in [&learnt, &artifacts] {
        std::fs::create_dir_all(root.join(folder)).with_context(|| format!("make {folder}"))?;
    }
    let program = programs.join(target);
    let mut command = Command::new(root.join(&program));
    // New inputs go to the first folder, the others are only read.
    command.args([&learnt, &format!("fuzz/corpus/{target}")]);
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={INPUT_LIMIT_S}"),
        format!("-rss_limit_mb={MEMORY_LIMIT_MB}"),
        format!("-artifact_prefix={artifacts}"),
    ]);
    // Leaks are looked for with ptrace, which containers often forbid.
    command.env("ASAN_OPTIONS", "detect_leaks=0").current_dir(root);
    let start = Instant::now();
    let done = shell::finish(&mut command, Duration::from_secs(seconds) + RUN_SLACK)?;
    if done.status.success() {
        println!("{target}: {} in {} s", runs(&done.stderr), start.elapsed().as_secs());
        return Ok(());
    }
    let again = match artifact(&done.stderr) {
        Some(input) => format!("ASAN_OPTIONS=detect_leaks=0 {} {input}", program.display()),
        None => shell::describe(&command),
    };
    bail!(
        "{}\n{}\nto repeat it, at the root of the repository:\n  {again}",
        done.status,
        shell::tail(&done.stderr)
    );
}

/// Cargo on the crate of the targets. `--target` keeps the flags away from build scripts and macros.
fn cargo(root: &Path, triple: &str, words: &[&str]) -> Command {
    let mut command = verify::command(root, words);
    command.args(["--release", "--locked", "--manifest-path", "fuzz/Cargo.toml"]);
    command.args(["--target", triple, "--target-dir", "target/fuzz"]);
    command.env("RUSTFLAGS", RUSTFLAGS).env("RUSTC_BOOTSTRAP", "1");
    command
}

/// The triple of this machine's compiler.
fn host() -> Result<String> {
    let version = shell::stdout(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// The names of all targets: one file each.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Those of `all` that are wanted, or all.
fn chosen(all: Vec<String>, wanted: &[String]) -> Result<Vec<String>> {
    if wanted.is_empty() {
        return Ok(all);
    }
    match wanted.iter().find(|name| !all.contains(name)) {
        Some(unknown) => bail!("no target {unknown}; there are {}", all.join(", ")),
        None => Ok(wanted.to_vec()),
    }
}

/// The file that libFuzzer has written the failing input to.
fn artifact(stderr: &str) -> Option<&str> {
    stderr.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path.trim())
}

/// libFuzzer's own count, from its last line.
fn runs(stderr: &str) -> String {
    let count = stderr.lines().rev().find_map(|line| line.strip_prefix("Done ")?.split(' ').next());
    count.map_or_else(|| "an unknown number of runs".into(), |count| format!("{count} runs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_found_in_what_libfuzzer_says() {
        let stderr = "==1== ERROR\nartifact_prefix='a/'; Test unit written to a/crash-1f\nBase64: AA==\n";
        assert_eq!(artifact(stderr), Some("a/crash-1f"));
        assert_eq!(artifact("Done 7 runs in 1 second(s)\n"), None);
        assert_eq!(runs("#7 pulse\nDone 7 runs in 1 second(s)\n"), "7 runs");
    }

    #[test]
    fn a_target_that_is_not_there_is_refused() {
        let all = || vec!["frame".to_owned(), "token".to_owned()];
        assert_eq!(chosen(all(), &[]).unwrap(), all());
        assert_eq!(chosen(all(), &["token".into()]).unwrap(), ["token"]);
        assert!(chosen(all(), &["tokens".into()]).is_err());
    }

    #[test]
    fn every_target_has_seeds() {
        let root = crate::root().unwrap();
        let names = targets(&root).unwrap();
        assert!(!names.is_empty());
        for name in names {
            assert!(root.join("fuzz/corpus").join(&name).read_dir().unwrap().count() >= 2, "{name}");
        }
    }
}
