//! A message of the consensus core to that of another master, in our own form: neither the library's nor the schema's.

use bytes::Bytes;

use super::LogEntry;

/// A message. What it means is the library's; [`super::Node::step`] refuses what no correct peer sends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// The library's kind of message.
    pub kind: u32,
    /// Number and life of the master it is for.
    pub to: u64,
    /// Number and life of its sender.
    pub from: u64,
    /// The sender's term.
    pub term: u64,
    /// The term of the entry at `index`.
    pub log_term: u64,
    /// An entry of the log.
    pub index: u64,
    /// Entries behind that one.
    pub entries: Vec<LogEntry>,
    /// What is committed.
    pub commit: u64,
    /// The term of that entry.
    pub commit_term: u64,
    /// An answer says no.
    pub reject: bool,
    /// Where the logs may part.
    pub reject_hint: u64,
    /// What comes back with the answer.
    pub context: Bytes,
    /// The sender's priority; nobody here sets one.
    pub priority: i64,
    /// Nobody here asks for a snapshot by a message.
    pub request_snapshot: u64,
    /// The snapshot that it tells of.
    pub snapshot: Option<SnapshotOf>,
}

/// What a snapshot is of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotOf {
    /// The last entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The voters as of then: number and life.
    pub voters: Vec<u64>,
    /// The learners as of then.
    pub learners: Vec<u64>,
}

impl Message {
    /// The entry that the snapshot it tells of is of; 0 if it tells of none.
    #[must_use]
    pub fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index)
    }
}
