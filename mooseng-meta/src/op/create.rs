//! New names: for a new object, and for one that exists.

use bytes::Bytes;
use mooseng_types::{FileKind, FileName, FsError, InodeId, SYMLINK_MAX, TimeNs};

use crate::inode::{Dentry, InodeRow};
use crate::key;
use crate::response::Response;
use crate::tables::Tables;

/// Most names of one file, as ext4 has it. Subdirectories are limited by the width of the counter only.
pub(crate) const LINKS_MAX: u32 = 65_000;

const SET_GID: u16 = 0o2000;
const MODE_BITS: u16 = 0o7777;
const SYMLINK_MODE: u16 = 0o777;

/// What is to be made.
pub(crate) struct New<'a> {
    pub(crate) kind: FileKind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) target: &'a Bytes,
}

/// Refuses a target that no object of this kind can have.
pub(crate) fn check(kind: FileKind, target: &Bytes) -> Result<(), FsError> {
    let link = kind == FileKind::Symlink;
    if target.len() > SYMLINK_MAX {
        return Err(FsError::NameTooLong);
    }
    if link == target.is_empty() || target.contains(&0) {
        return Err(FsError::Invalid);
    }
    Ok(())
}

/// The new object's row. A set-gid directory passes on its group, and to directories the bit itself (`inode(7)`).
fn row_of(new: &New<'_>, parent: InodeId, dir: &InodeRow, stamp: TimeNs) -> InodeRow {
    let inherits = dir.mode & SET_GID != 0;
    let is_dir = new.kind == FileKind::Directory;
    let is_device = matches!(new.kind, FileKind::CharDevice | FileKind::BlockDevice);
    let mode = match new.kind {
        FileKind::Symlink => SYMLINK_MODE,
        FileKind::Directory if inherits => new.mode & MODE_BITS | SET_GID,
        _ => new.mode & MODE_BITS,
    };
    InodeRow {
        kind: new.kind,
        mode,
        uid: new.uid,
        gid: if inherits { dir.gid } else { new.gid },
        nlink: if is_dir { 2 } else { 1 },
        rdev: if is_device { new.rdev } else { 0 },
        size: new.target.len() as u64,
        atime: stamp,
        mtime: stamp,
        ctime: stamp,
        btime: stamp,
        parent: if is_dir { parent } else { InodeId::from_raw(0) },
        content: 0,
        xattr_names: 0,
        class: dir.class,
    }
}

/// Makes an object.
pub(crate) fn create(
    t: &mut Tables,
    stamp: TimeNs,
    parent: InodeId,
    name: &FileName,
    new: &New<'_>,
) -> Result<Response, FsError> {
    let mut dir = t.need_live_dir(parent)?;
    let place = key::dentry(parent, name);
    if t.rows.contains(&place) {
        return Err(FsError::Exists);
    }
    check(new.kind, new.target)?;
    let is_dir = new.kind == FileKind::Directory;
    if is_dir && dir.nlink == u32::MAX {
        return Err(FsError::TooManyLinks);
    }

    let inode = t.new_inode()?;
    let row = row_of(new, parent, &dir, stamp);
    t.join_class(row.class);
    t.put_inode(inode, &row);
    if !new.target.is_empty() {
        t.rows.put(&key::target(inode), new.target.clone());
    }
    t.rows.put(&place, Bytes::copy_from_slice(&Dentry { inode, kind: new.kind }.encode()));
    dir.size += 1;
    dir.nlink += u32::from(is_dir);
    dir.touch(stamp);
    t.put_inode(parent, &dir);
    Ok(Response::Attr(row.attr(inode)))
}

/// Gives an object a further name (`link(2)`).
pub(crate) fn link(
    t: &mut Tables,
    stamp: TimeNs,
    inode: InodeId,
    parent: InodeId,
    name: &FileName,
) -> Result<Response, FsError> {
    let mut row = t.need(inode)?;
    let mut dir = t.need_live_dir(parent)?;
    let place = key::dentry(parent, name);
    if t.rows.contains(&place) {
        return Err(FsError::Exists);
    }
    match row.nlink {
        _ if row.is_dir() => return Err(FsError::NotPermitted),
        0 => return Err(FsError::NotFound),
        LINKS_MAX.. => return Err(FsError::TooManyLinks),
        _ => {}
    }

    row.nlink += 1;
    row.ctime = stamp;
    t.put_inode(inode, &row);
    t.rows.put(&place, Bytes::copy_from_slice(&Dentry { inode, kind: row.kind }.encode()));
    dir.size += 1;
    dir.touch(stamp);
    t.put_inode(parent, &dir);
    Ok(Response::Attr(row.attr(inode)))
}
