//! The rows of an object and of a directory entry.

use mooseng_types::{Attr, ClassId, FileKind, InodeId, TimeNs};

/// Inode numbers are never used twice, so one generation does.
const GENERATION: u64 = 1;

/// An object. For the meaning of the fields see [`Attr`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InodeRow {
    pub(crate) kind: FileKind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// 0 for an orphan.
    pub(crate) nlink: u32,
    pub(crate) rdev: u32,
    pub(crate) size: u64,
    pub(crate) atime: TimeNs,
    pub(crate) mtime: TimeNs,
    pub(crate) ctime: TimeNs,
    pub(crate) btime: TimeNs,
    /// The directory above a directory (the root's is the root); inode 0 for anything else.
    pub(crate) parent: InodeId,
    /// Counts the changes of a file's content and length.
    pub(crate) content: u64,
    /// Bytes of the names of its extended attributes, with a NUL each.
    pub(crate) xattr_names: u32,
    /// What is wanted for its content, and for that of new objects in a directory. 0 below [`Level::IDENTITY`].
    ///
    /// [`Level::IDENTITY`]: mooseng_types::Level::IDENTITY
    pub(crate) class: ClassId,
}

impl InodeRow {
    pub(crate) fn attr(&self, inode: InodeId) -> Attr {
        Attr {
            inode,
            generation: GENERATION,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            rdev: self.rdev,
            size: self.size,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            content_version: self.content,
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Notes a change of a directory's entries.
    pub(crate) fn touch(&mut self, stamp: TimeNs) {
        self.mtime = stamp;
        self.ctime = stamp;
    }

    /// Notes a change of a file's content or length, whatever becomes of its times.
    pub(crate) fn count_change(&mut self) {
        self.content += 1;
    }
}

/// Where a directory entry leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dentry {
    pub(crate) inode: InodeId,
    pub(crate) kind: FileKind,
}
