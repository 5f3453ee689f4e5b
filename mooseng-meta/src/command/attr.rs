//! Commands on attributes, extended ones among them.

use bytes::Bytes;
use mooseng_types::{FsError, InodeId, SessionId, SetAttr, SetTime, TimeNs};

use super::{Command, tag};
use crate::codec::{CodecError, Reader, Writer};
use crate::op::{attr, xattr};
use crate::query::LeaseInTheWay;
use crate::response::Response;
use crate::tables::Tables;

/// How `setxattr(2)` treats an attribute that exists, or does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Made or replaced.
    Any,
    /// Only made (`XATTR_CREATE`).
    Create,
    /// Only replaced (`XATTR_REPLACE`).
    Replace,
}

/// A change of attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttrCommand {
    /// `chmod(2)`, `chown(2)`, `truncate(2)`, `utimensat(2)`.
    SetAttr {
        /// The object.
        inode: InodeId,
        /// The change.
        change: SetAttr,
        /// Who asks: its own leases do not stand in the way of a truncation.
        session: Option<SessionId>,
    },
    /// `setxattr(2)`.
    SetXattr {
        /// The object.
        inode: InodeId,
        /// The attribute, with its namespace (`user.`).
        name: Bytes,
        /// Its new value.
        value: Bytes,
        /// Whether it may, or must, exist.
        mode: XattrMode,
    },
    /// `removexattr(2)`.
    RemoveXattr {
        /// The object.
        inode: InodeId,
        /// The attribute.
        name: Bytes,
    },
}

impl From<AttrCommand> for Command {
    fn from(command: AttrCommand) -> Self {
        Self::Attr(command)
    }
}

impl AttrCommand {
    pub(super) fn check(&self) -> Result<(), FsError> {
        match self {
            Self::SetAttr { .. } => Ok(()),
            Self::SetXattr { name, value, .. } => xattr::check(name, value),
            Self::RemoveXattr { name, .. } => xattr::check(name, &[]),
        }
    }

    /// Bytes of what may be long.
    pub(super) fn payload(&self) -> usize {
        match self {
            Self::SetXattr { value, .. } => value.len(),
            Self::SetAttr { .. } | Self::RemoveXattr { .. } => 0,
        }
    }

    /// The lease of another session for which the command would be refused.
    pub(super) fn lease_in_the_way(&self, t: &Tables) -> Option<LeaseInTheWay> {
        match self {
            Self::SetAttr { inode, change, session } => {
                attr::lease_in_the_way(t, *inode, change.size?, *session)
            }
            Self::SetXattr { .. } | Self::RemoveXattr { .. } => None,
        }
    }

    /// The file that may lose leases by it.
    pub(super) fn shortened(&self) -> Option<InodeId> {
        match self {
            Self::SetAttr { inode, change, .. } => change.size.map(|_| *inode),
            Self::SetXattr { .. } | Self::RemoveXattr { .. } => None,
        }
    }

    pub(super) fn run(&self, t: &mut Tables, stamp: TimeNs) -> Result<Response, FsError> {
        match self {
            Self::SetAttr { inode, change, session } => attr::set(t, stamp, *inode, change, *session),
            Self::SetXattr { inode, name, value, mode } => {
                xattr::set(t, stamp, *inode, xattr::Value { name, value, mode: *mode })
            }
            Self::RemoveXattr { inode, name } => xattr::remove(t, stamp, *inode, name),
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::SetAttr { inode, change, session } => {
                w.u8(tag::SET_ATTR);
                w.inode(*inode);
                w.option(change.mode, |w, mode| w.var(mode.into()));
                w.option(change.uid, |w, uid| w.var(uid.into()));
                w.option(change.gid, |w, gid| w.var(gid.into()));
                w.option(change.size, Writer::var);
                w.option(change.atime, put_set_time);
                w.option(change.mtime, put_set_time);
                w.option(*session, Writer::session);
            }
            Self::SetXattr { inode, name, value, mode } => {
                w.u8(tag::SET_XATTR);
                w.inode(*inode);
                w.bytes(name);
                w.bytes(value);
                w.u8(mode.raw());
            }
            Self::RemoveXattr { inode, name } => {
                w.u8(tag::REMOVE_XATTR);
                w.inode(*inode);
                w.bytes(name);
            }
        }
    }

    /// The command with this number; `None` if it is of another family.
    pub(super) fn decode(tag: u8, r: &mut Reader<'_>) -> Result<Option<Self>, CodecError> {
        Ok(Some(match tag {
            tag::SET_ATTR => {
                Self::SetAttr { inode: r.inode()?, change: set_attr(r)?, session: r.option(Reader::session)? }
            }
            tag::SET_XATTR => Self::SetXattr {
                inode: r.inode()?,
                name: r.bytes()?,
                value: r.bytes()?,
                mode: XattrMode::from_raw(r.u8()?).ok_or(CodecError::Value("xattr mode"))?,
            },
            tag::REMOVE_XATTR => Self::RemoveXattr { inode: r.inode()?, name: r.bytes()? },
            _ => return Ok(None),
        }))
    }
}

fn put_set_time(w: &mut Writer, time: SetTime) {
    w.option(
        match time {
            SetTime::Now => None,
            SetTime::At(at) => Some(at),
        },
        Writer::time,
    );
}

fn set_time(r: &mut Reader<'_>) -> Result<SetTime, CodecError> {
    Ok(r.option(Reader::time)?.map_or(SetTime::Now, SetTime::At))
}

fn set_attr(r: &mut Reader<'_>) -> Result<SetAttr, CodecError> {
    Ok(SetAttr {
        mode: r.option(Reader::narrow)?,
        uid: r.option(Reader::narrow)?,
        gid: r.option(Reader::narrow)?,
        size: r.option(Reader::var)?,
        atime: r.option(set_time)?,
        mtime: r.option(set_time)?,
    })
}

impl XattrMode {
    const fn raw(self) -> u8 {
        match self {
            Self::Any => 0,
            Self::Create => 1,
            Self::Replace => 2,
        }
    }

    const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Any),
            1 => Some(Self::Create),
            2 => Some(Self::Replace),
            _ => None,
        }
    }
}
