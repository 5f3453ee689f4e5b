//! Write leases.
//!
//! Each lease has a chunk version of its own. A server that missed a lease has an older version and is fenced off; a
//! session whose lease ended cannot commit, because the version has moved on.

use mooseng_types::{
    Attr, ChunkId, ChunkIndex, ChunkVersion, FILE_SIZE_MAX, FsError, InodeId, ServerId, SessionId,
};

use crate::chunk::{ChunkRow, FULL_LENGTH};
use crate::codec::v1::row::Number;
use crate::key;
use crate::layout::Layout;
use crate::query::LeaseInTheWay;
use crate::response::{Grant, Response};
use crate::tables::Tables;

/// Nothing is committed.
const NONE: ChunkVersion = ChunkVersion::from_raw(0);

/// A chunk's place.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) inode: InodeId,
    pub(crate) index: ChunkIndex,
}

/// What is known of servers.
#[derive(Clone, Copy)]
pub(crate) struct Servers<'a> {
    /// For a new chunk.
    pub(crate) candidates: &'a [ServerId],
    /// The holder could not write these.
    pub(crate) failed: &'a [ServerId],
    /// These are up.
    pub(crate) up: &'a [ServerId],
    /// None of the chunk's has confirmed anything.
    pub(crate) nothing_written: bool,
    /// A new version is wanted, though none has failed.
    pub(crate) renew: bool,
}

/// Who has the chunk from the grant on.
enum Keep {
    /// These, under a new version.
    These(Vec<ServerId>),
    /// Nobody: these get a chunk in its place, of which there is nothing yet.
    Anew(Vec<ServerId>),
}

/// Gives the lease to the session. Asked again by its holder the same lease is given, unless servers failed or it is to be
/// renewed.
pub(crate) fn grant(
    t: &mut Tables,
    session: SessionId,
    place: Place,
    servers: Servers<'_>,
) -> Result<Response, FsError> {
    let attr = admit(t, session, place)?;
    let Some((chunk, mut row)) = t.chunk_at(place.inode, place.index) else {
        let chosen = without(servers.candidates, servers.failed);
        if chosen.is_empty() {
            return Err(FsError::NoSpace);
        }
        let chunk = t.new_chunk()?;
        return Ok(begin(t, session, place, chunk, chosen, attr));
    };
    if row.held_by_another(Some(session)).is_some() {
        return Err(FsError::LeaseHeld);
    }
    let has = row.layout.copies()?.to_vec();
    let named = has.iter().any(|server| servers.failed.contains(server));
    if row.lease == Some(session) && !named && !servers.renew {
        return Ok(answer(t, chunk, &row, has, false, attr));
    }
    let kept = match if named { keep(&row, &has, servers) } else { Keep::These(has) } {
        Keep::Anew(chosen) => {
            let fresh = t.new_chunk()?;
            t.kill_chunk(chunk, row);
            return Ok(begin(t, session, place, fresh, chosen, attr));
        }
        Keep::These(_) if row.granted.raw() == u32::MAX => return Err(FsError::Io),
        Keep::These(kept) => kept,
    };

    row.layout = Layout::Copies(kept.clone());
    row.granted = row.granted.next();
    t.set_lease(chunk, &mut row, Some(session));
    t.put_chunk(chunk, &row);
    Ok(answer(t, chunk, &row, kept, false, attr))
}

/// The lease for which a grant is refused.
pub(crate) fn lease_in_the_way(t: &Tables, session: SessionId, place: Place) -> Option<LeaseInTheWay> {
    admit(t, session, place).ok()?;
    LeaseInTheWay::of(&t.chunk_at(place.inode, place.index)?.1, Some(session))
}

/// Refuses what no session may write, whoever has a lease.
fn admit(t: &Tables, session: SessionId, place: Place) -> Result<Attr, FsError> {
    t.need_session(session)?;
    let attr = t.need_file(place.inode)?.attr(place.inode);
    if place.index.start() >= FILE_SIZE_MAX { Err(FsError::FileTooLarge) } else { Ok(attr) }
}

/// What becomes of a chunk some of whose servers could not be written. The last copy that is up is never dropped: if
/// only servers that are down, or none, would be left, all stay, and may come back.
fn keep(row: &ChunkRow, has: &[ServerId], servers: Servers<'_>) -> Keep {
    let left = without(has, servers.failed);
    let chosen = without(servers.candidates, servers.failed);
    let is_up = |server: &ServerId| servers.up.contains(server);
    // Without a commit and a confirmed byte nothing is lost with a chunk, and a new one can have all its copies. Without
    // any copy left it can only be given up.
    let anew =
        row.is_uncommitted() && if left.is_empty() { !chosen.is_empty() } else { servers.nothing_written };
    match () {
        () if anew && chosen.len() > left.len() => Keep::Anew(chosen),
        () if left.iter().any(is_up) => Keep::These(left),
        () => Keep::These(has.to_vec()),
    }
}

fn without(servers: &[ServerId], failed: &[ServerId]) -> Vec<ServerId> {
    servers.iter().copied().filter(|server| !failed.contains(server)).collect()
}

/// Puts a new chunk on these servers into its place.
fn begin(
    t: &mut Tables,
    session: SessionId,
    place: Place,
    chunk: ChunkId,
    servers: Vec<ServerId>,
    attr: Attr,
) -> Response {
    let mut row = ChunkRow {
        inode: place.inode,
        index: place.index,
        committed: NONE,
        granted: NONE.next(),
        lease: None,
        layout: Layout::Copies(servers.clone()),
        valid_length: FULL_LENGTH,
        differs: false,
    };
    t.rows.put(&key::file_chunk(place.inode, place.index), Number(chunk.raw()).encode().into());
    t.set_lease(chunk, &mut row, Some(session));
    t.put_chunk(chunk, &row);
    answer(t, chunk, &row, servers, true, attr)
}

fn answer(
    t: &Tables,
    chunk: ChunkId,
    row: &ChunkRow,
    servers: Vec<ServerId>,
    fresh: bool,
    attr: Attr,
) -> Response {
    Response::Grant(Grant {
        chunk,
        base_version: row.committed,
        version: row.granted,
        servers,
        valid_length: row.valid_length,
        inline: if row.index.raw() == 0 { t.inline(row.inode) } else { None },
        fresh,
        attr,
    })
}
