//! `bench`: a mdtest-like load against any directory, against a cluster of ours, or against a peer, interleaved.
//!
//! A figure counts only beside another of the same machine and the same minutes: rounds alternate between the targets
//! (A B A B …), medians and spread are reported, and each side's durability is printed beside its numbers.

mod failover;
mod groups;
mod metadata;
mod million;
mod moosefs;
mod ours;
mod report;
mod stream;
mod target;
mod usage;
mod wire;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::report::Report;
use self::target::{Plain, Target};
use self::usage::{Memory, Snapshot};
use crate::wait;

/// A VM that gives free memory back to its host pays for the first touch of each page: as much as the largest phase needs.
const TOUCH_BYTES: usize = 2560 << 20;

/// From the end of the load until it is looked what memory each process still has: longer than leases, copies that are
/// being written and idle connections are kept.
const IDLE: Duration = Duration::from_secs(15);

/// From the start of a cluster until it is at rest.
const SETTLE: Duration = Duration::from_secs(8);

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Something else than the load of a file system; most other options do not count then.
    #[arg(long, value_enum)]
    suite: Option<Special>,
    /// How often the failover suite has each kind of failover.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How many files the million suite makes.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    files: u64,
    /// Measure this directory instead of starting a cluster.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Groups of figures to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Group::ALL)]
    phases: Vec<Group>,
    /// Rounds; medians over them are reported.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// A peer to measure in the same rounds (installed from Debian's packages; needs root).
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// Another build of `mooseng` (a release binary, perhaps of an earlier commit) to measure in the same rounds.
    #[arg(long, conflicts_with = "dir")]
    against: Option<PathBuf>,
    /// Leave ours out and measure the peer alone.
    #[arg(long, requires = "peer")]
    peer_only: bool,
    /// What our mount's fsync waits for.
    #[arg(long, value_enum, default_value = "disk")]
    fsync_mode: FsyncMode,
    /// Where clusters keep their data (default: the directory for temporary files). Same disk for all sides.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Writes all samples there, after every round.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A hundredth of the load: to see that it works, not to learn anything.
    #[arg(long)]
    tiny: bool,
    /// The first port of our cluster on 127.0.0.0/8.
    #[arg(long, default_value_t = 24_000)]
    port_base: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    Meta,
    Small,
    Seq,
    Rand,
}

impl Group {
    const ALL: [Group; 4] = [Group::Meta, Group::Small, Group::Seq, Group::Rand];
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Special {
    /// How long a mount stands still when the leader goes.
    Failover,
    /// Durable creates of many callers without a mount.
    Wire,
    /// The same over several groups, and masters with many groups at rest.
    Groups,
    /// Masters with a million files: how soon they serve again, and what a snapshot of it costs writers.
    Million,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Peer {
    Moosefs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FsyncMode {
    /// Durable on the disks of all live copies.
    Disk,
    /// Answered from memory, as MooseFS does by default.
    Memory,
}

/// What a phase did.
pub(crate) struct Done {
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    /// Of one operation, in microseconds; sorted by the report.
    pub(crate) latencies_us: Vec<f64>,
}

/// Runs phases of one round on one target and records them.
pub(crate) struct Runner<'a> {
    pub(crate) target: &'a mut dyn Target,
    pub(crate) report: &'a mut Report,
    pub(crate) tiny: bool,
}

impl Runner<'_> {
    /// The working directory on the target, made if needed.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf> {
        let place = self.target.directory().join("xtask-bench").join(name);
        std::fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        Ok(place)
    }

    /// Fewer in a tiny run.
    pub(crate) fn scaled(&self, count: u64) -> u64 {
        if self.tiny { (count / 100).max(1) } else { count }
    }

    pub(crate) fn measure(&mut self, name: &str, phase: impl FnOnce() -> Result<Done>) -> Result<()> {
        wait::check_interrupt()?;
        let pids = self.target.pids();
        let before = Snapshot::take(&pids);
        let start = Instant::now();
        let done = phase().with_context(|| format!("{name} on {}", self.target.name()))?;
        let used = before.until_now(&pids, start.elapsed());
        self.report.add(self.target.name(), name, done, used);
        Ok(())
    }

    /// Nothing of what is read next is in any cache: written out, dropped, remounted, dropped.
    pub(crate) fn cold(&mut self) -> Result<()> {
        rustix::fs::sync();
        drop_caches();
        self.target.remount().with_context(|| format!("remount {}", self.target.name()))?;
        drop_caches();
        Ok(())
    }

    /// Faults memory in before a phase that fills the page cache.
    pub(crate) fn touch(&self) {
        if !self.tiny {
            drop(std::hint::black_box(vec![1_u8; TOUCH_BYTES]));
        }
    }
}

fn drop_caches() {
    if let Err(error) = std::fs::write("/proc/sys/vm/drop_caches", "3") {
        eprintln!("xtask: caches were not dropped ({error}): figures called cold are warm");
    }
}

pub(crate) fn run(root: &Path, args: &BenchArgs) -> Result<()> {
    if args.runs == 0 || args.runs > 100 {
        bail!("between 1 and 100 rounds");
    }
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::Builder::new().prefix("mooseng-bench-").tempdir_in(scratch)?;
    match args.suite {
        Some(Special::Failover) => return failover::run(root, args, scratch.path()),
        Some(Special::Wire) => return wire::run(root, args, scratch.path()),
        Some(Special::Groups) => return groups::run(root, args, scratch.path()),
        Some(Special::Million) => return million::run(root, args, scratch.path()),
        None => {}
    }
    let mut targets = targets(root, args, scratch.path())?;
    for target in &targets {
        println!("{}: {}", target.name(), target.durability());
    }
    let mut report =
        Report::new(targets.iter().map(|target| (target.name().to_owned(), target.durability())).collect());
    let measured = rounds(args, &mut targets, &mut report);
    if measured.is_ok() {
        wait::let_run(IDLE)?;
    }
    for target in &targets {
        let pids = target.pids();
        report.memory(target.name(), usage::rss_mib(&pids.servers), usage::rss_mib(&pids.clients));
        let all: Vec<u32> = pids.servers.iter().chain(&pids.clients).copied().collect();
        report.peaks(target.name(), usage::each_mib(&all, Memory::Most));
        report.idle(target.name(), usage::each_mib(&all, Memory::Now));
    }
    report.print();
    write_json(args, &report)?;
    measured
}

/// The targets, all running at once, in the order in which each round takes them.
fn targets(root: &Path, args: &BenchArgs, scratch: &Path) -> Result<Vec<Box<dyn Target>>> {
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    match &args.dir {
        Some(directory) => targets.push(Box::new(Plain::new(directory)?)),
        None if args.peer_only => {}
        None => targets.push(Box::new(ours::start(root, scratch, args.port_base, args.fsync_mode)?)),
    }
    if let Some(binary) = &args.against {
        targets.push(Box::new(ours::start_other(binary, scratch, args.port_base, args.fsync_mode)?));
    }
    match args.peer {
        Some(Peer::Moosefs) => targets.push(Box::new(moosefs::start(&scratch.join("moosefs"))?)),
        None => {}
    }
    Ok(targets)
}

fn rounds(args: &BenchArgs, targets: &mut [Box<dyn Target>], report: &mut Report) -> Result<()> {
    for round in 1..=args.runs {
        for group in Group::ALL.into_iter().filter(|group| args.phases.contains(group)) {
            for target in targets.iter_mut() {
                let mut runner = Runner { target: target.as_mut(), report, tiny: args.tiny };
                println!("round {round}: {group:?} on {}", runner.target.name());
                let result = match group {
                    Group::Meta => metadata::namespace(&mut runner),
                    Group::Small => metadata::small_files(&mut runner),
                    Group::Seq => stream::sequential(&mut runner),
                    Group::Rand => stream::random(&mut runner),
                };
                let place = target.directory().join("xtask-bench");
                std::fs::remove_dir_all(&place).or_else(ignore_missing).context("clean up between phases")?;
                result?;
            }
        }
        write_json(args, report)?;
    }
    Ok(())
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn write_json(args: &BenchArgs, report: &Report) -> Result<()> {
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report.json())?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
