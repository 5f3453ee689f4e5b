//! Several at work at once: neighbouring blocks of one file on one mount, records appended through both mounts, and stores
//! through a mapping whose file is closed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::syscall::{self, Mapping};
use super::content::{difference, to_index};
use crate::random::Random;
use crate::wait;

const BLOCK: usize = 4096;
const FILE_BLOCKS: usize = 256;
const OWNERS: usize = 4;
const READERS: usize = 4;
/// Read-backs of each owner in one round: enough to meet what goes wrong once in two thousand.
const READ_BACKS: u32 = 8000;
/// Threads that append through each mount, and what each appends in one round.
const APPENDERS: usize = 2;
const RECORDS: u32 = 150;
/// Not a part of a page, so that records lie across pages.
const RECORD_BYTES: usize = 100;
const SHOWN_MAX: usize = 10;
/// Stores through mappings in one round, and how soon the other mount shows what they have left.
const STORES: u32 = 10;
const SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// Each owner writes its blocks (every fourth) and reads them back, while others read everything: nobody reads older
/// bytes than it wrote.
pub(super) fn blocks(points: [&Path; 2], rounds: u32) -> Result<()> {
    let path = points[0].join("blocks");
    fs::write(&path, vec![0; FILE_BLOCKS * BLOCK])?;
    let done = AtomicBool::new(false);
    let stale = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| read_all(&path, &done))).collect();
        let owners: Vec<_> = (0..OWNERS)
            .map(|owner| {
                let path = &path;
                scope.spawn(move || own_blocks(path, owner, READ_BACKS.saturating_mul(rounds.min(4))))
            })
            .collect();
        let stale = joined(owners);
        done.store(true, Ordering::Relaxed);
        joined(readers)?;
        stale
    })?;
    let (read_backs, stale) = stale
        .into_iter()
        .fold((0, Vec::new()), |(count, all), (more, found)| (count + more, [all, found].concat()));
    ensure!(
        stale.is_empty(),
        "{} stale of {read_backs} read-backs:\n{}",
        stale.len(),
        stale.get(..SHOWN_MAX.min(stale.len())).unwrap_or_default().join("\n")
    );
    println!("two_mounts: blocks: {read_backs} read-backs, none stale");
    Ok(())
}

/// One mount maps a file, closes it, stores and unmaps; no sync and no close follows. The other one shows it soon.
pub(super) fn mapped(points: [&Path; 2], rounds: u32) -> Result<()> {
    let [ours, theirs] = points.map(|point| point.join("mapped"));
    let mut longest = Duration::ZERO;
    for number in 1..=STORES.saturating_mul(rounds.min(4)) {
        let bytes = vec![number as u8; 2 * BLOCK];
        if number == 1 {
            fs::write(&ours, vec![0; 2 * BLOCK])?;
        }
        let file = File::options().read(true).write(true).open(&ours)?;
        let mut mapping = Mapping::shared(&file, 0, 2 * BLOCK).context("mmap")?;
        syscall::close(file)?;
        mapping.store(0, &bytes);
        drop(mapping);
        let begun = Instant::now();
        wait::until(SHOWN_WITHIN, "the other mount to show what was stored", || {
            Ok(fs::read(&theirs)? == bytes)
        })
        .with_context(|| format!("store {number}"))?;
        longest = longest.max(begun.elapsed());
    }
    println!("two_mounts: mapped: all shown by the other mount, after {} ms at most", longest.as_millis());
    Ok(())
}

pub(super) fn joined<T>(threads: Vec<ScopedJoinHandle<'_, Result<T>>>) -> Result<Vec<T>> {
    threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))?)
        .collect()
}

fn read_all(path: &Path, done: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; FILE_BLOCKS * BLOCK];
    while !done.load(Ordering::Relaxed) {
        wait::check_interrupt()?;
        File::open(path)?.read_exact_at(&mut buffer, 0).context("read the whole file")?;
    }
    Ok(())
}

/// Answers how often it read back, and what was stale.
fn own_blocks(path: &Path, owner: usize, count: u32) -> Result<(u32, Vec<String>)> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut random = Random::seeded(owner as u64);
    let mut stale = Vec::new();
    let mut back = vec![0; BLOCK];
    for number in 1..=count {
        wait::check_interrupt()?;
        let block = OWNERS * random.index(FILE_BLOCKS / OWNERS) + owner;
        let offset = (block * BLOCK) as u64;
        let bytes = random.bytes(BLOCK);
        file.write_all_at(&bytes, offset).context("write a block")?;
        file.read_exact_at(&mut back, offset).context("read a block back")?;
        if let Some(text) = difference(offset, &bytes, &back) {
            file.read_exact_at(&mut back, offset).context("read a block again")?;
            let again = if back == bytes { "right when read again" } else { "still wrong when read again" };
            stale.push(format!("owner {owner}, read-back {number}, block {block}: {text}; {again}"));
        }
    }
    Ok((count, stale))
}

/// Records appended through both mounts at once are all there, each once and whole.
pub(super) fn appends(points: [&Path; 2], rounds: u32) -> Result<()> {
    let name = "appends";
    File::create_new(points[0].join(name))?;
    let each = RECORDS.saturating_mul(rounds.min(4));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2 * APPENDERS)
            .map(|number| {
                let path = points.get(number % 2).map(|point| point.join(name)).unwrap_or_default();
                scope.spawn(move || append(&path, number, each))
            })
            .collect();
        joined(threads)
    })?;
    let mut problems = Vec::new();
    for point in points {
        let bytes = fs::read(point.join(name))?;
        problems.extend(
            wrong_records(&bytes, each).into_iter().map(|text| format!("{}: {text}", point.display())),
        );
    }
    let shown = problems.get(..SHOWN_MAX.min(problems.len())).unwrap_or_default().join("\n");
    if !problems.is_empty() {
        bail!("{} wrong:\n{shown}", problems.len());
    }
    println!("two_mounts: appends: {} records, each there once", 2 * APPENDERS * to_index(u64::from(each)));
    Ok(())
}

fn append(path: &Path, thread: usize, count: u32) -> Result<()> {
    let mut file = File::options().append(true).open(path)?;
    for number in 0..count {
        wait::check_interrupt()?;
        file.write_all(&record(thread, number)).with_context(|| format!("append record {number}"))?;
        if number % 50 == 49 {
            file.sync_data().with_context(|| format!("fdatasync after record {number}"))?;
        }
    }
    syscall::close(file).context("close after the appends")
}

/// Begins with who wrote it; the rest is made from that, so that a torn one shows.
fn record(thread: usize, number: u32) -> Vec<u8> {
    let mut random = Random::seeded(thread as u64 * 1_000_003 + u64::from(number));
    let mut bytes = format!("{thread:02} {number:08} ").into_bytes();
    while bytes.len() < RECORD_BYTES - 1 {
        bytes.push(b'a' + u8::try_from(random.below(26)).unwrap_or_default());
    }
    bytes.push(b'\n');
    bytes
}

fn wrong_records(bytes: &[u8], each: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found = std::collections::BTreeMap::<&[u8], u32>::new();
    for part in bytes.chunks(RECORD_BYTES) {
        *found.entry(part).or_default() += 1;
    }
    let total = 2 * APPENDERS * to_index(u64::from(each)) * RECORD_BYTES;
    if bytes.len() != total {
        wrong.push(format!("{} bytes, {total} were appended", bytes.len()));
    }
    for thread in 0..2 * APPENDERS {
        for number in 0..each {
            match found.remove(record(thread, number).as_slice()) {
                Some(1) => {}
                Some(times) => {
                    wrong.push(format!("record {number} of thread {thread} is there {times} times"))
                }
                None => wrong.push(format!("record {number} of thread {thread} is gone")),
            }
        }
    }
    wrong.extend(found.keys().map(|part| format!("nobody wrote {:?}", String::from_utf8_lossy(part))));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_file_system_passes() {
        let scratch = tempfile::tempdir().unwrap();
        let points = [scratch.path(), scratch.path()];
        appends(points, 1).unwrap();
        let path = scratch.path().join("f");
        fs::write(&path, vec![0; FILE_BLOCKS * BLOCK]).unwrap();
        assert_eq!(own_blocks(&path, 1, 50).unwrap(), (50, Vec::new()));
    }

    #[test]
    fn a_lost_a_doubled_and_a_torn_record_are_seen() {
        let mut bytes: Vec<u8> =
            (0..2 * APPENDERS).flat_map(|thread| (0..3).flat_map(move |n| record(thread, n))).collect();
        assert_eq!(wrong_records(&bytes, 3), Vec::<String>::new());
        let end = bytes.len() - RECORD_BYTES;
        bytes.copy_within(0..RECORD_BYTES, end);
        assert_eq!(wrong_records(&bytes, 3).len(), 2);
        bytes[end + 50] ^= 1;
        assert_eq!(wrong_records(&bytes, 3).len(), 2);
        bytes.truncate(end + 60);
        assert_eq!(wrong_records(&bytes, 3).len(), 3);
    }
}
