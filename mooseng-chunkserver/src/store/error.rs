//! Why the store did not do what was asked, by what the asker would do differently.

use std::io;
use std::path::PathBuf;

use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkCause, ChunkId, ChunkVersion};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no copy, and the token does not allow to make one.
    #[error("{chunk}: no copy here")]
    NotFound {
        /// Which chunk.
        chunk: ChunkId,
    },
    /// The copy missed a lease: it must not take part.
    #[error("{chunk}: the copy has version {have}, older than {need}")]
    Stale {
        /// Which chunk.
        chunk: ChunkId,
        /// The copy's version.
        have: ChunkVersion,
        /// The oldest that would do.
        need: ChunkVersion,
    },
    /// The copy has seen a newer lease than the asker's.
    #[error("{chunk}: the copy has version {have}, the lease is of version {lease}")]
    Fenced {
        /// Which chunk.
        chunk: ChunkId,
        /// The copy's version.
        have: ChunkVersion,
        /// The version of the lease that came too late.
        lease: ChunkVersion,
    },
    /// The server stopped while the copy was written under this lease, and cannot tell what of it was lost. Only a
    /// later lease, whose holder writes again what it had not synced, makes the copy good.
    #[error("{chunk}: the server stopped while it was written under version {version}")]
    Interrupted {
        /// Which chunk.
        chunk: ChunkId,
        /// The version of the lease.
        version: ChunkVersion,
    },
    /// The copy may lack what was written before a crash, and one that does not was asked for.
    #[error("{chunk}: the copy is in doubt since a crash")]
    InDoubt {
        /// Which chunk.
        chunk: ChunkId,
    },
    /// The disk is full up to its reserve.
    #[error("{chunk}: no space on the disk")]
    NoSpace {
        /// Which chunk.
        chunk: ChunkId,
    },
    /// The bytes that arrived are not those that were sent.
    #[error("{chunk}: damaged on the way, send it again")]
    DamagedOnTheWay {
        /// Which chunk.
        chunk: ChunkId,
    },
    /// The copy is damaged. It has been moved aside and reported lost.
    #[error("{chunk}: the copy is broken: {why}")]
    Broken {
        /// Which chunk.
        chunk: ChunkId,
        /// What is wrong with it.
        why: String,
    },
    /// The disk fails. It is out of use from now on.
    #[error("{chunk}: the disk at {} fails", path.display())]
    Disk {
        /// Which chunk.
        chunk: ChunkId,
        /// The disk's directory.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// Every disk of the server is out of use.
    #[error("{chunk}: every disk of the server has failed")]
    NoDisk {
        /// Which chunk.
        chunk: ChunkId,
    },
    /// Not now: the same request may succeed in a moment.
    #[error("{chunk}: {why}")]
    Busy {
        /// Which chunk.
        chunk: ChunkId,
        /// What is in the way.
        why: &'static str,
    },
    /// A range outside the chunk, or a request that makes no sense.
    #[error("{chunk}: {what}")]
    Invalid {
        /// Which chunk.
        chunk: ChunkId,
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
            Self::Invalid { .. } => return None,
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
