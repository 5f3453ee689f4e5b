//! Changed rows go to the store, and what the log holds of them goes when the store has them.

use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Group, News, Now};

/// Rows changed and not yet in the store, in bytes, from which on they are written there.
const FLUSH_BYTES: usize = 8 << 20;
/// Changed rows wait no longer than this, so that a restart has little to replay.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// Changed rows in memory beyond which no more changes are taken: the store cannot keep up.
pub(super) const UNFLUSHED_MAX: usize = 128 << 20;

/// How far store and log are.
#[derive(Debug)]
pub(super) struct Flushing {
    last: Duration,
    /// The entry that the rows on their way to the store are as of.
    under_way: Option<u64>,
    /// The entry that the store is as of.
    pub(super) durable: u64,
    /// The last entry that is no longer in the log.
    pub(super) purged: u64,
    /// The last change of the group. The store must have it soon: a majority that has forgotten that it counts would need
    /// one of the group before.
    pub(super) group_changed: u64,
    /// Up to here the log is to be purged, whoever lags behind.
    let_go: u64,
}

impl Flushing {
    pub(super) fn new(now: Duration, durable: u64, purged: u64) -> Self {
        Self { last: now, under_way: None, durable, purged, group_changed: 0, let_go: 0 }
    }

    /// Whether rows are on their way to the store.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}

impl Group {
    /// The entry that the store is as of.
    pub(crate) fn durable_index(&self) -> u64 {
        self.flushing.durable
    }

    pub(super) fn flush_if_due(&mut self, now: Duration) {
        let wanted = self.flushing.group_changed.max(self.flushing.let_go);
        let needed = self.node.wants_snapshot() || wanted > self.flushing.durable;
        let due = now.saturating_sub(self.flushing.last) >= FLUSH_INTERVAL;
        let unflushed = self.state.unflushed_bytes();
        if needed || unflushed >= FLUSH_BYTES || (due && unflushed > 0) {
            self.flush(now);
        }
    }

    /// Hands all changed rows to the store, unless it is still busy with the ones before.
    pub fn flush(&mut self, now: Duration) {
        if self.flushing.under_way.is_none()
            && let Some(batch) = self.state.freeze()
        {
            self.flushing.under_way = Some(batch.applied_index);
            self.flushing.last = now;
            self.node.set_snapshot_point(None);
            self.effects.push(Effect::Flush(Arc::clone(self.state.store()), batch));
        }
    }

    /// The rows last handed out are durable in the store.
    pub fn flushed(&mut self, now: Now) {
        self.state.flushed();
        self.flushing.durable = self.flushing.under_way.take().unwrap_or(self.flushing.durable);
        self.founded(now.mono);
        self.node.set_snapshot_point(Some(self.flushing.durable));
        self.purge();
        self.retry_received(now.mono);
        self.news.push(News::Flushed);
    }

    /// Too much of the log is kept: entries up to `index` must go, whoever lags behind. Such a master gets a snapshot.
    pub(crate) fn let_go(&mut self, now: Duration, index: u64) {
        self.flushing.let_go = index.max(self.flushing.let_go);
        if self.flushing.durable < index {
            self.flush(now);
        } else {
            self.purge();
        }
    }

    fn purge(&mut self) {
        let (index, term) = self.node.purge(self.flushing.durable, self.flushing.let_go);
        if index > self.flushing.purged {
            self.flushing.purged = index;
            self.effects.push(Effect::Purge { index, term });
        }
    }
}
