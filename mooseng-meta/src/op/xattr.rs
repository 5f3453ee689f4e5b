//! Extended attributes.

use bytes::Bytes;
use mooseng_types::{FsError, InodeId, NAME_MAX, TimeNs, XATTR_NAMES_MAX, XATTR_VALUE_MAX};

use crate::command::XattrMode;
use crate::key;
use crate::response::Response;
use crate::tables::Tables;

/// What to set.
pub(crate) struct Value<'a> {
    pub(crate) name: &'a Bytes,
    pub(crate) value: &'a Bytes,
    pub(crate) mode: XattrMode,
}

/// What a name takes of the room for names.
fn listed(name: &Bytes) -> u32 {
    u32::try_from(name.len() + 1).unwrap_or(u32::MAX)
}

/// Refuses a name or a value that no attribute can have; also asked before a command with them is proposed.
pub(crate) fn check(name: &[u8], value: &[u8]) -> Result<(), FsError> {
    match () {
        () if name.len() > NAME_MAX => Err(FsError::NameTooLong),
        () if name.is_empty() || name.contains(&0) => Err(FsError::Invalid),
        () if value.len() > XATTR_VALUE_MAX => Err(FsError::AttributeTooBig),
        () => Ok(()),
    }
}

/// `setxattr(2)`; `ENOSPC` if the names could not be listed any more.
pub(crate) fn set(
    t: &mut Tables,
    stamp: TimeNs,
    inode: InodeId,
    new: Value<'_>,
) -> Result<Response, FsError> {
    let mut row = t.need(inode)?;
    check(new.name, new.value)?;
    let place = key::xattr(inode, new.name);
    let names = match (new.mode, t.rows.contains(&place)) {
        (XattrMode::Create, true) => return Err(FsError::Exists),
        (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
        (_, true) => row.xattr_names,
        (_, false) => row.xattr_names + listed(new.name),
    };
    if names as usize > XATTR_NAMES_MAX {
        return Err(FsError::NoSpace);
    }

    t.rows.put(&place, new.value.clone());
    row.xattr_names = names;
    row.ctime = stamp;
    t.put_inode(inode, &row);
    Ok(Response::Done)
}

/// `removexattr(2)`.
pub(crate) fn remove(
    t: &mut Tables,
    stamp: TimeNs,
    inode: InodeId,
    name: &Bytes,
) -> Result<Response, FsError> {
    let mut row = t.need(inode)?;
    let place = key::xattr(inode, name);
    if !t.rows.contains(&place) {
        return Err(FsError::NoAttribute);
    }

    t.rows.delete(&place);
    row.xattr_names = row.xattr_names.saturating_sub(listed(name));
    row.ctime = stamp;
    t.put_inode(inode, &row);
    Ok(Response::Done)
}
