//! Extended attributes.

use bytes::Bytes;
use mooseng_types::{FsError, InodeId, NAME_MAX, TimeNs, XATTR_VALUE_MAX};

use crate::command::XattrMode;
use crate::key;
use crate::response::Response;
use crate::tables::Tables;

/// What to set.
pub(super) struct Value<'a> {
    pub(super) name: &'a Bytes,
    pub(super) value: &'a Bytes,
    pub(super) mode: XattrMode,
}

/// `setxattr(2)`.
pub(super) fn set(
    t: &mut Tables,
    stamp: TimeNs,
    inode: InodeId,
    new: Value<'_>,
) -> Result<Response, FsError> {
    let mut row = t.need(inode)?;
    if new.name.is_empty() || new.name.len() > NAME_MAX {
        return Err(FsError::Invalid);
    }
    if new.value.len() > XATTR_VALUE_MAX {
        return Err(FsError::AttributeTooBig);
    }
    let place = key::xattr(inode, new.name);
    match (new.mode, t.rows.contains(&place)) {
        (XattrMode::Create, true) => return Err(FsError::Exists),
        (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
        _ => {}
    }

    t.rows.put(&place, new.value.clone());
    row.ctime = stamp;
    t.put_inode(inode, &row);
    Ok(Response::Done)
}

/// `removexattr(2)`.
pub(super) fn remove(
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
    row.ctime = stamp;
    t.put_inode(inode, &row);
    Ok(Response::Done)
}
