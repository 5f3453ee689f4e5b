//! Where orders of the leader go: deletions and what goes into quarantine to the disks' threads, fetches to threads of their own. Orders that find no
//! room are dropped: they are done only when a report says so, and until then the leader gives them again.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::Part;

use crate::completion::with_source;
use crate::connection::Service;
use crate::copy_events::{CopyEvent, CopyEvents};
use crate::housekeeping::keep_on;
use crate::order::{self, Fetch, FetchError, Order};
use crate::store::Store;

/// Fetches that wait.
const FETCHES_MAX: usize = 1024;
/// Copies removed by one piece of work of a disk: enough to be quick, few enough to let others in between.
const REMOVE_BATCH: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Where orders are handed in.
#[derive(Debug)]
pub(crate) struct Orders {
    service: Arc<Service>,
    events: Arc<CopyEvents>,
    fetches: Mutex<Option<SyncSender<(Part, pb::CopyChunk)>>>,
}

/// Where fetches are taken out.
#[derive(Debug)]
pub(crate) struct Fetches(Mutex<Receiver<(Part, pb::CopyChunk)>>);

impl Orders {
    /// Both ends.
    pub(crate) fn new(service: Arc<Service>, events: Arc<CopyEvents>) -> (Arc<Self>, Arc<Fetches>) {
        let (sender, receiver) = sync_channel(FETCHES_MAX);
        let this = Self { service, events, fetches: Mutex::new(Some(sender)) };
        (Arc::new(this), Arc::new(Fetches(Mutex::new(receiver))))
    }

    /// Takes a push of a master. Never waits.
    pub(crate) fn take(&self, kind: u16, body: &Bytes) {
        match Order::decode(kind, body) {
            Some(Order::Delete(parts)) => self.by_disk(&parts, |part| *part, order::delete),
            Some(Order::Quarantine(copies, keep_s)) => {
                let until_unix_s = self.service.now().unix_s.saturating_add(keep_s);
                self.by_disk(
                    &copies,
                    |copy| copy.part,
                    move |store, events, copy| {
                        order::quarantine(store, events, copy, until_unix_s);
                    },
                );
            }
            Some(Order::Verify(parts)) => {
                let Service { store, keepers, .. } = &*self.service;
                let disks: BTreeSet<usize> = parts
                    .into_iter()
                    .filter_map(|part| order::verify(store, &self.events, keepers, part))
                    .collect();
                disks.into_iter().for_each(|disk| keep_on(&self.service, disk));
            }
            Some(Order::Copy(part, order)) => self.fetch(part, order),
            None => {}
        }
    }

    /// Lets the fetching threads end when they have done what waits.
    pub(crate) fn stop(&self) {
        drop(self.fetches.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Has something done about each copy by the threads of its disk. The leader hears of those that are not here.
    fn by_disk<T: Copy + Send + 'static>(
        &self,
        all: &[T],
        part: impl Fn(&T) -> Part,
        act: impl Fn(&Store, &CopyEvents, T) + Copy + Send + 'static,
    ) {
        let store = &self.service.store;
        let mut of_disk: Vec<Vec<T>> = self.service.pools.iter().map(|_| Vec::new()).collect();
        for one in all {
            match store.find(part(one)).map(|chunk| store.disk_index(&chunk)) {
                Some(disk) => of_disk.get_mut(disk).into_iter().for_each(|of_this| of_this.push(*one)),
                None => self.events.note(part(one), CopyEvent::Lost),
            }
        }
        for (pool, of_this) in self.service.pools.iter().zip(of_disk) {
            for batch in of_this.chunks(REMOVE_BATCH) {
                let (batch, service) = (batch.to_vec(), Arc::clone(&self.service));
                let events = Arc::clone(&self.events);
                let queued = pool.submit_background(move || {
                    batch.into_iter().for_each(|one| act(&service.store, &events, one));
                });
                if queued.is_err() {
                    tracing::warn!("too much work waits for a disk, an order is left for later");
                    break;
                }
            }
        }
    }

    fn fetch(&self, part: Part, order: pb::CopyChunk) {
        let fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = fetches.as_ref() else { return };
        if let Err(TrySendError::Full(_)) = sender.try_send((part, order)) {
            tracing::warn!(copy = %part, "too many copies wait to be fetched, this one is left for later");
        }
    }
}

/// Why a copy did not come.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("from {address}")]
    Source { address: String, source: CallError },
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Fetches copies until [`Orders::stop`].
pub(crate) fn fetch_all(service: &Service, events: &CopyEvents, caller: &Caller, fetches: &Fetches) {
    loop {
        // The lock is held while waiting: the other threads wait for it instead of for the queue.
        let next = fetches.0.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((part, order)) = next else { return };
        let source = order.source.clone();
        let fetched = Fetch::begin(&service.store, events, part, order).map_err(Failed::from);
        match fetched.and_then(|fetch| fetch.map(|fetch| fetch_whole(fetch, caller)).transpose()) {
            Ok(None) => {}
            Ok(Some(length)) => tracing::info!(copy = %part, length, source, "copy fetched"),
            Err(error) => tracing::warn!(copy = %part, error = with_source(&error), "copy not fetched"),
        }
    }
}

/// Fetches one copy; returns its length.
fn fetch_whole(mut fetch: Fetch, caller: &Caller) -> Result<u64, Failed> {
    let address = fetch.source().to_owned();
    let failed = |source| Failed::Source { address: address.clone(), source };
    let (mut stream, _) = FrameStream::connect(&address, caller, CONNECT_TIMEOUT).map_err(failed)?;
    let mut piece = Vec::new();
    let mut length = 0;
    loop {
        let reply = stream.call(&fetch.request(), &[], READ_TIMEOUT).map_err(failed)?;
        piece.resize(stream.reader().payload_left(), 0);
        stream.reader().read_payload(&mut piece).map_err(|error| failed(error.into()))?;
        length += piece.len() as u64;
        if fetch.take(&reply, &piece)? {
            return Ok(length);
        }
    }
}
