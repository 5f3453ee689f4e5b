//! What `stat(2)` tells of an object, and what may be changed about it.

use crate::{InodeId, TimeNs};

/// What kind of object an inode is; the values are those of `S_IFMT` shifted right by 12.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FileKind {
    /// A named pipe.
    Fifo = 1,
    /// A character device.
    CharDevice = 2,
    /// A directory.
    Directory = 4,
    /// A block device.
    BlockDevice = 6,
    /// A regular file.
    File = 8,
    /// A symbolic link.
    Symlink = 10,
    /// A Unix socket.
    Socket = 12,
}

impl FileKind {
    /// The kind with this number; `None` if there is none.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Fifo,
            2 => Self::CharDevice,
            4 => Self::Directory,
            6 => Self::BlockDevice,
            8 => Self::File,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => return None,
        })
    }

    /// The number behind the kind, as `d_type` has it.
    #[must_use]
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// The kind of an `st_mode`; `None` if its type bits name none.
    #[must_use]
    pub const fn of_mode(mode: u32) -> Option<Self> {
        Self::from_raw(((mode >> 12) & 0xf) as u8)
    }
}

/// The attributes of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// The object.
    pub inode: InodeId,
    /// Tells apart two objects that would share an inode number; constant for one object.
    pub generation: u64,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-uid, set-gid and sticky: `mode & 0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that lead here; for a directory 2 and one more for each subdirectory.
    pub nlink: u32,
    /// Device number of a device, as in `st_rdev`.
    pub rdev: u32,
    /// Length in bytes: of a file its end, of a link its target, of a directory its number of entries.
    pub size: u64,
    /// Last read.
    pub atime: TimeNs,
    /// Last change of content.
    pub mtime: TimeNs,
    /// Last change of content or attributes.
    pub ctime: TimeNs,
    /// Birth.
    pub btime: TimeNs,
    /// Of a file: counts the changes of its content and length, whoever makes them and whatever its times say.
    pub content_version: u64,
}

/// A new value for a timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The time at which the change is made (`UTIME_NOW`).
    Now,
    /// This time.
    At(TimeNs),
}

/// A change of attributes; what is `None` stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits, `mode & 0o7777`.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a file in bytes, as `truncate(2)` sets it.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
}
