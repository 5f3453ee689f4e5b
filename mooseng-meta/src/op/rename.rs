//! Names that move.

use mooseng_types::{FileKind, FileName, FsError, InodeId, TimeNs};

use super::{DirChange, change_dir};
use crate::command::RenameMode;
use crate::inode::Dentry;
use crate::key;
use crate::response::Response;
use crate::tables::Tables;

/// A name in a directory.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) dir: InodeId,
    pub(crate) name: &'a FileName,
}

fn is_dir(dentry: Dentry) -> bool {
    dentry.kind == FileKind::Directory
}

/// `dir` is `above` or lies somewhere below it. Ends at the cell's root: directories form a tree.
fn lies_in(t: &Tables, mut dir: InodeId, above: InodeId) -> Result<bool, FsError> {
    while dir != above {
        if dir == t.cell.root() {
            return Ok(false);
        }
        dir = t.need_dir(dir)?.parent;
    }
    Ok(true)
}

/// A directory cannot move into itself or below, nor into another one that counts no more subdirectories.
fn check_move(t: &Tables, moved: Dentry, from: InodeId, to: InodeId) -> Result<(), FsError> {
    if !is_dir(moved) || from == to {
        return Ok(());
    }
    if lies_in(t, to, moved.inode)? {
        return Err(FsError::Invalid);
    }
    if t.need_dir(to)?.nlink == u32::MAX {
        return Err(FsError::TooManyLinks);
    }
    Ok(())
}

/// `renameat2(2)`.
pub(crate) fn rename(
    t: &mut Tables,
    stamp: TimeNs,
    old: Place<'_>,
    new: Place<'_>,
    mode: RenameMode,
) -> Result<Response, FsError> {
    t.need_dir(old.dir)?;
    t.need_live_dir(new.dir)?;
    let moved = t.dentry(old.dir, old.name).ok_or(FsError::NotFound)?;
    match (mode, t.dentry(new.dir, new.name)) {
        (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists),
        (RenameMode::Exchange, None) => Err(FsError::NotFound),
        // Two names of one object: rename(2) leaves both.
        (_, Some(there)) if there.inode == moved.inode => Ok(Response::Done),
        (RenameMode::Exchange, Some(there)) => exchange(t, stamp, (old, moved), (new, there)),
        (_, there) => replace(t, stamp, (old, moved), new, there),
    }
}

fn replace(
    t: &mut Tables,
    stamp: TimeNs,
    (old, moved): (Place<'_>, Dentry),
    new: Place<'_>,
    there: Option<Dentry>,
) -> Result<Response, FsError> {
    check_move(t, moved, old.dir, new.dir)?;
    let replaced = match there {
        None => None,
        Some(there) => {
            let row = t.need(there.inode)?;
            match (is_dir(moved), row.is_dir()) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                (true, true) if row.size > 0 => return Err(FsError::NotEmpty),
                _ => Some((there.inode, row)),
            }
        }
    };
    t.need(moved.inode)?;

    let gone = i64::from(replaced.is_some());
    let gone_dirs = i32::from(replaced.is_some() && is_dir(moved));
    t.rows.delete(&key::dentry(old.dir, old.name));
    change_dir(t, stamp, old.dir, DirChange { entries: -1, subdirs: -i32::from(is_dir(moved)) });
    if let Some((inode, row)) = replaced {
        t.drop_name(inode, row, stamp);
    }
    let more = DirChange { entries: 1 - gone, subdirs: i32::from(is_dir(moved)) - gone_dirs };
    change_dir(t, stamp, new.dir, more);
    put_moved(t, stamp, moved, new);
    Ok(Response::Done)
}

fn exchange(
    t: &mut Tables,
    stamp: TimeNs,
    (old, moved): (Place<'_>, Dentry),
    (new, there): (Place<'_>, Dentry),
) -> Result<Response, FsError> {
    check_move(t, moved, old.dir, new.dir)?;
    check_move(t, there, new.dir, old.dir)?;
    t.need(moved.inode)?;
    t.need(there.inode)?;

    let subdirs = i32::from(is_dir(there)) - i32::from(is_dir(moved));
    change_dir(t, stamp, old.dir, DirChange { entries: 0, subdirs });
    change_dir(t, stamp, new.dir, DirChange { entries: 0, subdirs: -subdirs });
    put_moved(t, stamp, moved, new);
    put_moved(t, stamp, there, old);
    Ok(Response::Done)
}

/// Puts an entry in its new place and tells its object.
fn put_moved(t: &mut Tables, stamp: TimeNs, dentry: Dentry, place: Place<'_>) {
    t.put_dentry(place.dir, place.name, dentry);
    let Some(mut row) = t.inode(dentry.inode) else { return };
    row.ctime = stamp;
    if row.is_dir() {
        row.parent = place.dir;
    }
    t.put_inode(dentry.inode, &row);
}
