//! Why the store did not do what was asked, by what the asker would do differently.

use std::io;
use std::path::PathBuf;

use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkCause, ChunkVersion, Part};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no copy, and the token does not allow to make one.
    #[error("{part}: no copy here")]
    NotFound {
        /// Which copy or part.
        part: Part,
    },
    /// The copy missed a lease: it must not take part.
    #[error("{part}: the copy has version {have}, older than {need}")]
    Stale {
        /// Which copy or part.
        part: Part,
        /// The copy's version.
        have: ChunkVersion,
        /// The oldest that would do.
        need: ChunkVersion,
    },
    /// The copy has seen a newer lease than the asker's.
    #[error("{part}: the copy has version {have}, the lease is of version {lease}")]
    Fenced {
        /// Which copy or part.
        part: Part,
        /// The copy's version.
        have: ChunkVersion,
        /// The version of the lease that came too late.
        lease: ChunkVersion,
    },
    /// The server stopped while the copy was written under this lease, and cannot tell what of it was lost. Only a
    /// later lease, whose holder writes again what it had not synced, makes the copy good.
    #[error("{part}: the server stopped while it was written under version {version}")]
    Interrupted {
        /// Which copy or part.
        part: Part,
        /// The version of the lease.
        version: ChunkVersion,
    },
    /// The copy may lack what was written before a crash, and one that does not was asked for.
    #[error("{part}: the copy is in doubt since a crash")]
    InDoubt {
        /// Which copy or part.
        part: Part,
    },
    /// The disk is full up to its reserve.
    #[error("{part}: no space on the disk")]
    NoSpace {
        /// Which copy or part.
        part: Part,
    },
    /// The bytes that arrived are not those that were sent.
    #[error("{part}: damaged on the way, send it again")]
    DamagedOnTheWay {
        /// Which copy or part.
        part: Part,
    },
    /// The copy is damaged. It has been moved aside and reported lost.
    #[error("{part}: the copy is broken: {why}")]
    Broken {
        /// Which copy or part.
        part: Part,
        /// What is wrong with it.
        why: String,
    },
    /// The disk fails. It is out of use from now on.
    #[error("{part}: the disk at {} fails", path.display())]
    Disk {
        /// Which copy or part.
        part: Part,
        /// The disk's directory.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// Every disk of the server is out of use.
    #[error("{part}: every disk of the server has failed")]
    NoDisk {
        /// Which copy or part.
        part: Part,
    },
    /// Not now: the same request may succeed in a moment.
    #[error("{part}: {why}")]
    Busy {
        /// Which copy or part.
        part: Part,
        /// What is in the way.
        why: &'static str,
    },
    /// A copy is to come back from quarantine, and the one that is here is as new.
    #[error("{part}: the copy here has version {have}, which is not older")]
    NotOlder {
        /// Which copy or part.
        part: Part,
        /// The version of the one that is here.
        have: ChunkVersion,
    },
    /// No copy of this version is in quarantine.
    #[error("{part}: no copy of version {version} is in quarantine here")]
    NotKept {
        /// Which copy or part.
        part: Part,
        /// The version that was asked for.
        version: ChunkVersion,
    },
    /// A range outside the chunk, or a request that makes no sense.
    #[error("{part}: {what}")]
    Invalid {
        /// Which copy or part.
        part: Part,
        /// What is wrong.
        what: &'static str,
    },
}

impl StoreError {
    /// What an asker is told; `None` for a request that will never be done, here or elsewhere.
    fn cause(&self) -> Option<ChunkCause> {
        Some(match self {
            Self::NotFound { .. } => ChunkCause::NoCopy,
            Self::Stale { .. } => ChunkCause::Stale,
            Self::Fenced { .. } => ChunkCause::Fenced,
            Self::Interrupted { .. } => ChunkCause::Interrupted,
            Self::InDoubt { .. } => ChunkCause::InDoubt,
            Self::NoSpace { .. } => ChunkCause::Full,
            Self::DamagedOnTheWay { .. } => ChunkCause::Garbled,
            Self::Broken { .. } => ChunkCause::Damaged,
            Self::Disk { .. } | Self::NoDisk { .. } => ChunkCause::DiskFailed,
            Self::Busy { .. } => ChunkCause::Busy,
            Self::NotOlder { .. } | Self::NotKept { .. } | Self::Invalid { .. } => return None,
        })
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error.cause() {
            Some(cause) => Self::Chunk { server: None, cause, message },
            None => Self::Rejected { message },
        }
    }
}
