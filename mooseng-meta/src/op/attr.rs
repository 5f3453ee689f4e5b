//! Changes of attributes; a file's length is one of them.

use mooseng_types::{
    ChunkId, ChunkIndex, FILE_SIZE_MAX, FsError, InodeId, SessionId, SetAttr, SetTime, TimeNs,
};

use crate::chunk::ChunkRow;
use crate::key;
use crate::query::LeaseInTheWay;
use crate::response::Response;
use crate::tables::Tables;

const MODE_BITS: u16 = 0o7777;

fn time(set: SetTime, stamp: TimeNs) -> TimeNs {
    match set {
        SetTime::Now => stamp,
        SetTime::At(at) => at,
    }
}

/// Changes what `change` names. Clearing set-uid bits after a `chown` is the kernel's doing: it comes as a mode.
pub(crate) fn set(
    t: &mut Tables,
    stamp: TimeNs,
    inode: InodeId,
    change: &SetAttr,
    session: Option<SessionId>,
) -> Result<Response, FsError> {
    if let Some(session) = session {
        t.need_session(session)?;
    }
    let mut row = t.need(inode)?;
    let mut cut = Vec::new();
    if let Some(size) = change.size
        && let Some(end) = resized_at(t, inode, size)?
    {
        cut = affected(t, inode, end, session)?;
    }
    if *change == SetAttr::default() {
        return Ok(Response::Attr(row.attr(inode)));
    }

    if let Some(size) = change.size {
        if size < row.size {
            shorten(t, inode, size, cut);
        }
        if size != row.size {
            row.count_change();
        }
        t.set_size(&mut row, size);
        row.mtime = stamp;
    }
    row.mode = change.mode.map_or(row.mode, |mode| mode & MODE_BITS);
    row.uid = change.uid.unwrap_or(row.uid);
    row.gid = change.gid.unwrap_or(row.gid);
    row.atime = change.atime.map_or(row.atime, |set| time(set, stamp));
    row.mtime = change.mtime.map_or(row.mtime, |set| time(set, stamp));
    row.ctime = stamp;
    t.put_inode(inode, &row);
    Ok(Response::Attr(row.attr(inode)))
}

/// Where a file that is to be `size` long changes: the lower one of the old end and the new. `None`: it is that long.
fn resized_at(t: &Tables, inode: InodeId, size: u64) -> Result<Option<u64>, FsError> {
    let old = t.need_file(inode)?.size;
    if size > FILE_SIZE_MAX {
        return Err(FsError::FileTooLarge);
    }
    Ok((size != old).then(|| size.min(old)))
}

/// The chunks behind `end`, where a file's length changes: a cut shortens or removes them, and when a file
/// grows, bytes that a writer has not committed yet may lie there. Refused while another session may write one of them.
fn affected(
    t: &Tables,
    inode: InodeId,
    end: u64,
    session: Option<SessionId>,
) -> Result<Vec<(ChunkId, ChunkRow)>, FsError> {
    let Some(first) = ChunkIndex::of_offset(end) else { return Ok(Vec::new()) };
    let mut cut = Vec::new();
    for (_, chunk) in t.chunks_from(inode, first, usize::MAX) {
        let row = t.chunk(chunk).ok_or(FsError::Io)?;
        if row.held_by_another(session).is_some() {
            return Err(FsError::LeaseHeld);
        }
        cut.push((chunk, row));
    }
    Ok(cut)
}

/// The lease for which a change of the file's length is refused.
pub(crate) fn lease_in_the_way(
    t: &Tables,
    inode: InodeId,
    size: u64,
    session: Option<SessionId>,
) -> Option<LeaseInTheWay> {
    let first = ChunkIndex::of_offset(resized_at(t, inode, size).ok()??)?;
    t.chunks_from(inode, first, usize::MAX)
        .into_iter()
        .find_map(|(_, chunk)| LeaseInTheWay::of(&t.chunk(chunk)?, session))
}

fn shorten(t: &mut Tables, inode: InodeId, size: u64, cut: Vec<(ChunkId, ChunkRow)>) {
    for (chunk, mut row) in cut {
        if row.index.start() >= size {
            t.kill_chunk(chunk, row);
        } else {
            t.set_lease(chunk, &mut row, None);
            row.void_beyond(size);
            t.put_chunk(chunk, &row);
        }
    }
    let Ok(length) = usize::try_from(size) else { return };
    match t.inline(inode) {
        Some(_) if length == 0 => t.rows.delete(&key::inline(inode)),
        Some(inline) if length < inline.len() => t.rows.put(&key::inline(inode), inline.slice(..length)),
        _ => {}
    }
}
