//! Questions about one object.

use bytes::Bytes;
use mooseng_types::{Attr, FileKind, FileName, FsError, InodeId, XATTR_NAMES_MAX};

use crate::key;
use crate::state::MetaState;

impl MetaState {
    /// What the name leads to.
    pub fn lookup(&self, parent: InodeId, name: &FileName) -> Result<Attr, FsError> {
        match self.tables.dentry(parent, name) {
            Some(dentry) => self.getattr(dentry.inode),
            None => Err(self.tables.need_dir(parent).err().unwrap_or(FsError::NotFound)),
        }
    }

    /// The object's attributes, also of one that has no name any more but is not reaped yet.
    pub fn getattr(&self, inode: InodeId) -> Result<Attr, FsError> {
        self.tables.need(inode).map(|row| row.attr(inode))
    }

    /// The directory above a directory; the root's is the root.
    pub fn parent_of(&self, dir: InodeId) -> Result<InodeId, FsError> {
        self.tables.need_dir(dir).map(|row| row.parent)
    }

    /// Where a symbolic link leads.
    pub fn readlink(&self, inode: InodeId) -> Result<Bytes, FsError> {
        if self.tables.need(inode)?.kind != FileKind::Symlink {
            return Err(FsError::Invalid);
        }
        self.tables.rows.get(&key::target(inode)).ok_or(FsError::Io)
    }

    /// The value of an extended attribute.
    pub fn getxattr(&self, inode: InodeId, name: &[u8]) -> Result<Bytes, FsError> {
        match self.tables.rows.get(&key::xattr(inode, name)) {
            Some(value) => Ok(value),
            None => Err(self.tables.need(inode).err().unwrap_or(FsError::NoAttribute)),
        }
    }

    /// The names of an object's extended attributes, in byte order.
    pub fn listxattr(&self, inode: InodeId) -> Result<Vec<Bytes>, FsError> {
        self.tables.need(inode)?;
        let prefix = key::xattrs(inode);
        let name = |key: &[u8], _: &[u8]| Bytes::copy_from_slice(&key[prefix.len()..]);
        Ok(self.tables.rows.collect(&prefix, &[], XATTR_NAMES_MAX, name))
    }

    /// A small file's first bytes, if they live in the metadata; beyond them the file reads as zero.
    #[must_use]
    pub fn inline(&self, inode: InodeId) -> Option<Bytes> {
        self.tables.inline(inode)
    }

    /// The object has no name any more.
    #[must_use]
    pub fn is_orphan(&self, inode: InodeId) -> bool {
        self.tables.rows.contains(&key::orphan(inode))
    }

    /// Objects without a name, the oldest first, at most `limit`.
    #[must_use]
    pub fn orphans(&self, limit: usize) -> Vec<InodeId> {
        self.tables.rows.collect(b"o", &[], limit, |key, _| InodeId::from_raw(key::number_at(key, 1)))
    }
}
