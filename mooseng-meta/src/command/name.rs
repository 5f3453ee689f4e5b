//! Commands on names: what changes directories.

use bytes::Bytes;
use mooseng_types::{FileKind, FileName, FsError, InodeId, TimeNs};

use super::{Command, tag};
use crate::codec::{CodecError, Reader, Writer};
use crate::op::{create, rename, unlink};
use crate::response::Response;
use crate::tables::Tables;

/// How `rename(2)` treats a new name that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// What has the new name is replaced.
    Replace,
    /// Refused (`RENAME_NOREPLACE`).
    NoReplace,
    /// The two names change places (`RENAME_EXCHANGE`).
    Exchange,
}

/// A change of names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameCommand {
    /// `mkdir(2)`, `mknod(2)`, `symlink(2)` and `open(2)` with `O_CREAT | O_EXCL`.
    Create {
        /// The directory.
        parent: InodeId,
        /// The new name.
        name: FileName,
        /// What to make.
        kind: FileKind,
        /// Permission bits, with the umask already applied.
        mode: u16,
        /// Owner.
        uid: u32,
        /// Group, unless the directory passes on its own.
        gid: u32,
        /// Device number; 0 unless a device is made.
        rdev: u32,
        /// Where a symbolic link leads; empty unless one is made.
        target: Bytes,
    },
    /// `link(2)`.
    Link {
        /// The object.
        inode: InodeId,
        /// The directory of its new name.
        new_parent: InodeId,
        /// The new name.
        new_name: FileName,
    },
    /// `unlink(2)`.
    Unlink {
        /// The directory.
        parent: InodeId,
        /// The name to remove.
        name: FileName,
    },
    /// `rmdir(2)`.
    Rmdir {
        /// The directory above.
        parent: InodeId,
        /// The name to remove.
        name: FileName,
    },
    /// `renameat2(2)`.
    Rename {
        /// The old directory.
        parent: InodeId,
        /// The old name.
        name: FileName,
        /// The new directory.
        new_parent: InodeId,
        /// The new name.
        new_name: FileName,
        /// What to do if the new name is taken.
        mode: RenameMode,
    },
}

impl From<NameCommand> for Command {
    fn from(command: NameCommand) -> Self {
        Self::Name(command)
    }
}

impl NameCommand {
    pub(super) fn check(&self) -> Result<(), FsError> {
        match self {
            Self::Create { kind, target, .. } => create::check(*kind, target),
            Self::Link { .. } | Self::Unlink { .. } | Self::Rmdir { .. } | Self::Rename { .. } => Ok(()),
        }
    }

    /// Bytes of what may be long.
    pub(super) fn payload(&self) -> usize {
        match self {
            Self::Create { name, target, .. } => name.as_bytes().len() + target.len(),
            Self::Link { .. } | Self::Unlink { .. } | Self::Rmdir { .. } | Self::Rename { .. } => 0,
        }
    }

    pub(super) fn run(&self, t: &mut Tables, stamp: TimeNs) -> Result<Response, FsError> {
        match self {
            Self::Create { parent, name, kind, mode, uid, gid, rdev, target } => {
                let new = create::New { kind: *kind, mode: *mode, uid: *uid, gid: *gid, rdev: *rdev, target };
                create::create(t, stamp, *parent, name, &new)
            }
            Self::Link { inode, new_parent, new_name } => {
                create::link(t, stamp, *inode, *new_parent, new_name)
            }
            Self::Unlink { parent, name } => unlink::unlink(t, stamp, *parent, name),
            Self::Rmdir { parent, name } => unlink::rmdir(t, stamp, *parent, name),
            Self::Rename { parent, name, new_parent, new_name, mode } => {
                let old = rename::Place { dir: *parent, name };
                let new = rename::Place { dir: *new_parent, name: new_name };
                rename::rename(t, stamp, old, new, *mode)
            }
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Create { parent, name, kind, mode, uid, gid, rdev, target } => {
                w.u8(tag::CREATE);
                w.inode(*parent);
                w.name(name);
                w.u8(kind.raw());
                for number in [u32::from(*mode), *uid, *gid, *rdev] {
                    w.var(number.into());
                }
                w.bytes(target);
            }
            Self::Link { inode, new_parent, new_name } => {
                w.u8(tag::LINK);
                w.inode(*inode);
                w.inode(*new_parent);
                w.name(new_name);
            }
            Self::Unlink { parent, name } => {
                w.u8(tag::UNLINK);
                w.inode(*parent);
                w.name(name);
            }
            Self::Rmdir { parent, name } => {
                w.u8(tag::RMDIR);
                w.inode(*parent);
                w.name(name);
            }
            Self::Rename { parent, name, new_parent, new_name, mode } => {
                w.u8(tag::RENAME);
                w.inode(*parent);
                w.name(name);
                w.inode(*new_parent);
                w.name(new_name);
                w.u8(mode.raw());
            }
        }
    }

    /// The command with this number; `None` if it is of another family.
    pub(super) fn decode(tag: u8, r: &mut Reader<'_>) -> Result<Option<Self>, CodecError> {
        Ok(Some(match tag {
            tag::CREATE => Self::Create {
                parent: r.inode()?,
                name: r.name()?,
                kind: r.kind()?,
                mode: r.narrow()?,
                uid: r.narrow()?,
                gid: r.narrow()?,
                rdev: r.narrow()?,
                target: r.bytes()?,
            },
            tag::LINK => Self::Link { inode: r.inode()?, new_parent: r.inode()?, new_name: r.name()? },
            tag::UNLINK => Self::Unlink { parent: r.inode()?, name: r.name()? },
            tag::RMDIR => Self::Rmdir { parent: r.inode()?, name: r.name()? },
            tag::RENAME => Self::Rename {
                parent: r.inode()?,
                name: r.name()?,
                new_parent: r.inode()?,
                new_name: r.name()?,
                mode: RenameMode::from_raw(r.u8()?).ok_or(CodecError::Value("rename mode"))?,
            },
            _ => return Ok(None),
        }))
    }
}

impl RenameMode {
    const fn raw(self) -> u8 {
        match self {
            Self::Replace => 0,
            Self::NoReplace => 1,
            Self::Exchange => 2,
        }
    }

    const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Replace),
            1 => Some(Self::NoReplace),
            2 => Some(Self::Exchange),
            _ => None,
        }
    }
}
