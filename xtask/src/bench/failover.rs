//! `bench --suite failover`: how long programs on a mount stand still when the leader dies, freezes or hands over.
//!
//! Two threads work back to back, one creates and removes a file, one stats files that nobody has cached. The stall of a
//! round is the longest time between two completed operations of a thread, from before the fault until after its end.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::Signal;

use super::BenchArgs;
use crate::cluster::{Cluster, Options};
use crate::status::{self, Status};
use crate::{shell, test, wait};

const SYNC_LIMIT: Duration = Duration::from_secs(60);
/// Longer than a client tries before it gives up.
const PROGRESS_LIMIT: Duration = Duration::from_secs(90);
/// A master that was started again gives no vote for half a second; a cluster in peace has none such.
const BEFORE: Duration = Duration::from_millis(800);
const AFTER: Duration = Duration::from_millis(700);
const FROZEN: Duration = Duration::from_secs(3);
/// Files that are asked for in turn.
const FILES: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing happens: what the machine itself costs.
    Nothing,
    Kill,
    Freeze,
    /// SIGTERM, as an administrator stops a master.
    Stop,
    Transfer,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Nothing, "nothing happens"),
    (Kind::Kill, "kill -9 of the leader"),
    (Kind::Freeze, "SIGSTOP of the leader, 3 s"),
    (Kind::Stop, "SIGTERM of the leader"),
    (Kind::Transfer, "planned transfer"),
];

/// What the threads do, in the order of their numbers.
const LOADS: [&str; 2] = ["create", "stat"];

pub(super) fn run(root: &Path, args: &BenchArgs, scratch: &Path) -> Result<()> {
    let mut cluster = start(root, args, scratch)?;
    println!("3 masters, 3 chunkservers and the mount on this machine (release build);");
    println!(
        "metadata on the disks of a majority before it is acknowledged; the mount's kernel caches nothing"
    );
    let lanes = LOADS.map(|load| Lane::start(load, &cluster.mount_point().join(load)));
    let [create, stat] = lanes;
    let lanes = [create?, stat?];
    for (kind, name) in KINDS {
        if kind == Kind::Transfer && !status::can_transfer(cluster.mooseng(&[])) {
            println!("{name}: skipped, this build has no `mooseng cluster transfer-leader`");
            continue;
        }
        let mut stalls = [Vec::new(), Vec::new()];
        for round in 1..=args.rounds {
            let gaps = round_of(kind, &mut cluster, &lanes)
                .with_context(|| format!("{name}, round {round}\n{}", cluster.last_words()))?;
            for (stalls, gap) in stalls.iter_mut().zip(gaps) {
                stalls.push(gap);
            }
        }
        for (load, stalls) in LOADS.iter().zip(&mut stalls) {
            println!("{}", summary(name, load, stalls));
        }
    }
    lanes.into_iter().try_for_each(Lane::stop)
}

/// A cluster whose mount lets the kernel keep nothing, so that every stat asks the masters.
fn start(root: &Path, args: &BenchArgs, scratch: &Path) -> Result<Cluster> {
    let binary = test::build(root, true)?;
    let (data, mount) = (scratch.join("data"), scratch.join("mnt"));
    let options = Options { binary, data, mount, port_base: args.port_base, masters: 3, chunkservers: 3 };
    let mut cluster = Cluster::start(&options)?;
    let config = cluster.data().join("mount/config.toml");
    let text = fs::read_to_string(&config).with_context(|| format!("read {}", config.display()))?;
    fs::write(&config, format!("attr_timeout_ms = 0\nentry_timeout_ms = 0\n{text}"))?;
    cluster.remount()?;
    Ok(cluster)
}

/// One fault under load; answers the longest gap of each lane.
fn round_of(kind: Kind, cluster: &mut Cluster, lanes: &[Lane; 2]) -> Result<[Duration; 2]> {
    let status = in_sync(cluster)?;
    let leader = status.leader.as_deref().context("no leader")?;
    lanes.iter().for_each(Lane::forget);
    wait::let_run(BEFORE)?;
    match kind {
        Kind::Nothing => {}
        Kind::Kill => cluster.kill(leader)?,
        Kind::Freeze => {
            let pid = cluster.pid(leader)?;
            shell::signal(pid, Signal::STOP);
            let waited = wait::let_run(FROZEN);
            shell::signal(pid, Signal::CONT);
            waited?;
        }
        Kind::Stop => shell::signal(cluster.pid(leader)?, Signal::TERM),
        Kind::Transfer => status::transfer(cluster.mooseng(&[]))?,
    }
    wait::let_run(AFTER)?;
    let done = lanes.each_ref().map(Lane::done);
    wait::until(PROGRESS_LIMIT, "both threads to go on", || {
        lanes.iter().try_for_each(Lane::check)?;
        Ok(lanes.iter().zip(done).all(|(lane, before)| lane.done() > before))
    })?;
    let gaps = lanes.each_ref().map(Lane::longest);
    if matches!(kind, Kind::Kill | Kind::Stop) {
        wait::until(PROGRESS_LIMIT, "the master to end", || Ok(cluster.pid(leader).is_err()))?;
        cluster.restart(leader)?;
    }
    Ok(gaps)
}

fn in_sync(cluster: &Cluster) -> Result<Status> {
    status::wait_in_sync(SYNC_LIMIT, || cluster.mooseng(&[]))
}

fn summary(kind: &str, load: &str, stalls: &mut [Duration]) -> String {
    stalls.sort_unstable();
    let at = |part: usize| {
        let index = (stalls.len() * part).div_ceil(100).max(1) - 1;
        stalls.get(index).map_or(0.0, |stall| stall.as_secs_f64() * 1e3)
    };
    let count = stalls.len();
    format!(
        "{kind:<28} {load:<7} median {:>7.1} ms  p99 {:>7.1} ms  max {:>7.1} ms  ({count} rounds)",
        at(50),
        at(99),
        at(100)
    )
}

/// One thread's work, and how long it stood still.
struct Lane {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    longest_us: AtomicU64,
}

impl Lane {
    fn start(load: &'static str, place: &Path) -> Result<Lane> {
        fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
        let shared = Arc::new(Shared::default());
        if load == "stat" {
            (0..FILES).try_for_each(|number| File::create(place.join(number.to_string())).map(drop))?;
        }
        let (place, told) = (place.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || work(load, &place, &told));
        Ok(Lane { shared, thread })
    }

    /// From now on only new gaps count; one that has begun counts from its begin.
    fn forget(&self) {
        self.shared.longest_us.store(0, Ordering::SeqCst);
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.shared.longest_us.load(Ordering::SeqCst))
    }

    fn done(&self) -> u64 {
        self.shared.done.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<()> {
        if self.thread.is_finished() {
            bail!("a thread of the load has ended: an operation failed")
        } else {
            Ok(())
        }
    }

    fn stop(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("a thread of the load panicked"))?
    }
}

fn work(load: &str, place: &Path, shared: &Shared) -> Result<()> {
    let mut last = Instant::now();
    let mut number = 0;
    while !shared.stop.load(Ordering::SeqCst) && !wait::interrupted() {
        one(load, place, number).inspect_err(|error| {
            eprintln!("{load} {number} failed after {} ms: {error}", last.elapsed().as_millis());
        })?;
        let gap = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
        last = Instant::now();
        shared.longest_us.fetch_max(gap, Ordering::SeqCst);
        shared.done.fetch_add(1, Ordering::SeqCst);
        number += 1;
    }
    Ok(())
}

/// The n-th operation: creates and removals in turn, or a stat.
fn one(load: &str, place: &Path, number: usize) -> io::Result<()> {
    let path = |number: usize| -> PathBuf { place.join(number.to_string()) };
    match load {
        "stat" => fs::metadata(path(number % FILES)).map(drop),
        _ if number.is_multiple_of(2) => {
            File::options().write(true).create_new(true).open(path(number)).map(drop)
        }
        _ => fs::remove_file(path(number - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_the_middle_the_hundredth_and_the_worst() {
        let mut stalls: Vec<Duration> = (1..=30).rev().map(Duration::from_millis).collect();
        let text = summary("x", "create", &mut stalls);
        assert!(text.contains("median    15.0 ms  p99    30.0 ms  max    30.0 ms  (30 rounds)"), "{text}");
    }

    #[test]
    fn a_lane_counts_its_operations_and_its_longest_gap() {
        let scratch = tempfile::tempdir().unwrap();
        for load in LOADS {
            let lane = Lane::start(load, &scratch.path().join(load)).unwrap();
            wait::until(Duration::from_secs(20), "ten operations", || Ok(lane.done() >= 10)).unwrap();
            lane.check().unwrap();
            assert!(lane.longest() > Duration::ZERO);
            lane.stop().unwrap();
        }
    }
}
