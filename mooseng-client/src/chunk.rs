//! The vocabulary of chunks: where copies are, what a lease grants, what a commit names, what a chain answers. Values
//! that the cores ([`crate::file`]) and the edges share; the wire has forms of its own.

use bytes::Bytes;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_types::{Attr, ChunkCause, ChunkId, ChunkIndex, ChunkVersion, FsError, ServerId, TimeNs};

/// A chunkserver and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Which one.
    pub server: ServerId,
    /// "host:port".
    pub address: String,
}

/// What names a chunk to its servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRef {
    /// Which chunk.
    pub chunk: ChunkId,
    /// The version of the lease; for a reader the oldest that will do.
    pub version: ChunkVersion,
    /// The capability.
    pub token: Bytes,
}

/// A lease as it is used for requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which chunk, under which version.
    pub chunk: ChunkRef,
    /// The chain, in order.
    pub servers: Vec<Placement>,
}

/// A lease as the masters give it.
#[derive(Debug, Clone)]
pub struct Granted {
    /// What requests need.
    pub grant: Grant,
    /// Below the chunk size: every copy is to be cut here before anything is written.
    pub valid_length: u64,
    /// The file's content so far, to be written first.
    pub inline: Option<Bytes>,
    /// No copy exists yet.
    pub fresh: bool,
    /// The file's attributes as of the grant.
    pub attr: Option<Attr>,
}

/// Where a chunk is, and the right to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Which chunk of the file.
    pub index: ChunkIndex,
    /// What names it.
    pub chunk: ChunkRef,
    /// From here on the chunk reads as zero, whatever a copy holds.
    pub valid_length: u64,
    /// Who has it, in the order in which to ask.
    pub servers: Vec<Placement>,
    /// The copies may differ: they are asked strictly in order.
    pub differs: bool,
}

/// What opening or locating tells of a file.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its attributes.
    pub attr: Attr,
    /// The content, if it lives in the metadata.
    pub inline: Option<Bytes>,
}

/// A chunk in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitChunk {
    /// Which chunk of the file.
    pub index: ChunkIndex,
    /// Which chunk.
    pub chunk: ChunkId,
    /// The version that its copies have adopted.
    pub version: ChunkVersion,
}

/// A commit of what has been written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// The file is at least this long.
    pub size_at_least: u64,
    /// When it was written; `None` for the time of the commit.
    pub mtime: Option<TimeNs>,
    /// The chunks that were written.
    pub chunks: Vec<CommitChunk>,
    /// The leases end with the commit.
    pub release: bool,
}

/// Why a chain could not do a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which server; `None`: the first of the chain.
    pub server: Option<ServerId>,
    /// Why.
    pub cause: ChunkCause,
}

impl Fault {
    /// Which server is at fault and why. The time-outs of a chain's hops lie well below its client's own, so a request that
    /// is not answered in time is the fault of the server that was asked.
    #[must_use]
    pub fn of(error: &CallError) -> Self {
        let (server, cause) = match error {
            CallError::Chunk { server, cause, .. } => (*server, *cause),
            CallError::Transport(TransportError::TimedOut { .. }) => (None, ChunkCause::Silent),
            CallError::Transport(_) => (None, ChunkCause::Unreachable),
            CallError::Refused(FsError::NoSpace) => (None, ChunkCause::Full),
            CallError::Refused(_) | CallError::Rejected { .. } => (None, ChunkCause::TokenInvalid),
            _ => (None, ChunkCause::Busy),
        };
        Self { server, cause }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.server {
            Some(server) => write!(f, "{server}: {}", self.cause),
            None => write!(f, "the first server of the chain: {}", self.cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_that_is_named_is_at_fault_and_else_the_one_that_was_asked() {
        let third = Some(ServerId::from_raw(3));
        let named = CallError::Chunk { server: third, cause: ChunkCause::Full, message: String::new() };
        assert_eq!(Fault::of(&named), Fault { server: third, cause: ChunkCause::Full });
        let silent = TransportError::TimedOut { peer: "s1".into(), deadline_ms: 1 };
        assert_eq!(Fault::of(&silent.into()), Fault { server: None, cause: ChunkCause::Silent });
        let gone = TransportError::Closed { peer: "s1".into() };
        assert_eq!(Fault::of(&gone.into()).cause, ChunkCause::Unreachable);
    }
}
