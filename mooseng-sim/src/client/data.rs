//! File data through the product's file cores, and the read for the audits that looks at every copy and believes nothing.

use std::time::Duration;

use mooseng_chunkserver::{BytesRead, Request};
use mooseng_client::ClientError;
use mooseng_client::file::{Flush, Occasion, Truncate};
use mooseng_protocol::status::CallError;
use mooseng_protocol::{checksum, pb};
use mooseng_types::{ChunkCause, ChunkId, FsError, InodeId, Part, SetAttr, TimeNs};

use super::call::{Attr, Caller};
use super::{Expired, RETRY};
use crate::oracle::Oracle;
use crate::task::ChunkRequest;

const TIMEOUT: Duration = Duration::from_millis(1600);

/// What came of a write that was synced.
pub(crate) enum Written {
    /// It is on the disks.
    Yes(Attr),
    /// An error was told: any part of it may be there.
    Lost,
}

/// What a file held when it was read.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) size: u64,
    pub(crate) links: u32,
    /// The bytes as each copy has them; one without a server's name if they are in the metadata or a hole.
    pub(crate) copies: Vec<(String, Vec<u8>)>,
    /// Copies that should be there and are not, though their server answers.
    pub(crate) missing: Vec<String>,
}

impl Content {
    /// Copies on a server where bits have rotted may be missing, as long as it says so, and so may any that a lost disk had, until
    /// they have been made again.
    pub(crate) fn excuse(mut self, oracle: &Oracle) -> Self {
        let damaged = oracle.damaged.as_ref();
        self.missing.retain(|missing| damaged.is_none_or(|server| !missing.starts_with(server.as_str())));
        self.missing.retain(|_| !oracle.copies_may_be_missing);
        self
    }
}

impl Caller {
    /// Writes, syncs every copy, commits: as a program does with `pwrite` and `fsync`.
    pub(crate) async fn write_synced(
        &self,
        inode: u64,
        offset: usize,
        data: &[u8],
    ) -> Result<Written, Expired> {
        let (process, inode) = (&self.process, InodeId::from_raw(inode));
        let mut told = match process.open(inode).await {
            Ok(told) => told,
            Err(_) => return Err(Expired),
        };
        let now = self.port.now();
        let mtime = TimeNs::from_raw(i64::try_from(now.as_nanos()).unwrap_or(0));
        let flush = process.with(inode, |file| {
            file.write(offset as u64, data, mtime);
            Flush::new(file, true, now)
        });
        let outcome = process.run(inode, flush).await;
        let told = process.with(inode, |file| file.tell(&mut told, Occasion::Sync));
        process.close(inode);
        match told.and(outcome) {
            Ok(()) => {
                let seen = process.with(inode, |file| file.seen());
                Ok(Written::Yes(seen.map(Attr::from).unwrap_or_default()))
            }
            Err(_) => Ok(Written::Lost),
        }
    }

    /// Cuts or extends a file, with the leases given back first.
    pub(crate) async fn truncate(&self, inode: u64, size: usize) -> Result<Result<Attr, FsError>, Expired> {
        let (process, inode) = (&self.process, InodeId::from_raw(inode));
        if process.open(inode).await.is_err() {
            return Err(Expired);
        }
        let change = SetAttr { size: Some(size as u64), ..SetAttr::default() };
        let now = self.port.now();
        let truncate = process.with(inode, |file| Truncate::new(file, change, now));
        let outcome = process.run(inode, truncate).await;
        process.close(inode);
        match outcome {
            Ok(()) => {
                let seen = process.with(inode, |file| file.seen());
                Ok(Ok(seen.map(Attr::from).unwrap_or_default()))
            }
            Err(ClientError::Refused(refusal)) => Ok(Err(refusal)),
            Err(_) => Err(Expired),
        }
    }

    /// A file as all its copies have it; waits until one answers. `None` if the file is gone.
    pub(crate) async fn read_file(&self, inode: u64) -> Option<Content> {
        loop {
            let request = move |session| pb::LocateRequest { session, inode, first_index: 0, count: 1 };
            let located = self.ask(request).await.ok()?;
            let attr = located.attr.unwrap_or_default();
            let mut content =
                Content { size: attr.size, links: attr.nlink, copies: Vec::new(), missing: Vec::new() };
            let size = usize::try_from(attr.size).unwrap_or(0);
            let Some(location) = located.chunks.first() else {
                let mut bytes = located.inline.unwrap_or_default().to_vec();
                bytes.resize(size, 0);
                content.copies.push((String::new(), bytes));
                return Some(content);
            };
            for server in &location.servers {
                match self.copy_of(server, location, size).await {
                    Ok(bytes) => content.copies.push((server.address.clone(), bytes)),
                    // By a clock that is ahead, or with its hands full: it has what it has.
                    Err(CallError::Chunk { cause: ChunkCause::TokenExpired | ChunkCause::Busy, .. }) => {}
                    Err(error @ CallError::Chunk { .. }) => {
                        content.missing.push(format!("{} says {error}", server.address));
                    }
                    Err(CallError::Rejected { message }) => content.missing.push(message),
                    Err(_) => {}
                }
            }
            if !content.copies.is_empty() || !content.missing.is_empty() {
                return Some(content);
            }
            self.port.sleep(RETRY).await;
        }
    }

    async fn copy_of(
        &self,
        server: &pb::ServerAddress,
        location: &pb::ChunkLocation,
        size: usize,
    ) -> Result<Vec<u8>, CallError> {
        let length = u32::try_from(size).unwrap_or(u32::MAX).min(1 << 20);
        let read = pb::ReadChunkRequest {
            token: location.token.clone(),
            chunk: location.chunk,
            version: location.version,
            offset: 0,
            length,
            verify: false,
            intact: false,
            // Where bits have rotted, a server that crashed while a copy was written believes the bytes.
            whole: self.process.oracle.borrow().damaged.as_ref() == Some(&server.address),
            part: 0,
        };
        let piece =
            self.port.ask_server(&server.address, ChunkRequest::new(Request::Read(read)), TIMEOUT).await?;
        let BytesRead { offset, checksums, bytes, .. } =
            piece.ok_or_else(|| CallError::Rejected { message: "a read without bytes".into() })?;
        if !checksum::matches(Part::whole(ChunkId::from_raw(location.chunk)), offset, &bytes, &checksums) {
            let message = format!("{} sent bytes that do not match their checksums", server.address);
            return Err(CallError::Rejected { message });
        }
        let mut content = bytes;
        content.truncate(size.min(usize::try_from(location.valid_length).unwrap_or(0)));
        content.resize(size, 0);
        Ok(content)
    }
}
