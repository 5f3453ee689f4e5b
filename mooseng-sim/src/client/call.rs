//! Calls of the masters as the workload makes them, through the product's sessions: with the same number to whichever
//! master answers.

use bytes::Bytes;
use mooseng_client::ClientError;
use mooseng_client::session::Kind;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_types::{FileKind, FsError};

use super::Expired;
use super::process::{Process, Result};
use crate::oracle::FileOp;
use crate::task::Port;

pub(crate) type Attr = pb::Attr;

/// Who calls.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) port: Port,
    pub(crate) process: Process,
}

/// A refusal is an answer; anything else leaves it open whether the request was done, and ends the life.
pub(super) fn answered<T>(
    result: Result<T>,
) -> std::result::Result<std::result::Result<T, FsError>, Expired> {
    match result {
        Ok(reply) => Ok(Ok(reply)),
        Err(ClientError::Refused(refusal)) => Ok(Err(refusal)),
        Err(_) => Err(Expired),
    }
}

type Answered<T> = std::result::Result<std::result::Result<T, FsError>, Expired>;

impl Caller {
    pub(crate) fn new(process: Process) -> Self {
        Self { port: process.port.clone(), process }
    }

    /// The directory that everything of its cell lies in.
    pub(crate) fn root(&self) -> u64 {
        self.process.cell.root().raw()
    }

    pub(crate) async fn open_session(&mut self) -> std::result::Result<(), Expired> {
        self.process.renew(0).await.map_err(|_| Expired)
    }

    /// Asks until somebody answers.
    pub(crate) async fn ask<R: Rpc>(
        &self,
        request: impl Fn(u64) -> R,
    ) -> std::result::Result<R::Reply, FsError> {
        self.process.query("ask", request).await.map_err(|error| match error {
            ClientError::Refused(refusal) => refusal,
            _ => FsError::Io,
        })
    }

    async fn once<R: Rpc>(&self, request: impl Fn(pb::RequestMeta) -> R) -> Answered<R::Reply> {
        answered(self.process.change(Kind::Change, "change", request).await)
    }

    async fn for_attr<R: Rpc<Reply = pb::AttrReply>>(
        &self,
        request: impl Fn(pb::RequestMeta) -> R,
    ) -> Answered<Attr> {
        Ok(self.once(request).await?.map(|reply| reply.attr.unwrap_or_default()))
    }

    pub(crate) async fn create(&self, parent: u64, name: &str, dir: bool) -> Answered<Attr> {
        self.create_with(parent, name, dir, 0o755).await
    }

    pub(crate) async fn create_with(&self, parent: u64, name: &str, dir: bool, mode: u32) -> Answered<Attr> {
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

    /// Makes a file that the session has open from then on.
    pub(crate) async fn create_open(&self, parent: u64, name: &str, number: u64) -> Answered<Attr> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.for_attr(|meta| pb::CreateRequest {
            meta: Some(meta),
            parent,
            name: name.clone(),
            kind: u32::from(FileKind::File.raw()),
            mode: 0o644,
            open: true,
            open_number: number,
            ..Default::default()
        })
        .await
    }

    pub(crate) async fn unlink(&self, parent: u64, name: &str) -> Answered<()> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let request = |meta| pb::UnlinkRequest { meta: Some(meta), parent, name: name.clone() };
        Ok(self.once(request).await?.map(drop))
    }

    pub(crate) async fn rmdir(&self, parent: u64, name: &str) -> Answered<()> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let request = |meta| pb::RmdirRequest { meta: Some(meta), parent, name: name.clone() };
        Ok(self.once(request).await?.map(drop))
    }

    pub(crate) async fn link(&self, inode: u64, new_parent: u64, name: &str) -> Answered<Attr> {
        let new_name = Bytes::copy_from_slice(name.as_bytes());
        let request =
            |meta| pb::LinkRequest { meta: Some(meta), inode, new_parent, new_name: new_name.clone() };
        self.for_attr(request).await
    }

    pub(crate) async fn rename(&self, old: (u64, &str), new: (u64, &str)) -> Answered<()> {
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

    pub(crate) async fn write_inline(&self, inode: u64, offset: usize, data: &[u8]) -> Answered<Attr> {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let data = Bytes::copy_from_slice(data);
        self.for_attr(|meta| pb::WriteInlineRequest {
            meta: Some(meta),
            inode,
            offset,
            data: data.clone(),
            append: false,
        })
        .await
    }

    pub(super) async fn set_attr(&self, inode: u64, op: FileOp) -> Answered<Attr> {
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

    pub(super) async fn getattr(&self, inode: u64) -> std::result::Result<Attr, FsError> {
        let reply = self.ask(|_| pb::GetAttrRequest { inode }).await?;
        Ok(reply.attr.unwrap_or_default())
    }

    pub(super) async fn lookup(&self, parent: u64, name: &str) -> std::result::Result<Attr, FsError> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let reply = self.ask(|_| pb::LookupRequest { parent, name: name.clone() }).await?;
        Ok(reply.attr.unwrap_or_default())
    }
}
