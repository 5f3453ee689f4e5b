//! Where orders of the leader go: to the threads of the disks that they are about. Orders that find no room are dropped: they are
//! done only when a report says so, and until then the leader gives them again.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use mooseng_types::Part;

use crate::connection::Service;
use crate::copy_events::{CopyEvent, CopyEvents};
use crate::fetcher::Fetcher;
use crate::housekeeping::keep_on;
use crate::order::{self, Order};
use crate::store::Store;

/// Copies removed by one piece of work of a disk: enough to be quick, few enough to let others in between.
const REMOVE_BATCH: usize = 64;

/// Where orders are handed in.
#[derive(Debug)]
pub(crate) struct Orders {
    service: Arc<Service>,
    fetcher: Arc<Fetcher>,
}

impl Orders {
    /// Orders for this server.
    pub(crate) fn new(service: Arc<Service>, fetcher: Arc<Fetcher>) -> Self {
        Self { service, fetcher }
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
                    move |store, events, copy| order::quarantine(store, events, copy, until_unix_s),
                );
            }
            Some(Order::Verify(parts)) => {
                let Service { store, events, keepers, .. } = &*self.service;
                let ordered =
                    parts.into_iter().filter_map(|part| order::verify(store, events, keepers, part));
                let disks: BTreeSet<usize> = ordered.collect();
                disks.into_iter().for_each(|disk| keep_on(&self.service, disk));
            }
            Some(Order::Settle(copy)) => {
                let now = self.service.now().mono;
                self.by_disk(
                    &[copy],
                    |copy| copy.part,
                    move |store, events, copy| order::settle(store, events, copy, now),
                );
            }
            Some(Order::Copy(part, order)) => self.fetcher.order(part, order),
            None => {}
        }
    }

    /// Has something done about each copy by the threads of its disk. The leader hears of those that are not here.
    fn by_disk<T: Copy + Send + 'static>(
        &self,
        all: &[T],
        part: impl Fn(&T) -> Part,
        act: impl Fn(&Store, &CopyEvents, T) + Copy + Send + 'static,
    ) {
        let Service { store, events, pools, .. } = &*self.service;
        let mut of_disk: Vec<Vec<T>> = pools.iter().map(|_| Vec::new()).collect();
        for one in all {
            match store.find(part(one)).map(|chunk| store.disk_index(&chunk)) {
                Some(disk) => of_disk.get_mut(disk).into_iter().for_each(|of_this| of_this.push(*one)),
                None => events.note(part(one), CopyEvent::Lost),
            }
        }
        for (pool, of_this) in pools.iter().zip(of_disk) {
            for batch in of_this.chunks(REMOVE_BATCH) {
                let (batch, service) = (batch.to_vec(), Arc::clone(&self.service));
                let queued = pool.submit_background(move || {
                    batch.into_iter().for_each(|one| act(&service.store, &service.events, one));
                });
                if queued.is_err() {
                    tracing::warn!("too much work waits for a disk, an order is left for later");
                    break;
                }
            }
        }
    }
}
