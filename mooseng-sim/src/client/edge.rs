//! Carries out what the cores ask for: requests of the masters and of chunkservers, as the product's edge makes them.

use std::time::Duration;

use bytes::Bytes;
use mooseng_chunkserver::Request;
use mooseng_client::chunk::{ChunkRef, Commit, Fault, Grant, Granted, Located, Opened, Placement};
use mooseng_client::file::{
    Action, Event, LocateJob, PartAnswer, PartRead, PartStep, Prepare, Source, Span, Wish,
};
use mooseng_client::session::Kind;
use mooseng_protocol::{checksum, convert, pb};
use mooseng_types::{Attr, ChunkCause, ChunkId, ChunkIndex, ChunkVersion, InodeId, ServerId, TimeNs};

use super::process::{Process, Result};
use crate::plant::Plant;
use crate::task::ChunkRequest;

/// How long a chain has; a hop has less, see the world's.
const TIMEOUT: Duration = Duration::from_millis(2600);
const READ_TIMEOUT: Duration = Duration::from_millis(800);
const READ_PATIENCE: Duration = Duration::from_secs(120);

impl Process {
    pub(super) async fn carry_out(&self, inode: InodeId, action: Action) -> Event {
        match action {
            Action::Grant(key, wish) => {
                let granted = self.grant(inode, key.index, &wish).await;
                Event::Granted(key, granted)
            }
            Action::Prepare(key, grant, step) => {
                let done = match &step {
                    Prepare::Cut(length) => self.cut(&grant, *length).await,
                    Prepare::Fill(content) => self.write_chain(&grant, 0, content, (false, false)).await,
                };
                Event::Prepared(key, grant, done)
            }
            Action::Write(job) => {
                let how = (false, job.continues);
                let done = self.write_chain(&job.grant, job.offset_in_chunk(), &job.piece.data, how).await;
                Event::Wrote(job, done)
            }
            Action::Adopt(job) => {
                let done = self.write_chain(&job.grant, 0, &[], (job.durable, job.continues)).await;
                Event::Synced(job, done)
            }
            Action::Sync(job) if self.plant == Some(Plant::SkipSync) => Event::Synced(job, Ok(())),
            Action::Sync(job) => {
                let chunk = &job.grant.chunk;
                let request = Request::Sync(pb::SyncChunkRequest {
                    token: chunk.token.clone(),
                    chunk: chunk.chunk.raw(),
                    version: chunk.version.raw(),
                    chain: behind_first(&job.grant),
                });
                let done = self.chain(&job.grant, request, &[]).await;
                Event::Synced(job, done)
            }
            Action::WriteInline(job) => {
                let append = job.append.is_some();
                let offset = if append { 0 } else { u32::try_from(job.piece.offset).unwrap_or(u32::MAX) };
                let data = job.piece.data.clone();
                let done = self.for_attr("write a small file", |meta| pb::WriteInlineRequest {
                    meta: Some(meta),
                    inode: inode.raw(),
                    offset,
                    data: data.clone(),
                    append,
                });
                let done = done.await;
                Event::WroteInline(job, done)
            }
            Action::Commit(job) => {
                let done = self.commit(inode, &job.commit).await;
                Event::Committed(job, done)
            }
            Action::ReleaseLeases(keys) => {
                let indexes: Vec<u32> = keys.iter().map(|key| key.index.raw()).collect();
                let done = self.release_leases(inode, &indexes).await;
                Event::Released(keys, done)
            }
            Action::Locate(job) => {
                let found = self.locate(inode, &job).await;
                Event::Located(job, found)
            }
            Action::SetSize(change) => {
                let request =
                    self.change(Kind::Change, "setattr", |meta| pb::SetAttrRequest::new(meta, inode, change));
                let done = request.await.and_then(|reply| Ok(convert::attr(reply.attr)?));
                Event::SizeSet(done)
            }
        }
    }

    async fn for_attr<R: mooseng_protocol::rpc::Rpc<Reply = pb::AttrReply>>(
        &self,
        what: &'static str,
        make: impl Fn(pb::RequestMeta) -> R,
    ) -> Result<Attr> {
        let reply = self.change(Kind::Bound, what, make).await?;
        Ok(convert::attr(reply.attr)?)
    }

    async fn grant(&self, inode: InodeId, index: ChunkIndex, wish: &Wish) -> Result<Granted> {
        let failed_servers: Vec<u32> = wish.failed.iter().map(|server| server.raw()).collect();
        let reply = self
            .change(Kind::Bound, "grant a write lease", |meta| pb::GrantWriteRequest {
                meta: Some(meta),
                inode: inode.raw(),
                index: index.raw(),
                failed_servers: failed_servers.clone(),
                nothing_written: wish.nothing_written,
                renew: wish.renew,
            })
            .await?;
        let chunk = ChunkRef {
            chunk: ChunkId::from_raw(reply.chunk),
            version: ChunkVersion::from_raw(reply.version),
            token: reply.token,
        };
        Ok(Granted {
            grant: Grant { chunk, servers: placements(reply.servers) },
            valid_length: reply.valid_length.into(),
            inline: reply.inline,
            fresh: reply.fresh,
            attr: reply.attr.map(Attr::try_from).transpose()?,
        })
    }

    async fn commit(&self, inode: InodeId, commit: &Commit) -> Result<Attr> {
        let chunks: Vec<_> = commit
            .chunks
            .iter()
            .map(|chunk| pb::CommittedChunk {
                index: chunk.index.raw(),
                chunk: chunk.chunk.raw(),
                version: chunk.version.raw(),
                release: commit.release,
            })
            .collect();
        self.for_attr("commit a write", |meta| pb::CommitWriteRequest {
            meta: Some(meta),
            inode: inode.raw(),
            size_at_least: commit.size_at_least,
            chunks: chunks.clone(),
            mtime_ns: commit.mtime.map(TimeNs::raw),
        })
        .await
    }

    pub(super) async fn release_leases(&self, inode: InodeId, indexes: &[u32]) -> Result<()> {
        self.change(Kind::Bound, "release a lease", |meta| pb::ReleaseLeaseRequest {
            meta: Some(meta),
            inode: inode.raw(),
            indexes: indexes.to_vec(),
        })
        .await
        .map(drop)
    }

    async fn locate(&self, inode: InodeId, job: &LocateJob) -> Result<(Opened, Vec<Located>)> {
        let reply = self
            .query("locate", |session| pb::LocateRequest {
                session,
                inode: inode.raw(),
                first_index: job.first.raw(),
                count: job.count,
            })
            .await?;
        let located = |chunk: pb::ChunkLocation| Located {
            index: ChunkIndex::from_raw(chunk.index),
            chunk: ChunkRef {
                chunk: ChunkId::from_raw(chunk.chunk),
                version: ChunkVersion::from_raw(chunk.version),
                token: chunk.token,
            },
            valid_length: chunk.valid_length.into(),
            servers: placements(chunk.servers),
            differs: chunk.differs,
        };
        let opened = Opened { attr: convert::attr(reply.attr)?, inline: reply.inline };
        Ok((opened, reply.chunks.into_iter().map(located).collect()))
    }

    async fn write_chain(
        &self,
        grant: &Grant,
        offset: u64,
        data: &[u8],
        (sync, continues): (bool, bool),
    ) -> std::result::Result<(), Fault> {
        let chunk = &grant.chunk;
        let continues = continues && self.plant != Some(Plant::CountOnNothing);
        let request = Request::Write(pb::WriteChunkRequest {
            token: chunk.token.clone(),
            chunk: chunk.chunk.raw(),
            version: chunk.version.raw(),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            checksums: checksum::of_range(chunk.chunk, offset, data),
            chain: behind_first(grant),
            sync,
            continues,
        });
        self.chain(grant, request, data).await
    }

    async fn cut(&self, grant: &Grant, length: u64) -> std::result::Result<(), Fault> {
        let chunk = &grant.chunk;
        let request = Request::Truncate(pb::TruncateChunkRequest {
            token: chunk.token.clone(),
            chunk: chunk.chunk.raw(),
            version: chunk.version.raw(),
            length: u32::try_from(length).unwrap_or(u32::MAX),
            chain: behind_first(grant),
        });
        self.chain(grant, request, &[]).await
    }

    async fn chain(&self, grant: &Grant, what: Request, data: &[u8]) -> std::result::Result<(), Fault> {
        let Some(first) = grant.servers.first() else {
            return Err(Fault { server: None, cause: ChunkCause::NoCopy });
        };
        self.dawdle().await;
        let request = ChunkRequest { what, payload: Bytes::copy_from_slice(data) };
        let done = self.port.ask_server(&first.address, request, TIMEOUT).await;
        done.map(drop).map_err(|error| Fault::of(&error))
    }

    /// Lets time pass before a request now and then: time for a server to be gone and back.
    async fn dawdle(&self) {
        if self.port.rng(|rng| rng.chance(60)) {
            let pause = self.port.rng(|rng| rng.ms(0, 700));
            self.port.sleep(pause).await;
        }
    }

    pub(super) async fn read_span(&self, inode: InodeId, span: &Span, base: &mut Vec<u8>) -> Result<()> {
        let (extent, source) = match span {
            Span::Zeros(length) => {
                base.resize(base.len() + usize::try_from(*length).unwrap_or(0), 0);
                return Ok(());
            }
            Span::Here(bytes) => {
                base.extend_from_slice(bytes);
                return Ok(());
            }
            Span::Copies(extent, source) => (extent, source),
        };
        let mut source = source.clone();
        let mut read = PartRead::new(extent.offset, extent.length, self.port.now(), READ_PATIENCE);
        read.begin(&source, |place| place as u64);
        loop {
            match read.next(self.port.now())? {
                PartStep::Done(bytes) => {
                    base.extend_from_slice(&bytes);
                    return Ok(());
                }
                PartStep::Ask { place, offset, length } => {
                    let answer = self.read_copy(&source, place, (offset, length)).await;
                    read.answered(&source, answer);
                }
                PartStep::Again(pause) => {
                    let (lost, now) = (read.lost(), self.port.now());
                    self.with(inode, |file| file.unreadable(extent.index, &source, lost, now));
                    self.port.sleep(pause).await;
                    let at = extent.index.start() + extent.offset;
                    match self.plan(inode, at, extent.length).await?.base.into_iter().next() {
                        Some(Span::Copies(_, new)) => source = new,
                        Some(Span::Here(bytes)) => {
                            base.extend_from_slice(&bytes);
                            return Ok(());
                        }
                        Some(Span::Zeros(_)) | None => {
                            base.resize(base.len() + usize::try_from(extent.length).unwrap_or(0), 0);
                            return Ok(());
                        }
                    }
                    read.begin(&source, |place| place as u64);
                }
            }
        }
    }

    async fn read_copy(&self, source: &Source, place: usize, range: (u64, u64)) -> PartAnswer {
        let Some(placement) = source.servers.get(place) else { return PartAnswer::Fault(ChunkCause::NoCopy) };
        let request = Request::Read(pb::ReadChunkRequest {
            token: source.chunk.token.clone(),
            chunk: source.chunk.chunk.raw(),
            version: source.chunk.version.raw(),
            offset: u32::try_from(range.0).unwrap_or(u32::MAX),
            length: u32::try_from(range.1).unwrap_or(u32::MAX),
            verify: false,
            intact: source.intact && self.plant != Some(Plant::CountOnNothing),
        });
        match self.port.ask_server(&placement.address, ChunkRequest::new(request), READ_TIMEOUT).await {
            Ok(Some(piece)) => PartAnswer::verified(
                source.chunk.chunk,
                (piece.offset, piece.bytes),
                &piece.checksums,
                piece.copy_length,
                range,
            ),
            Ok(None) => PartAnswer::Fault(ChunkCause::Busy),
            Err(error) => PartAnswer::Fault(Fault::of(&error).cause),
        }
    }
}

fn behind_first(grant: &Grant) -> Vec<pb::ServerAddress> {
    let address = |at: &Placement| pb::ServerAddress { server: at.server.raw(), address: at.address.clone() };
    grant.servers.iter().skip(1).map(address).collect()
}

fn placements(servers: Vec<pb::ServerAddress>) -> Vec<Placement> {
    let placement = |server: pb::ServerAddress| Placement {
        server: ServerId::from_raw(server.server),
        address: server.address,
    };
    servers.into_iter().map(placement).collect()
}
