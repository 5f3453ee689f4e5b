//! What a program is told when an operation fails.

use mooseng_protocol::convert::BadMessage;
use mooseng_types::{ChunkCause, FsError};

/// Why written bytes are not, and will not be, part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// The session ended before they were committed.
    #[error("the session expired before the data was committed")]
    SessionExpired,
    /// Another client got the write lease before they were committed.
    #[error("another client got the write lease before the data was committed")]
    LeaseTaken,
    /// Every server that had them stopped before a sync covered them.
    #[error("every chunkserver that had the data stopped before it was synced")]
    Interrupted,
    /// No chain took them within the limit.
    #[error("the chunkservers could not write the data: {0}")]
    Unwritable(ChunkCause),
    /// The masters refused the lease or the commit.
    #[error("the masters refused the data: {0}")]
    Refused(FsError),
    /// The masters did not answer within the limit.
    #[error("the masters did not answer in time")]
    NoAnswer,
}

/// Why a range of a file cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// Every copy of some block is damaged, gone or stale.
    #[error("every copy is damaged or gone")]
    NoWholeCopy,
    /// No server that has a copy answered within the limit.
    #[error("no chunkserver that has a copy answered in time")]
    NoAnswer,
}

/// An operation without a result.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The answer is no.
    #[error(transparent)]
    Refused(#[from] FsError),
    /// Written data is lost.
    #[error(transparent)]
    Lost(#[from] Loss),
    /// Data cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Tried until the limit of `retry_ms`; it is not known whether it was done.
    #[error("{what}: gave up after {after_ms} ms: {last}")]
    GaveUp {
        /// What was tried.
        what: &'static str,
        /// For how long.
        after_ms: u64,
        /// How the last try ended.
        last: String,
    },
    /// The session expired while the request was under way: it may or may not have been done.
    #[error("{what}: the session expired while it was under way")]
    InDoubt {
        /// What was tried.
        what: &'static str,
    },
    /// The other side will never do it, or its answer makes no sense.
    #[error("{what}: {message}")]
    Rejected {
        /// What was tried.
        what: &'static str,
        /// Why, for people.
        message: String,
    },
    /// The client has been closed.
    #[error("the client has been closed")]
    Closed,
}

const EIO: i32 = 5;

impl ClientError {
    /// The `errno` that a program sees (Linux numbers).
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Refused(error) | Self::Lost(Loss::Refused(error)) => error.errno(),
            Self::Lost(Loss::Unwritable(ChunkCause::Full)) => FsError::NoSpace.errno(),
            Self::Lost(_)
            | Self::Unreadable(_)
            | Self::GaveUp { .. }
            | Self::InDoubt { .. }
            | Self::Rejected { .. }
            | Self::Closed => EIO,
        }
    }

    /// Whether this is the refusal `error`.
    #[must_use]
    pub fn is(&self, error: FsError) -> bool {
        matches!(self, Self::Refused(mine) if *mine == error)
    }
}

impl From<BadMessage> for ClientError {
    fn from(bad: BadMessage) -> Self {
        Self::Rejected { what: "reply", message: bad.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_errno_and_anything_else_is_an_input_output_error() {
        assert_eq!(ClientError::from(FsError::NotEmpty).errno(), 39);
        assert_eq!(ClientError::from(Loss::Unwritable(ChunkCause::Full)).errno(), 28);
        assert_eq!(ClientError::from(Loss::Refused(FsError::NoSpace)).errno(), 28);
        assert_eq!(ClientError::from(Loss::Interrupted).errno(), 5);
        assert_eq!(ClientError::Closed.errno(), 5);
        assert!(ClientError::from(FsError::NoSpace).is(FsError::NoSpace));
        assert!(!ClientError::Closed.is(FsError::Io));
    }
}
