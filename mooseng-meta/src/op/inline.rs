//! Small files whose content lives in the metadata.

use bytes::{Bytes, BytesMut};
use mooseng_types::{ChunkIndex, FsError, INLINE_MAX, InodeId, TimeNs};

use crate::inode::InodeRow;
use crate::key;
use crate::query::LeaseInTheWay;
use crate::response::Response;
use crate::tables::Tables;

/// Where to write.
#[derive(Clone, Copy)]
pub(crate) enum At {
    /// At this offset, in bytes.
    Offset(u32),
    /// At the file's end as it is now.
    End,
}

/// Writes into the file's first bytes. `EBUSY` while a session writes its first chunk, `EINVAL` once it has one or if
/// the bytes do not fit: then a chunk is the way.
pub(crate) fn write(
    t: &mut Tables,
    stamp: TimeNs,
    inode: InodeId,
    at: At,
    data: &Bytes,
) -> Result<Response, FsError> {
    let (mut file, end) = admit(t, inode, at, data)?;
    match t.chunk_at(inode, ChunkIndex::from_raw(0)) {
        Some((_, row)) if row.held_by_another(None).is_some() => return Err(FsError::LeaseHeld),
        Some(_) => return Err(FsError::Invalid),
        None => {}
    }

    let old = t.inline(inode).unwrap_or_default();
    t.rows.put(&key::inline(inode), patched(&old, (end as usize) - data.len(), data));
    let size = file.size.max(end);
    t.set_size(&mut file, size);
    file.touch(stamp);
    file.count_change();
    t.put_inode(inode, &file);
    Ok(Response::Attr(file.attr(inode)))
}

/// The lease for which a write is refused.
pub(crate) fn lease_in_the_way(t: &Tables, inode: InodeId, at: At, data: &Bytes) -> Option<LeaseInTheWay> {
    admit(t, inode, at, data).ok()?;
    LeaseInTheWay::of(&t.chunk_at(inode, ChunkIndex::from_raw(0))?.1, None)
}

/// The file, and where in it the bytes end. Refuses what cannot be in the metadata, whoever has a lease.
fn admit(t: &Tables, inode: InodeId, at: At, data: &Bytes) -> Result<(InodeRow, u64), FsError> {
    let file = t.need_file(inode)?;
    let offset = match at {
        At::Offset(offset) => offset.into(),
        At::End => file.size,
    };
    let end = offset.saturating_add(data.len() as u64);
    if data.is_empty() || end > INLINE_MAX { Err(FsError::Invalid) } else { Ok((file, end)) }
}

/// `old` with `data` at `offset`; a gap between them is zero.
fn patched(old: &Bytes, offset: usize, data: &Bytes) -> Bytes {
    let end = offset + data.len();
    if offset == 0 && end >= old.len() {
        return data.clone();
    }
    let mut new = BytesMut::zeroed(old.len().max(end));
    new[..old.len()].copy_from_slice(old);
    new[offset..end].copy_from_slice(data);
    new.freeze()
}
