//! Commands of the masters' own: copies that come and go, and what is really gone.

use mooseng_types::{ChunkId, ChunkVersion, FsError, InodeId, Level, ServerId};

use super::{Command, MovesLeases, tag};
use crate::codec::{CodecError, Reader, Writer};
use crate::op::{reap, replica};
use crate::response::Response;
use crate::tables::Tables;

/// A change of which copies there are, or the end of an object that has no name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepairCommand {
    /// A further server has a full copy.
    AddReplica {
        /// The chunk.
        chunk: ChunkId,
        /// The version of the copy.
        version: ChunkVersion,
        /// The server.
        server: ServerId,
    },
    /// A server's copy is lost or not wanted any more.
    RemoveReplica {
        /// The chunk.
        chunk: ChunkId,
        /// The server.
        server: ServerId,
    },
    /// Copies of a chunk that nobody writes may differ: one of them is going to take on a version that nobody else gets, and the
    /// others follow it.
    BeginSettle {
        /// The chunk.
        chunk: ChunkId,
        /// The last version that was given out until now.
        granted: ChunkVersion,
    },
    /// Every copy that the row counts and that is there is like the chosen one.
    EndSettle {
        /// The chunk.
        chunk: ChunkId,
        /// Their version.
        version: ChunkVersion,
    },
    /// Removes objects without a name that nobody has open.
    ReapOrphans {
        /// The objects.
        inodes: Vec<InodeId>,
    },
    /// The copies of dead chunks are deleted everywhere.
    ForgetDead {
        /// The chunks.
        chunks: Vec<ChunkId>,
    },
}

impl From<RepairCommand> for Command {
    fn from(command: RepairCommand) -> Self {
        Self::Repair(command)
    }
}

impl RepairCommand {
    /// The level of the cluster from which on it may be proposed.
    pub(super) fn level(&self) -> Level {
        match self {
            Self::BeginSettle { .. } | Self::EndSettle { .. } => Level::CLASSES,
            Self::AddReplica { .. }
            | Self::RemoveReplica { .. }
            | Self::ReapOrphans { .. }
            | Self::ForgetDead { .. } => Level::FIRST,
        }
    }

    /// Which files' leases may have changed hands.
    pub(super) fn moves_leases(&self) -> MovesLeases {
        match self {
            Self::ReapOrphans { .. } => MovesLeases::Any,
            Self::AddReplica { .. }
            | Self::RemoveReplica { .. }
            | Self::BeginSettle { .. }
            | Self::EndSettle { .. }
            | Self::ForgetDead { .. } => MovesLeases::None,
        }
    }

    pub(super) fn run(&self, t: &mut Tables) -> Result<Response, FsError> {
        match self {
            Self::AddReplica { chunk, version, server } => replica::add(t, *chunk, *version, *server),
            Self::RemoveReplica { chunk, server } => replica::remove(t, *chunk, *server),
            Self::BeginSettle { chunk, granted } => replica::begin_settle(t, *chunk, *granted),
            Self::EndSettle { chunk, version } => replica::end_settle(t, *chunk, *version),
            Self::ReapOrphans { inodes } => Ok(reap::orphans(t, inodes)),
            Self::ForgetDead { chunks } => Ok(reap::forget(t, chunks)),
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::AddReplica { chunk, version, server } => {
                w.u8(tag::ADD_REPLICA);
                w.chunk(*chunk);
                w.version(*version);
                w.server(*server);
            }
            Self::RemoveReplica { chunk, server } => {
                w.u8(tag::REMOVE_REPLICA);
                w.chunk(*chunk);
                w.server(*server);
            }
            Self::BeginSettle { chunk, granted } => {
                w.u8(tag::BEGIN_SETTLE);
                w.chunk(*chunk);
                w.version(*granted);
            }
            Self::EndSettle { chunk, version } => {
                w.u8(tag::END_SETTLE);
                w.chunk(*chunk);
                w.version(*version);
            }
            Self::ReapOrphans { inodes } => {
                w.u8(tag::REAP_ORPHANS);
                w.list(inodes, Writer::inode);
            }
            Self::ForgetDead { chunks } => {
                w.u8(tag::FORGET_DEAD);
                w.list(chunks, Writer::chunk);
            }
        }
    }

    /// The command with this number; `None` if it is of another family.
    pub(super) fn decode(tag: u8, r: &mut Reader<'_>) -> Result<Option<Self>, CodecError> {
        Ok(Some(match tag {
            tag::ADD_REPLICA => {
                Self::AddReplica { chunk: r.chunk()?, version: r.version()?, server: r.server()? }
            }
            tag::REMOVE_REPLICA => Self::RemoveReplica { chunk: r.chunk()?, server: r.server()? },
            tag::BEGIN_SETTLE => Self::BeginSettle { chunk: r.chunk()?, granted: r.version()? },
            tag::END_SETTLE => Self::EndSettle { chunk: r.chunk()?, version: r.version()? },
            tag::REAP_ORPHANS => Self::ReapOrphans { inodes: r.list(Reader::inode)? },
            tag::FORGET_DEAD => Self::ForgetDead { chunks: r.list(Reader::chunk)? },
            _ => return Ok(None),
        }))
    }
}
