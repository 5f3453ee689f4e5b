//! Open files and their chunks: one typed function for each request.

use bytes::Bytes;
use mooseng_protocol::{convert, pb};
use mooseng_types::{Attr, ChunkId, ChunkIndex, ChunkVersion, InodeId, ServerId, TimeNs};

use super::MasterClient;
use crate::Result;
use crate::chunk::{ChunkRef, Commit, Grant, Granted, Located, Opened, Placement};
use crate::file::{LocateJob, Wish};

impl MasterClient {
    pub(crate) fn open(&self, inode: InodeId, number: u64) -> Result<Opened> {
        let reply = self.query("open", |session| pb::OpenRequest { session, inode: inode.raw(), number })?;
        Ok(Opened { attr: convert::attr(reply.attr)?, inline: reply.inline })
    }

    pub(crate) fn release(&self, inodes: &[InodeId], number: u64) -> Result<()> {
        let inodes: Vec<u64> = inodes.iter().map(|inode| inode.raw()).collect();
        self.query("release", |session| pb::ReleaseRequest { session, inodes: inodes.clone(), number })?;
        Ok(())
    }

    pub(crate) fn locate(&self, inode: InodeId, job: &LocateJob) -> Result<(Opened, Vec<Located>)> {
        let reply = self.query("locate", |session| pb::LocateRequest {
            session,
            inode: inode.raw(),
            first_index: job.first.raw(),
            count: job.count,
        })?;
        let chunks = reply.chunks.into_iter().map(located).collect();
        Ok((Opened { attr: convert::attr(reply.attr)?, inline: reply.inline }, chunks))
    }

    pub(crate) fn grant_write(&self, inode: InodeId, index: ChunkIndex, wish: &Wish) -> Result<Granted> {
        let failed_servers: Vec<u32> = wish.failed.iter().map(|server| server.raw()).collect();
        let reply = self.mutate_bound("grant a write lease", |meta| pb::GrantWriteRequest {
            meta: Some(meta),
            inode: inode.raw(),
            index: index.raw(),
            failed_servers: failed_servers.clone(),
            nothing_written: wish.nothing_written,
            renew: wish.renew,
        })?;
        let chunk = ChunkRef {
            chunk: ChunkId::from_raw(reply.chunk),
            version: ChunkVersion::from_raw(reply.version),
            token: reply.token,
        };
        Ok(Granted {
            grant: Grant { chunk, servers: placements(reply.servers) },
            valid_length: reply.valid_length.into(),
            inline: reply.inline,
            fresh: reply.fresh,
            attr: reply.attr.map(Attr::try_from).transpose()?,
        })
    }

    pub(crate) fn commit_write(&self, inode: InodeId, commit: &Commit) -> Result<Attr> {
        let chunks: Vec<_> = commit
            .chunks
            .iter()
            .map(|chunk| pb::CommittedChunk {
                index: chunk.index.raw(),
                chunk: chunk.chunk.raw(),
                version: chunk.version.raw(),
                release: commit.release,
            })
            .collect();
        let reply = self.mutate_bound("commit a write", |meta| pb::CommitWriteRequest {
            meta: Some(meta),
            inode: inode.raw(),
            size_at_least: commit.size_at_least,
            chunks: chunks.clone(),
            mtime_ns: commit.mtime.map(TimeNs::raw),
        })?;
        Ok(convert::attr(reply.attr)?)
    }

    /// Writes into a small file, at `offset` or, with `append`, at its end.
    pub(crate) fn write_inline(
        &self,
        inode: InodeId,
        offset: u64,
        data: &Bytes,
        append: bool,
    ) -> Result<Attr> {
        let offset = if append { 0 } else { u32::try_from(offset).unwrap_or(u32::MAX) };
        let reply = self.mutate_bound("write a small file", |meta| pb::WriteInlineRequest {
            meta: Some(meta),
            inode: inode.raw(),
            offset,
            data: data.clone(),
            append,
        })?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn release_leases(&self, inode: InodeId, indexes: &[ChunkIndex]) -> Result<()> {
        let indexes: Vec<u32> = indexes.iter().map(|index| index.raw()).collect();
        self.mutate_bound("release a lease", |meta| pb::ReleaseLeaseRequest {
            meta: Some(meta),
            inode: inode.raw(),
            indexes: indexes.clone(),
        })?;
        Ok(())
    }

    pub(crate) fn close_session(&self) -> Result<()> {
        self.mutate_bound("close the session", |meta| pb::CloseSessionRequest { meta: Some(meta) })?;
        Ok(())
    }
}

fn located(chunk: pb::ChunkLocation) -> Located {
    Located {
        index: ChunkIndex::from_raw(chunk.index),
        chunk: ChunkRef {
            chunk: ChunkId::from_raw(chunk.chunk),
            version: ChunkVersion::from_raw(chunk.version),
            token: chunk.token,
        },
        valid_length: chunk.valid_length.into(),
        servers: placements(chunk.servers),
        differs: chunk.differs,
    }
}

fn placements(servers: Vec<pb::ServerAddress>) -> Vec<Placement> {
    let placement = |server: pb::ServerAddress| Placement {
        server: ServerId::from_raw(server.server),
        address: server.address,
    };
    servers.into_iter().map(placement).collect()
}
