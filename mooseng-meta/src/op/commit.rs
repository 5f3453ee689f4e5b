//! Written bytes become part of the file.

use mooseng_types::{FILE_SIZE_MAX, FsError, InodeId, SessionId, TimeNs};

use crate::command::CommittedChunk;
use crate::key;
use crate::response::Response;
use crate::tables::Tables;

/// What becomes of the file.
pub(crate) struct FileUpdate {
    pub(crate) size_at_least: u64,
    pub(crate) mtime: TimeNs,
    pub(crate) stamp: TimeNs,
}

/// Commits the chunks, all or none: one lease that is lost refuses them all.
pub(crate) fn commit(
    t: &mut Tables,
    session: SessionId,
    inode: InodeId,
    update: FileUpdate,
    chunks: &[CommittedChunk],
) -> Result<Response, FsError> {
    t.need_session(session)?;
    let mut file = t.need_file(inode)?;
    if update.size_at_least > FILE_SIZE_MAX {
        return Err(FsError::FileTooLarge);
    }
    for committed in chunks {
        let held = t.chunk(committed.chunk).is_some_and(|row| {
            row.inode == inode
                && row.index == committed.index
                && row.lease == Some(session)
                && row.granted == committed.version
        });
        if !held {
            return Err(FsError::LeaseLost);
        }
    }

    let size = file.size.max(update.size_at_least);
    for committed in chunks {
        let Some(mut row) = t.chunk(committed.chunk) else { continue };
        row.commit(committed.version, size);
        if committed.release {
            t.set_lease(committed.chunk, &mut row, None);
        }
        t.put_chunk(committed.chunk, &row);
    }
    // The session has written the inline bytes into the chunk, as its grant told it to.
    if chunks.iter().any(|committed| committed.index.raw() == 0) && t.rows.contains(&key::inline(inode)) {
        t.rows.delete(&key::inline(inode));
    }
    if !chunks.is_empty() || size != file.size {
        file.count_change();
    }
    t.set_size(&mut file, size);
    file.mtime = update.mtime;
    file.ctime = update.stamp;
    t.put_inode(inode, &file);
    Ok(Response::Attr(file.attr(inode)))
}
