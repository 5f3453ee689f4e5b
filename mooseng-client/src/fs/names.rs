//! Names: looking up, making, linking, removing, renaming.

use bytes::Bytes;
use mooseng_types::{Attr, FileName, FsError, InodeId};

use super::{NewNode, RenameMode};
use crate::Result;
use crate::client::Client;

impl Client {
    /// What `name` in `parent` leads to.
    pub fn lookup(&self, parent: InodeId, name: &FileName) -> Result<Attr> {
        let stamp = self.next_stamp();
        let attr = self.masters.lookup(parent, name)?;
        Ok(self.seen(attr, stamp))
    }

    /// Makes a directory, link, device, pipe, socket, or a regular file that is not to be opened.
    pub fn make(&self, parent: InodeId, name: &FileName, node: &NewNode) -> Result<Attr> {
        self.writable()?;
        self.masters.create(parent, name, node, None)
    }

    /// Gives an object another name.
    pub fn link(&self, inode: InodeId, parent: InodeId, name: &FileName) -> Result<Attr> {
        self.writable()?;
        let stamp = self.next_stamp();
        let attr = self.masters.link(inode, parent, name)?;
        Ok(self.seen(attr, stamp))
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: InodeId, name: &FileName) -> Result<()> {
        self.writable()?;
        self.masters.unlink(parent, name)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: InodeId, name: &FileName) -> Result<()> {
        self.writable()?;
        self.masters.rmdir(parent, name)
    }

    /// Moves a name.
    pub fn rename(
        &self,
        from: (InodeId, &FileName),
        to: (InodeId, &FileName),
        mode: RenameMode,
    ) -> Result<()> {
        self.writable()?;
        self.masters.rename(from, to, mode)
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, inode: InodeId) -> Result<Bytes> {
        self.masters.readlink(inode)
    }

    /// Refuses on a client that is configured read-only.
    pub(super) fn writable(&self) -> Result<()> {
        if self.config.read_only { Err(FsError::ReadOnly.into()) } else { Ok(()) }
    }
}
