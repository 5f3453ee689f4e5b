//! What a program is told when an operation fails.

use mooseng_protocol::convert::BadMessage;
use mooseng_types::FsError;

/// An operation without a result.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The answer is no.
    #[error(transparent)]
    Refused(#[from] FsError),
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
            Self::Refused(error) => error.errno(),
            Self::GaveUp { .. } | Self::Rejected { .. } | Self::Closed => EIO,
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
        assert_eq!(ClientError::Closed.errno(), 5);
        assert!(ClientError::from(FsError::NoSpace).is(FsError::NoSpace));
        assert!(!ClientError::Closed.is(FsError::Io));
    }
}
