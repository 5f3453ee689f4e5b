//! The log on disk, one for all groups of a process: segments of chained records, one writer thread, one `fdatasync` for
//! all that has gathered while the one before was under way.
//!
//! - [`record`]: the bytes of a record and of a segment's header, and nothing else.
//! - [`recover`]: reads the segments back: cuts a torn tail, refuses damage in the middle.
//! - [`segments`]: appends batches to the current segment and turns to the next.
//! - [`spares`]: what is purged, or prepared, to be the next segment.
//! - [`writer`]: the thread.
//!
//! `docs/formats/raft-log.md` draws the layout.

mod record;
mod recover;
mod segments;
mod spares;
mod writer;

pub use record::{LogFormatError, MARK_SIZE};
pub use recover::LogOpenError;
pub use segments::{Holder, LogOptions, Segments};
pub use writer::{LogWriter, Work, Written};

#[cfg(test)]
mod tests;
