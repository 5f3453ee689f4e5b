//! Write leases.
//!
//! Each lease has a chunk version of its own. A server that missed a lease has an older version and is fenced off; a
//! session whose lease ended cannot commit, because the version has moved on.

use mooseng_types::{
    ChunkId, ChunkIndex, ChunkVersion, FILE_SIZE_MAX, FsError, InodeId, ServerId, SessionId,
};

use crate::chunk::{ChunkRow, FULL_LENGTH};
use crate::codec::v1::row::Number;
use crate::key;
use crate::response::{Grant, Response};
use crate::tables::Tables;

/// Nothing is committed.
const NONE: ChunkVersion = ChunkVersion::from_raw(0);

/// A chunk's place.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) inode: InodeId,
    pub(super) index: ChunkIndex,
}

/// Gives the lease to the session. Asked again by its holder the same lease is given, unless servers failed.
pub(super) fn grant(
    t: &mut Tables,
    session: SessionId,
    place: Place,
    candidates: &[ServerId],
    failed: &[ServerId],
) -> Result<Response, FsError> {
    t.need_session(session)?;
    t.need_file(place.inode)?;
    if place.index.start() >= FILE_SIZE_MAX {
        return Err(FsError::FileTooLarge);
    }
    let Some((chunk, mut row)) = t.chunk_at(place.inode, place.index) else {
        let servers = without(candidates, failed);
        if servers.is_empty() {
            return Err(FsError::NoSpace);
        }
        return Ok(new_chunk(t, session, place, servers));
    };
    if row.lease.is_some_and(|holder| holder != session) {
        return Err(FsError::LeaseHeld);
    }
    let servers = without(&row.servers, failed);
    if row.lease == Some(session) && servers.len() == row.servers.len() {
        return Ok(answer(t, chunk, &row));
    }
    if servers.is_empty() {
        if row.committed != NONE {
            return Err(FsError::Io);
        }
        let servers = without(candidates, failed);
        if servers.is_empty() {
            return Err(FsError::NoSpace);
        }
        t.kill_chunk(chunk, row);
        return Ok(new_chunk(t, session, place, servers));
    }
    if row.granted.raw() == u32::MAX {
        return Err(FsError::Io);
    }

    row.granted = row.granted.next();
    row.servers = servers;
    t.set_lease(chunk, &mut row, Some(session));
    t.put_chunk(chunk, &row);
    Ok(answer(t, chunk, &row))
}

fn without(servers: &[ServerId], failed: &[ServerId]) -> Vec<ServerId> {
    servers.iter().copied().filter(|server| !failed.contains(server)).collect()
}

fn new_chunk(t: &mut Tables, session: SessionId, place: Place, servers: Vec<ServerId>) -> Response {
    let chunk = t.new_chunk();
    let mut row = ChunkRow {
        inode: place.inode,
        index: place.index,
        committed: NONE,
        granted: NONE.next(),
        lease: None,
        servers,
        valid_length: FULL_LENGTH,
    };
    t.rows.put(&key::file_chunk(place.inode, place.index), Number(chunk.raw()).encode().into());
    t.set_lease(chunk, &mut row, Some(session));
    t.put_chunk(chunk, &row);
    answer(t, chunk, &row)
}

fn answer(t: &Tables, chunk: ChunkId, row: &ChunkRow) -> Response {
    Response::Grant(Grant {
        chunk,
        base_version: row.committed,
        version: row.granted,
        servers: row.servers.clone(),
        valid_length: row.valid_length,
        inline: if row.index.raw() == 0 { t.inline(row.inode) } else { None },
        fresh: row.committed == NONE,
    })
}
