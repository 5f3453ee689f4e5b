//! Why a chunkserver could not do its part of a request, by what the asker would do differently.

/// Why a chunkserver could not do its part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkCause {
    /// It has no copy, and the token does not let it make one.
    #[error("no copy here")]
    NoCopy,
    /// Its copy missed a lease and must not take part.
    #[error("the copy missed a write lease")]
    Stale,
    /// Its copy has seen a newer lease than the asker's.
    #[error("the copy has seen a newer write lease")]
    Fenced,
    /// It stopped while the copy was written: what no sync covered may be lost.
    #[error("the server stopped while the copy was written")]
    Interrupted,
    /// No disk has room.
    #[error("no space on the server's disks")]
    Full,
    /// Something passing is in the way: the same request may succeed in a moment.
    #[error("the server is busy")]
    Busy,
    /// Its copy is damaged; it has been moved aside and reported lost.
    #[error("the copy is damaged")]
    Damaged,
    /// The disk of its copy is out of use.
    #[error("the copy's disk has failed")]
    DiskFailed,
    /// The token's time is over: the masters give a new one.
    #[error("the chunk token has expired")]
    TokenExpired,
    /// The token is forged, or for something else.
    #[error("the chunk token does not allow this")]
    TokenInvalid,
    /// The bytes that arrived are not those that were sent.
    #[error("the bytes were damaged on the way")]
    Garbled,
    /// It could not be connected to, or the connection broke.
    #[error("the server was not reached")]
    Unreachable,
    /// It did not answer in time.
    #[error("the server did not answer in time")]
    Silent,
    /// It is being stopped in order.
    #[error("the server is stopping")]
    Stopping,
    /// Its copy may lack what was written before a crash, and one that does not was asked for.
    #[error("the copy is in doubt since a crash")]
    InDoubt,
}

/// Every cause with its number on the wire, never reused.
const TABLE: &[(ChunkCause, i32)] = &[
    (ChunkCause::NoCopy, 1),
    (ChunkCause::Stale, 2),
    (ChunkCause::Fenced, 3),
    (ChunkCause::Interrupted, 4),
    (ChunkCause::Full, 5),
    (ChunkCause::Busy, 6),
    (ChunkCause::Damaged, 7),
    (ChunkCause::DiskFailed, 8),
    (ChunkCause::TokenExpired, 9),
    (ChunkCause::TokenInvalid, 10),
    (ChunkCause::Garbled, 11),
    (ChunkCause::Unreachable, 12),
    (ChunkCause::Silent, 13),
    (ChunkCause::Stopping, 14),
    (ChunkCause::InDoubt, 15),
];

impl ChunkCause {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i32 {
        TABLE.iter().find(|row| row.0 == self).map_or(0, |row| row.1)
    }

    /// The cause with this number. One of a later release reads as [`ChunkCause::Busy`]: to be tried again.
    #[must_use]
    pub fn from_code(code: i32) -> Self {
        TABLE.iter().find(|row| row.1 == code).map_or(Self::Busy, |row| row.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_reads_back_and_no_number_is_used_twice() {
        for (i, &(cause, code)) in TABLE.iter().enumerate() {
            assert_eq!(ChunkCause::from_code(code), cause);
            assert_eq!(cause.code(), code);
            assert!(code > 0 && TABLE[..i].iter().all(|row| row.0 != cause && row.1 != code));
        }
        assert_eq!(ChunkCause::from_code(9999), ChunkCause::Busy);
    }
}
