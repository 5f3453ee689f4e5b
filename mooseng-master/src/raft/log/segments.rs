//! Appends batches of all groups to the newest segment and turns to the next one when it is full.
//!
//! Segments are filled with zeros before they are used, and purged ones are used again ([`Spares`]): an `fdatasync` then
//! writes data only, no file-system metadata, which halves its cost.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, DiskFile};
use mooseng_types::{CellId, ClusterId, MasterId};

use super::record::{self, Content, HEADER_SIZE, Owner, Place, SegmentHeader};
use super::recover::{self, Highest, LogOpenError, Tail, path_of};
use super::spares::{Spares, remove_if_there, write_zeros};
use crate::raft::{HardState, Persist, Recovered};

/// How a log is laid out, and whose it is.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The folder; it exists.
    pub dir: PathBuf,
    /// Bytes of a segment. A batch that does not fit into what is left begins the next one; a batch larger than a
    /// segment makes a larger one.
    pub segment_bytes: u64,
    /// Whose cluster.
    pub cluster: ClusterId,
    /// Whose log.
    pub master: MasterId,
}

/// The segments of a log, open for appending.
#[derive(Debug)]
pub struct Segments {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    current: Arc<dyn DiskFile>,
    capacity: u64,
    tail: Tail,
    /// Number of each full segment and the highest indexes written until its end, oldest first: it is free when all of them
    /// are purged.
    full: VecDeque<(u64, Highest)>,
    spares: Spares,
    groups: BTreeMap<CellId, Kept>,
    /// The highest indexes that are in the log.
    written: Highest,
    buffer: Vec<u8>,
}

/// What the log knows of a group.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    hard_state: HardState,
    /// Index and term of the last entry that is not needed any more.
    purged: (u64, u64),
    /// The highest index written so far.
    highest: u64,
}

/// Who needs the oldest segment: a group, and the highest of its entries in there.
pub type Holder = (CellId, u64);

impl Segments {
    /// Opens the log, making an empty one where there is none, and tells what it holds.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
    ) -> Result<(Self, BTreeMap<CellId, Recovered>), LogOpenError> {
        let owner = Owner { cluster: options.cluster, master: options.master };
        let io = |source| LogOpenError::Io { path: options.dir.clone(), source };
        // A process that was killed may have left names that the disk does not have yet. What is appended to such a
        // segment would go with its name when the power goes.
        disk.sync_dir(&options.dir).map_err(io)?;
        let replay = recover::replay(&*disk, &options.dir, owner)?;
        let mut full: VecDeque<_> = replay.segments.into();
        let recovered = replay.recovered;
        let highest = |cell| replay.highest.get(&cell).copied().unwrap_or(0);
        let kept = |(&cell, it): (&CellId, &Recovered)| {
            let Recovered { hard_state, purged, .. } = *it;
            (cell, Kept { hard_state, purged, highest: highest(cell) })
        };
        let groups = recovered.iter().map(kept).collect();
        let (current, tail) = match replay.tail {
            Some(tail) => {
                full.pop_back();
                let current = disk.open(&path_of(&options.dir, tail.segment), OpenMode::Write).map_err(io)?;
                cut(&*current, tail.offset).map_err(io)?;
                (current, tail)
            }
            None => {
                let tail = Tail { segment: 1, offset: HEADER_SIZE, chain: 0, batch: 0 };
                let current = make(&*disk, &options, None, &tail, options.segment_bytes).map_err(io)?;
                (current, tail)
            }
        };
        let capacity = current.len().map_err(io)?;
        let spares = Spares::open(Arc::clone(&disk), &options.dir, options.segment_bytes).map_err(io)?;
        let buffer = Vec::new();
        let written = replay.highest;
        let segments = Self { disk, options, current, capacity, tail, full, spares, groups, written, buffer };
        Ok((segments, recovered))
    }

    /// Appends everything in `batches` and makes it durable with one sync. After an error the log must not be used
    /// again: what is on the disk is not known.
    pub fn append(&mut self, batches: &[(CellId, Persist)]) -> io::Result<()> {
        let mut by_cell: BTreeMap<CellId, Vec<&Persist>> = BTreeMap::new();
        for (cell, batch) in batches {
            let of_cell = by_cell.entry(*cell).or_default();
            // What a snapshot has taken the place of need not be written.
            if batch.snapshot.is_some() {
                of_cell.clear();
            }
            of_cell.push(batch);
        }
        if by_cell.is_empty() {
            return Ok(());
        }
        let (mut contents, mut restarted) = (Vec::new(), Vec::new());
        for (cell, batches) in by_cell {
            let group = self.groups.entry(cell).or_default();
            for batch in batches {
                if let Some((index, term)) = batch.snapshot {
                    contents.push((cell, Content::Restart { index, term }));
                    (group.purged, group.highest) = ((index, term), index);
                    restarted.push(cell);
                }
                contents.extend(batch.entries.iter().cloned().map(|entry| (cell, Content::Entry(entry))));
                group.highest = batch.entries.last().map_or(0, |entry| entry.index).max(group.highest);
                group.hard_state = batch.hard_state;
            }
            contents.push((cell, Content::State(group.hard_state)));
        }
        self.write(contents)?;
        // No entry of such a group before its restart counts any more.
        for (_, highest) in &mut self.full {
            highest.retain(|cell, _| !restarted.contains(cell));
        }
        if restarted.is_empty() { Ok(()) } else { self.free_full() }
    }

    /// Brings the log and a store that begins behind the entry `base` (index and term) together: a crash may have come
    /// after the store took the place of the one before, and before the log did.
    pub fn begin_behind(
        &mut self,
        cell: CellId,
        base: (u64, u64),
        recovered: &mut Recovered,
    ) -> io::Result<()> {
        let (index, term) = base;
        let leads_on = recovered.purged.0 > index
            || recovered.purged == base
            || recovered.entries.iter().any(|entry| (entry.index, entry.term) == base);
        if !leads_on {
            self.restart_behind(cell, index, term)?;
            let hard_state = self.groups.get(&cell).copied().unwrap_or_default().hard_state;
            *recovered = Recovered { hard_state, purged: base, entries: Vec::new() };
        }
        Ok(())
    }

    /// A group's log begins anew behind `index`, without an entry; the voter's state stays, with a term not below `term`.
    fn restart_behind(&mut self, cell: CellId, index: u64, term: u64) -> io::Result<()> {
        let before = self.groups.get(&cell).copied().unwrap_or_default().hard_state;
        let hard_state = HardState { term: before.term.max(term), commit: index, ..before };
        let hard_state =
            if hard_state.term == before.term { hard_state } else { HardState { vote: 0, ..hard_state } };
        let snapshot = Some((index, term));
        self.append(&[(cell, Persist { number: 0, snapshot, entries: Vec::new(), hard_state })])
    }

    /// Notes that a group does not need entries up to `index` (of `term`), durably where that frees a segment.
    pub fn purge(&mut self, cell: CellId, index: u64, term: u64) -> io::Result<()> {
        let group = self.groups.entry(cell).or_default();
        if index <= group.purged.0 {
            return Ok(());
        }
        group.purged = (index, term);
        self.free_full()
    }

    /// Who needs the oldest segment, if more than `full_max` full ones are kept: nobody may hold the disk hostage.
    #[must_use]
    pub fn holders(&self, full_max: usize) -> Vec<Holder> {
        let oldest = self.full.front().filter(|_| self.full.len() > full_max);
        let needed = |(cell, index): &(&CellId, &u64)| **index > self.purged_of(**cell);
        let holders = oldest.iter().flat_map(|(_, highest)| highest.iter().filter(needed));
        holders.map(|(cell, index)| (*cell, *index)).collect()
    }

    fn purged_of(&self, cell: CellId) -> u64 {
        self.groups.get(&cell).map_or(0, |group| group.purged.0)
    }

    /// Whether no group needs anything up to there.
    fn is_free(&self, highest: &Highest) -> bool {
        highest.iter().all(|(cell, index)| *index <= self.purged_of(*cell))
    }

    /// Frees the segments that nobody needs, oldest first.
    fn free_full(&mut self) -> io::Result<()> {
        if self.full.front().is_none_or(|(_, highest)| !self.is_free(highest)) {
            return Ok(());
        }
        // The marks must be durable before the entries they stand for are gone: those of all groups, whichever has let go
        // of the segment last.
        let marks = self.groups.iter().map(|(cell, group)| {
            let (index, term) = group.purged;
            (*cell, Content::Mark { index, term })
        });
        self.write(marks.collect())?;
        while self.full.front().is_some_and(|(_, highest)| self.is_free(highest))
            && let Some((number, _)) = self.full.pop_front()
        {
            self.spares.put(number, &path_of(&self.options.dir, number))?;
        }
        self.disk.sync_dir(&self.options.dir)
    }

    /// Does a little of what makes turning to the next segment quick. To be called after every batch, when nobody waits.
    /// After an error the log must not be used again, as after one of [`Segments::append`].
    pub fn prepare(&mut self) -> io::Result<()> {
        self.spares.prepare()
    }

    fn write(&mut self, mut contents: Vec<(CellId, Content)>) -> io::Result<()> {
        let batch = self.tail.batch + 1;
        if batch > record::BATCH_MAX {
            return Err(io::Error::other(
                "the log's batch numbers are used up: a record on the disk is not ours",
            ));
        }
        let mut chain = self.encode(&contents, batch);
        if self.tail.offset + self.buffer.len() > usize::try_from(self.capacity).unwrap_or(usize::MAX) {
            // The records that open a new segment make it stand for itself: those before may be purged.
            let opening = self.groups.iter().flat_map(|(cell, group)| {
                let (index, term) = group.purged;
                [Content::Mark { index, term }, Content::State(group.hard_state)].map(|it| (*cell, it))
            });
            contents = opening.chain(contents).collect();
            self.full.push_back((self.tail.segment, self.written.clone()));
            self.tail.segment += 1;
            self.tail.offset = HEADER_SIZE;
            chain = self.encode(&contents, batch);
            let needed = (HEADER_SIZE + self.buffer.len()) as u64;
            let spare = self.spares.take();
            self.current =
                make(&*self.disk, &self.options, spare, &self.tail, needed.max(self.options.segment_bytes))?;
            self.capacity = self.current.len()?;
        }
        self.current.write_all_at(&self.buffer, self.tail.offset as u64)?;
        self.current.sync_data()?;
        self.tail.offset += self.buffer.len();
        self.tail.chain = chain;
        self.tail.batch = batch;
        self.written = self.groups.iter().map(|(cell, group)| (*cell, group.highest)).collect();
        Ok(())
    }

    /// Fills the buffer with the records of `contents` as they stand behind the tail; returns the chain after them.
    fn encode(&mut self, contents: &[(CellId, Content)], batch: u64) -> u32 {
        self.buffer.clear();
        let mut chain = self.tail.chain;
        for (position, (cell, content)) in contents.iter().enumerate() {
            let last = position + 1 == contents.len();
            let place = Place { cell: *cell, segment: self.tail.segment, batch, last };
            record::encode(&mut self.buffer, content, place, &mut chain);
        }
        chain
    }
}

/// Makes a segment of zeros with its header, durably: a purged one used again, or a new one.
fn make(
    disk: &dyn Disk,
    options: &LogOptions,
    spare: Option<PathBuf>,
    tail: &Tail,
    bytes: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let path = path_of(&options.dir, tail.segment);
    let beside = options.dir.join("next.tmp");
    let file = match spare {
        Some(spare) => {
            disk.rename(&spare, &beside)?;
            disk.open(&beside, OpenMode::Write)?
        }
        None => {
            remove_if_there(disk, &beside)?;
            disk.open(&beside, OpenMode::CreateNew)?
        }
    };
    write_zeros(&*file, file.len()?, bytes)?;
    let owner = Owner { cluster: options.cluster, master: options.master };
    let header = SegmentHeader { number: tail.segment, chain: tail.chain };
    file.write_all_at(&header.encode(owner), 0)?;
    file.sync_data()?;
    disk.rename(&beside, &path)?;
    disk.sync_dir(&options.dir)?;
    Ok(file)
}

/// Overwrites what a torn batch left behind `offset`, so that it can never be taken for a part of the log.
fn cut(file: &dyn DiskFile, offset: usize) -> io::Result<()> {
    write_zeros(file, offset as u64, file.len()?)?;
    file.sync_data()
}
