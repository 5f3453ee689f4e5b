//! A master that lacks more than the log still holds gets all rows from the leader: begin, rows in the order of their
//! keys, end with their number and hash.
//!
//! Neither side ever has more than a few frames in memory. The sender reads a view of its store, so it goes on
//! meanwhile; the receiver writes a store of its own, and nothing of it counts before the end has been checked.

mod receiver;
mod rows_hash;
mod sender;

use bytes::Bytes;
use mooseng_meta::{CodecError, MemoryStore};
use mooseng_protocol::status::CallError;
use mooseng_types::{Level, Levels};

pub use receiver::{Received, Receiving};
pub use sender::{Ending, Sent, SnapshotFrame, frames};

use crate::store::{FjallStore, IncomingError, IncomingStore};

/// The longest key that is sent; the longest that a master makes has 272 bytes.
pub const KEY_MAX: usize = 1 << 10;
/// The longest value that is sent.
pub const VALUE_MAX: usize = 1 << 20;

/// Why a snapshot does not come across. It counts as not sent; the leader begins anew when it still finds the receiver
/// behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Sender: the connection or the receiver failed.
    #[error("send a snapshot, after {rows} rows")]
    Call {
        /// Rows that were sent before.
        rows: u64,
        /// What the receiver said, or how the connection ended.
        source: CallError,
    },
    /// Sender: this master is stopping.
    #[error("this master is stopping")]
    Stopped,
    /// Sender: its own store cannot be sent. Sending again does not help.
    #[error("this master's store cannot be sent: {0}")]
    Unsendable(Flaw),
    /// Receiver: this is not what a sender sends. What has come is removed; it has to be sent again.
    #[error("the snapshot is refused at row {row}: {flaw}; the sender must send it again")]
    Refused {
        /// Rows that had come before.
        row: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// Receiver: its own disk does not take the rows. What has come is removed.
    #[error("receive a snapshot; see whether this master's disk is full or broken")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is wrong with a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// It begins without a message of a snapshot.
    #[error("it does not say what it is a snapshot of")]
    NoSnapshot,
    /// A frame of rows has none.
    #[error("a frame has no rows")]
    NoRows,
    /// A row does not come after the one before it.
    #[error("the rows are not in order")]
    Order,
    /// A key or a value is longer than any.
    #[error("a row of {key} and {value} bytes is too long")]
    TooLong {
        /// The length of its key.
        key: usize,
        /// The length of its value.
        value: usize,
    },
    /// The base row, which every store has of its own, is among the rows.
    #[error("it has the sender's base row")]
    HasBase,
    /// A row that says what the store is cannot be read here.
    #[error("a row that says what the store is: {0}")]
    Landmark(#[from] CodecError),
    /// It is of a level that this master does not know.
    #[error(
        "it has level {level}, this master knows {levels}: run a release that knows it, or raise level_max"
    )]
    Level {
        /// The level it has.
        level: Level,
        /// The levels that this master knows.
        levels: Levels,
    },
    /// A row that every store has is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// The store is as of another entry than was said.
    #[error("its rows are as of entry {found}, not {said}")]
    Index {
        /// What the rows say.
        found: u64,
        /// What the message says.
        said: u64,
    },
    /// Not as many rows as were sent.
    #[error("{sent} rows were sent, {come} have come")]
    Count {
        /// By the sender's count.
        sent: u64,
        /// By the receiver's.
        come: u64,
    },
    /// The rows are not those that were sent.
    #[error("the rows' hash is not the one that was sent")]
    Hash,
}

/// Where a receiver puts rows. Dropping it leaves nothing of them.
pub trait SnapshotSink {
    /// What it becomes.
    type Store;
    /// Why it cannot take rows.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Takes rows, whose keys are above all before.
    fn write(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), Self::Error>;

    /// All rows are there: adds that the store began with the entry `base` (index and term). Durable on return, where
    /// the sink is a disk.
    fn finish(self, base: (u64, u64)) -> Result<Self::Store, Self::Error>;
}

impl SnapshotSink for IncomingStore {
    type Store = FjallStore;
    type Error = IncomingError;

    fn write(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), IncomingError> {
        Self::write(self, rows)
    }

    fn finish(self, base: (u64, u64)) -> Result<FjallStore, IncomingError> {
        Self::finish(self, base)
    }
}

/// Rows into memory, for the simulator and tests.
#[derive(Debug, Default)]
pub struct MemorySink(Vec<(Bytes, Bytes)>);

impl SnapshotSink for MemorySink {
    type Store = MemoryStore;
    type Error = std::convert::Infallible;

    fn write(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), Self::Error> {
        self.0.extend(rows);
        Ok(())
    }

    fn finish(mut self, (index, term): (u64, u64)) -> Result<MemoryStore, Self::Error> {
        use mooseng_meta::{Batch, MetaStore as _, base_row};
        self.0.push(base_row(index, term));
        let store = MemoryStore::new();
        let rows = self.0.into_iter().map(|(key, value)| (key.to_vec(), Some(value))).collect();
        store.write(&Batch { applied_index: index, rows });
        Ok(store)
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
