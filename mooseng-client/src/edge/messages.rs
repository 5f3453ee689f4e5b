//! The vocabulary of chunks in its forms on the wire: requests made of it, and replies read into it. Whoever carries out
//! what a file's core asks for uses these, the mount and the simulator alike.

use mooseng_protocol::convert::{self, BadMessage};
use mooseng_protocol::{checksum, pb};
use mooseng_types::{Attr, ChunkId, ChunkIndex, ChunkVersion, InodeId, Part, ServerId, TimeNs};

use crate::chunk::{ChunkRef, Commit, Grant, Granted, Located, Opened, Placement};
use crate::file::{Ask, InlineJob, LocateJob, Source, Wish};

/// A request with this index is about a whole copy.
const WHOLE: u32 = 0;

/// How a chain is to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteHow {
    /// Durable on every copy before the answer.
    pub sync: bool,
    /// A copy that may have lost what was confirmed under an earlier version is to say so.
    pub continues: bool,
    /// Every copy has confirmed something under this lease: one that is not there is not to be made anew.
    pub exists: bool,
}

/// Asks for a write lease.
#[must_use]
pub fn grant(meta: pb::RequestMeta, inode: InodeId, index: ChunkIndex, wish: &Wish) -> pb::GrantWriteRequest {
    pb::GrantWriteRequest {
        meta: Some(meta),
        inode: inode.raw(),
        index: index.raw(),
        failed_servers: wish.failed.iter().map(|server| server.raw()).collect(),
        nothing_written: wish.nothing_written,
        renew: wish.renew,
    }
}

/// The lease in a reply.
pub fn granted(reply: pb::GrantWriteReply) -> Result<Granted, BadMessage> {
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

/// Tells the masters what was written.
#[must_use]
pub fn commit(meta: pb::RequestMeta, inode: InodeId, commit: &Commit) -> pb::CommitWriteRequest {
    let chunk = |chunk: &crate::chunk::CommitChunk| pb::CommittedChunk {
        index: chunk.index.raw(),
        chunk: chunk.chunk.raw(),
        version: chunk.version.raw(),
        release: commit.release,
    };
    pb::CommitWriteRequest {
        meta: Some(meta),
        inode: inode.raw(),
        size_at_least: commit.size_at_least,
        chunks: commit.chunks.iter().map(chunk).collect(),
        mtime_ns: commit.mtime.map(TimeNs::raw),
    }
}

/// Writes into a small file.
#[must_use]
pub fn write_inline(meta: pb::RequestMeta, inode: InodeId, job: &InlineJob) -> pb::WriteInlineRequest {
    let append = job.append.is_some();
    pb::WriteInlineRequest {
        meta: Some(meta),
        inode: inode.raw(),
        offset: if append { 0 } else { narrow(job.piece.offset) },
        data: job.piece.data.clone(),
        append,
    }
}

/// Gives leases back.
#[must_use]
pub fn release_leases(
    meta: pb::RequestMeta,
    inode: InodeId,
    indexes: &[ChunkIndex],
) -> pb::ReleaseLeaseRequest {
    let indexes = indexes.iter().map(|index| index.raw()).collect();
    pb::ReleaseLeaseRequest { meta: Some(meta), inode: inode.raw(), indexes }
}

/// Asks where chunks are.
#[must_use]
pub fn locate(session: u64, inode: InodeId, job: &LocateJob) -> pb::LocateRequest {
    pb::LocateRequest { session, inode: inode.raw(), first_index: job.first.raw(), count: job.count }
}

/// What a reply says of a file and of where its chunks are.
pub fn located(reply: pb::LocateReply) -> Result<(Opened, Vec<Located>), BadMessage> {
    let located = |chunk: pb::ChunkLocation| Located {
        index: ChunkIndex::from_raw(chunk.index),
        chunk: ChunkRef {
            chunk: ChunkId::from_raw(chunk.chunk),
            version: ChunkVersion::from_raw(chunk.version),
            token: chunk.token,
        },
        valid_length: chunk.valid_length.into(),
        servers: placements(chunk.servers),
        differs: chunk.differs,
    };
    let opened = Opened { attr: convert::attr(reply.attr)?, inline: reply.inline };
    Ok((opened, reply.chunks.into_iter().map(located).collect()))
}

/// What a reply says of a file that was opened.
pub fn opened(reply: pb::OpenReply) -> Result<Opened, BadMessage> {
    Ok(Opened { attr: convert::attr(reply.attr)?, inline: reply.inline })
}

/// Writes `data` at `offset` of a chunk.
#[must_use]
pub fn write_chunk(grant: &Grant, offset: u64, data: &[u8], how: WriteHow) -> pb::WriteChunkRequest {
    let chunk = &grant.chunk;
    pb::WriteChunkRequest {
        token: chunk.token.clone(),
        chunk: chunk.chunk.raw(),
        version: chunk.version.raw(),
        offset: narrow(offset),
        checksums: checksum::of_range(Part::whole(chunk.chunk), offset, data),
        chain: behind_first(grant),
        sync: how.sync,
        continues: how.continues,
        exists: how.exists,
        part: WHOLE,
    }
}

/// Makes a chunk durable.
#[must_use]
pub fn sync_chunk(grant: &Grant) -> pb::SyncChunkRequest {
    let chunk = &grant.chunk;
    pb::SyncChunkRequest {
        token: chunk.token.clone(),
        chunk: chunk.chunk.raw(),
        version: chunk.version.raw(),
        chain: behind_first(grant),
        part: WHOLE,
    }
}

/// Cuts or extends a chunk to exactly `length`.
#[must_use]
pub fn truncate_chunk(grant: &Grant, length: u64) -> pb::TruncateChunkRequest {
    let chunk = &grant.chunk;
    pb::TruncateChunkRequest {
        token: chunk.token.clone(),
        chunk: chunk.chunk.raw(),
        version: chunk.version.raw(),
        length: narrow(length),
        chain: behind_first(grant),
        part: WHOLE,
    }
}

/// Reads a range of a chunk; with `verify`, the server looks at its copy first.
#[must_use]
pub fn read_chunk(source: &Source, ask: Ask, verify: bool) -> pb::ReadChunkRequest {
    pb::ReadChunkRequest {
        token: source.chunk.token.clone(),
        chunk: source.chunk.chunk.raw(),
        version: source.chunk.version.raw(),
        offset: narrow(ask.offset),
        length: narrow(ask.length),
        verify,
        intact: source.intact,
        whole: ask.whole,
        part: WHOLE,
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn behind_first(grant: &Grant) -> Vec<pb::ServerAddress> {
    let address = |at: &Placement| pb::ServerAddress { server: at.server.raw(), address: at.address.clone() };
    grant.servers.iter().skip(1).map(address).collect()
}

fn placements(servers: Vec<pb::ServerAddress>) -> Vec<Placement> {
    let placement = |server: pb::ServerAddress| Placement {
        server: ServerId::from_raw(server.server),
        address: server.address,
    };
    servers.into_iter().map(placement).collect()
}
