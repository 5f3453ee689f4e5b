//! The group: who is in it, who joins and leaves, and how leadership is handed over.
//!
//! Members change one at a time, each change an entry of the log that counts when it is applied (Ongaro §4.1): any
//! majority of the old voters and any of the new ones then share a master. A new master is a learner first, and becomes
//! a voter when it has caught up.

use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::group_entry::ChangeEntry;
use mooseng_types::MasterId;
use raft::eraftpb::{self, ConfChangeType};

use super::{Node, Role};
use crate::raft::LogEntry;

/// A leader whose disk has been busy with one batch for so many election time-outs gives up.
const STALL_ELECTIONS: u32 = 2;
/// Entries that a member may lack and still count as caught up.
const NEARLY: u64 = 64;

/// One change of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MembershipChange {
    /// Becomes a voter.
    Voter(MasterId),
    /// Becomes a learner: has everything, decides nothing.
    Learner(MasterId),
    /// Leaves.
    Remove(MasterId),
}

/// Why a change of the group was not proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// Only the leader proposes.
    #[error("not the leader")]
    NotLeader,
    /// One at a time.
    #[error("another change of the group is under way")]
    Busy,
}

impl MembershipChange {
    /// Whom it is about.
    #[must_use]
    pub fn node(self) -> MasterId {
        match self {
            Self::Voter(id) | Self::Learner(id) | Self::Remove(id) => id,
        }
    }

    fn kind(self) -> (ConfChangeType, u32) {
        match self {
            Self::Voter(_) => (ConfChangeType::AddNode, 0),
            Self::Remove(_) => (ConfChangeType::RemoveNode, 1),
            Self::Learner(_) => (ConfChangeType::AddLearnerNode, 2),
        }
    }

    fn to_library(self) -> eraftpb::ConfChange {
        let mut change = eraftpb::ConfChange::default();
        change.set_change_type(self.kind().0);
        change.node_id = self.node().raw();
        change
    }

    /// The change that an entry carries, and what was sent along with it. `None` if it is none.
    #[must_use]
    pub fn of_entry(entry: &LogEntry) -> Option<(Self, Bytes)> {
        let change = ChangeEntry::decode(entry.data.clone())?;
        let id = MasterId::from_raw(change.node);
        let it = match change.kind {
            0 => Self::Voter(id),
            1 => Self::Remove(id),
            2 => Self::Learner(id),
            _ => return None,
        };
        (change.node != 0).then_some((it, change.context))
    }
}

impl Node {
    /// Proposes a change of the group; returns the index it will have if it is committed by this leader. `context`
    /// comes back from [`MembershipChange::of_entry`].
    pub fn propose_change(&mut self, change: MembershipChange, context: &[u8]) -> Result<u64, ChangeError> {
        if self.role() != Role::Leader || self.is_handing_over() {
            return Err(ChangeError::NotLeader);
        }
        // The library would put an empty entry in the place of a second change.
        if self.raw.raft.has_pending_conf() {
            return Err(ChangeError::Busy);
        }
        let mut it = change.to_library();
        it.context = Bytes::copy_from_slice(context);
        match self.raw.propose_conf_change(Vec::new(), it) {
            Ok(()) => Ok(self.raw.raft.raft_log.last_index()),
            Err(_) => Err(ChangeError::Busy),
        }
    }

    /// The committed change in the entry at `index` takes effect. Returns whether it did: one that would leave no voter does not.
    pub fn apply_change(&mut self, index: u64, change: MembershipChange) -> bool {
        match self.raw.apply_conf_change(&change.to_library()) {
            Ok(state) => {
                let log = self.raw.mut_store();
                log.conf_state = state;
                log.conf_index = index;
                self.step_aside_if_removed();
                true
            }
            Err(error) => {
                tracing::error!(%error, ?change, "a change of the group has no effect");
                false
            }
        }
    }

    /// Whoever is not in the group any more neither leads nor stands for election: another leader may have proposed to
    /// remove this one. The library would look for its progress, which it does not have.
    fn step_aside_if_removed(&mut self) {
        if !self.is_member() && self.role() != Role::Follower {
            let term = self.term();
            self.raw.raft.become_follower(term, 0);
        }
    }

    /// All voters, as of the last entry applied.
    #[must_use]
    pub fn voters(&self) -> Vec<MasterId> {
        self.raw.store().conf_state.voters.iter().map(|id| MasterId::from_raw(*id)).collect()
    }

    /// Whether this master is in the group, as far as it knows.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.raw.raft.prs().get(self.raw.raft.id).is_some()
    }

    /// How far `peer` has the log on disk, as the leader knows it; 0 elsewhere.
    #[must_use]
    pub fn matched(&self, peer: MasterId) -> u64 {
        self.raw.raft.prs().get(peer.raw()).map_or(0, |progress| progress.matched)
    }

    /// Whether `peer` was heard within the last election time-out: whoever follows this master answers its heartbeats. (The
    /// library's own notion forgets all peers once in that time, until the next heartbeat is answered.)
    #[must_use]
    pub fn is_active(&self, peer: MasterId) -> bool {
        self.heard.get(&peer.raw()).is_some_and(|heard| self.last_tick < *heard + self.election)
    }

    /// A peer has said something.
    pub(super) fn note_heard(&mut self, now: Duration, peer: u64) {
        if let Some(heard) = self.heard.get_mut(&peer) {
            *heard = now;
            return;
        }
        let members = self.raw.raft.prs();
        if members.get(peer).is_some() {
            self.heard.retain(|peer, _| members.get(*peer).is_some());
            self.heard.insert(peer, now);
        }
    }

    /// Whether `peer` has nearly all that the leader has, and answers: what the log begins behind it has by a snapshot.
    /// Always false elsewhere.
    #[must_use]
    pub fn has_caught_up(&self, peer: MasterId) -> bool {
        let has = self.matched(peer);
        self.role() == Role::Leader
            && self.is_active(peer)
            && has >= self.raw.store().purged().0.max(1)
            && has + NEARLY >= self.raw.raft.raft_log.last_index()
    }

    /// The voter that is best prepared to lead instead of this master: one that answers and has the whole log.
    #[must_use]
    pub fn successor(&self) -> Option<MasterId> {
        let ready = |id: &MasterId| id.raw() != self.raw.raft.id && self.is_active(*id);
        self.voters().into_iter().filter(ready).max_by_key(|id| (self.matched(*id), u64::MAX - id.raw()))
    }

    /// Asks `peer` to take over. Nothing is proposed meanwhile; within an election time-out either another leads, or
    /// this master stands for election anew.
    pub fn hand_over(&mut self, peer: MasterId) {
        if self.role() == Role::Leader && self.voters().contains(&peer) && !self.is_handing_over() {
            self.handed_over = Some(self.term());
            self.raw.transfer_leader(peer.raw());
        }
    }

    /// Whether this leader waits for another to take over.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.role() == Role::Leader && self.handed_over == Some(self.term())
    }

    /// The order to take over may still be on its way, and whoever gets it is elected without regard to leases; so in
    /// this term there is no lease any more, and a new term makes that order void.
    pub(super) fn end_failed_handover(&mut self) {
        if self.is_handing_over() && self.raw.raft.lead_transferee.is_none() {
            tracing::warn!("nobody took over in time; a new election");
            let term = self.term();
            self.raw.raft.become_follower(term, 0);
        }
    }

    /// A leader whose disk does not answer hands over to one that has all it has proposed.
    pub(super) fn give_up_stalled_disk(&mut self, now: Duration) {
        if !self.is_persisting() {
            self.stalled = None;
            return;
        }
        let first = self.persisted + 1;
        let since = match self.stalled {
            Some((number, since)) if number == first => since,
            _ => {
                self.stalled = Some((first, now));
                now
            }
        };
        if self.role() != Role::Leader || now.saturating_sub(since) < self.election * STALL_ELECTIONS {
            return;
        }
        let last = self.raw.raft.raft_log.last_index();
        if let Some(peer) = self.successor().filter(|peer| self.matched(*peer) >= last) {
            tracing::warn!(to = %peer, "the log's disk does not answer; another master is to lead");
            self.stalled = None;
            self.hand_over(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::MessageType;

    use super::super::testing::{NOW, from, node, settle, stand};
    use super::*;
    use crate::raft::Message;

    /// Master 2 of three, in whose log is the order of another leader to remove it, not known to be committed.
    fn about_to_be_removed() -> Node {
        let mut node = node(3);
        let data = ChangeEntry { kind: 1, node: 2, ..Default::default() }.encode().into();
        let entry = LogEntry { kind: 1, term: 1, index: 1, data };
        node.step(NOW, Message { entries: vec![entry], ..from(1, MessageType::MsgAppend, 1) });
        assert_eq!(settle(&mut node), []);
        node
    }

    #[test]
    fn a_forged_commit_index_ends_nothing() {
        let mut node = node(3);
        for commit in [1, 1 << 40, 1 << 62] {
            node.step(NOW, Message { commit, ..from(1, MessageType::MsgHeartbeat, 1) });
            settle(&mut node);
        }
        assert_eq!(node.commit_index(), 0);
        let entry = LogEntry { term: 1, index: 1, ..Default::default() };
        let append = Message { entries: vec![entry], commit: 1, ..from(1, MessageType::MsgAppend, 1) };
        node.step(NOW, append);
        settle(&mut node);
        assert_eq!((node.commit_index(), node.leader()), (1, Some(MasterId::from_raw(1))));
        node.step(NOW, from(1, MessageType::MsgHeartbeat, 1 << 62));
        assert_eq!(node.term(), 1, "no stranger uses up the terms");
    }

    #[test]
    fn a_leader_that_turns_out_to_be_removed_leads_no_more() {
        let mut node = about_to_be_removed();
        stand(&mut node);
        node.step(NOW, from(3, MessageType::MsgRequestVoteResponse, 2));
        settle(&mut node);
        assert_eq!((node.role(), node.term()), (Role::Leader, 2));
        node.step(NOW, Message { index: 2, ..from(3, MessageType::MsgAppendResponse, 2) });
        assert_eq!(settle(&mut node), [MembershipChange::Remove(MasterId::from_raw(2))]);
        assert_eq!(node.role(), Role::Follower);
        node.tick(Duration::from_secs(2));
        settle(&mut node);
        assert_eq!((node.role(), node.is_member()), (Role::Follower, false));
    }

    #[test]
    fn the_last_voter_is_elected_only_when_its_log_is_durable() {
        let mut node = node(2);
        let data = ChangeEntry { kind: 1, node: 1, ..Default::default() }.encode().into();
        let entry = LogEntry { kind: 1, term: 1, index: 1, data };
        let append = from(1, MessageType::MsgAppend, 1);
        node.step(NOW, Message { entries: vec![entry], commit: 1, ..append.clone() });
        assert_eq!(settle(&mut node), [MembershipChange::Remove(MasterId::from_raw(1))]);
        let entry = LogEntry { term: 1, index: 2, ..Default::default() };
        node.step(NOW, Message { entries: vec![entry], index: 1, log_term: 1, ..append });
        let pass = |node: &mut Node, from: u64| {
            (from..from + 20).for_each(|beat| node.tick(Duration::from_millis(50 * beat)));
        };
        pass(&mut node, 1);
        assert_eq!(node.role(), Role::Follower);
        settle(&mut node);
        pass(&mut node, 21);
        assert_eq!(node.role(), Role::Leader);
    }

    #[test]
    fn a_candidate_that_turns_out_to_be_removed_is_not_elected() {
        let mut node = about_to_be_removed();
        stand(&mut node);
        assert_eq!((node.role(), node.term()), (Role::Candidate, 2));
        // A vote may say what is committed.
        node.raw.raft.raft_log.commit_to(1);
        assert_eq!(settle(&mut node), [MembershipChange::Remove(MasterId::from_raw(2))]);
        node.step(NOW, from(3, MessageType::MsgRequestVoteResponse, 2));
        settle(&mut node);
        assert_eq!(node.role(), Role::Follower);
    }
}
