//! One connection: its reader takes requests and payloads off the socket, forwards down the chain, and hands the work to
//! the right disk's threads. It never waits for a disk itself, only for room in a queue. What a request means is in
//! `request.rs`.

use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};

use mooseng_env::{Clock, Threads, nonce};
use mooseng_protocol::door::Door;
use mooseng_protocol::frame::Frame;
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Keyring, Principal};
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::token::TokenKey;
use mooseng_protocol::transport::{FrameReader, FrameStream, NotWelcome, Socket, greet};
use mooseng_types::ChunkCause;

use crate::admin::{Admin, AdminReply};
use crate::buffer::BufferPool;
use crate::completion::{Completion, fault};
use crate::copy_events::CopyEvents;
use crate::engine::Now;
use crate::io_pool::IoPool;
use crate::keeper::Keepers;
use crate::outbox::{Asked, Outbox, Reply};
use crate::request::{Change, Read, Request, Tokens, Work};
use crate::store::{Chunk, ReadAnswer, ReadBytes, Store};
use crate::write_chain::WriteChain;

/// What every connection works with.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Arc<Store>,
    /// What the masters are to hear of.
    pub(crate) events: Arc<CopyEvents>,
    pub(crate) keepers: Arc<Keepers>,
    /// In the order of the store's disks.
    pub(crate) pools: Vec<IoPool>,
    pub(crate) chain: WriteChain,
    pub(crate) key: TokenKey,
    pub(crate) keys: Keyring,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) greeting: pb::HelloReply,
    /// Where requests are counted.
    pub(crate) door: Arc<Door>,
}

impl Service {
    /// The threads of a chunk's disk.
    pub(crate) fn pool(&self, chunk: &Chunk) -> Option<&IoPool> {
        self.pools.get(self.store.disk_index(chunk))
    }

    /// What the clocks say.
    pub(crate) fn now(&self) -> Now {
        let unix_s = u64::try_from(self.clock.wall().raw() / 1_000_000_000).unwrap_or(0);
        Now { mono: self.clock.monotonic(), unix_s }
    }
}

/// Serves one connection until it ends or its socket is shut down; then waits for what is at work. `known` is called once
/// the caller has proved who it is.
pub(crate) fn serve(service: &Arc<Service>, socket: Arc<Socket>, known: impl FnOnce()) {
    let mut stream = match FrameStream::new(socket) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "connection lost before its first frame"),
    };
    let greet = |hello: &pb::Hello| greet(hello, &service.greeting).map(|()| service.greeting.clone());
    let principal = match stream.welcome(&service.keys, nonce(), greet) {
        Ok(principal) => principal,
        Err(NotWelcome::Stranger(error)) => {
            return service.door.refused().stranger(&stream.reader().peer(), &error);
        }
        Err(NotWelcome::Known(error)) => {
            return tracing::warn!(peer = stream.reader().peer(), %error, "connection refused");
        }
    };
    known();
    let (mut reader, writer) = stream.split();
    let (door, clock) = (Arc::clone(&service.door), Arc::clone(&service.clock));
    let outbox = Arc::new(Outbox::new(writer, door, clock));
    let sender = Threads::default();
    let sending = Arc::clone(&outbox);
    if let Err(error) = sender.spawn("send", move || sending.send_until_closed()) {
        return tracing::error!(%error, "no thread for a connection, it is closed");
    }
    let tokens = Tokens::new(service.key.clone());
    let mut connection =
        Connection { service: Arc::clone(service), outbox: Arc::clone(&outbox), principal, tokens };
    match connection.run(&mut reader) {
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
    principal: Principal,
    tokens: Tokens,
}

impl Connection {
    fn run(&mut self, reader: &mut FrameReader) -> Result<(), TransportError> {
        loop {
            let frame = reader.receive()?;
            let request = self.outbox.begin_request(frame.header);
            match self.handle(request, &frame, reader) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.outbox.refuse(request, &error),
                Err(error) => {
                    // Half a payload came. The answer will hardly arrive; it ends the request here.
                    self.outbox.refuse(request, &stopping());
                    return Err(error);
                }
            }
        }
    }

    /// The outer result is the connection's, the inner one the request's.
    fn handle(
        &mut self,
        asked: Asked,
        frame: &Frame,
        reader: &mut FrameReader,
    ) -> Result<Result<(), CallError>, TransportError> {
        if let Err(error) = self.principal.may_send(frame.header.kind) {
            self.service.door.refused().forbidden(&self.principal.name, &error);
            return Ok(Err(error));
        }
        if let Some(admin) = Admin::decode(frame.header.kind, &frame.body) {
            return Ok(admin.and_then(|admin| self.administer(asked, admin)));
        }
        let now = self.service.now().unix_s;
        let (store, tokens) = (&self.service.store, &mut self.tokens);
        let admitted = Request::decode(frame.header.kind, &frame.body).and_then(|mut request| {
            let work = request.admit(store, tokens, now, frame.payload_length)?;
            let next = request.take_next()?;
            Ok((request, work, next))
        });
        let (request, change, next) = match admitted {
            Ok((_, Work::Read(read), _)) => return Ok(self.read(asked, read)),
            Ok((request, Work::Change(change), next)) => (request, change, next),
            Err(error) => return Ok(Err(error)),
        };
        let Some(pool) = self.service.pool(&change.chunk) else { return Ok(Err(stopping())) };
        let payload = if matches!(request, Request::Write(_)) {
            let mut buffer = pool.write_buffers.take(frame.payload_length);
            reader.read_payload(&mut buffer)?;
            Some(Arc::new(buffer))
        } else {
            None
        };
        let completion = Answering::new(Arc::clone(&self.outbox), asked, &request, next.is_some());
        let (service, here) = (Arc::clone(&self.service), Arc::clone(&completion));
        let (id, bytes) = (change.chunk.id(), payload.clone());
        let job = move || here.done_here(perform(&service, &change, bytes.as_deref()));
        // Queued first: while the next server receives, this one writes.
        if pool.submit(Some(id), job).is_err() {
            return Ok(Err(stopping()));
        }
        if let Some(next) = next {
            let parts = payload.as_deref().map(|bytes| [IoSlice::new(bytes)]);
            let parts = parts.as_ref().map_or(&[][..], |parts| parts);
            self.service.chain.forward(&next, &request, parts, move |done| completion.done_behind(done));
        }
        Ok(Ok(()))
    }

    fn administer(&self, request: Asked, admin: Admin) -> Result<(), CallError> {
        let (service, outbox) = (Arc::clone(&self.service), Arc::clone(&self.outbox));
        let disk = admin.disk(&service.store)?;
        let job = move || match admin.perform(&service.store, &service.keepers, service.now()) {
            Ok(AdminReply::Done) => outbox.reply(request, Reply::Done),
            Ok(AdminReply::List(list)) => outbox.reply(request, Reply::Quarantine(list)),
            Err(error) => outbox.refuse(request, &error),
        };
        match disk {
            None => job(),
            Some(disk) => {
                let pool = self.service.pools.get(disk).ok_or_else(stopping)?;
                pool.submit(None, job).map_err(|_| stopping())?;
            }
        }
        Ok(())
    }

    fn read(&self, request: Asked, read: Read) -> Result<(), CallError> {
        let (service, outbox) = (Arc::clone(&self.service), Arc::clone(&self.outbox));
        let pool = self.service.pool(&read.chunk).ok_or_else(stopping)?;
        let buffers = Arc::clone(&pool.read_buffers);
        let job = move || {
            let done = read
                .perform(service.clock.monotonic(), &buffers)
                .and_then(|answer| reply_to_read(&outbox, request, answer, &buffers));
            if let Err(error) = done {
                outbox.refuse(request, &error);
            }
        };
        pool.submit(None, job).map_err(|_| stopping())
    }
}

fn perform(
    service: &Service,
    change: &Change,
    payload: Option<&crate::buffer::Buffer>,
) -> Result<(), CallError> {
    let payload = payload.map_or(&[][..], |buffer| buffer);
    change.perform(&service.store, service.clock.monotonic(), payload)
}

fn reply_to_read(
    outbox: &Outbox,
    request: Asked,
    answer: ReadAnswer,
    buffers: &Arc<BufferPool>,
) -> Result<(), CallError> {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let reply = pb::ReadChunkReply {
        version: answer.version.raw(),
        copy_length: small(answer.copy_length),
        offset: small(answer.offset),
        checksums: answer.checksums,
    };
    let payload = match answer.bytes {
        ReadBytes::Nothing => None,
        ReadBytes::Memory { buffer, from, length } => Some((buffer, from, length)),
        ReadBytes::File(bytes) => return Ok(outbox.reply_with_file(request, reply, bytes, buffers)?),
    };
    outbox.reply(request, Reply::Read(reply, payload));
    Ok(())
}

/// The answer to a change, when it is done here and behind this server.
struct Answering {
    outbox: Arc<Outbox>,
    request: Asked,
    state: Mutex<(Completion, Option<Reply>)>,
}

impl Answering {
    fn new(outbox: Arc<Outbox>, asked: Asked, request: &Request, forwarded: bool) -> Arc<Self> {
        let reply = match request {
            Request::Write(_) | Request::Read(_) => Reply::Write,
            Request::Sync(_) => Reply::Sync,
            Request::Truncate(_) => Reply::Truncate,
        };
        let state = Mutex::new((Completion::new(forwarded), Some(reply)));
        Arc::new(Self { outbox, request: asked, state })
    }

    fn done_here(&self, result: Result<(), CallError>) {
        self.part_done(|completion| completion.here(result));
    }

    fn done_behind(&self, result: Result<(), CallError>) {
        self.part_done(|completion| completion.behind(result));
    }

    fn part_done(&self, note: impl FnOnce(&mut Completion) -> Option<Result<(), CallError>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = note(&mut state.0);
        let reply = if outcome.is_some() { state.1.take() } else { None };
        drop(state);
        match (outcome, reply) {
            (Some(Ok(())), Some(reply)) => self.outbox.reply(self.request, reply),
            (Some(Err(error)), Some(_)) => self.outbox.refuse(self.request, &error),
            _ => {}
        }
    }
}

fn stopping() -> CallError {
    fault(ChunkCause::Stopping, "the server is stopping")
}
