//! How the leader keeps the group as it is wanted, and what a change does to it.
//!
//! A leader lets in whom it has to: those of the first configuration while the group is being founded, later any new life of
//! a member (one that has lost its disk), and whomever an administrator names. Each comes in as a learner, gets a
//! snapshot, and becomes a voter when it has caught up.

use std::sync::Arc;
use std::time::Duration;

use mooseng_env::Entropy;
use mooseng_meta::{Member, Membership, MetaState};
use mooseng_protocol::group_entry::MemberNote;
use mooseng_types::MasterId;

use super::{Group, GroupConfig, Knock, Peer};
use crate::raft::{LogEntry, MembershipChange, Node, NodeConfig, Recovered, Role};

impl Group {
    /// The leader brings the group closer to what it should be, by one change. Returns whether there is nothing to do.
    pub(crate) fn mend(&mut self, now: Duration) -> bool {
        if self.waiting.values().any(|(_, ticket)| ticket.is_none()) {
            return false;
        }
        let Some((change, member)) = self.next_change(now) else { return true };
        tracing::info!(?change, name = member.name, "changing the masters' group");
        // One that is not taken now is found again.
        drop(self.propose_change(change, &member, None));
        false
    }

    fn next_change(&self, now: Duration) -> Option<(MembershipChange, Member)> {
        let founding = self.state.settings().is_none();
        let configured = |number: u64| self.config.peers.iter().any(|peer| peer.id == number);
        let wanted = |knock: &&Knock| {
            let old = self.members.by_number(knock.id.number());
            self.members.get(knock.id).is_none()
                && match old {
                    Some(old) => !self.node.is_active(old.id),
                    None => founding && configured(knock.id.number()),
                }
        };
        if let Some(knock) = self.door.asking(now).find(wanted) {
            let wants_vote = self.members.by_number(knock.id.number()).is_none_or(|old| old.wants_vote);
            return Some((MembershipChange::Learner(knock.id), learner(knock, wants_vote)));
        }
        let ready = |member: &&Member| !member.voter && self.node.has_caught_up(member.id);
        for member in self.members.members.iter().filter(ready) {
            let old = self.members.members.iter().find(|other| {
                other.id != member.id
                    && other.id.number() == member.id.number()
                    && !self.node.is_active(other.id)
            });
            if let Some(old) = old {
                return Some((MembershipChange::Remove(old.id), old.clone()));
            }
            if member.wants_vote {
                return Some((MembershipChange::Voter(member.id), member.clone()));
            }
        }
        None
    }

    /// Whether all that the first configuration names are voters.
    pub(crate) fn is_complete(&self) -> bool {
        let votes = |number: u64| self.members.by_number(number).is_some_and(|member| member.voter);
        self.config.peers.iter().all(|peer| votes(peer.id))
    }

    /// A committed change of the group takes effect.
    pub(super) fn apply_change(&mut self, logged: &LogEntry) {
        let Some((change, told)) = read_change(logged) else {
            tracing::error!(
                index = logged.index,
                "a committed change of the group cannot be read; run the same release on all masters"
            );
            std::process::abort();
        };
        if !self.node.apply_change(logged.index, change) {
            return self.state.skip(logged.index);
        }
        let id = change.node();
        match change {
            MembershipChange::Remove(_) => {
                self.door.left.insert(id.number(), (id, told.address));
                self.members.remove(id);
            }
            MembershipChange::Voter(_) | MembershipChange::Learner(_) => self.members.put(Member {
                id,
                name: told.name,
                address: told.address,
                voter: matches!(change, MembershipChange::Voter(_)),
                wants_vote: told.wants_vote,
            }),
        }
        self.state.set_membership(logged.index, self.members.clone());
        self.flushing.group_changed = logged.index;
        self.door.knocks.retain(|_, knock| knock.id != id);
        self.relink();
        if self.node.role() == Role::Leader && change == MembershipChange::Remove(id) {
            self.send_view(id);
        }
    }

    /// Asks the voter that is best prepared to lead instead of this master, before this one stops. Returns whom; `None`
    /// if this master does not lead, or nobody could.
    pub fn hand_over(&mut self, now: Duration) -> Option<MasterId> {
        let to = self.node.successor()?;
        self.hand_over_to(now, to);
        self.node.is_handing_over().then_some(to)
    }

    /// Asks `to` to lead instead of this master.
    pub(crate) fn hand_over_to(&mut self, now: Duration, to: MasterId) {
        self.node.hand_over(to);
        self.successor_until = now + self.config.election;
    }

    /// Whether it is soon known who leads, so that asking again elsewhere is too early.
    pub(super) fn awaits_successor(&self, now: Duration) -> bool {
        self.node.is_handing_over() || (self.node.leader().is_none() && now < self.successor_until)
    }
}

/// What goes with a change in the log.
pub(super) fn note(member: &Member) -> MemberNote {
    let Member { id, name, address, voter: _, wants_vote } = member;
    MemberNote { id: id.raw(), name: name.clone(), address: address.clone(), wants_vote: *wants_vote }
}

/// The change in an entry, and what it says of the member.
pub(super) fn read_change(logged: &LogEntry) -> Option<(MembershipChange, MemberNote)> {
    let (change, context) = MembershipChange::of_entry(logged)?;
    Some((change, MemberNote::decode(context)?))
}

fn learner(knock: &Knock, wants_vote: bool) -> Member {
    Member {
        id: knock.id,
        name: knock.name.clone(),
        address: knock.address.clone(),
        voter: false,
        wants_vote,
    }
}

/// The group as of what is applied. A master of a cluster that was made before the group was part of the state has the
/// one of its configuration.
pub(super) fn group_of(config: &GroupConfig, state: &MetaState, recovered: &Recovered) -> Membership {
    // A master that asks to be let in may have heard of a term, but has no entries before it has a snapshot.
    let blank = state.applied_index() == 0 && recovered.purged.0 == 0 && recovered.entries.is_empty();
    if blank { state.membership().clone() } else { known_group(state, &config.peers) }
}

/// The group that the state knows, or that of the configuration where it is older than groups in the state.
pub(crate) fn known_group(state: &MetaState, peers: &[Peer]) -> Membership {
    let group = state.membership().clone();
    if !group.members.is_empty() {
        return group;
    }
    let member = |peer: &Peer| Member {
        id: MasterId::from_raw(peer.id),
        name: peer.name.clone(),
        address: peer.address.clone(),
        voter: true,
        wants_vote: true,
    };
    Membership { epoch: 1, members: peers.iter().map(member).collect() }
}

/// The consensus core of a master whose group is `group` as of the entry `applied`.
pub(super) fn node(
    config: &GroupConfig,
    group: &Membership,
    applied: u64,
    recovered: Recovered,
    now: Duration,
    entropy: &Arc<dyn Entropy>,
) -> Node {
    let node_config = NodeConfig {
        id: config.id,
        voters: group.voters(),
        learners: group.learners(),
        heartbeat: config.heartbeat,
        election: config.election,
        applied,
        keep_bytes: config.log_keep_bytes,
    };
    Node::new(&node_config, recovered, now, Arc::clone(entropy))
}
