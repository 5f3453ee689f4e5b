//! What the leader orders: copies to delete, copies to fetch. Orders that find no room are dropped: they are done only
//! when a report says so, and until then the leader gives them again.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::{ChunkId, ChunkVersion};
use prost::Message as _;

use crate::changes::{Change, Changes};
use crate::connection::Service;
use crate::store::{Chunk, Incoming, StoreError};

/// Fetches that wait.
const FETCHES_MAX: usize = 1024;
/// Deletions done by one piece of work of a disk: enough to be quick, few enough to let others in between.
const DELETE_BATCH: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(20);
const READ_LENGTH: u32 = 1 << 20;

/// Where orders are handed in.
#[derive(Debug)]
pub(crate) struct Orders {
    service: Arc<Service>,
    changes: Arc<Changes>,
    fetches: Mutex<Option<SyncSender<pb::CopyChunk>>>,
}

/// Where fetches are taken out.
#[derive(Debug)]
pub(crate) struct Fetches(Mutex<Receiver<pb::CopyChunk>>);

impl Orders {
    /// Both ends.
    pub(crate) fn new(service: Arc<Service>, changes: Arc<Changes>) -> (Arc<Self>, Arc<Fetches>) {
        let (sender, receiver) = sync_channel(FETCHES_MAX);
        let this = Self { service, changes, fetches: Mutex::new(Some(sender)) };
        (Arc::new(this), Arc::new(Fetches(Mutex::new(receiver))))
    }

    /// Takes a push of a master. Never waits.
    pub(crate) fn take(&self, kind: u16, body: &Bytes) {
        match kind {
            pb::DeleteChunks::KIND => match pb::DeleteChunks::decode(body.clone()) {
                Ok(order) => self.delete(&order.chunks),
                Err(error) => tracing::warn!(%error, "order to delete does not decode"),
            },
            pb::CopyChunk::KIND => match pb::CopyChunk::decode(body.clone()) {
                Ok(order) => self.fetch(order),
                Err(error) => tracing::warn!(%error, "order to copy does not decode"),
            },
            _ => {}
        }
    }

    /// Lets the fetching threads end when they have done what waits.
    pub(crate) fn stop(&self) {
        drop(self.fetches.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn delete(&self, chunks: &[u64]) {
        let store = &self.service.store;
        let mut of_disk: Vec<Vec<Arc<Chunk>>> = self.service.pools.iter().map(|_| Vec::new()).collect();
        for id in chunks.iter().copied().map(ChunkId::from_raw) {
            match store.find(id) {
                Some(chunk) => {
                    if let Some(doomed) = of_disk.get_mut(store.disk_index(&chunk)) {
                        doomed.push(chunk);
                    }
                }
                None => self.changes.note(id, Change::Lost),
            }
        }
        for (pool, doomed) in self.service.pools.iter().zip(of_disk) {
            for batch in doomed.chunks(DELETE_BATCH) {
                let (batch, service) = (batch.to_vec(), Arc::clone(&self.service));
                let changes = Arc::clone(&self.changes);
                let queued = pool.try_submit(None, move || {
                    for chunk in batch {
                        match chunk.delete() {
                            Ok(()) => changes.note(chunk.id(), Change::Lost),
                            Err(error) => tracing::warn!(%error, "copy not deleted"),
                        }
                        service.store.forget_if_gone(&chunk);
                    }
                });
                if queued.is_err() {
                    tracing::warn!("too much work waits for a disk, deletions are left for later");
                    return;
                }
            }
        }
    }

    fn fetch(&self, order: pb::CopyChunk) {
        let fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = fetches.as_ref() else { return };
        if let Err(TrySendError::Full(order)) = sender.try_send(order) {
            tracing::warn!(
                chunk = order.chunk,
                "too many copies wait to be fetched, this one is left for later"
            );
        }
    }
}

/// Why a copy was not fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("from {address}")]
    Source { address: String, source: CallError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the source has version {found}, wanted was {wanted}")]
    Version { found: u32, wanted: u32 },
    #[error("the source sent less than it has")]
    Short,
}

/// Fetches copies until [`Orders::stop`].
pub(crate) fn fetch_all(service: &Service, changes: &Changes, hello: &pb::Hello, fetches: &Fetches) {
    loop {
        // The lock is held while waiting: the other threads wait for it instead of for the queue.
        let next = fetches.0.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(order) = next else { return };
        let chunk = match service.store.find_or_place(ChunkId::from_raw(order.chunk)) {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::warn!(%error, "no place for a copy to be fetched");
                continue;
            }
        };
        if let Some(version) = chunk.has(ChunkVersion::from_raw(order.version)) {
            // Ordered again before the report of it arrived.
            changes.note(chunk.id(), Change::Here(version));
            continue;
        }
        match fetch(&chunk, hello, &order) {
            Ok(length) => tracing::info!(chunk = %chunk.id(), length, source = order.source, "copy fetched"),
            Err(error) => {
                let why = with_sources(&error);
                tracing::warn!(chunk = %chunk.id(), error = why, "copy not fetched");
                chunk.give_up_place();
                service.store.forget_if_gone(&chunk);
            }
        }
    }
}

/// Fetches one copy; returns its length.
fn fetch(chunk: &Arc<Chunk>, hello: &pb::Hello, order: &pb::CopyChunk) -> Result<u64, FetchError> {
    let failed = |source| FetchError::Source { address: order.source.clone(), source };
    let version = ChunkVersion::from_raw(order.version);
    let mut incoming = Incoming::begin(Arc::clone(chunk))?;
    let (mut stream, _) = FrameStream::connect(&order.source, hello, CONNECT_TIMEOUT).map_err(failed)?;
    let mut piece = Vec::new();
    loop {
        let request = pb::ReadChunkRequest {
            token: order.token.clone(),
            chunk: order.chunk,
            version: order.version,
            offset: u32::try_from(incoming.length()).unwrap_or(u32::MAX),
            length: READ_LENGTH,
            verify: false,
            intact: false,
        };
        let reply = stream.call(&request, &[], READ_TIMEOUT).map_err(failed)?;
        if reply.version != order.version {
            // It is being written under a newer lease: what would be put together fits no version.
            return Err(FetchError::Version { found: reply.version, wanted: order.version });
        }
        piece.resize(stream.reader().payload_left(), 0);
        stream.reader().read_payload(&mut piece).map_err(|error| failed(error.into()))?;
        if piece.is_empty() && incoming.length() < u64::from(reply.copy_length) {
            return Err(FetchError::Short);
        }
        incoming.append(&piece, &reply.checksums)?;
        if incoming.length() >= u64::from(reply.copy_length) {
            break;
        }
    }
    let length = incoming.length();
    incoming.publish(version)?;
    Ok(length)
}

fn with_sources(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_sources(source)),
        None => error.to_string(),
    }
}
