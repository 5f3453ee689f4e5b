//! Calls of the masters: each request is sent until it is answered, with the same number to whichever master answers.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::{FileKind, FsError};

use super::{Expired, RETRY};
use crate::oracle::FileOp;
use crate::plant::Plant;
use crate::task::Port;

pub(crate) type Attr = pb::Attr;

/// Who calls, and whom.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) port: Port,
    masters: u64,
    /// Who is asked next.
    master: u64,
    /// Who has heard from this session that it lives.
    greeted: u64,
    pub(crate) session: u64,
    seq: u64,
    /// Files whose first chunk it may write.
    pub(super) leased: BTreeSet<u64>,
    /// A lease of somebody else is waited for only otherwise.
    pub(super) gives_up_when_held: bool,
    plant: Option<Plant>,
}

impl Caller {
    pub(crate) fn new(port: Port, masters: u64, plant: Option<Plant>) -> Self {
        let master = 1 + port.rng(|rng| rng.below(masters));
        Self {
            port,
            masters,
            master,
            greeted: 0,
            session: 0,
            seq: 0,
            leased: BTreeSet::new(),
            gives_up_when_held: false,
            plant,
        }
    }

    /// Asks until somebody answers.
    pub(crate) async fn ask<R: Rpc>(
        &mut self,
        mut request: impl FnMut(&mut Self) -> R,
    ) -> Result<R::Reply, FsError> {
        loop {
            self.greet().await;
            let timeout = self.port.rng(|rng| rng.ms(250, 700));
            let asked = request(self);
            match self.port.ask_master(self.master, &asked, timeout).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Refused(error)) => return Err(error),
                Err(error) => self.move_on(error).await,
            }
        }
    }

    async fn move_on(&mut self, error: CallError) {
        match error {
            CallError::NotLeader { leader } => {
                let told = leader.and_then(|address| address.strip_prefix('m')?.parse().ok());
                self.master = told.unwrap_or(self.master % self.masters + 1);
            }
            CallError::Unavailable { .. } => {}
            _ => {
                self.port.hang_up(self.master);
                self.greeted = 0;
                self.master = self.master % self.masters + 1;
            }
        }
        let pause = self.port.rng(|rng| rng.ms(5, 40));
        self.port.sleep(pause).await;
    }

    /// Tells a master that has not heard of it that the session lives and has nothing open.
    async fn greet(&mut self) {
        if self.session == 0 || self.greeted == self.master {
            return;
        }
        let request = pb::ResumeSessionRequest {
            session: self.session,
            open_inodes: Vec::new(),
            list_follows: true,
            as_of: 0,
        };
        let told = self.port.ask_master(self.master, &request, Duration::from_millis(200)).await;
        if told.is_ok() {
            self.greeted = self.master;
        }
    }

    /// Sends a numbered request until it is answered. The outer error: the session is gone.
    async fn once<R: Rpc>(
        &mut self,
        request: impl Fn(pb::RequestMeta) -> R,
    ) -> Result<Result<R::Reply, FsError>, Expired> {
        loop {
            self.seq += 1;
            let mut tries = 0;
            let answer = self
                .ask(|this| {
                    tries += 1;
                    if tries > 1 && this.plant == Some(Plant::FreshNumbers) {
                        this.seq += 1;
                    }
                    // One request at a time: everything before it has been answered.
                    request(pb::RequestMeta { session: this.session, seq: this.seq, acked_below: this.seq })
                })
                .await;
            match answer {
                Err(FsError::SessionExpired) => return Err(Expired),
                // Not an answer to remember: to be asked again, and the number is still free.
                Err(FsError::LeaseHeld) if !self.gives_up_when_held => self.port.sleep(RETRY).await,
                other => return Ok(other),
            }
        }
    }

    pub(crate) async fn open_session(&mut self) -> Result<(), Expired> {
        let client_id = Bytes::from(self.port.rng(|rng| rng.bytes(16)));
        let request = pb::OpenSessionRequest { client_id, name: "client".into(), replaces: false };
        let reply = self.ask(|_| request.clone()).await.map_err(|_| Expired)?;
        self.session = reply.session;
        Ok(())
    }

    async fn for_attr<R: Rpc<Reply = pb::AttrReply>>(
        &mut self,
        request: impl Fn(pb::RequestMeta) -> R,
    ) -> Result<Result<Attr, FsError>, Expired> {
        Ok(self.once(request).await?.map(|reply| reply.attr.unwrap_or_default()))
    }

    pub(crate) async fn create(
        &mut self,
        parent: u64,
        name: &str,
        dir: bool,
    ) -> Result<Result<Attr, FsError>, Expired> {
        self.create_with(parent, name, dir, 0o755).await
    }

    pub(crate) async fn create_with(
        &mut self,
        parent: u64,
        name: &str,
        dir: bool,
        mode: u32,
    ) -> Result<Result<Attr, FsError>, Expired> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let kind = u32::from(if dir { FileKind::Directory.raw() } else { FileKind::File.raw() });
        self.for_attr(|meta| pb::CreateRequest {
            meta: Some(meta),
            parent,
            name: name.clone(),
            kind,
            mode,
            ..Default::default()
        })
        .await
    }

    pub(crate) async fn unlink(&mut self, parent: u64, name: &str) -> Result<Result<(), FsError>, Expired> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let request = |meta| pb::UnlinkRequest { meta: Some(meta), parent, name: name.clone() };
        Ok(self.once(request).await?.map(drop))
    }

    pub(crate) async fn rmdir(&mut self, parent: u64, name: &str) -> Result<Result<(), FsError>, Expired> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let request = |meta| pb::RmdirRequest { meta: Some(meta), parent, name: name.clone() };
        Ok(self.once(request).await?.map(drop))
    }

    pub(crate) async fn link(
        &mut self,
        inode: u64,
        new_parent: u64,
        name: &str,
    ) -> Result<Result<Attr, FsError>, Expired> {
        let new_name = Bytes::copy_from_slice(name.as_bytes());
        self.for_attr(|meta| pb::LinkRequest {
            meta: Some(meta),
            inode,
            new_parent,
            new_name: new_name.clone(),
        })
        .await
    }

    pub(crate) async fn rename(
        &mut self,
        old: (u64, &str),
        new: (u64, &str),
    ) -> Result<Result<(), FsError>, Expired> {
        let bytes = |name: &str| Bytes::copy_from_slice(name.as_bytes());
        let (name, new_name) = (bytes(old.1), bytes(new.1));
        let request = |meta| pb::RenameRequest {
            meta: Some(meta),
            parent: old.0,
            name: name.clone(),
            new_parent: new.0,
            new_name: new_name.clone(),
            no_replace: false,
            exchange: false,
        };
        Ok(self.once(request).await?.map(drop))
    }

    pub(crate) async fn write_inline(
        &mut self,
        inode: u64,
        offset: usize,
        data: &[u8],
    ) -> Result<Result<Attr, FsError>, Expired> {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let data = Bytes::copy_from_slice(data);
        if self.leased.contains(&inode) {
            // The masters would refuse it with a recall of the lease.
            self.release(inode).await?;
        }
        self.for_attr(|meta| pb::WriteInlineRequest {
            meta: Some(meta),
            inode,
            offset,
            data: data.clone(),
            append: false,
        })
        .await
    }

    pub(crate) async fn truncate(
        &mut self,
        inode: u64,
        size: usize,
    ) -> Result<Result<Attr, FsError>, Expired> {
        self.for_attr(|meta| pb::SetAttrRequest {
            meta: Some(meta),
            inode,
            size: Some(size as u64),
            ..Default::default()
        })
        .await
    }

    pub(super) async fn set_attr(
        &mut self,
        inode: u64,
        op: FileOp,
    ) -> Result<Result<Attr, FsError>, Expired> {
        self.for_attr(|meta| {
            let none = pb::SetAttrRequest { meta: Some(meta), inode, ..Default::default() };
            match op {
                FileOp::SetMode(mode) => pb::SetAttrRequest { mode: Some(mode), ..none },
                FileOp::SetSize(size) => pb::SetAttrRequest { size: Some(size), ..none },
                FileOp::SetMtime(at_ns) => {
                    pb::SetAttrRequest { mtime: Some(pb::SetTime { now: false, at_ns }), ..none }
                }
                FileOp::Get => none,
            }
        })
        .await
    }

    pub(super) async fn getattr(&mut self, inode: u64) -> Result<Attr, FsError> {
        let reply = self.ask(|_| pb::GetAttrRequest { inode }).await?;
        Ok(reply.attr.unwrap_or_default())
    }

    pub(super) async fn lookup(&mut self, parent: u64, name: &str) -> Result<Attr, FsError> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let reply = self.ask(|_| pb::LookupRequest { parent, name: name.clone() }).await?;
        Ok(reply.attr.unwrap_or_default())
    }

    pub(super) async fn grant(
        &mut self,
        inode: u64,
        failed: &[u32],
    ) -> Result<Result<pb::GrantWriteReply, FsError>, Expired> {
        self.once(|meta| pb::GrantWriteRequest {
            meta: Some(meta),
            inode,
            index: 0,
            failed_servers: failed.to_vec(),
            nothing_written: false,
            renew: false,
        })
        .await
    }

    pub(super) async fn commit(
        &mut self,
        inode: u64,
        size_at_least: u64,
        chunk: pb::CommittedChunk,
    ) -> Result<Result<Attr, FsError>, Expired> {
        self.for_attr(|meta| pb::CommitWriteRequest {
            meta: Some(meta),
            inode,
            size_at_least,
            chunks: vec![chunk],
            mtime_ns: None,
        })
        .await
    }

    pub(super) async fn release(&mut self, inode: u64) -> Result<(), Expired> {
        let request = |meta| pb::ReleaseLeaseRequest { meta: Some(meta), inode, indexes: vec![0] };
        self.leased.remove(&inode);
        // A lease that is gone already is as good.
        self.once(request).await.map(drop)
    }
}
