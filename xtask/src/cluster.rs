//! A whole cluster of real processes on this machine: started by `mooseng up`, killed by pid, and gone when the guard is
//! dropped, whatever happened in between.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{mounts, shell, wait};

const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// What `mooseng up` is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) binary: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) mount: PathBuf,
    pub(crate) port_base: u16,
    pub(crate) masters: u32,
    pub(crate) chunkservers: u32,
}

/// A running cluster; dropping it stops every process and unmounts.
pub(crate) struct Cluster {
    options: Options,
    up: Option<Child>,
    /// The mount daemon, once it was restarted by us.
    mount: Option<Child>,
    /// Servers that were killed and started again by us.
    restarted: BTreeMap<String, Child>,
}

impl Cluster {
    /// Starts a cluster on the data directory (a new one, or one that was stopped or killed) and waits until it is ready.
    pub(crate) fn start(options: &Options) -> Result<Cluster> {
        let mut cluster =
            Cluster { options: options.clone(), up: None, mount: None, restarted: BTreeMap::new() };
        cluster.launch()?;
        Ok(cluster)
    }

    /// Starts all processes again, after `stop` or `kill_all`.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let o = &self.options;
        // On a dead mount nothing can be made, and nothing needs to be.
        if !mounts::is_mounted(&o.mount) {
            fs::create_dir_all(&o.mount)?;
        }
        let log_path = self.beside("up.log");
        let log = File::create(&log_path).context("create the log of `up`")?;
        let mut up = Command::new(&o.binary);
        up.arg("up").arg("--data").arg(&o.data).arg("--mount").arg(&o.mount);
        up.arg("--port-base").arg(o.port_base.to_string());
        up.arg("--masters").arg(o.masters.to_string()).arg("--chunkservers").arg(o.chunkservers.to_string());
        up.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = up.spawn().with_context(|| format!("start {}", shell::describe(&up)))?;
        fs::write(self.up_pid_file(), child.id().to_string())?;
        let child = self.up.insert(child);
        let ready = wait::until(READY_LIMIT, "`mooseng up` to be ready", || {
            if let Some(status) = child.try_wait()? {
                bail!("`mooseng up` ended before it was ready: {status}");
            }
            Ok(fs::read_to_string(&log_path)?.lines().any(|line| line.starts_with("ready")))
        });
        ready.map_err(|error| error.context(self.last_words()))
    }

    pub(crate) fn mount_point(&self) -> &Path {
        &self.options.mount
    }

    pub(crate) fn chunkservers(&self) -> u32 {
        self.options.chunkservers
    }

    pub(crate) fn data(&self) -> &Path {
        &self.options.data
    }

    /// Holds the pid of `mooseng up` from its start on.
    pub(crate) fn up_pid_file(&self) -> PathBuf {
        self.beside("up.pid")
    }

    /// `mooseng --data DATA …` with another directory than this cluster's.
    pub(crate) fn mooseng_elsewhere(&self, data: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.arg("--data").arg(data).args(words);
        command
    }

    /// `mooseng --data DATA …`
    pub(crate) fn mooseng(&self, words: &[&str]) -> Command {
        self.mooseng_elsewhere(&self.options.data, words)
    }

    /// `mooseng daemon KIND --config DATA/NAME/config.toml`, as the separate daemons are started.
    pub(crate) fn daemon(&self, kind: &str, config: &Path) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.args(["daemon", kind, "--config"]).arg(config);
        command
    }

    /// The pids of the cluster's parts by name: `master-1`, `chunkserver-2`, `mount`; only living processes of ours.
    pub(crate) fn pids(&self) -> BTreeMap<String, u32> {
        let mut pids = recorded_pids(&self.options.data);
        if let Some(mount) = &self.mount {
            pids.insert("mount".to_owned(), mount.id());
        }
        pids.retain(|_, pid| is_ours(*pid));
        pids
    }

    pub(crate) fn pid(&self, name: &str) -> Result<u32> {
        self.pids().get(name).copied().with_context(|| format!("{name} is not running"))
    }

    /// `kill -9` of one part.
    pub(crate) fn kill(&self, name: &str) -> Result<()> {
        let pid = self.pid(name)?;
        shell::signal(pid, Signal::KILL);
        wait::until(STOP_LIMIT, &format!("{name} to die"), || Ok(!shell::is_alive(pid)))
    }

    /// An orderly stop of one part.
    pub(crate) fn stop_one(&self, name: &str) -> Result<()> {
        let pid = self.pid(name)?;
        shell::signal(pid, Signal::TERM);
        wait::until(STOP_LIMIT, &format!("{name} to stop"), || Ok(!shell::is_alive(pid)))
    }

    /// Where the configuration of a part is.
    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.options.data.join(name).join("config.toml")
    }

    /// Stops a server in order, does something, and starts it anew.
    ///
    /// The new process waits as a shell before the old one goes. What is started while files of a mount are open here closes
    /// them first, which writes what they have: it would wait for the very server that it is to become. The shell says when
    /// it is past that; to have been started is not enough.
    pub(crate) fn replace(&mut self, name: &str, meanwhile: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let daemon = self.daemon(kind_of(name), &self.config(name));
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready && read go && exec \"$@\" >> \"$0\" 2>&1"]).arg(self.log(name));
        command.arg(daemon.get_program()).args(daemon.get_args());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("start a shell for {name}"))?;
        let pipes = child.stdin.take().zip(child.stdout.take()).context("a shell without pipes");
        let stopped = pipes.and_then(|(go, said)| {
            BufReader::new(said).read_line(&mut String::new())?;
            self.stop_one(name)?;
            meanwhile(self)?;
            Ok(go)
        });
        match stopped {
            Ok(mut go) => {
                self.record(name, child)?;
                Ok(writeln!(go)?)
            }
            Err(error) => {
                // It has lost its input by now, and ends.
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Starts a server again that was killed.
    pub(crate) fn restart(&mut self, name: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log(name))?;
        let mut command = self.daemon(kind_of(name), &self.config(name));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        self.record(name, child)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.options.data.join("log").join(format!("{name}.log"))
    }

    /// A process of ours is this server from now on.
    fn record(&mut self, name: &str, child: Child) -> Result<()> {
        fs::write(self.options.data.join("run").join(format!("{name}.pid")), child.id().to_string())?;
        if let Some(mut old) = self.restarted.insert(name.to_owned(), child) {
            old.wait().ok();
        }
        Ok(())
    }

    /// `kill -9` of everything at once, and the dead mount is taken away.
    pub(crate) fn kill_all(&mut self) {
        self.crash();
        mounts::unmount(&self.options.mount);
    }

    /// `kill -9` of everything at once, `up` first so that it restarts nothing. Leaves a dead mount behind.
    pub(crate) fn crash(&mut self) {
        self.crash_but(&[]);
    }

    /// The same, but these go on.
    pub(crate) fn crash_but(&mut self, spared: &[&str]) {
        let mut pids = self.pids();
        pids.retain(|name, _| !spared.contains(&name.as_str()));
        if let Some(up) = &self.up {
            shell::signal(up.id(), Signal::KILL);
        }
        for pid in pids.values() {
            shell::signal(*pid, Signal::KILL);
        }
        self.reap();
        wait::quietly(STOP_LIMIT, || pids.values().all(|pid| !shell::is_alive(*pid)));
    }

    /// An orderly stop: SIGTERM to `up`; an error when something is left after the limit.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let pids = self.pids();
        if let Some(mount) = &self.mount {
            shell::signal(mount.id(), Signal::TERM);
        }
        if let Some(up) = &self.up {
            shell::signal(up.id(), Signal::TERM);
        }
        for server in self.restarted.values() {
            shell::signal(server.id(), Signal::TERM);
        }
        let stopped = wait::quietly(STOP_LIMIT, || {
            self.reap_ended();
            self.up.is_none() && self.mount.is_none() && pids.values().all(|pid| !shell::is_alive(*pid))
        });
        if !stopped {
            let left: Vec<_> = self.pids().into_keys().collect();
            self.kill_all();
            bail!("{} s after SIGTERM these still ran: {left:?} (or `up` itself)", STOP_LIMIT.as_secs());
        }
        if mounts::is_mounted(&self.options.mount) {
            mounts::unmount(&self.options.mount);
            bail!("after an orderly stop {} was still mounted", self.options.mount.display());
        }
        Ok(())
    }

    /// Ends the mount daemon and starts another, so that no cache of the old one answers.
    pub(crate) fn remount(&mut self) -> Result<()> {
        let pid = self.pid("mount")?;
        shell::signal(pid, Signal::TERM);
        let ended = wait::quietly(STOP_LIMIT, || {
            self.reap_ended();
            !shell::is_alive(pid)
        });
        if !ended {
            bail!("the mount daemon still runs {} s after SIGTERM", STOP_LIMIT.as_secs());
        }
        mounts::unmount(&self.options.mount);
        let log = File::options().create(true).append(true).open(self.beside("remount.log"))?;
        let mut command = self.daemon("mount", &self.options.data.join("mount/config.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("start the mount daemon")?;
        fs::write(self.beside("remount.pid"), child.id().to_string())?;
        let (child, point) = (self.mount.insert(child), &self.options.mount);
        wait::until(MOUNT_LIMIT, "the mount to come back", || {
            if let Some(status) = child.try_wait()? {
                bail!("the mount daemon ended: {status}");
            }
            Ok(mounts::is_mounted(point))
        })
        .map_err(|error| error.context(self.last_words()))
    }

    /// The ends of all logs: what one wants to read when something went wrong.
    pub(crate) fn last_words(&self) -> String {
        let logs = fs::read_dir(self.options.data.join("log"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let mut words = String::new();
        for path in [self.beside("up.log"), self.beside("remount.log")].into_iter().chain(logs) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
            words.push_str(&format!("--- {}\n{}\n", path.display(), last.join("\n")));
        }
        words
    }

    /// What `up` has said since it was last started.
    pub(crate) fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(self.beside("up.log"))?)
    }

    fn beside(&self, what: &str) -> PathBuf {
        beside(&self.options.data, what)
    }

    fn reap_ended(&mut self) {
        for slot in [&mut self.up, &mut self.mount] {
            if slot.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
                *slot = None;
            }
        }
        self.restarted.retain(|_, child| matches!(child.try_wait(), Ok(None)));
    }

    fn reap(&mut self) {
        let servers = std::mem::take(&mut self.restarted).into_values();
        for mut child in [self.mount.take(), self.up.take()].into_iter().flatten().chain(servers) {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.up.is_some() || self.mount.is_some() {
            self.stop().ok();
        }
        self.reap();
        sweep(&self.options.data, &self.options.mount);
    }
}

/// The kind of a server, by its name.
fn kind_of(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

/// A file of the harness beside the data directory, which belongs to the cluster alone.
fn beside(data: &Path, what: &str) -> PathBuf {
    data.with_extension(what)
}

/// Kills what a cluster left behind and unmounts, knowing only its directories; for guards, and for the parent of a suite
/// that was itself killed.
pub(crate) fn sweep(data: &Path, mount: &Path) {
    let aside = ["up.pid", "remount.pid"].map(|name| fs::read_to_string(beside(data, name)));
    let mut pids: Vec<u32> =
        aside.into_iter().flatten().filter_map(|text| text.trim().parse().ok()).collect();
    pids.extend(recorded_pids(data).into_values());
    pids.retain(|pid| is_ours(*pid));
    for pid in &pids {
        shell::signal(*pid, Signal::KILL);
    }
    wait::quietly(STOP_LIMIT, || pids.iter().all(|pid| !shell::is_alive(*pid)));
    mounts::unmount(mount);
    mounts::unmount_below(data);
}

/// The contents of `DATA/run/NAME.pid`.
fn recorded_pids(data: &Path) -> BTreeMap<String, u32> {
    let files = fs::read_dir(data.join("run")).into_iter().flatten().flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "pid"))
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?.to_owned();
            Some((name, fs::read_to_string(&path).ok()?.trim().parse().ok()?))
        })
        .collect()
}

/// A pid file outlives its process, and the kernel gives pids out again: only a living `mooseng` is ours.
fn is_ours(pid: u32) -> bool {
    shell::is_alive(pid) && shell::command_line(pid).contains("mooseng")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_pid_that_belongs_to_somebody_else_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        fs::create_dir_all(data.join("run")).unwrap();
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(data.join("run/master-1.pid"), format!("{}\n", stranger.id())).unwrap();
        assert_eq!(recorded_pids(&data), BTreeMap::from([("master-1".to_owned(), stranger.id())]));
        sweep(&data, &scratch.path().join("mnt"));
        let alive = stranger.try_wait().unwrap().is_none();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(alive);
    }
}
