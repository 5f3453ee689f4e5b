//! Consensus: one log that a majority of masters has on disk, behind a facade. Nothing outside this folder names the
//! Raft library.
//!
//! - [`node`]: the sans-I/O core: ticks, messages and proposals in; entries to persist, messages to send and committed
//!   entries out. Persist before send is an order inside its output.
//! - [`log`]: the log on disk and its writer thread, which syncs once for all that has gathered meanwhile.
//! - [`memory_log`]: the part of the log that the core reads, in memory from the last purge on.
//! - `message`: what goes between masters; `convert`: the library's messages to and from our own, field by field; `admit`: which of them reach the core.

mod admit;
mod convert;
pub mod log;
mod memory_log;
mod message;
pub mod node;

pub use message::{Message, SnapshotOf};
pub(crate) use node::MESSAGE_MAX;
pub use node::{ChangeError, MembershipChange, Node, NodeConfig, Output, Persist, ProposeError, Role};

use bytes::Bytes;

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogEntry {
    /// The leader's term.
    pub term: u64,
    /// Its place, counted from 1 without gaps.
    pub index: u64,
    /// The library's kind of entry: 0 carries a command or, from a new leader, nothing.
    pub kind: u8,
    /// The command's bytes.
    pub data: Bytes,
}

/// What a voter must never forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The highest term seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// A lower bound of the committed index.
    pub commit: u64,
}

/// What the log held when it was opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// The last state of the voter.
    pub hard_state: HardState,
    /// Index and term of the last entry that is no longer kept.
    pub purged: (u64, u64),
    /// All entries after it.
    pub entries: Vec<LogEntry>,
}
