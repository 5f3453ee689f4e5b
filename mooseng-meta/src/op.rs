//! What carries commands out. Each refuses first and changes second: after its first change there is no way
//! back, so there is no `?` either.

pub(crate) mod attr;
pub(crate) mod class;
pub(crate) mod commit;
pub(crate) mod create;
pub(crate) mod grant;
pub(crate) mod index;
pub(crate) mod inline;
pub(crate) mod lease;
pub(crate) mod member;
pub(crate) mod reap;
pub(crate) mod rename;
pub(crate) mod replica;
pub(crate) mod unlink;
pub(crate) mod xattr;

use mooseng_types::{InodeId, TimeNs};

use crate::tables::Tables;

/// How a directory's counts change.
#[derive(Clone, Copy)]
struct DirChange {
    /// More entries.
    entries: i64,
    /// More subdirectories.
    subdirs: i32,
}

/// Notes in a directory that its entries have changed.
fn change_dir(t: &mut Tables, stamp: TimeNs, dir: InodeId, change: DirChange) {
    let Some(mut row) = t.inode(dir) else { return };
    row.size = row.size.saturating_add_signed(change.entries);
    row.nlink = row.nlink.saturating_add_signed(change.subdirs);
    row.touch(stamp);
    t.put_inode(dir, &row);
}
