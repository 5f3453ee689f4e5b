//! Carries out what the cores ask for: requests of the masters and of chunkservers, as the product's edge makes them.

use std::time::Duration;

use bytes::Bytes;
use mooseng_chunkserver::Request;
use mooseng_client::chunk::{Fault, Grant, Granted, Located, Opened};
use mooseng_client::file::{
    Action, Ask, Event, LocateJob, PartAnswer, PartRead, PartStep, Prepare, Source, Span, SyncJob, Wish,
};
use mooseng_client::messages::{self, WriteHow};
use mooseng_client::session::Kind;
use mooseng_client::{ClientError, Loss};
use mooseng_protocol::{convert, pb};
use mooseng_types::{Attr, CHUNK_SIZE, ChunkCause, ChunkIndex, InodeId, ServerId};

use super::process::{Process, Result};
use crate::plant::Plant;
use crate::task::ChunkRequest;

/// How long a chain has; a hop has less, see the world's.
const TIMEOUT: Duration = Duration::from_millis(2600);
const READ_TIMEOUT: Duration = Duration::from_millis(800);
const READ_PATIENCE: Duration = Duration::from_secs(120);

impl Process {
    pub(super) async fn carry_out(&self, inode: InodeId, action: Action) -> Event {
        if matches!(action, Action::Write(_) | Action::WriteInline(_)) {
            *self.memory().sent.entry(inode).or_default() += 1;
        }
        match action {
            Action::Grant(key, wish) => {
                let granted = self.grant(inode, key.index, &wish).await;
                Event::Granted(key, granted)
            }
            Action::Prepare(key, grant, Prepare::Cut(_)) if self.plant == Some(Plant::SkipCut) => {
                Event::Prepared(key, grant, Ok(()))
            }
            Action::Prepare(key, grant, step) => {
                let done = match &step {
                    Prepare::Cut(length) => {
                        let cut = messages::truncate_chunk(&grant, *length);
                        self.chain(&grant, Request::Truncate(cut), &[]).await
                    }
                    Prepare::Fill(content) => self.write_chain(&grant, 0, content, WriteHow::default()).await,
                };
                Event::Prepared(key, grant, done)
            }
            Action::Write(job) => {
                let how = WriteHow { sync: false, continues: job.continues, exists: job.exists };
                let done = self.write_chain(&job.grant, job.offset_in_chunk(), &job.piece.data, how).await;
                if self.plant == Some(Plant::CloseUnasked) && done.is_ok() {
                    self.memory().written.insert((job.grant.chunk.chunk, job.grant.chunk.version));
                }
                Event::Wrote(job, done)
            }
            Action::Adopt(job) if self.plant == Some(Plant::AdoptNothing) => Event::Synced(job, Ok(())),
            Action::Adopt(job) if self.is_written(&job) => Event::Synced(job, Ok(())),
            Action::Adopt(job) => {
                let how = WriteHow { sync: job.durable, continues: job.continues, exists: job.exists };
                let done = self.write_chain(&job.grant, 0, &[], how).await;
                Event::Synced(job, done)
            }
            Action::Sync(job) if self.plant == Some(Plant::SkipSync) => Event::Synced(job, Ok(())),
            Action::Sync(job) => {
                let request = Request::Sync(messages::sync_chunk(&job.grant));
                let done = self.chain(&job.grant, request, &[]).await;
                Event::Synced(job, done)
            }
            Action::WriteInline(job) => {
                let request = |meta| messages::write_inline(meta, inode, &job);
                let done = self.for_attr("write a small file", request).await;
                Event::WroteInline(job, done)
            }
            Action::Commit(job) => {
                let request = |meta| messages::commit(meta, inode, &job.commit);
                let done = self.for_attr("commit a write", request).await;
                Event::Committed(job, done)
            }
            Action::ReleaseLeases(job) => {
                let indexes: Vec<_> = job.leases.iter().map(|key| key.index).collect();
                let done = self.release_leases(inode, &indexes).await;
                Event::Released(job, done)
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

    fn is_written(&self, job: &SyncJob) -> bool {
        let chunk = &job.grant.chunk;
        !job.durable && self.memory().written.contains(&(chunk.chunk, chunk.version))
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
        let request = |meta| messages::grant(meta, inode, index, wish);
        self.check_blame(&wish.failed);
        let mut reply = self.change(Kind::Bound, "grant a write lease", request).await;
        if self.plant == Some(Plant::OutliveSession)
            && matches!(reply, Err(ClientError::Lost(Loss::SessionExpired)))
        {
            reply = self.change(Kind::Bound, "grant a write lease", request).await;
        }
        let granted = messages::granted(reply?)?;
        let servers = granted.grant.servers.iter().map(|at| (at.server, at.address.clone()));
        self.memory().addresses.extend(servers);
        Ok(granted)
    }

    /// Nothing is wrong with a server that no fault has touched.
    fn check_blame(&self, failed: &[ServerId]) {
        let mut oracle = self.oracle.borrow_mut();
        for address in failed.iter().filter_map(|server| self.memory().addresses.get(server).cloned()) {
            if !oracle.touched.contains(&address) {
                oracle.accuse(format!("none_is_blamed_falsely: {address} is to be left out, which is well"));
            }
        }
    }

    pub(super) async fn release_leases(&self, inode: InodeId, indexes: &[ChunkIndex]) -> Result<()> {
        let request = |meta| messages::release_leases(meta, inode, indexes);
        self.change(Kind::Bound, "release a lease", request).await.map(drop)
    }

    async fn locate(&self, inode: InodeId, job: &LocateJob) -> Result<(Opened, Vec<Located>)> {
        let reply = self.query("locate", |session| messages::locate(session, inode, job)).await?;
        let (opened, mut chunks) = messages::located(reply)?;
        match self.plant {
            Some(Plant::ReadBehindTheEnd) => {
                chunks.iter_mut().for_each(|chunk| chunk.valid_length = CHUNK_SIZE);
            }
            Some(Plant::InlineHidesChunks) if opened.inline.is_some() => chunks.clear(),
            Some(Plant::OldPlaces) => {
                chunks = self.memory().places.entry((inode, job.first)).or_insert(chunks).clone();
            }
            _ => {}
        }
        Ok((opened, chunks))
    }

    async fn write_chain(
        &self,
        grant: &Grant,
        offset: u64,
        data: &[u8],
        how: WriteHow,
    ) -> std::result::Result<(), Fault> {
        let continues = how.continues && self.plant != Some(Plant::CountOnNothing);
        // Either of the two defences alone would do.
        let careless = [Some(Plant::MakeCopiesAnew), Some(Plant::CreateAgain)].contains(&self.plant);
        let exists = how.exists && !careless;
        let request = messages::write_chunk(grant, offset, data, WriteHow { continues, exists, ..how });
        self.chain(grant, Request::Write(request), data).await
    }

    async fn chain(&self, grant: &Grant, what: Request, data: &[u8]) -> std::result::Result<(), Fault> {
        let Some(first) = grant.servers.first() else {
            return Err(Fault { server: None, cause: ChunkCause::NoCopy });
        };
        self.dawdle().await;
        let request = ChunkRequest { what, payload: Bytes::copy_from_slice(data) };
        let done = self.port.ask_server(&first.address, request, TIMEOUT).await;
        let fault = done.map(drop).map_err(|error| Fault::of(&error));
        fault.map_err(|fault| match self.plant {
            Some(Plant::BlameTheFirst) => Fault { server: fault.server.or(Some(first.server)), ..fault },
            _ => fault,
        })
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
                PartStep::Ask(ask) => {
                    let answer = self.read_copy(&source, ask).await;
                    self.memory().doubtful_reads += u64::from(!ask.whole);
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

    async fn read_copy(&self, source: &Source, ask: Ask) -> PartAnswer {
        let Some(placement) = source.servers.get(ask.place) else {
            return PartAnswer::Fault(ChunkCause::NoCopy);
        };
        let range = (ask.offset, ask.length);
        let mut request = messages::read_chunk(source, ask, false);
        request.intact &= self.plant != Some(Plant::CountOnNothing);
        request.whole &= self.plant != Some(Plant::ReadInDoubt);
        let request = Request::Read(request);
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
