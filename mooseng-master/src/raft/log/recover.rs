//! Reads a log back.
//!
//! A tail that the last, unfinished batch left torn is cut: nobody was told that it was durable. A broken record with
//! anything of a later batch behind it was durable once, so the disk has lost what it had promised: the log is refused,
//! and the master has to be made anew from its peers. Nothing is ever repaired by guessing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mooseng_env::Disk;
use mooseng_types::CellId;

use super::record::{self, Content, HEADER_SIZE, LogFormatError, Owner, SegmentHeader};
use crate::raft::Recovered;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogOpenError {
    /// The disk failed.
    #[error("read the log segment {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// A segment is not one, or not ours.
    #[error("{}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: LogFormatError,
    },
    /// What was durable is broken.
    #[error(
        "{} is damaged at byte {offset}, with synced records after it: do not start this master again with it; docs/operations.md says how to go on without it",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: usize,
    },
    /// A segment between the others is not there.
    #[error(
        "log segment {0} is missing: do not start this master again with it; docs/operations.md says how to go on without it"
    )]
    Missing(u64),
}

/// Where appending goes on.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: u64,
    pub(super) offset: usize,
    pub(super) chain: u32,
    pub(super) batch: u64,
}

/// The highest index of each group, as of some place in the log.
pub(super) type Highest = BTreeMap<CellId, u64>;

/// What one pass over the segments has found.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) recovered: BTreeMap<CellId, Recovered>,
    /// `None` for a log without segments.
    pub(super) tail: Option<Tail>,
    /// Number of each segment and the highest indexes seen until its end, oldest first.
    pub(super) segments: Vec<(u64, Highest)>,
    pub(super) highest: Highest,
}

/// The path of segment `number`.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

fn number_of(path: &Path) -> Option<u64> {
    if path.extension()? != "log" {
        return None;
    }
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

/// Reads all segments in `dir`.
pub(super) fn replay(disk: &dyn Disk, dir: &Path, owner: Owner) -> Result<Replay, LogOpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| LogOpenError::Io { path, source }
    };
    let files = disk.list(dir).map_err(io(dir))?;
    let mut numbers: Vec<u64> = files.iter().filter_map(|path| number_of(path)).collect();
    numbers.sort_unstable();
    let mut replay = Replay::default();
    for (position, &number) in numbers.iter().enumerate() {
        if position > 0 && numbers[position - 1] + 1 != number {
            return Err(LogOpenError::Missing(numbers[position - 1] + 1));
        }
        let path = path_of(dir, number);
        let bytes = disk.read_whole(&path).map_err(io(&path))?;
        let last = position + 1 == numbers.len();
        match header(&bytes, owner) {
            Ok(header) => replay.segment(&path, header, &bytes)?,
            // The newest segment may have been cut off while it was being made, before anything was written to it.
            Err(LogFormatError::NotASegment)
                if last && bytes.iter().take(HEADER_SIZE).all(|byte| *byte == 0) => {}
            Err(source) => return Err(LogOpenError::Format { path, source }),
        }
    }
    Ok(replay)
}

fn header(bytes: &[u8], owner: Owner) -> Result<SegmentHeader, LogFormatError> {
    let head = bytes.first_chunk::<HEADER_SIZE>().ok_or(LogFormatError::NotASegment)?;
    SegmentHeader::decode(head, owner)
}

impl Replay {
    fn segment(&mut self, path: &Path, header: SegmentHeader, bytes: &[u8]) -> Result<(), LogOpenError> {
        let damaged = |offset| LogOpenError::Damaged { path: path.to_owned(), offset };
        let mut tail = match &self.tail {
            // The end of the segment before is not what was there when this one was begun.
            Some(before) if before.chain != header.chain => return Err(damaged(0)),
            Some(before) => Tail { segment: header.number, offset: HEADER_SIZE, ..*before },
            None => Tail { segment: header.number, offset: HEADER_SIZE, chain: header.chain, batch: 0 },
        };
        let mut batch = Vec::new();
        let mut at = tail.offset;
        let mut chain = tail.chain;
        // Padding may be missing at the end of a file that was cut off, so an offset may lie behind the end.
        let from = |at: usize| bytes.get(at..).unwrap_or_default();
        while let Some(found) = record::decode(from(at), header.number) {
            if found.chain != chain || found.batch <= tail.batch {
                break;
            }
            at += found.size;
            chain = found.crc;
            batch.push((found.cell, found.content));
            if found.last {
                batch.drain(..).for_each(|(cell, content)| self.take(cell, content));
                tail = Tail { offset: at, chain, batch: found.batch, ..tail };
            }
        }
        if let Some(offset) = later_batch(from(tail.offset), header.number, tail.batch + 1) {
            return Err(damaged(tail.offset + offset));
        }
        self.segments.push((header.number, self.highest.clone()));
        self.tail = Some(tail);
        Ok(())
    }

    fn take(&mut self, cell: CellId, content: Content) {
        let recovered = self.recovered.entry(cell).or_default();
        let highest = self.highest.entry(cell).or_default();
        match content {
            Content::Entry(entry) => {
                *highest = entry.index.max(*highest);
                let keep = recovered.entries.partition_point(|kept| kept.index < entry.index);
                recovered.entries.truncate(keep);
                recovered.entries.push(entry);
            }
            Content::State(state) => recovered.hard_state = state,
            Content::Mark { index, term } => {
                if index > recovered.purged.0 {
                    let gone = recovered.entries.partition_point(|entry| entry.index <= index);
                    recovered.entries.drain(..gone);
                    recovered.purged = (index, term);
                }
            }
            Content::Restart { index, term } => {
                recovered.entries.clear();
                recovered.purged = (index, term);
                *highest = index;
                for (_, highest) in &mut self.segments {
                    highest.remove(&cell);
                }
            }
        }
    }
}

/// Where in `rest` a record of a batch after `torn` stands: it was written only when `torn` was durable.
fn later_batch(rest: &[u8], segment: u64, torn: u64) -> Option<usize> {
    let written = rest.len() - rest.iter().rev().take_while(|byte| **byte == 0).count();
    // Every batch takes room, so there are only so many.
    let most = torn + (written / record::MARK_SIZE) as u64 + 1;
    (0..written).step_by(8).find(|&at| {
        let bytes = &rest[at..];
        record::batch_of(bytes).is_some_and(|batch| torn < batch && batch <= most)
            && record::decode(bytes, segment).is_some()
    })
}
