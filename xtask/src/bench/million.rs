//! `bench --suite million`: three masters with a million files: how soon they serve again after a stop and after a kill,
//! and what writers notice of an fsck, and of a snapshot on its way to a master that has lost its disk.
//!
//! All masters share this machine's processors and, but for the round that says otherwise, one disk.

mod masters;
mod stalls;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use self::masters::{COUNT, Masters, name};
use self::stalls::Create;
use super::{BenchArgs, usage, wire};
use crate::{shell, test, wait};

const FILL_CALLERS: u32 = 64;
const SYNC_LIMIT: Duration = Duration::from_secs(60);
const FILL_LIMIT: Duration = Duration::from_secs(1800);
/// Files made right before a kill, so that there is log to replay.
const REPLAYED: u64 = 50_000;
const PROBE_SECONDS: u64 = 60;
const PROBE_LIMIT: Duration = Duration::from_secs(90);
const WRITERS: u32 = 4;
/// How long the writers write, and how long of it before the empty master is started.
const WRITING: Duration = Duration::from_secs(45);
const BEFORE: Duration = Duration::from_secs(12);
/// The same for fsck.
const CHECKED: Duration = Duration::from_secs(30);
const BEFORE_CHECK: Duration = Duration::from_secs(5);
const MEMORY: &str = "/dev/shm";

/// Where the first file of a load is: its directory's number, and its name.
type FirstFile = (String, String);

pub(super) fn run(root: &Path, args: &BenchArgs, scratch: &Path) -> Result<()> {
    let binary = test::build(root, true)?;
    let load = wire::build_example(root, "wire")?;
    let probe = wire::build_example(root, "probe")?;
    let mut masters = Masters::new(binary, scratch, args.port_base)?;
    (0..COUNT).try_for_each(|number| masters.start(number).map(drop))?;
    masters.in_sync(SYNC_LIMIT)?;
    println!("3 masters (release build) with their data in {}", scratch.display());
    let file = fill(&masters, &load, args.files)?;
    peaks(&masters, "after filling");
    for (kind, signal) in [("SIGTERM", Signal::TERM), ("kill -9", Signal::KILL)] {
        for _ in 0..args.runs {
            if signal == Signal::KILL {
                fill(&masters, &load, REPLAYED)?;
            }
            cold_start(&mut masters, &probe, &file, (kind, signal)).with_context(|| masters.last_words())?;
        }
    }
    peaks(&masters, "after the last cold start");
    check(&masters, &load).with_context(|| masters.last_words())?;
    snapshot(&mut masters, &load, scratch, "the disk of all").with_context(|| masters.last_words())?;
    if let Ok(memory) = tempfile::Builder::new().prefix("mooseng-bench-").tempdir_in(MEMORY) {
        let done = snapshot(&mut masters, &load, memory.path(), "memory");
        let done = done.with_context(|| masters.last_words());
        drop(masters);
        done?;
    }
    Ok(())
}

fn fill(masters: &Masters, load: &Path, files: u64) -> Result<FirstFile> {
    let mut command = Command::new(load);
    command.arg(masters.client_key()).arg(masters.addresses()).arg(FILL_CALLERS.to_string()).arg("own");
    command.arg(FILL_LIMIT.as_secs().to_string()).arg(files.to_string());
    let said = shell::stdout_within(&mut command, FILL_LIMIT).with_context(|| masters.last_words())?;
    let (made, seconds) = (wire::value(&said, "operations=")?, wire::value(&said, "seconds=")?);
    println!("{made:.0} files made in {seconds:.1} s by {FILL_CALLERS} callers: {:.0}/s", made / seconds);
    let word = |key: &str| said.split_whitespace().find_map(|word| word.strip_prefix(key)).map(str::to_owned);
    word("directory=").zip(word("name=")).context("the load does not say where its files are")
}

/// Ends all masters, empties the page cache, starts them, and tells when they answer.
fn cold_start(
    masters: &mut Masters,
    probe: &Path,
    (directory, file): &FirstFile,
    (kind, signal): (&str, Signal),
) -> Result<()> {
    masters.end(None, signal)?;
    rustix::fs::sync();
    super::drop_caches();
    let mut command = Command::new(probe);
    command
        .arg(masters.client_key())
        .arg(masters.addresses())
        .arg(directory)
        .arg(file)
        .arg(PROBE_SECONDS.to_string());
    let said = tempfile::NamedTempFile::new()?;
    let mut probing = command.stdout(said.reopen()?).spawn().context("start the probe")?;
    let answered = probed(masters, said.path(), &mut probing);
    if answered.is_err() {
        probing.kill().ok();
    }
    let ended = probing.wait()?;
    let begun = answered?;
    if !ended.success() {
        bail!("the probe ended with {ended}");
    }
    let (mut serving, mut found) = ([0.0; COUNT], 0.0);
    let first = begun.iter().copied().min().unwrap_or_default();
    for line in fs::read_to_string(said.path())?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["hello", address, at] => {
                let number = masters.at(address).context("a master that is none")?;
                if let (Some(serving), Some(begun)) = (serving.get_mut(number), begun.get(number)) {
                    *serving = ms_between(*begun, at.parse()?);
                }
            }
            ["lookup", at] => found = ms_between(first, at.parse()?),
            _ => {}
        }
    }
    let read: Vec<String> = masters.pids().iter().map(|pid| format!("{:.1}", read_mib(*pid))).collect();
    println!(
        "cold start after {kind}: serving after {:.0}, {:.0}, {:.0} ms; first lookup answered {found:.0} ms after the start of all; MiB read from the disk: {}",
        serving[0],
        serving[1],
        serving[2],
        read.join(", ")
    );
    masters.in_sync(SYNC_LIMIT).map(drop)
}

/// Starts all masters once the probe runs, waits until it has ended, and answers when each was started.
fn probed(masters: &mut Masters, said: &Path, probing: &mut std::process::Child) -> Result<[u64; COUNT]> {
    wait::until(PROBE_LIMIT, "the probe", || Ok(fs::read_to_string(said)?.starts_with("probing")))?;
    let mut begun = [0; COUNT];
    for (number, begun) in begun.iter_mut().enumerate() {
        *begun = micros(masters.start(number)?)?;
    }
    wait::until(PROBE_LIMIT, "the probe's end", || Ok(probing.try_wait()?.is_some()))?;
    Ok(begun)
}

/// A follower comes back with an empty directory in `place` while writers write.
fn snapshot(masters: &mut Masters, load: &Path, place: &Path, what: &str) -> Result<()> {
    let status = masters.in_sync(SYNC_LIMIT)?;
    let number = (0..COUNT).find(|number| status.leader != Some(name(*number))).context("no follower")?;
    masters.end(Some(number), Signal::TERM)?;
    masters.wipe(number, &place.join("wiped"))?;
    rustix::fs::sync();
    let before: usize = arrivals(masters).len();
    let (key, addresses) = (masters.client_key(), masters.addresses());
    let (creates, begun, timeline) =
        beside_writers((&key, &addresses), load, WRITING, || rejoin(masters, number, before))?;
    let end = creates.iter().map(|it| it.start_us + it.took_us).max().context("no creates")?;
    let Timeline { started, arrived, voter, said } = timeline;
    let [rows, bytes, ms] = ["rows=", "bytes=", "ms="].map(|key| wire::value(&said, key));
    let (rows, bytes, ms) = (rows?, bytes?, ms?);
    let sending = arrived.saturating_sub((ms * 1e3) as u64);
    println!(
        "snapshot, the receiver's data on {what}: {rows:.0} rows, {:.0} MB in {:.2} s ({:.0} MB/s); arrived {:.2} s after the start of the empty master, a voter after {:.2} s",
        bytes / 1e6,
        ms / 1e3,
        bytes / 1e3 / ms,
        ms_between(started, arrived) / 1e3,
        ms_between(started, voter) / 1e3
    );
    let parts = [
        ("before, two masters", begun, started),
        ("the snapshot is sent", sending, arrived),
        ("start to voter", started, voter),
        ("after, three masters", voter, end),
    ];
    say_noticed(&creates, &parts);
    peaks(masters, "after the snapshot");
    Ok(())
}

/// The leader checks everything while writers write.
fn check(masters: &Masters, load: &Path) -> Result<()> {
    let leader = masters.in_sync(SYNC_LIMIT)?.leader;
    let (creates, begun, (asked, said, answered)) =
        beside_writers((&masters.client_key(), &masters.addresses()), load, CHECKED, || {
            wait::let_run(BEFORE_CHECK)?;
            let asked = now()?;
            let said = shell::stdout_within(masters.mooseng().arg("fsck"), CHECKED)?;
            Ok((asked, said, now()?))
        })?;
    let end = creates.iter().map(|it| it.start_us + it.took_us).max().context("no creates")?;
    println!("fsck beside writers: {} in {:.1} s", said.trim(), ms_between(asked, answered) / 1e3);
    say_noticed(&creates, &[("before", begun, asked), ("fsck", asked, answered), ("after", answered, end)]);
    if masters.in_sync(SYNC_LIMIT)?.leader != leader {
        bail!("another master leads after fsck");
    }
    peaks(masters, "after fsck");
    Ok(())
}

/// Does something while writers write; answers their creates, when they began, and what was done.
fn beside_writers<T>(
    (key, addresses): (&Path, &str),
    load: &Path,
    writing: Duration,
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<(Vec<Create>, u64, T)> {
    let times = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(load);
    command.arg(key).arg(addresses).arg(WRITERS.to_string()).arg("own");
    command.arg(writing.as_secs().to_string()).arg(u32::MAX.to_string()).arg(times.path());
    let (begun, done) = std::thread::scope(|scope| {
        let load = scope.spawn(|| shell::stdout_within(&mut command, writing * 2));
        let begun = now();
        let done = meanwhile();
        load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        Ok::<_, anyhow::Error>((begun?, done?))
    })?;
    Ok((stalls::parse(&fs::read_to_string(times.path())?)?, begun, done))
}

fn say_noticed(creates: &[Create], parts: &[(&str, u64, u64)]) {
    println!("what {WRITERS} writers noticed:");
    for (part, from, to) in parts {
        println!("  {part:<20}  {}", stalls::summary(creates, *from, *to));
    }
}

/// Instants in microseconds since 1970, and what the sender said of the snapshot.
struct Timeline {
    started: u64,
    arrived: u64,
    voter: u64,
    said: String,
}

fn rejoin(masters: &mut Masters, number: usize, before: usize) -> Result<Timeline> {
    wait::let_run(BEFORE)?;
    let started = micros(masters.start(number)?)?;
    let mut said = None;
    wait::until(WRITING, "the snapshot", || {
        said = arrivals(masters).into_iter().nth(before);
        Ok(said.is_some())
    })?;
    let arrived = now()?;
    masters.in_sync(WRITING)?;
    Ok(Timeline { started, arrived, voter: now()?, said: said.unwrap_or_default() })
}

/// What senders have logged of snapshots that have arrived.
fn arrivals(masters: &Masters) -> Vec<String> {
    let logs = masters.logs();
    let lines = logs.iter().flat_map(|log| log.lines());
    lines.filter(|line| line.contains("a snapshot has arrived")).map(str::to_owned).collect()
}

fn peaks(masters: &Masters, when: &str) {
    let peaks = usage::each_mib(&masters.pids(), usage::Memory::Most);
    let words: Vec<String> = peaks.iter().map(|(name, mib)| format!("{name} {mib:.0} MiB")).collect();
    println!("peak memory {when}: {}", words.join(", "));
}

/// What a process has had the disk read, its own program included.
fn read_mib(pid: u32) -> f64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    wire::value(&io.replace(": ", ":"), "read_bytes:").unwrap_or_default() / f64::from(1 << 20)
}

fn now() -> Result<u64> {
    micros(SystemTime::now())
}

fn micros(time: SystemTime) -> Result<u64> {
    Ok(u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH)?.as_micros())?)
}

fn ms_between(from_us: u64, to_us: u64) -> f64 {
    to_us.saturating_sub(from_us) as f64 / 1e3
}
