//! Leases that end without a commit.

use mooseng_types::{ChunkId, ChunkIndex, FsError, InodeId, SessionId};

use crate::chunk::ChunkRow;
use crate::response::Response;
use crate::tables::Tables;

/// Ends a chunk's lease. Copies may hold bytes beyond the file's end that were never committed, even after an earlier
/// commit under the same lease; they must not appear when the file grows. Of a chunk without a commit all bytes are such.
pub(crate) fn end(t: &mut Tables, chunk: ChunkId, mut row: ChunkRow, file_size: u64) {
    t.set_lease(chunk, &mut row, None);
    row.void_beyond(file_size);
    t.put_chunk(chunk, &row);
}

/// Ends the lease of a session that is over: it may have died in the midst of a write, so the copies may differ where
/// they count.
pub(crate) fn end_with_session(t: &mut Tables, chunk: ChunkId, mut row: ChunkRow, file_size: u64) {
    row.differs |= !row.is_uncommitted();
    end(t, chunk, row, file_size);
}

/// Gives back what the session holds of these; what it does not hold is passed over.
pub(crate) fn release(
    t: &mut Tables,
    session: SessionId,
    inode: InodeId,
    indexes: &[ChunkIndex],
) -> Result<Response, FsError> {
    t.need_session(session)?;
    let file_size = t.need_file(inode)?.size;

    for &index in indexes {
        if let Some((chunk, row)) = t.chunk_at(inode, index).filter(|(_, row)| row.lease == Some(session)) {
            end(t, chunk, row, file_size);
        }
    }
    Ok(Response::Done)
}
