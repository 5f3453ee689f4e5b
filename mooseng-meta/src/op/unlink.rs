//! Names that go.

use mooseng_types::{FileKind, FileName, FsError, InodeId, TimeNs};

use super::{DirChange, change_dir};
use crate::inode::Dentry;
use crate::key;
use crate::response::Response;
use crate::tables::Tables;

fn need_dentry(t: &Tables, parent: InodeId, name: &FileName) -> Result<Dentry, FsError> {
    t.need_dir(parent)?;
    t.dentry(parent, name).ok_or(FsError::NotFound)
}

/// Removes a name of anything but a directory.
pub(crate) fn unlink(
    t: &mut Tables,
    stamp: TimeNs,
    parent: InodeId,
    name: &FileName,
) -> Result<Response, FsError> {
    let dentry = need_dentry(t, parent, name)?;
    if dentry.kind == FileKind::Directory {
        return Err(FsError::IsDirectory);
    }
    let row = t.need(dentry.inode)?;

    t.rows.delete(&key::dentry(parent, name));
    t.drop_name(dentry.inode, row, stamp);
    change_dir(t, stamp, parent, DirChange { entries: -1, subdirs: 0 });
    Ok(Response::Done)
}

/// Removes an empty directory.
pub(crate) fn rmdir(
    t: &mut Tables,
    stamp: TimeNs,
    parent: InodeId,
    name: &FileName,
) -> Result<Response, FsError> {
    let dentry = need_dentry(t, parent, name)?;
    let row = t.need_dir(dentry.inode)?;
    if row.size > 0 {
        return Err(FsError::NotEmpty);
    }

    t.rows.delete(&key::dentry(parent, name));
    t.drop_name(dentry.inode, row, stamp);
    change_dir(t, stamp, parent, DirChange { entries: -1, subdirs: -1 });
    Ok(Response::Done)
}
