//! Refusals: the answers of a file system that are not results. One table ties them to errno and to the wire.

/// Why an operation was refused. A refusal is an answer: the same on every replica, final, and nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// No such object or entry.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// A bad argument.
    #[error("invalid argument")]
    Invalid,
    /// Not allowed to this caller.
    #[error("operation not permitted")]
    NotPermitted,
    /// The permission bits forbid it.
    #[error("permission denied")]
    AccessDenied,
    /// A name above 255 bytes or a target above 4095.
    #[error("file name too long")]
    NameTooLong,
    /// Beyond the largest file.
    #[error("file too large")]
    FileTooLarge,
    /// No chunkserver has room, or there are no more ids.
    #[error("no space left on device")]
    NoSpace,
    /// A quota is used up.
    #[error("disk quota exceeded")]
    QuotaExceeded,
    /// Too many names for one object.
    #[error("too many links")]
    TooManyLinks,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The extended attribute's value is too big.
    #[error("attribute value too large")]
    AttributeTooBig,
    /// The handle's object is gone.
    #[error("stale file handle")]
    Stale,
    /// The object is in use; a lease of another session is being recalled, try again shortly.
    #[error("busy: another client holds the lease")]
    LeaseHeld,
    /// The lease under which this was sent has ended or been replaced.
    #[error("the write lease is not held any more")]
    LeaseLost,
    /// The session is not known: it has expired.
    #[error("the session has expired")]
    SessionExpired,
    /// Not supported for this object.
    #[error("operation not supported")]
    NotSupported,
    /// No readable copy, or a copy failed for good.
    #[error("input/output error")]
    Io,
    /// The file system is mounted or exported read-only.
    #[error("read-only file system")]
    ReadOnly,
    /// Something has it.
    #[error("in use")]
    InUse,
}

/// Every refusal with its number on the wire (never reused) and its errno.
const TABLE: &[(FsError, u32, i32)] = &[
    (FsError::NotFound, 1, 2),
    (FsError::Exists, 2, 17),
    (FsError::NotDirectory, 3, 20),
    (FsError::IsDirectory, 4, 21),
    (FsError::NotEmpty, 5, 39),
    (FsError::Invalid, 6, 22),
    (FsError::NotPermitted, 7, 1),
    (FsError::AccessDenied, 8, 13),
    (FsError::NameTooLong, 9, 36),
    (FsError::FileTooLarge, 10, 27),
    (FsError::NoSpace, 11, 28),
    (FsError::QuotaExceeded, 12, 122),
    (FsError::TooManyLinks, 13, 31),
    (FsError::NoAttribute, 14, 61),
    (FsError::AttributeTooBig, 15, 7),
    (FsError::Stale, 16, 116),
    (FsError::LeaseHeld, 17, 16),
    (FsError::LeaseLost, 18, 116),
    (FsError::SessionExpired, 19, 5),
    (FsError::NotSupported, 20, 95),
    (FsError::Io, 21, 5),
    (FsError::ReadOnly, 22, 30),
    (FsError::InUse, 23, 16),
];

impl FsError {
    fn row(self) -> (FsError, u32, i32) {
        TABLE.iter().copied().find(|row| row.0 == self).unwrap_or((FsError::Io, 21, 5))
    }

    /// The `errno` that a program sees (Linux numbers).
    #[must_use]
    pub fn errno(self) -> i32 {
        self.row().2
    }

    /// The number on the wire and in stored answers.
    #[must_use]
    pub fn code(self) -> u32 {
        self.row().1
    }

    /// The refusal with this number; a number of a later release reads as [`FsError::Io`].
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        TABLE.iter().find(|row| row.1 == code).map_or(FsError::Io, |row| row.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_reads_back_and_no_number_is_used_twice() {
        for (i, &(error, code, errno)) in TABLE.iter().enumerate() {
            assert_eq!(FsError::from_code(code), error);
            assert_eq!(error.code(), code);
            assert!(errno > 0);
            assert!(TABLE[..i].iter().all(|row| row.0 != error && row.1 != code));
        }
        assert_eq!(FsError::from_code(9999), FsError::Io);
    }
}
