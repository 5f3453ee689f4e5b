//! The log as the core reads it: in memory, from the last purge on. What is purged is in the store of every master
//! that the leader knows of, so its size stays within what the slowest master lags behind plus one flush of the store.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

pub(super) struct MemoryLog {
    pub(super) hard_state: HardState,
    pub(super) conf_state: ConfState,
    /// Index and term of the last entry that is gone.
    purged: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl MemoryLog {
    pub(super) fn new(
        hard_state: HardState,
        conf_state: ConfState,
        purged: (u64, u64),
        entries: Vec<Entry>,
    ) -> Self {
        let bytes = entries.iter().map(|entry| entry.data.len()).sum();
        Self { hard_state, conf_state, purged, entries: entries.into(), bytes }
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

    /// Forgets entries up to and with `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.index <= index) {
            self.purged = (entry.index, entry.term);
            self.bytes -= entry.data.len();
        }
    }

    pub(super) fn purged(&self) -> (u64, u64) {
        self.purged
    }

    pub(super) fn last(&self) -> u64 {
        self.purged.0 + self.entries.len() as u64
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
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

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // The log is purged only behind every voter, so no voter ever needs one.
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
