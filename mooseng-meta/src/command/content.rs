//! Commands on what is in a file: leases, commits, and the bytes of small files.

use bytes::Bytes;
use mooseng_types::{
    ChunkId, ChunkIndex, ChunkVersion, FsError, INLINE_MAX, InodeId, ServerId, SessionId, TimeNs,
};

use super::{Command, tag};
use crate::codec::{CodecError, Reader, Writer};
use crate::op::{commit, grant, inline, lease};
use crate::query::LeaseInTheWay;
use crate::response::Response;
use crate::tables::Tables;

/// A chunk of which a session says: its bytes are on every server of the grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommittedChunk {
    /// Which chunk of the file.
    pub index: ChunkIndex,
    /// The chunk, as granted.
    pub chunk: ChunkId,
    /// The version, as granted.
    pub version: ChunkVersion,
    /// The lease ends with the commit.
    pub release: bool,
}

/// A change of a file's content, or of who may change it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ContentCommand {
    /// Gives a session the write lease of a chunk, with a version of its own; makes the chunk if there is none.
    GrantWrite {
        /// Who wants to write.
        session: SessionId,
        /// The file.
        inode: InodeId,
        /// Which chunk of it.
        index: ChunkIndex,
        /// Servers for a new chunk, chosen by the leader, in chain order.
        candidates: Vec<ServerId>,
        /// Servers that the holder could not write: they lose the chunk, if one that is up still has it then.
        failed: Vec<ServerId>,
        /// Servers that the leader knows to be up.
        up: Vec<ServerId>,
        /// The holder says that no server has confirmed anything that was written under the lease.
        nothing_written: bool,
        /// The holder wants a new version though no server is to be left out: its copies are whole, but one stopped.
        renew: bool,
    },
    /// Makes written bytes part of the file.
    CommitWrite {
        /// Who has written.
        session: SessionId,
        /// The file.
        inode: InodeId,
        /// The file is at least this long now, in bytes.
        size_at_least: u64,
        /// Time of the last write; `None`: the entry's stamp.
        mtime: Option<TimeNs>,
        /// The chunks written.
        chunks: Vec<CommittedChunk>,
    },
    /// Writes into a small file that lives in the metadata.
    WriteInline {
        /// The file.
        inode: InodeId,
        /// Where, in bytes from the start. Without meaning in an append.
        offset: u32,
        /// Write at the file's end, wherever that is when the command is applied.
        append: bool,
        /// What; never empty.
        data: Bytes,
    },
    /// Gives write leases back without a commit.
    ReleaseLease {
        /// Who holds them.
        session: SessionId,
        /// The file.
        inode: InodeId,
        /// Which chunks of it.
        indexes: Vec<ChunkIndex>,
    },
}

fn place_of(offset: u32, append: bool) -> inline::At {
    if append { inline::At::End } else { inline::At::Offset(offset) }
}

impl From<ContentCommand> for Command {
    fn from(command: ContentCommand) -> Self {
        Self::Content(command)
    }
}

impl ContentCommand {
    pub(super) fn check(&self) -> Result<(), FsError> {
        match self {
            Self::WriteInline { data, .. } if data.is_empty() || data.len() as u64 > INLINE_MAX => {
                Err(FsError::Invalid)
            }
            Self::WriteInline { .. }
            | Self::GrantWrite { .. }
            | Self::CommitWrite { .. }
            | Self::ReleaseLease { .. } => Ok(()),
        }
    }

    /// Bytes of what may be long.
    pub(super) fn payload(&self) -> usize {
        match self {
            Self::WriteInline { data, .. } => data.len(),
            Self::GrantWrite { .. } | Self::CommitWrite { .. } | Self::ReleaseLease { .. } => 0,
        }
    }

    /// The lease of another session for which the command would be refused.
    pub(super) fn lease_in_the_way(&self, t: &Tables) -> Option<LeaseInTheWay> {
        match self {
            Self::GrantWrite { session, inode, index, .. } => {
                grant::lease_in_the_way(t, *session, grant::Place { inode: *inode, index: *index })
            }
            Self::WriteInline { inode, offset, append, data } => {
                inline::lease_in_the_way(t, *inode, place_of(*offset, *append), data)
            }
            Self::CommitWrite { .. } | Self::ReleaseLease { .. } => None,
        }
    }

    /// The file whose content, or whose leases, it changes.
    pub(super) fn inode(&self) -> InodeId {
        match self {
            Self::GrantWrite { inode, .. }
            | Self::CommitWrite { inode, .. }
            | Self::WriteInline { inode, .. }
            | Self::ReleaseLease { inode, .. } => *inode,
        }
    }

    pub(super) fn run(&self, t: &mut Tables, stamp: TimeNs) -> Result<Response, FsError> {
        match self {
            Self::GrantWrite { session, inode, index, candidates, failed, up, nothing_written, renew } => {
                let (nothing_written, renew) = (*nothing_written, *renew);
                let servers = grant::Servers { candidates, failed, up, nothing_written, renew };
                grant::grant(t, *session, grant::Place { inode: *inode, index: *index }, servers)
            }
            Self::CommitWrite { session, inode, size_at_least, mtime, chunks } => {
                let mtime = mtime.unwrap_or(stamp);
                let update = commit::FileUpdate { size_at_least: *size_at_least, mtime, stamp };
                commit::commit(t, *session, *inode, update, chunks)
            }
            Self::WriteInline { inode, offset, append, data } => {
                inline::write(t, stamp, *inode, place_of(*offset, *append), data)
            }
            Self::ReleaseLease { session, inode, indexes } => lease::release(t, *session, *inode, indexes),
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::GrantWrite { session, inode, index, candidates, failed, up, nothing_written, renew } => {
                w.u8(tag::GRANT_WRITE);
                w.session(*session);
                w.inode(*inode);
                w.index(*index);
                w.list(candidates, Writer::server);
                w.list(failed, Writer::server);
                w.list(up, Writer::server);
                w.u8((*nothing_written).into());
                w.u8((*renew).into());
            }
            Self::CommitWrite { session, inode, size_at_least, mtime, chunks } => {
                w.u8(tag::COMMIT_WRITE);
                w.session(*session);
                w.inode(*inode);
                w.var(*size_at_least);
                w.option(*mtime, Writer::time);
                w.list(chunks, |w, committed| {
                    w.index(committed.index);
                    w.chunk(committed.chunk);
                    w.version(committed.version);
                    w.u8(committed.release.into());
                });
            }
            Self::WriteInline { inode, offset, append, data } => {
                w.u8(tag::WRITE_INLINE);
                w.inode(*inode);
                w.var((*offset).into());
                w.u8((*append).into());
                w.bytes(data);
            }
            Self::ReleaseLease { session, inode, indexes } => {
                w.u8(tag::RELEASE_LEASE);
                w.session(*session);
                w.inode(*inode);
                w.list(indexes, Writer::index);
            }
        }
    }

    /// The command with this number; `None` if it is of another family.
    pub(super) fn decode(tag: u8, r: &mut Reader<'_>) -> Result<Option<Self>, CodecError> {
        Ok(Some(match tag {
            tag::GRANT_WRITE => Self::GrantWrite {
                session: r.session()?,
                inode: r.inode()?,
                index: r.index()?,
                candidates: r.list(Reader::server)?,
                failed: r.list(Reader::server)?,
                up: r.list(Reader::server)?,
                nothing_written: r.bool()?,
                renew: r.bool()?,
            },
            tag::COMMIT_WRITE => Self::CommitWrite {
                session: r.session()?,
                inode: r.inode()?,
                size_at_least: r.var()?,
                mtime: r.option(Reader::time)?,
                chunks: r.list(committed)?,
            },
            tag::WRITE_INLINE => Self::WriteInline {
                inode: r.inode()?,
                offset: r.narrow()?,
                append: r.bool()?,
                data: r.bytes()?,
            },
            tag::RELEASE_LEASE => Self::ReleaseLease {
                session: r.session()?,
                inode: r.inode()?,
                indexes: r.list(Reader::index)?,
            },
            _ => return Ok(None),
        }))
    }
}

fn committed(r: &mut Reader<'_>) -> Result<CommittedChunk, CodecError> {
    Ok(CommittedChunk { index: r.index()?, chunk: r.chunk()?, version: r.version()?, release: r.bool()? })
}
