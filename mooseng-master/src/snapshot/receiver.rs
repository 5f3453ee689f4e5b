//! The receiving side: checks what comes, passes it on to the store that is being made, and says when it counts.

use bytes::Bytes;
use mooseng_meta::{Landmark, Membership, landmark};
use mooseng_types::Levels;

use super::rows_hash::RowsHash;
use super::{Ending, Flaw, KEY_MAX, SnapshotError, SnapshotSink, VALUE_MAX};
use crate::raft::Message;

/// A snapshot that is coming in. It is of no more use after an error: drop it, and its sink leaves nothing.
pub struct Receiving<S> {
    message: Message,
    index: u64,
    term: u64,
    sink: S,
    levels: Levels,
    rows: u64,
    bytes: u64,
    hash: RowsHash,
    last: Bytes,
    format_seen: bool,
    applied_index: Option<u64>,
    membership: Option<Membership>,
}

/// A snapshot that has come in whole.
#[derive(Debug)]
pub struct Received<T> {
    /// What the consensus core is to be told.
    pub message: Message,
    /// The rows; durable, where they are on a disk.
    pub store: T,
    /// The group of masters as of the snapshot.
    pub membership: Membership,
    /// How many rows there are.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

impl<S> std::fmt::Debug for Receiving<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { index, rows, bytes, .. } = self;
        f.debug_struct("Receiving")
            .field("index", index)
            .field("rows", rows)
            .field("bytes", bytes)
            .finish_non_exhaustive()
    }
}

impl<S: SnapshotSink> Receiving<S> {
    /// Begins to receive into `sink`, which is empty, for a master that knows these levels.
    pub fn begin(message: Message, sink: S, levels: Levels) -> Result<Self, SnapshotError> {
        let refused = SnapshotError::Refused { row: 0, flaw: Flaw::NoSnapshot };
        let (index, term) = match &message.snapshot {
            Some(snapshot) if snapshot.index > 0 && snapshot.term > 0 => (snapshot.index, snapshot.term),
            _ => return Err(refused),
        };
        Ok(Self {
            message,
            index,
            term,
            sink,
            levels,
            rows: 0,
            bytes: 0,
            hash: RowsHash::default(),
            last: Bytes::new(),
            format_seen: false,
            applied_index: None,
            membership: None,
        })
    }

    /// The message that it began with: who sends, and what the snapshot is of.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Takes rows in. When this returns the frame may be answered, and the sender sends the next.
    pub fn rows(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), SnapshotError> {
        if rows.is_empty() {
            return Err(self.refused(Flaw::NoRows));
        }
        for (key, value) in &rows {
            self.check(key, value).map_err(|flaw| self.refused(flaw))?;
            self.hash.row(key, value);
            self.rows += 1;
            self.bytes += (key.len() + value.len()) as u64;
            self.last = key.clone();
        }
        self.sink.write(rows).map_err(|error| SnapshotError::Sink(Box::new(error)))
    }

    /// There are no more rows: checks all that only the whole can show, and makes the store. What this returns counts;
    /// nothing did before.
    pub fn end(mut self, end: Ending) -> Result<Received<S::Store>, SnapshotError> {
        let membership = self.whole(end).map_err(|flaw| self.refused(flaw))?;
        let Self { message, index, term, sink, rows, bytes, .. } = self;
        let store = sink.finish((index, term)).map_err(|error| SnapshotError::Sink(Box::new(error)))?;
        Ok(Received { message, store, membership, rows, bytes })
    }

    fn refused(&self, flaw: Flaw) -> SnapshotError {
        SnapshotError::Refused { row: self.rows, flaw }
    }

    fn check(&mut self, key: &Bytes, value: &Bytes) -> Result<(), Flaw> {
        if key.len() > KEY_MAX || value.len() > VALUE_MAX {
            return Err(Flaw::TooLong { key: key.len(), value: value.len() });
        }
        // No key is empty, so the first is above this too.
        if *key <= self.last {
            return Err(Flaw::Order);
        }
        match landmark(key, value)? {
            Some(Landmark::Base { .. }) => return Err(Flaw::HasBase),
            Some(Landmark::Level(level)) if !self.levels.has(level) => {
                return Err(Flaw::Level { level, levels: self.levels });
            }
            Some(Landmark::Format) => self.format_seen = true,
            Some(Landmark::AppliedIndex(index)) => self.applied_index = Some(index),
            Some(Landmark::Membership(membership)) => self.membership = Some(membership),
            _ => {}
        }
        Ok(())
    }

    fn whole(&mut self, end: Ending) -> Result<Membership, Flaw> {
        if end.rows != self.rows {
            return Err(Flaw::Count { sent: end.rows, come: self.rows });
        }
        if end.hash != self.hash.value() {
            return Err(Flaw::Hash);
        }
        if !self.format_seen {
            return Err(Flaw::Missing("format"));
        }
        let found = self.applied_index.ok_or(Flaw::Missing("applied index"))?;
        if found != self.index {
            return Err(Flaw::Index { found, said: self.index });
        }
        self.membership.take().ok_or(Flaw::Missing("group of masters"))
    }
}
