//! Open files and their chunks: one typed function for each request.

use bytes::Bytes;
use mooseng_protocol::{convert, pb};
use mooseng_types::{Attr, ChunkId, ChunkIndex, ChunkVersion, InodeId, ServerId, TimeNs};

use super::MasterClient;
use crate::Result;

/// A chunkserver and where it is.
pub(crate) type Placement = (ServerId, String);

/// What opening a file tells.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) attr: Attr,
    /// The content, if it lives in the metadata.
    pub(crate) inline: Option<Bytes>,
}

/// Where a chunk is, and the right to read it.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) index: ChunkIndex,
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    /// From here on the chunk reads as zero, whatever a copy holds.
    pub(crate) valid_length: u64,
    pub(crate) servers: Vec<Placement>,
    pub(crate) token: Bytes,
}

/// A lease to write a chunk.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    pub(crate) servers: Vec<Placement>,
    /// Below the chunk size: every copy is to be cut here before anything is written.
    pub(crate) valid_length: u64,
    /// The file's content so far, to be written first.
    pub(crate) inline: Option<Bytes>,
    pub(crate) token: Bytes,
    /// No copy exists yet.
    pub(crate) fresh: bool,
}

/// A commit of what has been written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commit {
    pub(crate) size_at_least: u64,
    pub(crate) mtime: Option<TimeNs>,
    pub(crate) chunks: Vec<(ChunkIndex, ChunkId, ChunkVersion)>,
    /// The leases end with the commit.
    pub(crate) release: bool,
}

impl MasterClient {
    pub(crate) fn open(&self, inode: InodeId) -> Result<Opened> {
        let reply =
            self.query("open", |session| pb::OpenRequest { session, inode: inode.raw(), number: 0 })?;
        Ok(Opened { attr: convert::attr(reply.attr)?, inline: reply.inline })
    }

    pub(crate) fn release(&self, inodes: impl Iterator<Item = InodeId>) -> Result<()> {
        let inodes: Vec<u64> = inodes.map(InodeId::raw).collect();
        self.query("release", |session| pb::ReleaseRequest { session, inodes: inodes.clone(), number: 0 })?;
        Ok(())
    }

    pub(crate) fn locate(
        &self,
        inode: InodeId,
        first: ChunkIndex,
        count: u32,
    ) -> Result<(Opened, Vec<Located>)> {
        let reply = self.query("locate", |session| pb::LocateRequest {
            session,
            inode: inode.raw(),
            first_index: first.raw(),
            count,
        })?;
        let chunks = reply.chunks.into_iter().map(located).collect();
        Ok((Opened { attr: convert::attr(reply.attr)?, inline: reply.inline }, chunks))
    }

    pub(crate) fn grant_write(
        &self,
        inode: InodeId,
        index: ChunkIndex,
        failed: &[ServerId],
    ) -> Result<Granted> {
        let failed_servers: Vec<u32> = failed.iter().map(|server| server.raw()).collect();
        let reply = self.mutate("grant a write lease", |meta| pb::GrantWriteRequest {
            meta: Some(meta),
            inode: inode.raw(),
            index: index.raw(),
            failed_servers: failed_servers.clone(),
            nothing_written: false,
        })?;
        Ok(Granted {
            chunk: ChunkId::from_raw(reply.chunk),
            version: ChunkVersion::from_raw(reply.version),
            servers: placements(reply.servers),
            valid_length: reply.valid_length.into(),
            inline: reply.inline,
            token: reply.token,
            fresh: reply.fresh,
        })
    }

    pub(crate) fn commit_write(&self, inode: InodeId, commit: &Commit) -> Result<Attr> {
        let chunks: Vec<_> = commit
            .chunks
            .iter()
            .map(|(index, chunk, version)| pb::CommittedChunk {
                index: index.raw(),
                chunk: chunk.raw(),
                version: version.raw(),
                release: commit.release,
            })
            .collect();
        let reply = self.mutate("commit a write", |meta| pb::CommitWriteRequest {
            meta: Some(meta),
            inode: inode.raw(),
            size_at_least: commit.size_at_least,
            chunks: chunks.clone(),
            mtime_ns: commit.mtime.map(TimeNs::raw),
        })?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn write_inline(&self, inode: InodeId, offset: u32, data: &Bytes) -> Result<Attr> {
        let reply = self.mutate("write a small file", |meta| pb::WriteInlineRequest {
            meta: Some(meta),
            inode: inode.raw(),
            offset,
            data: data.clone(),
            append: false,
        })?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn release_leases(&self, inode: InodeId, indexes: &[ChunkIndex]) -> Result<()> {
        let indexes: Vec<u32> = indexes.iter().map(|index| index.raw()).collect();
        self.mutate("release a lease", |meta| pb::ReleaseLeaseRequest {
            meta: Some(meta),
            inode: inode.raw(),
            indexes: indexes.clone(),
        })?;
        Ok(())
    }

    pub(crate) fn close_session(&self) -> Result<()> {
        self.mutate("close the session", |meta| pb::CloseSessionRequest { meta: Some(meta) })?;
        Ok(())
    }
}

fn located(chunk: pb::ChunkLocation) -> Located {
    Located {
        index: ChunkIndex::from_raw(chunk.index),
        chunk: ChunkId::from_raw(chunk.chunk),
        version: ChunkVersion::from_raw(chunk.version),
        valid_length: chunk.valid_length.into(),
        servers: placements(chunk.servers),
        token: chunk.token,
    }
}

fn placements(servers: Vec<pb::ServerAddress>) -> Vec<Placement> {
    servers.into_iter().map(|server| (ServerId::from_raw(server.server), server.address)).collect()
}
