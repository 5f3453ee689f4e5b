//! CPU time and memory of processes, from `/proc`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::target::Pids;

/// `USER_HZ`: Linux shows times to programs in hundredths of a second on every machine.
const TICKS_PER_SECOND: f64 = 100.0;
/// Strangers may use this part of a phase's wall time before it is called noisy.
const NOISE_PART_MAX: f64 = 0.1;
const NOISE_SECONDS_MIN: f64 = 0.05;

/// What a phase cost, in CPU seconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Used {
    pub(crate) server_s: f64,
    pub(crate) client_s: f64,
    /// Of processes that are neither ours nor the target's.
    pub(crate) foreign_s: f64,
    pub(crate) noisy: bool,
}

/// CPU times of all processes at one instant.
#[derive(Debug)]
pub(crate) struct Snapshot {
    times: BTreeMap<u32, f64>,
}

impl Snapshot {
    pub(crate) fn take(pids: &Pids) -> Snapshot {
        let mut times: BTreeMap<u32, f64> = every_process();
        // A process of the target that cannot be read counts nothing, rather than everything it ever used.
        for pid in pids.servers.iter().chain(&pids.clients) {
            times.entry(*pid).or_default();
        }
        Snapshot { times }
    }

    /// What was used since; a process that was not there before counts from its start.
    pub(crate) fn until_now(&self, pids: &Pids, wall: Duration) -> Used {
        let now = every_process();
        let since = |pid: u32| {
            let before = self.times.get(&pid).copied().unwrap_or(0.0);
            (now.get(&pid).copied().unwrap_or(before) - before).max(0.0)
        };
        let sum = |pids: &[u32]| pids.iter().map(|pid| since(*pid)).fold(0.0, |sum, part| sum + part);
        let own = std::process::id();
        let known = |pid: u32| pid == own || pids.servers.contains(&pid) || pids.clients.contains(&pid);
        let foreign_s =
            now.keys().filter(|pid| !known(**pid)).map(|pid| since(*pid)).fold(0.0, |sum, part| sum + part);
        let noisy = foreign_s > NOISE_PART_MAX * wall.as_secs_f64() + NOISE_SECONDS_MIN;
        Used { server_s: sum(&pids.servers), client_s: sum(&pids.clients), foreign_s, noisy }
    }
}

/// User and system time of every process in seconds, without the kernel's own threads.
fn every_process() -> BTreeMap<u32, f64> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let stat = |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    pids.filter(|pid| *pid > 2).filter_map(|pid| Some((pid, cpu_seconds(&stat(pid)?)?))).collect()
}

/// From the text of `/proc/PID/stat`; nothing for a kernel thread, whose parent is kthreadd.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name is in parentheses and may hold anything, also spaces and parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let is_kernel = fields.get(1) == Some(&"2");
    if is_kernel { None } else { Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND) }
}

/// Resident memory of the processes together, in MiB.
pub(crate) fn rss_mib(pids: &[u32]) -> f64 {
    pids.iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .map(|text| rss_kib(&text))
        .fold(0.0, |sum, part| sum + part)
        / 1024.0
}

/// A figure of a process's memory, as `/proc/PID/status` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// The most it ever had resident.
    Most,
    /// What it has resident now.
    Now,
}

/// The memory of each process in MiB, by its name: of ours the part's, else the program's.
pub(crate) fn each_mib(pids: &[u32], memory: Memory) -> Vec<(String, f64)> {
    let field = match memory {
        Memory::Most => "VmHWM:",
        Memory::Now => "VmRSS:",
    };
    let one = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let config = command.split('\0').find_map(|word| word.strip_suffix("/config.toml"));
        let part = config.and_then(|path| path.rsplit('/').next());
        let program = status.lines().next().and_then(|line| line.strip_prefix("Name:"));
        let name = part.or(program.map(str::trim)).unwrap_or("?").to_owned();
        Some((name, field_kib(&status, field) / 1024.0))
    };
    pids.iter().filter_map(one).collect()
}

fn rss_kib(status: &str) -> f64 {
    field_kib(status, "VmRSS:")
}

fn field_kib(status: &str, field: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_a_name_with_parentheses() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 150 50 9 9 20 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("12 (kworker) S 2 12 12 0 -1 4194560 1 2 3 4 150 50 9 9 20 0"), None);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(rss_kib("Name:\tx\nVmRSS:\t  2048 kB\nThreads:\t1\n"), 2048.0);
        assert!(rss_mib(&[std::process::id()]) > 0.5);
        let peaks = each_mib(&[std::process::id()], Memory::Most);
        assert!(peaks[0].1 >= rss_mib(&[std::process::id()]) / 2.0 && !peaks[0].0.is_empty(), "{peaks:?}");
    }
}
