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
