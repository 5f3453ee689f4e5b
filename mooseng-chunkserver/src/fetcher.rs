//! How copies are fetched: network threads ask the sources, the disks' threads do what may wait for a disk, in the background. A
//! fetch goes to and fro between them, a piece at a time, so no network thread ever waits for a disk.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::Part;

use crate::completion::with_source;
use crate::connection::Service;
use crate::fetch::{Fetch, FetchError};
use crate::fetch_queue::FetchQueue;
use crate::token_bucket::TokenBucket;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Fetches copies for all disks.
#[derive(Debug)]
pub(crate) struct Fetcher {
    service: Arc<Service>,
    caller: Caller,
    state: Mutex<State>,
    /// Something is to be asked for, or the end is near.
    work: Condvar,
    bucket: Mutex<TokenBucket>,
}

#[derive(Debug)]
struct State {
    queue: FetchQueue<pb::CopyChunk>,
    /// Those whose source is to be asked for the next piece.
    ready: VecDeque<Transfer>,
    stopping: bool,
}

/// A fetch under way.
#[derive(Debug)]
struct Transfer {
    fetch: Fetch,
    /// In whose lane it is counted.
    disk: usize,
    /// To the source, once it was asked.
    stream: Option<FrameStream>,
}

/// What a source has answered.
struct Piece {
    reply: pb::ReadChunkReply,
    bytes: Vec<u8>,
}

impl Fetcher {
    /// Up to `limit` fetches at once for each disk, with so many bytes per second in all; 0 for any number.
    pub(crate) fn new(service: Arc<Service>, caller: Caller, limit: usize, bytes_per_s: u64) -> Arc<Self> {
        let queue = FetchQueue::new(service.pools.len(), limit);
        let state = State { queue, ready: VecDeque::new(), stopping: false };
        Arc::new(Self {
            service,
            caller,
            state: Mutex::new(state),
            work: Condvar::new(),
            bucket: Mutex::new(TokenBucket::new(bytes_per_s)),
        })
    }

    /// Takes an order. Never waits. One that finds no room is dropped: the leader gives it again.
    pub(crate) fn order(self: &Arc<Self>, part: Part, order: pb::CopyChunk) {
        let disk = self.service.store.disk_for_whole(part).unwrap_or_default();
        if let Err(error) = self.lock().queue.push(disk, part, order) {
            return tracing::warn!(copy = %part, %error, "this one is left for later");
        }
        self.start_some();
    }

    /// Asks sources until [`Self::stop`]: what a network thread does.
    pub(crate) fn work(self: &Arc<Self>) {
        loop {
            let idle = |state: &mut State| state.ready.is_empty() && !state.stopping;
            let waited = self.work.wait_while(self.lock(), idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.stopping {
                return;
            }
            let Some(transfer) = state.ready.pop_front() else { continue };
            drop(state);
            self.ask(transfer);
        }
    }

    /// Ends the network threads, after the piece at hand.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        state.queue.clear();
        drop(state);
        self.work.notify_all();
    }

    /// Lets go of what was under way, once the threads of the disks have ended.
    pub(crate) fn clear(&self) {
        let ready = std::mem::take(&mut self.lock().ready);
        drop(ready);
    }

    /// Begins what has its turn.
    fn start_some(self: &Arc<Self>) {
        loop {
            let next = self.lock().queue.start();
            let Some((lane, part, order)) = next else { return };
            let (store, events) = (&self.service.store, &self.service.events);
            match Fetch::prepare(store, events, part, order) {
                Ok(Some(fetch)) => {
                    let disk = fetch.disk();
                    if disk != lane {
                        self.lock().queue.moved(lane, disk);
                    }
                    self.open(Transfer { fetch, disk, stream: None });
                }
                Ok(None) => self.lock().queue.finished(lane, part),
                Err(error) => {
                    tracing::warn!(copy = %part, error = with_source(&error), "copy not fetched");
                    self.lock().queue.finished(lane, part);
                }
            }
        }
    }

    fn open(self: &Arc<Self>, transfer: Transfer) {
        self.on_disk(transfer, |this, mut transfer| match transfer.fetch.open() {
            Ok(()) => this.go_on(transfer),
            Err(error) => this.end(transfer, Err(error)),
        });
    }

    /// Asks for the next piece and hands it to the disk.
    fn ask(self: &Arc<Self>, mut transfer: Transfer) {
        match receive(&mut transfer, &self.caller) {
            Ok(piece) => {
                let bytes = piece.bytes.len() as u64;
                self.on_disk(transfer, move |this, mut transfer| {
                    match transfer.fetch.take(&piece.reply, &piece.bytes) {
                        Ok(false) => this.go_on(transfer),
                        ended => this.end(transfer, ended.map(drop)),
                    }
                });
                self.rest_after(bytes);
            }
            Err(error) => {
                let error = transfer.fetch.source_failed(error);
                // Its files are removed there.
                self.on_disk(transfer, move |this, transfer| this.end(transfer, Err(error)));
            }
        }
    }

    fn rest_after(&self, bytes: u64) {
        let now = self.service.clock.monotonic();
        let rest = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).spend(now, bytes);
        if !rest.is_zero() {
            self.service.events.wait_for_stop(rest);
        }
    }

    /// Has the threads of its disk do something with a transfer.
    fn on_disk(
        self: &Arc<Self>,
        transfer: Transfer,
        act: impl FnOnce(&Arc<Self>, Transfer) + Send + 'static,
    ) {
        let Some(pool) = self.service.pools.get(transfer.disk) else { return };
        let this = Arc::clone(self);
        // Let in by its lane. A pool that has stopped drops it, which ends the fetch.
        if let Err(error) = pool.continue_background(move || act(&this, transfer)) {
            tracing::debug!(%error, "a fetch ends with the server");
        }
    }

    /// The source is to be asked for the next piece.
    fn go_on(&self, transfer: Transfer) {
        self.lock().ready.push_back(transfer);
        self.work.notify_one();
    }

    fn end(self: &Arc<Self>, transfer: Transfer, ended: Result<(), FetchError>) {
        let Transfer { fetch, disk, .. } = transfer;
        let (copy, length, source) = (fetch.part(), fetch.length(), fetch.source().to_owned());
        drop(fetch);
        match ended {
            Ok(()) => tracing::info!(%copy, length, source, "copy fetched"),
            Err(error) => tracing::warn!(%copy, error = with_source(&error), "copy not fetched"),
        }
        self.lock().queue.finished(disk, copy);
        self.start_some();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn receive(transfer: &mut Transfer, caller: &Caller) -> Result<Piece, CallError> {
    let stream = match &mut transfer.stream {
        Some(stream) => stream,
        none => none.insert(FrameStream::connect(transfer.fetch.source(), caller, CONNECT_TIMEOUT)?.0),
    };
    let reply = stream.call(&transfer.fetch.request(), &[], READ_TIMEOUT)?;
    let mut bytes = vec![0; stream.reader().payload_left()];
    stream.reader().read_payload(&mut bytes)?;
    Ok(Piece { reply, bytes })
}
