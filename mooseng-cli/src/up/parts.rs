//! The child processes of `up`.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mooseng_env::{Clock as _, SystemClock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::layout::{Layout, config_path};

/// How long a part may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Part {
    name: String,
    kind: &'static str,
    child: Option<Child>,
}

/// All parts, in the order in which they start: masters, chunkservers, mount. They stop the other way round.
#[derive(Debug)]
pub(crate) struct Parts {
    data: PathBuf,
    parts: Vec<Part>,
}

impl Parts {
    /// The parts of `layout`, none started. Fails if some still run from another time.
    pub(crate) fn new(data: &Path, layout: &Layout) -> anyhow::Result<Self> {
        for dir in ["run", "log"] {
            fs::create_dir_all(data.join(dir))
                .with_context(|| format!("make {}", data.join(dir).display()))?;
        }
        let part = |name: &str, kind| Part { name: name.to_owned(), kind, child: None };
        let masters = layout.masters.iter().map(|p| part(&p.name, "master"));
        let servers = layout.chunkservers.iter().map(|p| part(&p.name, "chunkserver"));
        let parts = Self {
            data: data.to_owned(),
            parts: masters.chain(servers).chain([part("mount", "mount")]).collect(),
        };
        let running: Vec<String> = parts.parts.iter().filter_map(|p| parts.left_running(&p.name)).collect();
        ensure!(
            running.is_empty(),
            "parts of this cluster still run: stop them with kill {}",
            running.join(" ")
        );
        Ok(parts)
    }

    /// The pid of a part that an earlier `up` has left behind alive.
    fn left_running(&self, name: &str) -> Option<String> {
        let pid: i32 = fs::read_to_string(self.pid_file(name)).ok()?.trim().parse().ok()?;
        test_kill_process(Pid::from_raw(pid)?).ok()?;
        // The number may have gone to another program since.
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = config_path(&self.data, name);
        let ours = command.split(|byte| *byte == 0).any(|arg| arg == config.as_os_str().as_encoded_bytes());
        ours.then(|| pid.to_string())
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.data.join("run").join(format!("{name}.pid"))
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.data.join("log").join(format!("{name}.log"))
    }

    /// The cluster's directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Where the logs are, for messages.
    pub(crate) fn logs(&self) -> String {
        self.data.join("log").display().to_string()
    }

    /// Starts masters and chunkservers.
    pub(crate) fn start_servers(&mut self) -> anyhow::Result<()> {
        let names: Vec<String> =
            self.parts.iter().filter(|p| p.kind != "mount").map(|p| p.name.clone()).collect();
        names.iter().try_for_each(|name| self.start(name))
    }

    /// Starts the mount.
    pub(crate) fn start_mount(&mut self) -> anyhow::Result<()> {
        self.start("mount")
    }

    /// Starts one part.
    pub(crate) fn start(&mut self, name: &str) -> anyhow::Result<()> {
        let (pid_file, log_file) = (self.pid_file(name), self.log_file(name));
        let log = File::options().create(true).append(true).open(&log_file);
        let log = log.with_context(|| format!("open {}", log_file.display()))?;
        let part = self.parts.iter_mut().find(|part| part.name == name).context("no such part")?;
        let child = Command::new(std::env::current_exe().context("find this program")?)
            .args(["daemon", part.kind, "--config"])
            .arg(config_path(&self.data, name))
            // Out of the terminal's reach: Ctrl-C is for us, who stop the parts in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        fs::write(&pid_file, format!("{}\n", child.id()))
            .with_context(|| format!("write {}", pid_file.display()))?;
        part.child = Some(child);
        Ok(())
    }

    /// An error with the last line of its log if some part has died.
    pub(crate) fn all_alive(&mut self) -> anyhow::Result<()> {
        if let Some(name) = self.reap()?.first() {
            let last = last_line(&self.log_file(name)).unwrap_or_default();
            bail!("{name} did not start: {last}");
        }
        Ok(())
    }

    /// The parts that have died since the last call.
    pub(crate) fn reap(&mut self) -> anyhow::Result<Vec<String>> {
        let mut dead = Vec::new();
        for part in &mut self.parts {
            let Some(child) = &mut part.child else { continue };
            if let Some(status) = child.try_wait()? {
                tracing::debug!(part.name, signal = status.signal(), code = status.code(), "a part ended");
                part.child = None;
                dead.push(part.name.clone());
            }
        }
        Ok(dead)
    }

    /// Stops all parts in order: the mount, so that everything is flushed, then chunkservers, then masters.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        let mut killed = Vec::new();
        for kind in ["mount", "chunkserver", "master"] {
            killed.extend(self.stop_kind(kind)?);
        }
        for part in &self.parts {
            // A file that is not there is as good as removed.
            drop(fs::remove_file(self.pid_file(&part.name)));
        }
        ensure!(killed.is_empty(), "{} did not stop and had to be killed", killed.join(", "));
        Ok(())
    }

    fn stop_kind(&mut self, kind: &str) -> anyhow::Result<Vec<String>> {
        let clock = SystemClock::default();
        let mut killed = Vec::new();
        let mut asked = false;
        loop {
            let mut running =
                self.parts.iter_mut().filter(|part| part.kind == kind && part.child.is_some()).peekable();
            if running.peek().is_none() {
                return Ok(killed);
            }
            for part in running {
                let Some(child) = &mut part.child else { continue };
                if child.try_wait()?.is_some() {
                    part.child = None;
                } else if !asked {
                    signal(child, Signal::TERM);
                } else if clock.monotonic() > STOP_MAX {
                    signal(child, Signal::KILL);
                    child.wait()?;
                    killed.push(part.name.clone());
                    part.child = None;
                }
            }
            asked = true;
            clock.sleep(LOOK_EVERY);
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        // It has ended meanwhile, and is reaped next.
        tracing::debug!(%error, "a part was not signalled");
    }
}

fn last_line(path: &Path) -> Option<String> {
    BufReader::new(File::open(path).ok()?)
        .lines()
        .map_while(Result::ok)
        .filter(|line| !line.trim().is_empty())
        .last()
}
