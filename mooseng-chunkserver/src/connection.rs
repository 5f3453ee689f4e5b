//! One connection: its reader decodes, checks tokens, takes payloads off the socket, forwards down the chain, and hands
//! the work to the right disk's threads. It never waits for a disk itself, only for room in a queue.

use std::io::IoSlice;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::{Clock, Threads};
use mooseng_protocol::frame::{Frame, Header};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::token::{TOKEN_SIZE, Token, TokenKey};
use mooseng_protocol::transport::{FrameReader, FrameStream, greet};
use mooseng_types::{BLOCK_SIZE, ChunkId, ChunkVersion, FsError};

use crate::io_pool::IoPool;
use crate::outbox::{Outbox, Reply};
use crate::store::{Chunk, ReadAnswer, ReadBytes, Store, StoreError};
use crate::write_chain::{CHAIN_MAX, Completion, WriteChain};

/// A peer that does not say hello within this time is none of ours.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Verified tokens that a connection remembers: a client writes to few chunks at a time.
const TOKENS_KEPT: usize = 16;
/// Checksums of the longest payload that is cut at block borders.
const CHECKSUMS_MAX: usize = (1 << 20) / BLOCK_SIZE as usize + 1;

/// What every connection works with.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Arc<Store>,
    /// In the order of the store's disks.
    pub(crate) pools: Vec<IoPool>,
    pub(crate) chain: WriteChain,
    pub(crate) key: TokenKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) greeting: pb::HelloReply,
}

impl Service {
    /// The threads of a chunk's disk.
    pub(crate) fn pool(&self, chunk: &Chunk) -> Option<&IoPool> {
        self.pools.get(self.store.disk_index(chunk))
    }
}

/// Serves one connection until it ends or its socket is shut down; then waits for what is at work.
pub(crate) fn serve(service: &Arc<Service>, socket: TcpStream) {
    let stream = match FrameStream::new(socket) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "connection lost before its first frame"),
    };
    let (mut reader, writer) = stream.split();
    let outbox = Arc::new(Outbox::new(writer));
    let sender = Threads::default();
    let sending = Arc::clone(&outbox);
    if let Err(error) = sender.spawn("send", move || sending.send_until_closed()) {
        return tracing::error!(%error, "no thread for a connection, it is closed");
    }
    let mut connection =
        Connection { service: Arc::clone(service), outbox: Arc::clone(&outbox), tokens: Vec::new(), next: 0 };
    let end = connection
        .greet(&mut reader)
        .and_then(|known| if known { connection.run(&mut reader) } else { Ok(()) });
    match end {
        Err(TransportError::Closed { .. }) | Ok(()) => {}
        Err(error) => tracing::info!(%error, "connection ended"),
    }
    outbox.wait_until_idle();
    outbox.close();
    sender.join();
}

struct Connection {
    service: Arc<Service>,
    outbox: Arc<Outbox>,
    tokens: Vec<([u8; TOKEN_SIZE], Token)>,
    /// Which remembered token is forgotten next.
    next: usize,
}

/// A change on its way to a chunk, with what its answer needs.
struct Change {
    request: Header,
    chunk: Arc<Chunk>,
    token: Token,
    reply: Reply,
}

impl Connection {
    fn greet(&self, reader: &mut FrameReader) -> Result<bool, TransportError> {
        reader.set_timeout(Some(HELLO_TIMEOUT))?;
        let frame = reader.receive()?;
        self.outbox.begin_request(frame.header);
        let hello = decode::<pb::Hello>(&frame).and_then(|hello| {
            greet(&hello, &self.service.greeting)?;
            Ok(hello)
        });
        match hello {
            Ok(_) => self.outbox.reply(frame.header, Reply::Hello(self.service.greeting.clone())),
            Err(error) => {
                tracing::warn!(peer = reader.peer(), %error, "connection refused");
                self.outbox.refuse(frame.header, &error);
                return Ok(false);
            }
        }
        reader.set_timeout(None)?;
        Ok(true)
    }

    fn run(&mut self, reader: &mut FrameReader) -> Result<(), TransportError> {
        loop {
            let frame = reader.receive()?;
            self.outbox.begin_request(frame.header);
            let request = frame.header;
            let handled = match request.kind {
                pb::WriteChunkRequest::KIND => match self.write(&frame, reader) {
                    Ok(handled) => handled,
                    Err(error) => {
                        // Half a payload came. The answer will hardly arrive; it ends the request here.
                        self.outbox.refuse(request, &stopping());
                        return Err(error);
                    }
                },
                pb::ReadChunkRequest::KIND => self.read(&frame),
                pb::SyncChunkRequest::KIND => self.sync(&frame),
                pb::TruncateChunkRequest::KIND => self.truncate(&frame),
                kind => Err(CallError::Rejected { message: format!("a chunkserver does not do {kind:#x}") }),
            };
            if let Err(error) = handled {
                self.outbox.refuse(request, &error);
            }
        }
    }

    /// The outer result is the connection's, the inner one the request's.
    fn write(
        &mut self,
        frame: &Frame,
        reader: &mut FrameReader,
    ) -> Result<Result<(), CallError>, TransportError> {
        let length = frame.payload_length;
        let prepared = decode::<pb::WriteChunkRequest>(frame).and_then(|write| {
            // An empty write only takes on the version of its token.
            if length > 1 << 20 || write.checksums.len() > CHECKSUMS_MAX {
                let message = format!("a write has at most 1 MiB, not {length} bytes");
                return Err(CallError::Rejected { message });
            }
            let change =
                self.change(frame.header, &write.token, (write.chunk, write.version), Reply::Write)?;
            Ok((write, change))
        });
        let (mut write, change) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error)),
        };
        let Some(pool) = self.service.pool(&change.chunk) else { return Ok(Err(stopping())) };
        let mut buffer = pool.write_buffers.take(length);
        reader.read_payload(&mut buffer)?;
        let next = match take_next(&mut write.chain) {
            Ok(next) => next,
            Err(error) => return Ok(Err(error)),
        };
        let payload = Arc::new(buffer);
        let (offset, sync) = (u64::from(write.offset), write.sync);
        let checksums = write.checksums.clone();
        let bytes = Arc::clone(&payload);
        let work = move |chunk: &Arc<Chunk>, now: Duration, token: &Token| {
            chunk.write(now, token, offset, &bytes, &checksums)?;
            if sync { chunk.sync(now, token) } else { Ok(()) }
        };
        Ok(self.run_change(change, next, &write, &[IoSlice::new(&payload)], work))
    }

    fn sync(&mut self, frame: &Frame) -> Result<(), CallError> {
        let mut sync = decode::<pb::SyncChunkRequest>(frame)?;
        let change = self.change(frame.header, &sync.token, (sync.chunk, sync.version), Reply::Sync)?;
        let next = take_next(&mut sync.chain)?;
        self.run_change(change, next, &sync, &[], |chunk, now, token| chunk.sync(now, token))
    }

    fn truncate(&mut self, frame: &Frame) -> Result<(), CallError> {
        let mut cut = decode::<pb::TruncateChunkRequest>(frame)?;
        let change = self.change(frame.header, &cut.token, (cut.chunk, cut.version), Reply::Truncate)?;
        let next = take_next(&mut cut.chain)?;
        let length = u64::from(cut.length);
        self.run_change(change, next, &cut, &[], move |chunk, now, token| chunk.truncate(now, token, length))
    }

    /// Checks the token of a change and finds the chunk, or a place for it.
    fn change(
        &mut self,
        request: Header,
        token: &[u8],
        target: (u64, u32),
        reply: Reply,
    ) -> Result<Change, CallError> {
        let id = ChunkId::from_raw(target.0);
        let token = self.token(token, id)?;
        // A version of 0 leaves it to the token.
        if !token.write || (target.1 != 0 && target.1 != token.version.raw()) {
            let message = "the token does not allow to write this version of the chunk".into();
            return Err(CallError::Rejected { message });
        }
        let store = &self.service.store;
        let chunk = match store.find(id) {
            Some(chunk) => chunk,
            None if token.create => store.find_or_place(id)?,
            None => return Err(FsError::NotFound.into()),
        };
        Ok(Change { request, chunk, token, reply })
    }

    /// Queues a change here and forwards it. Queued first: while the next server receives, this one writes.
    fn run_change<R: Rpc>(
        &self,
        change: Change,
        next: Option<pb::ServerAddress>,
        request: &R,
        payload: &[IoSlice<'_>],
        work: impl FnOnce(&Arc<Chunk>, Duration, &Token) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), CallError> {
        let Change { request: header, chunk, token, reply } = change;
        let completion = Completion::new(Arc::clone(&self.outbox), header, reply, next.is_some());
        let pool = self.service.pool(&chunk).ok_or_else(stopping)?;
        let (service, here) = (Arc::clone(&self.service), Arc::clone(&completion));
        let job = move || {
            let done = work(&chunk, service.clock.monotonic(), &token);
            if done.is_err() {
                service.store.forget_if_gone(&chunk);
            }
            here.done_here(done.map_err(Into::into));
        };
        pool.submit(Some(token.chunk), job).map_err(|_| stopping())?;
        if let Some(next) = next {
            self.service.chain.forward(&next, request, payload, move |done| completion.done_behind(done));
        }
        Ok(())
    }

    fn read(&mut self, frame: &Frame) -> Result<(), CallError> {
        let read = decode::<pb::ReadChunkRequest>(frame)?;
        let id = ChunkId::from_raw(read.chunk);
        let token = self.token(&read.token, id)?;
        if !token.read {
            return Err(CallError::Rejected { message: "the token does not allow to read".into() });
        }
        let chunk = self.service.store.find(id).ok_or(FsError::NotFound)?;
        let oldest = ChunkVersion::from_raw(read.version).max(token.base_version);
        let (offset, length) = (u64::from(read.offset), u64::from(read.length));
        let (service, outbox, request) = (Arc::clone(&self.service), Arc::clone(&self.outbox), frame.header);
        let pool = self.service.pool(&chunk).ok_or_else(stopping)?;
        let buffers = Arc::clone(&pool.read_buffers);
        let job = move || match chunk.read(service.clock.monotonic(), oldest, offset, length, &buffers) {
            Ok(answer) => {
                let (reply, bytes) = to_reply(answer);
                let payload = match bytes {
                    ReadBytes::Nothing => None,
                    ReadBytes::Memory { buffer, from, length } => Some((buffer, from, length)),
                    ReadBytes::File(bytes) => {
                        if let Err(error) = outbox.reply_with_file(request, reply, bytes, &buffers) {
                            tracing::error!(%error, chunk = %chunk.id(), "copy could not be read");
                            outbox.refuse(request, &FsError::Io.into());
                        }
                        return;
                    }
                };
                outbox.reply(request, Reply::Read(reply, payload));
            }
            Err(error) => outbox.refuse(request, &error.into()),
        };
        pool.submit(None, job).map_err(|_| stopping())
    }

    /// The verified token for `chunk`.
    fn token(&mut self, bytes: &[u8], chunk: ChunkId) -> Result<Token, CallError> {
        let wall = self.service.clock.wall().raw() / 1_000_000_000;
        let now = u64::try_from(wall).unwrap_or(0);
        let known = self.tokens.iter().find(|(known, _)| known == bytes).map(|(_, token)| *token);
        let token = match known.filter(|token| token.expiry_unix_s >= now) {
            Some(token) => token,
            None => {
                let verified = self.service.key.verify(bytes, now);
                let token = verified.map_err(|bad| CallError::Rejected { message: bad.to_string() })?;
                self.remember(bytes, token);
                token
            }
        };
        if token.chunk != chunk {
            let message = format!("the token is for {}, not for {chunk}", token.chunk);
            return Err(CallError::Rejected { message });
        }
        Ok(token)
    }

    fn remember(&mut self, bytes: &[u8], token: Token) {
        let Ok(bytes) = <[u8; TOKEN_SIZE]>::try_from(bytes) else { return };
        if self.tokens.len() < TOKENS_KEPT {
            self.tokens.push((bytes, token));
        } else if let Some(slot) = self.tokens.get_mut(self.next) {
            *slot = (bytes, token);
            self.next = (self.next + 1) % TOKENS_KEPT;
        }
    }
}

fn to_reply(answer: ReadAnswer) -> (pb::ReadChunkReply, ReadBytes) {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let reply = pb::ReadChunkReply {
        version: answer.version.raw(),
        copy_length: small(answer.copy_length),
        offset: small(answer.offset),
        checksums: answer.checksums,
    };
    (reply, answer.bytes)
}

fn decode<R: Rpc>(frame: &Frame) -> Result<R, CallError> {
    if frame.header.kind != R::KIND {
        let message = format!("expected {}, not a request of kind {:#x}", R::NAME, frame.header.kind);
        return Err(CallError::Rejected { message });
    }
    R::decode(frame.body.clone())
        .map_err(|error| CallError::Rejected { message: format!("{}: {error}", R::NAME) })
}

/// Takes the server that comes next off the chain.
fn take_next(chain: &mut Vec<pb::ServerAddress>) -> Result<Option<pb::ServerAddress>, CallError> {
    if chain.len() > CHAIN_MAX {
        return Err(CallError::Rejected { message: format!("a chain has at most {CHAIN_MAX} more servers") });
    }
    Ok(if chain.is_empty() { None } else { Some(chain.remove(0)) })
}

fn stopping() -> CallError {
    CallError::Unavailable { message: "the server is stopping".into() }
}
