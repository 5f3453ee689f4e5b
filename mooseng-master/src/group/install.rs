//! A snapshot from another master takes the place of this one's state.

use std::sync::Arc;
use std::time::Duration;

use mooseng_meta::{MetaState, MetaStore};
use mooseng_types::MasterId;

use super::digests::Digests;
use super::{Group, News};
use crate::raft::Message;

/// A snapshot that another master has sent.
#[derive(Debug)]
pub(super) enum Received {
    /// Until the store that it replaces is at rest.
    Waiting(Message, Arc<dyn MetaStore>),
    /// Offered to the consensus core.
    Ready(MetaState),
}

impl Group {
    /// All rows of a snapshot are there, in a store of their own. It takes the place of this master's state if it is
    /// ahead of it.
    pub fn snapshot_received(&mut self, now: Duration, message: Message, store: Arc<dyn MetaStore>) {
        if self.node.has_accepted_snapshot() {
            // These rows must not be taken for those of the one that is about to be installed.
            tracing::warn!("dropped a snapshot that came together with another");
            return;
        }
        if self.flushing.is_under_way() {
            // The old store is still being written; the new one takes its place after that.
            self.received = Some(Received::Waiting(message, store));
            return;
        }
        let index = message.snapshot_index();
        match MetaState::open(store, self.state.cell()) {
            Ok(state) if state.applied_index() == index && index > 0 => {
                self.received = Some(Received::Ready(state));
                self.node.snapshot_received(now, message);
                if !self.node.has_accepted_snapshot() {
                    // It brings nothing new.
                    self.received = None;
                }
            }
            Ok(_) => tracing::warn!(index, "a snapshot is not of the entry that it was sent for"),
            Err(error) => tracing::warn!(%error, "a snapshot that was received cannot be opened"),
        }
    }

    /// The rows of a snapshot that was to be sent have arrived there, or will not.
    pub fn snapshot_sent(&mut self, peer: MasterId, arrived: bool) {
        self.node.snapshot_sent(peer, arrived);
    }

    pub(super) fn retry_received(&mut self, now: Duration) {
        if let Some(Received::Waiting(message, store)) =
            self.received.take_if(|received| matches!(received, Received::Waiting(..)))
        {
            self.snapshot_received(now, message, store);
        }
    }

    /// The consensus core has accepted the snapshot at `index`.
    pub(super) fn install(&mut self, index: u64) {
        let Some(Received::Ready(state)) = self.received.take() else {
            tracing::error!(index, "a snapshot was accepted whose rows are not there");
            std::process::abort();
        };
        tracing::info!(index, "a snapshot has brought this master up to date");
        self.state = state;
        self.members = self.state.membership().clone();
        self.door.heard_of.clear();
        self.digests = Digests::new();
        self.flushing.durable = index;
        self.flushing.purged = index;
        self.news.push(News::Installed);
        self.node.set_snapshot_point(Some(index));
        self.relink();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, advance, config, group, snapshot};
    use crate::raft::Recovered;

    #[test]
    fn a_snapshot_that_is_accepted_is_installed_with_its_own_rows() {
        let mut group = group(config(1), Recovered::default());
        // A former leader's comes in the same turn, and is of no use.
        for (index, term) in [(41, 3), (57, 2)] {
            let (message, store) = snapshot(index, term);
            group.snapshot_received(NOW.mono, message, store);
        }
        advance(&mut group, NOW);
        assert_eq!((group.node().commit_index(), group.state().applied_index()), (41, 41));
    }
}
