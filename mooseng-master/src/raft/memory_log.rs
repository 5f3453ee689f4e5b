//! The log as the core reads it: in memory, from the last purge on. Its size is bounded: what the store has and every
//! member has on disk goes, and of a member that lags far behind the store only; that one gets a snapshot.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

/// For a member that is being sent a snapshot, so many times the usual is kept.
const KEEP_BEHIND_SNAPSHOT: usize = 8;

/// The last entry in a snapshot that could be sent now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SnapshotPoint {
    pub(super) index: u64,
    pub(super) term: u64,
}

pub(super) struct MemoryLog {
    pub(super) hard_state: HardState,
    pub(super) conf_state: ConfState,
    /// Index and term of the last entry that is gone.
    purged: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Bytes of commands kept for members that lag behind.
    pub(super) keep_bytes: usize,
    /// `None` while no snapshot can be taken.
    pub(super) snapshot_point: Option<SnapshotPoint>,
    /// One was asked for in vain.
    pub(super) snapshot_wanted: Cell<bool>,
    /// The last entry that changed the group: a snapshot before it would not know its receiver.
    pub(super) conf_index: u64,
}

impl MemoryLog {
    pub(super) fn new(
        hard_state: HardState,
        conf_state: ConfState,
        purged: (u64, u64),
        entries: Vec<Entry>,
    ) -> Self {
        let bytes = entries.iter().map(|entry| entry.data.len()).sum();
        Self {
            hard_state,
            conf_state,
            purged,
            entries: entries.into(),
            bytes,
            keep_bytes: usize::MAX,
            snapshot_point: None,
            snapshot_wanted: Cell::new(false),
            conf_index: 0,
        }
    }

    /// Appends `entries`, replacing those from the first one's index on.
    ///
    /// # Panics
    /// If that would leave a gap or rewrite what is purged: the core never asks for it.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.purged.0 && first.index <= self.last() + 1,
            "append leaves a gap in the log"
        );
        while self.last() >= first.index {
            self.bytes -= self.entries.pop_back().map_or(0, |entry| entry.data.len());
        }
        self.bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to `durable`: those that all members have, and of the others as many as are too many.
    /// `on_its_way`: the last entry of a snapshot that is being sent.
    pub(super) fn purge(&mut self, durable: u64, all_have: u64, on_its_way: Option<u64>) {
        loop {
            let many = self.bytes > self.keep_bytes;
            let far_too_many = self.bytes > self.keep_bytes.saturating_mul(KEEP_BEHIND_SNAPSHOT);
            let goes = |entry: &mut Entry| {
                let needed = on_its_way.is_some_and(|last| entry.index > last) && !far_too_many;
                entry.index <= durable && (entry.index <= all_have || (many && !needed))
            };
            let Some(entry) = self.entries.pop_front_if(goes) else { return };
            self.purged = (entry.index, entry.term);
            self.bytes -= entry.data.len();
        }
    }

    /// A snapshot has taken the place of everything up to `purged`, and of whatever came after.
    pub(super) fn restart_behind(&mut self, purged: (u64, u64), conf_state: ConfState) {
        self.entries.clear();
        self.bytes = 0;
        self.purged = purged;
        self.conf_state = conf_state;
        self.conf_index = purged.0;
        self.snapshot_point = None;
    }

    pub(super) fn purged(&self) -> (u64, u64) {
        self.purged
    }

    pub(super) fn last(&self) -> u64 {
        self.purged.0 + self.entries.len() as u64
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.purged.0 + 1)?).ok()
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let start = self.position(low).ok_or(Error::Store(StorageError::Compacted))?;
        let end = self.position(high).unwrap_or(0).min(self.entries.len());
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut out = Vec::with_capacity(end.saturating_sub(start));
        for entry in self.entries.range(start..end.max(start)) {
            size += entry.data.len() as u64 + 32;
            if size > limit && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.purged.0 {
            return Ok(self.purged.1);
        }
        let position = self.position(index).ok_or(Error::Store(StorageError::Compacted))?;
        self.entries.get(position).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.purged.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let needed = request_index.max(self.conf_index).max(self.purged.0);
        let Some(point) = self.snapshot_point.filter(|point| point.index >= needed) else {
            self.snapshot_wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = point.index;
        metadata.term = point.term;
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}
