//! Appends batches to the newest segment and turns to the next one when it is full.
//!
//! Segments are filled with zeros before they are used, and purged ones are used again ([`Spares`]): an `fdatasync` then
//! writes data only, no file-system metadata, which halves its cost.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, DiskFile};
use mooseng_types::{ClusterId, MasterId};

use super::record::{self, Content, HEADER_SIZE, Owner, Place, SegmentHeader};
use super::recover::{self, LogOpenError, Tail, path_of};
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
    /// Number of each full segment and the highest index written until its end, oldest first.
    full: VecDeque<(u64, u64)>,
    spares: Spares,
    /// The highest index written so far: a segment is free when this one, as of its end, is purged.
    highest_index: u64,
    hard_state: HardState,
    purged: (u64, u64),
    buffer: Vec<u8>,
}

impl Segments {
    /// Opens the log, making an empty one where there is none, and tells what it holds.
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<(Self, Recovered), LogOpenError> {
        let owner = Owner { cluster: options.cluster, master: options.master };
        let io = |source| LogOpenError::Io { path: options.dir.clone(), source };
        // A process that was killed may have left names that the disk does not have yet. What is appended to such a
        // segment would go with its name when the power goes.
        disk.sync_dir(&options.dir).map_err(io)?;
        let replay = recover::replay(&*disk, &options.dir, owner)?;
        let mut full: VecDeque<_> = replay.segments.into();
        let recovered = replay.recovered;
        let highest_index = full.back().map_or(0, |(_, highest)| *highest);
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
        let (hard_state, purged) = (recovered.hard_state, recovered.purged);
        let spares = Spares::open(Arc::clone(&disk), &options.dir, options.segment_bytes).map_err(io)?;
        let buffer = Vec::new();
        let segments = Self {
            disk,
            options,
            current,
            capacity,
            tail,
            full,
            spares,
            highest_index,
            hard_state,
            purged,
            buffer,
        };
        Ok((segments, recovered))
    }

    /// Appends everything in `batches` and makes it durable with one sync. After an error the log must not be used
    /// again: what is on the disk is not known.
    pub fn append(&mut self, batches: &[Persist]) -> io::Result<()> {
        let Some(last) = batches.last() else { return Ok(()) };
        let restart = batches.iter().rposition(|batch| batch.snapshot.is_some());
        let batches = &batches[restart.unwrap_or(0)..];
        let snapshot = batches.first().and_then(|batch| batch.snapshot);
        let restart = snapshot.map(|(index, term)| Content::Restart { index, term });
        let entries = batches.iter().flat_map(|batch| batch.entries.iter().cloned().map(Content::Entry));
        let contents = restart.into_iter().chain(entries).chain([Content::State(last.hard_state)]).collect();
        self.hard_state = last.hard_state;
        self.purged = snapshot.unwrap_or(self.purged);
        self.write(contents)?;
        if let Some((index, _)) = snapshot {
            self.highest_index = index;
            self.free_all_full()?;
        }
        if let Some(highest) =
            batches.iter().flat_map(|batch| batch.entries.last()).map(|entry| entry.index).max()
        {
            self.highest_index = highest.max(self.highest_index);
        }
        Ok(())
    }

    /// Brings the log and a store that begins behind the entry `base` (index and term) together: a crash may have come
    /// after the store took the place of the one before, and before the log did.
    pub fn begin_behind(&mut self, base: (u64, u64), recovered: &mut Recovered) -> io::Result<()> {
        let (index, term) = base;
        let leads_on = recovered.purged.0 > index
            || recovered.purged == base
            || recovered.entries.iter().any(|entry| (entry.index, entry.term) == base);
        if !leads_on {
            self.restart_behind(index, term)?;
            *recovered = Recovered { hard_state: self.hard_state, purged: base, entries: Vec::new() };
        }
        Ok(())
    }

    /// The log begins anew behind `index`, without an entry; the voter's state stays, with a term not below `term`.
    fn restart_behind(&mut self, index: u64, term: u64) -> io::Result<()> {
        let hard_state = HardState { term: self.hard_state.term.max(term), commit: index, ..self.hard_state };
        let hard_state = if hard_state.term == self.hard_state.term {
            hard_state
        } else {
            HardState { vote: 0, ..hard_state }
        };
        let snapshot = Some((index, term));
        self.append(&[Persist { number: 0, snapshot, entries: Vec::new(), hard_state }])
    }

    /// Nothing before the newest segment counts any more.
    fn free_all_full(&mut self) -> io::Result<()> {
        self.full.iter_mut().for_each(|(_, highest)| *highest = 0);
        self.free_full(0)
    }

    /// Notes, durably, that entries up to `index` (of `term`) are purged, and frees the segments that hold nothing else.
    pub fn purge(&mut self, index: u64, term: u64) -> io::Result<()> {
        if index <= self.purged.0 {
            return Ok(());
        }
        self.purged = (index, term);
        if self.full.front().is_none_or(|(_, last)| *last > index) {
            return Ok(());
        }
        // The mark must be durable before the entries it stands for are gone.
        self.write(vec![Content::Mark { index, term }])?;
        self.free_full(index)
    }

    /// Frees the segments in which nothing is above `index`, oldest first.
    fn free_full(&mut self, index: u64) -> io::Result<()> {
        while let Some((number, _)) = self.full.pop_front_if(|(_, last)| *last <= index) {
            self.spares.put(number, &path_of(&self.options.dir, number))?;
        }
        self.disk.sync_dir(&self.options.dir)
    }

    /// Does a little of what makes turning to the next segment quick. To be called after every batch, when nobody waits.
    /// After an error the log must not be used again, as after one of [`Segments::append`].
    pub fn prepare(&mut self) -> io::Result<()> {
        self.spares.prepare()
    }

    fn write(&mut self, mut contents: Vec<Content>) -> io::Result<()> {
        let batch = self.tail.batch + 1;
        if batch > record::BATCH_MAX {
            return Err(io::Error::other(
                "the log's batch numbers are used up: a record on the disk is not ours",
            ));
        }
        let mut chain = self.encode(&contents, batch);
        if self.tail.offset + self.buffer.len() > usize::try_from(self.capacity).unwrap_or(usize::MAX) {
            // The records that open a new segment make it stand for itself: those before may be purged.
            let (index, term) = self.purged;
            contents.splice(0..0, [Content::Mark { index, term }, Content::State(self.hard_state)]);
            self.full.push_back((self.tail.segment, self.highest_index));
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
        Ok(())
    }

    /// Fills the buffer with the records of `contents` as they stand behind the tail; returns the chain after them.
    fn encode(&mut self, contents: &[Content], batch: u64) -> u32 {
        self.buffer.clear();
        let mut chain = self.tail.chain;
        for (position, content) in contents.iter().enumerate() {
            let place = Place { segment: self.tail.segment, batch, last: position + 1 == contents.len() };
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
