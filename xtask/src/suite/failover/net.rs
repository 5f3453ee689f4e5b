//! A network of the suite's own: a bridge with an address on this machine, and for each master a namespace with one
//! link to that bridge, which can be cut.
//!
//! Everything is named `mngfoX`, X being the third byte of the network's addresses. A locked file says that the network
//! is in use, and where its cluster is; one whose lock is free was left behind by a run that was killed, and is taken
//! down by the next.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::{cluster, mounts, shell, wait};

const PREFIX: &str = "mngfo";
/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";
const IP_LIMIT: Duration = Duration::from_secs(20);
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// The first network tried, and how many.
const FIRST: u8 = 40;
const TRIES: u8 = 100;

/// The network; dropping it takes everything down again.
pub(super) struct Net {
    number: u8,
    hosts: u8,
    _lock: File,
}

impl Net {
    /// Makes a network of `hosts` namespaces on addresses that are free, for a cluster with its data and its mounts in
    /// these directories. An error where this may not be done.
    pub(super) fn make(hosts: u8, data: &Path, mounts: &Path) -> Result<Net> {
        sweep_leftovers();
        let used = ip(&["-4", "-o", "addr", "show"])? + &ip(&["-4", "route", "show"])?;
        for number in FIRST..FIRST + TRIES {
            let Some(mut lock) = take_lock(number)? else { continue };
            if used.contains(&format!("10.77.{number}.")) {
                continue;
            }
            writeln!(lock, "{}\n{}", data.display(), mounts.display())?;
            let net = Net { number, hosts, _lock: lock };
            net.build()?;
            return Ok(net);
        }
        bail!("no network 10.77.X.0/24 is free")
    }

    fn build(&self) -> Result<()> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("10.77.{}.1/24", self.number), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for host in 1..=self.hosts {
            let (namespace, link) = (self.namespace(host), self.link(host));
            ip(&["netns", "add", &namespace])?;
            ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &link, "master", &bridge, "up"])?;
            let address = format!("{}/24", self.address(host));
            ip(&["-n", &namespace, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// The address of a host, counted from 1.
    pub(super) fn address(&self, host: u8) -> String {
        format!("10.77.{}.{}", self.number, 10 + host)
    }

    /// A command that runs `program` on that host. The process is the program itself, with its pid.
    pub(super) fn on(&self, host: u8, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NAMESPACES}/{}", self.namespace(host))).arg("--").arg(program);
        command
    }

    /// Cuts a host off, or connects it again.
    pub(super) fn set_link(&self, host: u8, up: bool) -> Result<()> {
        ip(&["link", "set", &self.link(host), if up { "up" } else { "down" }]).map(drop)
    }

    fn bridge(&self) -> String {
        format!("{PREFIX}{}", self.number)
    }

    fn namespace(&self, host: u8) -> String {
        format!("{PREFIX}{}-{host}", self.number)
    }

    fn link(&self, host: u8) -> String {
        format!("{PREFIX}{}v{host}", self.number)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        take_down(self.number);
    }
}

fn ip(words: &[&str]) -> Result<String> {
    shell::stdout_within(Command::new("ip").args(words), IP_LIMIT)
}

fn undo(words: &[&str]) -> Option<String> {
    shell::clean_up(Command::new("ip").args(words), IP_LIMIT)
}

fn lock_path(number: u8) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{number}.lock"))
}

/// The lock of a network; `None` if somebody else has it.
fn take_lock(number: u8) -> Result<Option<File>> {
    let path = lock_path(number);
    let file = File::options().append(true).create(true).open(&path);
    let file = file.with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).context("lock a network"),
    }
}

/// Takes down the networks of runs that are gone.
pub(crate) fn sweep_leftovers() {
    for number in numbers(&names()) {
        // A network that cannot be looked at is somebody else's.
        if let Ok(Some(_lock)) = take_lock(number) {
            take_down(number);
        }
    }
}

/// Names of namespaces, of devices and of locks.
fn names() -> Vec<String> {
    let entries = |path: &str| fs::read_dir(path).into_iter().flatten().flatten();
    let all = entries(NAMESPACES).chain(entries("/sys/class/net"));
    let locks = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let all = all.chain(locks);
    all.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The networks that names belong to.
fn numbers(names: &[String]) -> Vec<u8> {
    let number = |name: &String| {
        let rest = name.strip_prefix(PREFIX)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let mut found: Vec<u8> = names.iter().filter_map(number).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Kills the cluster and whatever else runs in the namespaces, and removes them and the bridge. What is not there is no
/// error.
fn take_down(number: u8) {
    let left = fs::read_to_string(lock_path(number)).unwrap_or_default();
    if let [data, mount] = left.lines().map(Path::new).collect::<Vec<_>>().as_slice() {
        cluster::sweep(data, mount);
        mounts::unmount_below(mount);
    }
    let bridge = format!("{PREFIX}{number}");
    for name in names().iter().filter(|name| name.starts_with(&format!("{bridge}-"))) {
        let pids = undo(&["netns", "pids", name]).unwrap_or_default();
        let pids: Vec<u32> = pids.lines().filter_map(|line| line.trim().parse().ok()).collect();
        pids.iter().for_each(|pid| shell::signal(*pid, Signal::KILL));
        wait::quietly(DEATH_LIMIT, || !pids.iter().any(|pid| shell::is_alive(*pid)));
        drop(undo(&["netns", "del", name]));
    }
    for name in names().iter().filter(|name| **name == bridge || name.starts_with(&format!("{bridge}v"))) {
        drop(undo(&["link", "del", name]));
    }
    fs::remove_file(lock_path(number)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_suite_count_and_each_network_once() {
        let names = ["mngfo41-1", "mngfo41v2", "mngfo7", "eth0", "mngfo", "mngfox", "mngfo999"];
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(numbers(&names), [7, 41]);
    }
}
