//! Attributes, plain and extended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_types::{Attr, FsError, InodeId, SetAttr, XATTR_VALUE_MAX};

use super::XattrMode;
use crate::Result;
use crate::client::Client;
use crate::file::Truncate;

/// File capabilities, see `capabilities(7)`.
const CAPABILITY: &[u8] = b"security.capability";

impl Client {
    /// The attributes of an object, with what this client has written to it and not committed yet.
    pub fn getattr(&self, inode: InodeId) -> Result<Attr> {
        let asked = self.next_stamp();
        let attr = self.masters.get_attr(inode)?;
        Ok(self.seen(attr, asked))
    }

    /// Changes attributes. A new size first sends and commits what was written, and gives the leases back.
    pub fn setattr(self: &Arc<Self>, inode: InodeId, change: SetAttr) -> Result<Attr> {
        self.writable()?;
        let Some(known) = self.known(inode) else {
            return self.masters.set_attr(inode, change);
        };
        if change.size.is_some() {
            let truncate = Truncate::new(&mut known.enter(self).file, change, self.clock.monotonic());
            self.run(&known, truncate)?;
            return known.enter(self).file.seen().ok_or_else(|| FsError::Stale.into());
        }
        // A time that a program sets must not be overtaken by the commit of an earlier write.
        if change.mtime.is_some() && !known.enter(self).file.is_clean() {
            self.flush_and_commit(&known, false)?;
        }
        let asked = self.next_stamp();
        let attr = self.masters.set_attr(inode, change)?;
        Ok(self.seen(attr, asked))
    }

    /// Sets an extended attribute.
    pub fn setxattr(&self, inode: InodeId, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        self.writable()?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(FsError::AttributeTooBig.into());
        }
        if let Some(known) = self.known(inode) {
            known.enter(self).no_capability_until = Duration::ZERO;
        }
        self.masters.set_xattr(inode, name, value, mode)
    }

    /// The value of an extended attribute.
    pub fn getxattr(&self, inode: InodeId, name: &[u8]) -> Result<Bytes> {
        if name != CAPABILITY {
            return self.masters.get_xattr(inode, name);
        }
        // The kernel asks for this one before every write.
        let known = self.known(inode);
        if known.as_ref().is_some_and(|known| known.enter(self).no_capability_until > self.clock.monotonic())
        {
            return Err(FsError::NoAttribute.into());
        }
        let value = self.masters.get_xattr(inode, name);
        if let (Some(known), Err(error)) = (known, &value)
            && error.is(FsError::NoAttribute)
        {
            known.enter(self).no_capability_until = self.believed_until();
        }
        value
    }

    /// Until when an attribute that the masters have told now may be believed.
    pub(super) fn believed_until(&self) -> Duration {
        self.clock.monotonic() + Duration::from_millis(self.config.attr_timeout_ms)
    }

    /// The names of all extended attributes.
    pub fn listxattr(&self, inode: InodeId) -> Result<Vec<Bytes>> {
        self.masters.list_xattr(inode)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, inode: InodeId, name: &[u8]) -> Result<()> {
        self.writable()?;
        self.masters.remove_xattr(inode, name)
    }
}
