//! Snapshots: the library says when one is needed and what it is of; the rows travel apart from its messages, and it hears
//! of a snapshot when all of them are there.

use std::time::Duration;

use mooseng_types::MasterId;
use raft::SnapshotStatus;

use super::Node;
use crate::raft::convert::to_library;
use crate::raft::memory_log::SnapshotPoint;
use crate::raft::{Message, admit};

impl Node {
    /// All rows of the snapshot that `message` speaks of are there. [`Output::install`](super::Output::install) follows if it is of use.
    pub fn snapshot_received(&mut self, now: Duration, message: Message) {
        let message = to_library(message).and_then(|message| {
            admit::check_snapshot(&message, self.raw.raft.id)?;
            admit::check_against(&message, self.term(), self.last_index())?;
            Ok(message)
        });
        match message {
            Ok(message) => self.step_checked(now, message),
            Err(error) => tracing::warn!(%error, "dropped a snapshot that no peer sends"),
        }
    }

    /// Whether a snapshot has been accepted that no [`Output::install`](super::Output::install) has told of yet.
    #[must_use]
    pub fn has_accepted_snapshot(&self) -> bool {
        self.raw.raft.raft_log.unstable.snapshot.is_some()
    }

    /// The rows that went with a snapshot have arrived at `peer`, or will not.
    pub fn snapshot_sent(&mut self, peer: MasterId, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(peer.raw(), status);
    }

    /// From which entry on a snapshot could be sent now: what the store has made durable. `None` while it is changing.
    pub fn set_snapshot_point(&mut self, index: Option<u64>) {
        let point = index.and_then(|index| Some(SnapshotPoint { index, term: self.term_of(index)? }));
        self.raw.mut_store().snapshot_point = point;
    }

    /// Whether a peer needs a snapshot, and [`Node::set_snapshot_point`] has not been recent enough for it.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.raw.store().snapshot_wanted.take()
    }

    /// Index and term of the snapshot in `ready`, which takes the place of the log.
    pub(super) fn take_snapshot(&mut self, ready: &raft::Ready) -> Option<(u64, u64)> {
        if ready.snapshot().is_empty() {
            return None;
        }
        let metadata = ready.snapshot().get_metadata();
        self.raw
            .mut_store()
            .restart_behind((metadata.index, metadata.term), metadata.get_conf_state().clone());
        Some((metadata.index, metadata.term))
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::MessageType;

    use super::super::Role;
    use super::super::testing::{NOW, from, node, settle};
    use super::*;
    use crate::raft::SnapshotOf;

    #[test]
    fn nobody_stands_for_election_between_a_snapshot_and_its_way_to_the_disk() {
        let mut node = node(3);
        let snapshot = SnapshotOf { index: 117, term: 1, voters: vec![2], learners: vec![3] };
        let message = Message { snapshot: Some(snapshot), ..from(3, MessageType::MsgSnapshot, 1) };
        node.snapshot_received(NOW, message);
        assert!(node.has_accepted_snapshot());
        for tick in 1..200 {
            node.tick(Duration::from_millis(10 * tick));
        }
        assert_eq!(node.role(), Role::Follower);
        settle(&mut node);
        for tick in 200..400 {
            node.tick(Duration::from_millis(10 * tick));
        }
        assert_eq!(node.role(), Role::Leader, "the only voter of the group that the snapshot is of");
    }
}
