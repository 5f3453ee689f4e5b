//! Data: the chain write under a lease, and the read that believes nothing.

use std::time::Duration;

use bytes::Bytes;
use mooseng_chunkserver::{Piece, Request};
use mooseng_protocol::status::CallError;
use mooseng_protocol::{checksum, pb};
use mooseng_types::{CHUNK_SIZE, ChunkCause, ChunkId, FsError};

use super::call::{Attr, Caller};
use super::{Expired, RETRY};
use crate::task::ChunkRequest;

const TIMEOUT: Duration = Duration::from_millis(1600);
/// Bytes of one write request.
const WRITE_BYTES: usize = 40_000;

/// Why a chain did not do it.
enum Broken {
    /// This server is to be left out.
    At(u32),
    /// The lease is of no use any more.
    Lease,
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

impl Caller {
    /// Writes, syncs every copy, commits.
    pub(crate) async fn write_chunk(
        &mut self,
        inode: u64,
        offset: usize,
        data: &[u8],
    ) -> Result<Result<Attr, FsError>, Expired> {
        let mut failed = Vec::new();
        loop {
            let grant = match self.grant(inode, &failed).await? {
                Ok(grant) => grant,
                // No server is up, or each has failed once: they come back.
                Err(FsError::NoSpace | FsError::Io) => {
                    failed.clear();
                    self.port.sleep(RETRY).await;
                    continue;
                }
                Err(error) => return Ok(Err(error)),
            };
            self.leased.insert(inode);
            match self.write_granted(&grant, offset, data).await {
                Ok(()) => {
                    let release = self.port.rng(|rng| rng.chance(500));
                    let chunk =
                        pb::CommittedChunk { index: 0, chunk: grant.chunk, version: grant.version, release };
                    if release {
                        self.leased.remove(&inode);
                    }
                    match self.commit(inode, (offset + data.len()) as u64, chunk).await? {
                        Err(FsError::LeaseLost) => {}
                        other => return Ok(other),
                    }
                }
                Err(Broken::At(server)) if grant.servers.len() > 1 => failed = vec![server],
                Err(Broken::At(_) | Broken::Lease) => {
                    // The only copy there is: under a new lease, everything from the beginning.
                    failed.clear();
                    self.release(inode).await?;
                    self.port.sleep(RETRY).await;
                }
            }
        }
    }

    async fn write_granted(
        &mut self,
        grant: &pb::GrantWriteReply,
        offset: usize,
        data: &[u8],
    ) -> Result<(), Broken> {
        let Some((first, chain)) = grant.servers.split_first() else { return Err(Broken::Lease) };
        let (token, chunk, version, chain) =
            (grant.token.clone(), grant.chunk, grant.version, chain.to_vec());
        if u64::from(grant.valid_length) < CHUNK_SIZE {
            let cut = pb::TruncateChunkRequest {
                token: token.clone(),
                chunk,
                version,
                length: grant.valid_length,
                chain: chain.clone(),
            };
            self.change(first, ChunkRequest::new(Request::Truncate(cut))).await?;
        }
        let inline = grant.inline.as_ref().map(|inline| (0, inline.to_vec()));
        let pieces = data.chunks(WRITE_BYTES).enumerate();
        let pieces = pieces.map(|(number, piece)| (offset + number * WRITE_BYTES, piece.to_vec()));
        let todo: Vec<_> = inline.into_iter().filter(|(_, bytes)| !bytes.is_empty()).chain(pieces).collect();
        let sync_with_last = self.port.rng(|rng| rng.chance(300));
        for (number, (at, piece)) in todo.iter().enumerate() {
            self.dawdle().await;
            let at = u32::try_from(*at).unwrap_or(u32::MAX);
            let last = number + 1 == todo.len();
            let write = pb::WriteChunkRequest {
                token: token.clone(),
                chunk,
                version,
                offset: at,
                checksums: checksum::of_range(ChunkId::from_raw(chunk), at.into(), piece),
                chain: chain.clone(),
                // A sync with the last write covers all before it.
                sync: last && sync_with_last,
                continues: false,
            };
            let payload = Bytes::from(piece.clone());
            self.change(first, ChunkRequest { what: Request::Write(write), payload }).await?;
        }
        if !sync_with_last {
            self.dawdle().await;
            let sync = pb::SyncChunkRequest { token, chunk, version, chain };
            self.change(first, ChunkRequest::new(Request::Sync(sync))).await?;
        }
        Ok(())
    }

    /// Lets time pass between two requests now and then: time for a server to be gone and back.
    async fn dawdle(&mut self) {
        if self.port.rng(|rng| rng.chance(150)) {
            let pause = self.port.rng(|rng| rng.ms(0, 900));
            self.port.sleep(pause).await;
        }
    }

    async fn change(&mut self, first: &pb::ServerAddress, request: ChunkRequest) -> Result<(), Broken> {
        match self.port.ask_server(&first.address, request, TIMEOUT).await {
            Ok(_) => Ok(()),
            Err(CallError::Chunk { cause: ChunkCause::Fenced, .. }) => Err(Broken::Lease),
            Err(CallError::Chunk { server: Some(server), .. }) => Err(Broken::At(server.raw())),
            Err(_) => Err(Broken::At(first.server)),
        }
    }

    /// A file as all its copies have it; waits until one answers. `None` if the file is gone.
    pub(crate) async fn read_file(&mut self, inode: u64) -> Option<Content> {
        loop {
            let session = self.session;
            let request = move |_: &mut Self| pb::LocateRequest { session, inode, first_index: 0, count: 1 };
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
                match self.read_copy(server, location, size).await {
                    Ok(bytes) => content.copies.push((server.address.clone(), bytes)),
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

    async fn read_copy(
        &mut self,
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
        };
        let piece =
            self.port.ask_server(&server.address, ChunkRequest::new(Request::Read(read)), TIMEOUT).await?;
        let Piece { offset, checksums, bytes, .. } =
            piece.ok_or_else(|| CallError::Rejected { message: "a read without bytes".into() })?;
        if !checksum::matches(ChunkId::from_raw(location.chunk), offset, &bytes, &checksums) {
            let message = format!("{} sent bytes that do not match their checksums", server.address);
            return Err(CallError::Rejected { message });
        }
        let mut content = bytes;
        content.truncate(size.min(usize::try_from(location.valid_length).unwrap_or(0)));
        content.resize(size, 0);
        Ok(content)
    }
}
