//! Open files and their chunks: one typed function for each request.

use mooseng_protocol::{convert, pb};
use mooseng_types::{Attr, ChunkIndex, InodeId};

use super::super::messages;
use super::MasterClient;
use crate::Result;
use crate::chunk::{Commit, Granted, Located, Opened};
use crate::file::{InlineJob, LocateJob, Wish};

impl MasterClient {
    pub(crate) fn open(&self, inode: InodeId, number: u64) -> Result<Opened> {
        let reply = self.query("open", |session| pb::OpenRequest { session, inode: inode.raw(), number })?;
        Ok(messages::opened(reply)?)
    }

    pub(crate) fn release(&self, inodes: &[InodeId], number: u64) -> Result<()> {
        let inodes: Vec<u64> = inodes.iter().map(|inode| inode.raw()).collect();
        self.query("release", |session| pb::ReleaseRequest { session, inodes: inodes.clone(), number })?;
        Ok(())
    }

    pub(crate) fn locate(&self, inode: InodeId, job: &LocateJob) -> Result<(Opened, Vec<Located>)> {
        let reply = self.query("locate", |session| messages::locate(session, inode, job))?;
        Ok(messages::located(reply)?)
    }

    pub(crate) fn grant_write(&self, inode: InodeId, index: ChunkIndex, wish: &Wish) -> Result<Granted> {
        let reply =
            self.mutate_bound("grant a write lease", |meta| messages::grant(meta, inode, index, wish))?;
        Ok(messages::granted(reply)?)
    }

    pub(crate) fn commit_write(&self, inode: InodeId, commit: &Commit) -> Result<Attr> {
        let reply = self.mutate_bound("commit a write", |meta| messages::commit(meta, inode, commit))?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn write_inline(&self, inode: InodeId, job: &InlineJob) -> Result<Attr> {
        let reply =
            self.mutate_bound("write a small file", |meta| messages::write_inline(meta, inode, job))?;
        Ok(convert::attr(reply.attr)?)
    }

    pub(crate) fn release_leases(&self, inode: InodeId, indexes: &[ChunkIndex]) -> Result<()> {
        self.mutate_bound("release a lease", |meta| messages::release_leases(meta, inode, indexes))?;
        Ok(())
    }

    pub(crate) fn close_session(&self) -> Result<()> {
        self.mutate_bound("close the session", |meta| pb::CloseSessionRequest { meta: Some(meta) })?;
        Ok(())
    }
}
