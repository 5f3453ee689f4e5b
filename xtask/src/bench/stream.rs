//! Large files: sequential write and read, and random reads of 4 KiB.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Done, Runner};
use crate::random::Random;
use crate::wait;

const FILE_BYTES: u64 = 1 << 30;
const CALL_BYTES: usize = 1 << 20;
const RANDOM_BYTES: usize = 4096;
const RANDOM_TIME: Duration = Duration::from_secs(5);
const RANDOM_THREADS: [u64; 2] = [4, 16];

/// 1 GiB written and fsynced, then read cold.
pub(super) fn sequential(runner: &mut Runner<'_>) -> Result<()> {
    let path = runner.place("seq")?.join("big");
    let bytes = size(runner);
    runner.touch();
    runner.measure("seq_write_1g_fsync", || write(&path, bytes))?;
    runner.cold()?;
    runner.touch();
    runner.measure("seq_read_cold_1g", || read(&path, bytes))
}

/// Random 4 KiB reads of a file of 1 GiB, cold, for five seconds.
pub(super) fn random(runner: &mut Runner<'_>) -> Result<()> {
    let path = runner.place("rand")?.join("big");
    let bytes = size(runner);
    write(&path, bytes)?;
    let time = if runner.tiny { RANDOM_TIME / 10 } else { RANDOM_TIME };
    for threads in RANDOM_THREADS {
        runner.cold()?;
        runner.measure(&format!("rand_read_4k_cold_{threads}t"), || {
            read_at_random(&path, bytes, threads, time)
        })?;
    }
    Ok(())
}

fn size(runner: &Runner<'_>) -> u64 {
    runner.scaled(FILE_BYTES >> 20) << 20
}

fn write(path: &Path, bytes: u64) -> Result<Done> {
    let block = Random::seeded(11).bytes(CALL_BYTES);
    let start = Instant::now();
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut latencies_us = Vec::new();
    for _ in 0..bytes / CALL_BYTES as u64 {
        wait::check_interrupt()?;
        let call = Instant::now();
        file.write_all(&block)?;
        latencies_us.push(call.elapsed().as_secs_f64() * 1e6);
    }
    file.sync_all()?;
    Ok(Done { operations: latencies_us.len() as u64, bytes, time: start.elapsed(), latencies_us })
}

fn read(path: &Path, bytes: u64) -> Result<Done> {
    let block = Random::seeded(11).bytes(CALL_BYTES);
    let mut buffer = vec![0; CALL_BYTES];
    let start = Instant::now();
    let mut file = File::open(path)?;
    let mut latencies_us = Vec::new();
    for _ in 0..bytes / CALL_BYTES as u64 {
        wait::check_interrupt()?;
        let call = Instant::now();
        file.read_exact(&mut buffer)?;
        latencies_us.push(call.elapsed().as_secs_f64() * 1e6);
        if buffer != block {
            bail!("other bytes than were written");
        }
    }
    Ok(Done { operations: latencies_us.len() as u64, bytes, time: start.elapsed(), latencies_us })
}

fn read_at_random(path: &Path, bytes: u64, threads: u64, time: Duration) -> Result<Done> {
    let block = Random::seeded(11).bytes(CALL_BYTES);
    let start = Instant::now();
    let lanes: Vec<Result<Vec<f64>>> = std::thread::scope(|scope| {
        let block = &block;
        let threads: Vec<_> = (0..threads)
            .map(|seed| scope.spawn(move || random_lane(path, bytes, seed, time, block)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    });
    let elapsed = start.elapsed();
    let mut latencies_us = Vec::new();
    for lane in lanes {
        latencies_us.extend(lane?);
    }
    let operations = latencies_us.len() as u64;
    Ok(Done { operations, bytes: operations * RANDOM_BYTES as u64, time: elapsed, latencies_us })
}

fn random_lane(path: &Path, bytes: u64, seed: u64, time: Duration, block: &[u8]) -> Result<Vec<f64>> {
    let file = File::open(path)?;
    // Without this the kernel would read ahead, and the figure would be about something else.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).ok();
    let mut random = Random::seeded(seed ^ Random::fresh_seed());
    let (mut buffer, mut latencies_us) = (vec![0; RANDOM_BYTES], Vec::new());
    let start = Instant::now();
    while start.elapsed() < time && !wait::interrupted() {
        let offset = random.below(bytes / RANDOM_BYTES as u64) * RANDOM_BYTES as u64;
        let call = Instant::now();
        file.read_exact_at(&mut buffer, offset)?;
        latencies_us.push(call.elapsed().as_secs_f64() * 1e6);
        let at = usize::try_from(offset % CALL_BYTES as u64)?;
        if block.get(at..at + RANDOM_BYTES) != Some(buffer.as_slice()) {
            bail!("other bytes than were written at {offset}");
        }
    }
    Ok(latencies_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_checked() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("f");
        let bytes = 3 << 20;
        assert_eq!(write(&path, bytes).unwrap().operations, 3);
        assert_eq!(read(&path, bytes).unwrap().bytes, bytes);
        assert!(read_at_random(&path, bytes, 2, Duration::from_millis(20)).unwrap().operations > 0);
        std::fs::write(&path, vec![0; 3 << 20]).unwrap();
        assert!(read(&path, bytes).is_err());
        assert!(read_at_random(&path, bytes, 2, Duration::from_millis(20)).is_err());
    }
}
