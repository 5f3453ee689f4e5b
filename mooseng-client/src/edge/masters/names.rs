//! The namespace: one typed function for each request.

use bytes::Bytes;
use mooseng_protocol::convert::{self, BadMessage};
use mooseng_protocol::pb;
use mooseng_types::{Attr, FileName, InodeId, SetAttr};

use super::MasterClient;
use crate::Result;
use crate::fs::{DirEntry, DirPage, FsStats, NewNode, RenameMode, XattrMode};

fn bytes(name: &[u8]) -> Bytes {
    Bytes::copy_from_slice(name)
}

impl MasterClient {
    pub(crate) fn lookup(&self, parent: InodeId, name: &FileName) -> Result<Attr> {
        let request = pb::LookupRequest { parent: parent.raw(), name: bytes(name.as_bytes()) };
        Ok(convert::attr(self.query("lookup", |_| request.clone())?.attr)?)
    }

    pub(crate) fn get_attr(&self, inode: InodeId) -> Result<Attr> {
        let reply = self.query("getattr", |_| pb::GetAttrRequest { inode: inode.raw() })?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn set_attr(&self, inode: InodeId, change: SetAttr) -> Result<Attr> {
        let reply = self.mutate("setattr", |meta| pb::SetAttrRequest::new(meta, inode, change))?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn create(
        &self,
        parent: InodeId,
        name: &FileName,
        node: &NewNode,
        open: Option<u64>,
    ) -> Result<Attr> {
        let request = pb::CreateRequest {
            meta: None,
            parent: parent.raw(),
            name: bytes(name.as_bytes()),
            kind: node.kind.raw().into(),
            mode: node.mode.into(),
            uid: node.caller.uid,
            gid: node.caller.gid,
            rdev: node.rdev,
            target: bytes(&node.target),
            open: open.is_some(),
            open_number: open.unwrap_or(0),
        };
        let reply =
            self.mutate("create", |meta| pb::CreateRequest { meta: Some(meta), ..request.clone() })?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn link(&self, inode: InodeId, parent: InodeId, name: &FileName) -> Result<Attr> {
        let reply = self.mutate("link", |meta| pb::LinkRequest {
            meta: Some(meta),
            inode: inode.raw(),
            new_parent: parent.raw(),
            new_name: bytes(name.as_bytes()),
        })?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn unlink(&self, parent: InodeId, name: &FileName) -> Result<()> {
        let name = bytes(name.as_bytes());
        self.mutate("unlink", |meta| pb::UnlinkRequest {
            meta: Some(meta),
            parent: parent.raw(),
            name: name.clone(),
        })?;
        Ok(())
    }

    pub(crate) fn rmdir(&self, parent: InodeId, name: &FileName) -> Result<()> {
        let name = bytes(name.as_bytes());
        self.mutate("rmdir", |meta| pb::RmdirRequest {
            meta: Some(meta),
            parent: parent.raw(),
            name: name.clone(),
        })?;
        Ok(())
    }

    pub(crate) fn rename(
        &self,
        from: (InodeId, &FileName),
        to: (InodeId, &FileName),
        mode: RenameMode,
    ) -> Result<()> {
        let request = pb::RenameRequest {
            meta: None,
            parent: from.0.raw(),
            name: bytes(from.1.as_bytes()),
            new_parent: to.0.raw(),
            new_name: bytes(to.1.as_bytes()),
            no_replace: mode == RenameMode::NoReplace,
            exchange: mode == RenameMode::Exchange,
        };
        self.mutate("rename", |meta| pb::RenameRequest { meta: Some(meta), ..request.clone() })?;
        Ok(())
    }

    pub(crate) fn readdir(
        &self,
        inode: InodeId,
        cookie: u64,
        entries_max: u32,
        plus: bool,
    ) -> Result<DirPage> {
        let reply =
            self.query("readdir", |_| pb::ReaddirRequest { inode: inode.raw(), cookie, entries_max, plus })?;
        let entries = reply.entries.into_iter().map(dir_entry).collect::<std::result::Result<_, _>>()?;
        Ok(DirPage { entries, end: reply.end, parent: InodeId::from_raw(reply.parent) })
    }

    pub(crate) fn readlink(&self, inode: InodeId) -> Result<Bytes> {
        Ok(self.query("readlink", |_| pb::ReadlinkRequest { inode: inode.raw() })?.target)
    }

    pub(crate) fn set_xattr(&self, inode: InodeId, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let (name, value) = (bytes(name), bytes(value));
        self.mutate("setxattr", |meta| pb::SetXattrRequest {
            meta: Some(meta),
            inode: inode.raw(),
            name: name.clone(),
            value: value.clone(),
            create: mode == XattrMode::Create,
            replace: mode == XattrMode::Replace,
        })?;
        Ok(())
    }

    pub(crate) fn remove_xattr(&self, inode: InodeId, name: &[u8]) -> Result<()> {
        let name = bytes(name);
        self.mutate("removexattr", |meta| pb::RemoveXattrRequest {
            meta: Some(meta),
            inode: inode.raw(),
            name: name.clone(),
        })?;
        Ok(())
    }

    pub(crate) fn get_xattr(&self, inode: InodeId, name: &[u8]) -> Result<Bytes> {
        let request = pb::GetXattrRequest { inode: inode.raw(), name: bytes(name) };
        Ok(self.query("getxattr", |_| request.clone())?.value)
    }

    pub(crate) fn list_xattr(&self, inode: InodeId) -> Result<Vec<Bytes>> {
        Ok(self.query("listxattr", |_| pb::ListXattrRequest { inode: inode.raw() })?.names)
    }

    pub(crate) fn stat_fs(&self) -> Result<FsStats> {
        let reply = self.query("statfs", |_| pb::StatFsRequest {})?;
        Ok(FsStats {
            total_bytes: reply.total_bytes,
            free_bytes: reply.free_bytes,
            used_bytes: reply.used_bytes,
            inodes: reply.inodes,
        })
    }
}

fn dir_entry(entry: pb::DirEntry) -> std::result::Result<DirEntry, BadMessage> {
    Ok(DirEntry {
        inode: InodeId::from_raw(entry.inode),
        kind: convert::kind(entry.kind)?,
        cookie: entry.cookie,
        attr: entry.attr.map(Attr::try_from).transpose()?,
        name: entry.name,
    })
}
