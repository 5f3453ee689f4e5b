//! Copies that repair has made or lost.

use mooseng_types::{ChunkId, ChunkVersion, FsError, ServerId};

use crate::layout::Layout;
use crate::response::Response;
use crate::tables::Tables;

/// Counts a further copy, if it is of the committed bytes and nobody can have written since it was made.
pub(crate) fn add(
    t: &mut Tables,
    chunk: ChunkId,
    version: ChunkVersion,
    server: ServerId,
) -> Result<Response, FsError> {
    let mut row = t.chunk(chunk).ok_or(FsError::Stale)?;
    let mut copies = row.layout.copies()?.to_vec();
    if row.lease.is_some() || row.committed != version || copies.contains(&server) {
        return Err(FsError::Stale);
    }

    copies.push(server);
    row.layout = Layout::Copies(copies);
    t.put_chunk(chunk, &row);
    Ok(Response::Done)
}

/// Strikes a copy off, but never the last: that one may still come back.
pub(crate) fn remove(t: &mut Tables, chunk: ChunkId, server: ServerId) -> Result<Response, FsError> {
    let mut row = t.chunk(chunk).ok_or(FsError::Invalid)?;
    let mut copies = row.layout.copies()?.to_vec();
    if !copies.contains(&server) || copies.len() == 1 {
        return Err(FsError::Invalid);
    }

    copies.retain(|&other| other != server);
    row.layout = Layout::Copies(copies);
    t.put_chunk(chunk, &row);
    Ok(Response::Done)
}

/// Gives out a version to nobody: whoever wrote under an earlier one is fenced off wherever it is taken on.
pub(crate) fn begin_settle(
    t: &mut Tables,
    chunk: ChunkId,
    granted: ChunkVersion,
) -> Result<Response, FsError> {
    let mut row = t.chunk(chunk).ok_or(FsError::Stale)?;
    row.layout.copies()?;
    if row.lease.is_some() || row.granted != granted || row.is_uncommitted() {
        return Err(FsError::Stale);
    }
    if granted.raw() == u32::MAX {
        return Err(FsError::Io);
    }

    row.granted = granted.next();
    t.put_chunk(chunk, &row);
    Ok(Response::Done)
}

/// What has this version is the chunk: a copy without it is stale.
pub(crate) fn end_settle(t: &mut Tables, chunk: ChunkId, version: ChunkVersion) -> Result<Response, FsError> {
    let mut row = t.chunk(chunk).ok_or(FsError::Stale)?;
    if row.lease.is_some() || row.granted != version || row.is_uncommitted() {
        return Err(FsError::Stale);
    }

    row.committed = version;
    row.differs = false;
    t.put_chunk(chunk, &row);
    Ok(Response::Done)
}
