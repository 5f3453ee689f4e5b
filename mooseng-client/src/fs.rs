//! The operations of the file system, free of FUSE.

mod attrs;
mod dirs;
mod files;
mod names;

use bytes::Bytes;
use mooseng_types::{Attr, FileKind, InodeId};

/// On whose behalf something is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller {
    /// The owner of what is created.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// An object to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, `mode & 0o7777`.
    pub mode: u16,
    /// Device number of a device.
    pub rdev: u32,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Its owner.
    pub caller: Caller,
}

/// What a rename does about a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RenameMode {
    /// Replaces it, as `rename(2)`.
    #[default]
    Replace,
    /// Refuses (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swaps the two (`RENAME_EXCHANGE`).
    Exchange,
}

/// Whether an extended attribute may or must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XattrMode {
    /// It may.
    #[default]
    Any,
    /// It must not (`XATTR_CREATE`).
    Create,
    /// It must (`XATTR_REPLACE`).
    Replace,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// What it leads to.
    pub inode: InodeId,
    /// Its name.
    pub name: Bytes,
    /// What it is.
    pub kind: FileKind,
    /// Where to go on after it; above 2.
    pub cookie: u64,
    /// Its attributes, if they were asked for.
    pub attr: Option<Attr>,
}

/// Some entries of a directory, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirPage {
    /// The entries, without `.` and `..`.
    pub entries: Vec<DirEntry>,
    /// Nothing follows.
    pub end: bool,
    /// What `..` is.
    pub parent: InodeId,
}

/// Totals of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsStats {
    /// Room for file data in bytes, copies taken into account.
    pub total_bytes: u64,
    /// What of it is free.
    pub free_bytes: u64,
    /// Sum of the sizes of all files in bytes.
    pub used_bytes: u64,
    /// Objects.
    pub inodes: u64,
}
