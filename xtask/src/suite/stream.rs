//! Long sequential writes and reads of known bytes, with something done to the cluster in the middle.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::tree::hex;
use crate::random::Random;
use crate::wait;

pub(super) const MIB: usize = 1 << 20;

/// What a file holds from `start` on, `most` bytes of it at most, read in calls as large as there is room: the length that
/// the kernel believes is asked of nobody first.
pub(super) fn read_window(file: &File, start: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// How a stream went.
pub(super) struct Streamed {
    /// SHA-256 in hexadecimal.
    pub(super) hash: String,
    /// The longest single call.
    pub(super) stall: Duration,
}

/// Writes `mib` MiB and fsyncs; `midway` is called after a third.
pub(super) fn write(
    path: &Path,
    mib: usize,
    seed: u64,
    midway: impl FnOnce() -> Result<()>,
) -> Result<Streamed> {
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let (mut random, mut hash, mut stall) = (Random::seeded(seed), Sha256::new(), Duration::ZERO);
    let mut midway = Some(midway);
    for index in 0..mib {
        wait::check_interrupt()?;
        if index == mib / 3
            && let Some(midway) = midway.take()
        {
            midway()?;
        }
        let bytes = random.bytes(MIB);
        hash.update(&bytes);
        let start = Instant::now();
        file.write_all(&bytes).with_context(|| format!("write MiB {index} of {}", path.display()))?;
        stall = stall.max(start.elapsed());
    }
    let start = Instant::now();
    file.sync_all().with_context(|| format!("fsync {}", path.display()))?;
    Ok(Streamed { hash: hex(&hash.finalize()), stall: stall.max(start.elapsed()) })
}

/// Reads the whole file; `midway` is called after a third of `mib` MiB.
pub(super) fn read(path: &Path, mib: usize, midway: impl FnOnce() -> Result<()>) -> Result<Streamed> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let (mut hash, mut stall, mut done) = (Sha256::new(), Duration::ZERO, 0_usize);
    let (mut midway, mut buffer) = (Some(midway), vec![0; MIB]);
    loop {
        wait::check_interrupt()?;
        if done >= mib * MIB / 3
            && let Some(midway) = midway.take()
        {
            midway()?;
        }
        let start = Instant::now();
        let count = file.read(&mut buffer).with_context(|| format!("read {} at {done}", path.display()))?;
        stall = stall.max(start.elapsed());
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        done += count;
    }
    if done != mib * MIB {
        bail!("{}: {done} bytes read, {} written", path.display(), mib * MIB);
    }
    Ok(Streamed { hash: hex(&hash.finalize()), stall })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_with_the_same_hash_and_midway_is_called_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("f");
        let mut calls = 0;
        let written = write(&path, 3, 5, || {
            calls += 1;
            Ok(())
        });
        let read = read(&path, 3, || {
            calls += 1;
            Ok(())
        });
        assert_eq!(written.unwrap().hash, read.unwrap().hash);
        assert_eq!(calls, 2);
        assert!(super::read(&path, 4, || Ok(())).is_err());
    }
}
