//! How this master comes into the group, and how the leader keeps the group as it is wanted.
//!
//! A master whose directory is new is in no group: it asks every master of its configuration to be let in, and votes for
//! nobody. If all of them ask, nobody has a group yet, and the one with the lowest number founds it, but for one case: if
//! any of them had a group whose log turned out to be damaged, an empty one must not take its place. A leader lets in
//! whom it has to: those of the first configuration while the group is being founded, later any new life of a member
//! (one that has lost its disk), and whomever an administrator names. Each comes in as a learner, gets a snapshot, and
//! becomes a voter when it has caught up.
//!
//! Long because who knocks, who may come and go, and what a change does to the group are one decision of one core.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mooseng_meta::{Member, Membership, MetaState};
use mooseng_protocol::limits::TEXT_MAX;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::MasterId;
use prost::Message as _;

use super::{ConnId, CoreConfig, Effect, MasterCore, Now, Waiter};
use crate::config::Peer;
use crate::raft::{Change, ChangeError, HardState, LogEntry, Node, NodeConfig, Persist, Recovered, Role};

/// Time between two knocks of a master that asks to be let in.
const KNOCK_EVERY: Duration = Duration::from_millis(100);
/// Whoever has not knocked for so long does not ask any more.
const KNOCK_FOR: Duration = Duration::from_secs(1);
/// Masters that may ask at the same time, and members that are heard of.
const MASTERS_MAX: usize = 32;
/// Index and term of the entry that a founded group begins behind. Not 0, so that whoever comes later needs a snapshot,
/// which tells it who founded the group.
const FOUNDED: (u64, u64) = (1, 1);

/// A master that asks to be let in.
#[derive(Clone, Debug)]
pub(crate) struct Knock {
    pub(crate) id: MasterId,
    pub(crate) name: String,
    pub(crate) address: String,
    /// It was in a group that this master may know nothing of.
    lost_group: bool,
    heard: Duration,
}

/// What another master has said when this one called it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// Its configured number.
    pub number: u64,
    /// Where it was called.
    pub address: String,
    /// Which making of the group it is in.
    pub epoch: u64,
    /// What this master has acknowledged to it, if it leads.
    pub acknowledged: pb::Acknowledged,
    /// The last entry of this master's log when it called.
    pub had: u64,
}

/// What this master knows of the group beside what the group has agreed on.
#[derive(Debug, Default)]
pub(crate) struct Door {
    knocked: Duration,
    /// By configured number.
    knocks: BTreeMap<u64, Knock>,
    /// Of a master without a group: the group that others have told it of.
    pub(super) heard_of: Vec<(MasterId, String)>,
    founding: bool,
    /// It has been said that nobody who asks may found a group.
    said_lost: bool,
    /// Those who were taken out of the group while this master was in it, by number: they are to hear of it.
    left: BTreeMap<u64, (MasterId, String)>,
    /// A later making of the group that was spoken of last.
    doubted_epoch: u64,
    /// The group goes on without this master, and never lets this life of it in again.
    pub(crate) removed: bool,
}

impl Door {
    /// Those who ask to be let in now.
    pub(crate) fn asking(&self, now: Duration) -> impl Iterator<Item = &Knock> {
        self.knocks.values().filter(move |knock| now.saturating_sub(knock.heard) < KNOCK_FOR)
    }
}

impl Door {
    /// Whether one more may ask, once those who do not ask any more are forgotten.
    fn has_room(&mut self, now: Duration) -> bool {
        self.knocks.retain(|_, knock| now.saturating_sub(knock.heard) < KNOCK_FOR);
        self.knocks.len() < MASTERS_MAX
    }
}

impl MasterCore {
    /// Whether this master is in no group.
    pub(super) fn is_outside(&self) -> bool {
        self.group.members.is_empty()
    }

    pub(super) fn keep_group(&mut self, now: Now) {
        if self.is_outside() {
            self.knock(now.mono);
            if self.do_all_ask(now.mono) {
                self.found_unless_lost(now.mono);
            }
        }
    }

    fn knock(&mut self, now: Duration) {
        if now.saturating_sub(self.door.knocked) < KNOCK_EVERY && self.door.knocked > Duration::ZERO {
            return;
        }
        self.door.knocked = now;
        let join = pb::JoinRequest {
            id: self.config.id.raw(),
            name: self.config.name.clone(),
            address: self.config.address.clone(),
            lost_group: self.config.lost_group,
        };
        for to in self.links().into_keys() {
            let join = Some(join.clone());
            self.effects.push(Effect::Send(to, pb::RaftMessages { join, ..Default::default() }));
        }
    }

    /// Whether all masters of the configuration ask to be let in, so that nobody can have a group.
    fn do_all_ask(&self, now: Duration) -> bool {
        let own = self.config.id.number();
        let mut others = self.config.peers.iter().filter(|peer| peer.id != own);
        let asks = |number: u64| self.door.asking(now).any(|knock| knock.id.number() == number);
        self.door.heard_of.is_empty() && others.all(|peer| asks(peer.id))
    }

    fn found_unless_lost(&mut self, now: Duration) {
        let lost = |knock: &Knock| knock.lost_group;
        if self.config.lost_group || self.door.asking(now).any(lost) {
            if !std::mem::replace(&mut self.door.said_lost, true) {
                tracing::error!(
                    "no master has its data any more, and what at least one had is set aside as damaged: nothing is served, because an empty file system must not take its place; docs/operations.md says how to go on"
                );
            }
            return;
        }
        let own = self.config.id.number();
        if self.config.peers.iter().all(|peer| peer.id >= own) && !self.door.founding {
            self.found(now);
        }
    }

    /// Founds a group of this master alone; the others are let in as anybody is.
    fn found(&mut self, now: Duration) {
        tracing::info!("founding the masters' group");
        self.door.founding = true;
        let (index, term) = FOUNDED;
        self.state.found(index, term, Membership { epoch: 1, members: vec![self.own_member()] });
        self.flush(now);
    }

    fn own_member(&self) -> Member {
        Member {
            id: self.config.id,
            name: self.config.name.clone(),
            address: self.config.address.clone(),
            voter: true,
            wants_vote: true,
        }
    }

    /// The store has the new group: the log may begin.
    pub(super) fn founded(&mut self, now: Duration) {
        if !std::mem::take(&mut self.door.founding) {
            return;
        }
        let (index, term) = FOUNDED;
        let hard_state = HardState { term, vote: 0, commit: index };
        self.group = self.state.membership().clone();
        let recovered = Recovered { hard_state, purged: FOUNDED, entries: Vec::new() };
        self.node = node(&self.config, &self.group, index, recovered, now, &self.entropy);
        let snapshot = Some(FOUNDED);
        self.effects.push(Effect::Persist(Persist { number: 0, snapshot, entries: Vec::new(), hard_state }));
        self.purged = index;
        self.relink();
    }

    /// Another master asks to be let in, or tells of a group.
    pub(super) fn hear_of_group(&mut self, now: Duration, messages: &mut pb::RaftMessages) {
        if let Some(join) = messages.join.take() {
            self.hear_knock(now, join);
        }
        if let Some(view) = messages.group.take() {
            self.hear_view(&view);
        }
        // Only a master that has been left out speaks without being in the group; a new member may not be known here yet.
        let stranger = messages.messages.first().map(|message| MasterId::from_raw(message.from));
        if let Some(from) = stranger.filter(|from| !self.is_outside() && self.group.get(*from).is_none()) {
            self.send_view(from);
        }
    }

    fn hear_knock(&mut self, now: Duration, join: pb::JoinRequest) {
        let id = MasterId::from_raw(join.id);
        if id.number() == 0 || id.number() == self.config.id.number() {
            return;
        }
        let known = self.door.knocks.contains_key(&id.number());
        if join.name.len().max(join.address.len()) > TEXT_MAX || (!known && !self.door.has_room(now)) {
            return;
        }
        let fresh = self.door.knocks.get(&id.number()).is_none_or(|known| known.address != join.address);
        let (name, address, lost_group) = (join.name, join.address, join.lost_group);
        let knock = Knock { id, name, address, lost_group, heard: now };
        self.door.knocks.insert(id.number(), knock);
        if fresh {
            self.relink();
        }
        if !self.is_outside() {
            self.send_view(id);
        }
    }

    fn send_view(&mut self, to: MasterId) {
        let member = |member: &Member| pb::GroupMember {
            id: member.id.raw(),
            name: member.name.clone(),
            address: member.address.clone(),
            voter: member.voter,
        };
        let members = self.group.members.iter().map(member).collect();
        let view = pb::GroupView { epoch: self.group.epoch, index: self.state.applied_index(), members };
        // A forged message says that it is this master's own; and one may lead when it learns that it is removed.
        if to != self.config.id {
            self.effects.push(Effect::Send(to, pb::RaftMessages { group: Some(view), ..Default::default() }));
        }
    }

    fn hear_view(&mut self, view: &pb::GroupView) {
        if self.is_outside() {
            let members = view
                .members
                .iter()
                .take(MASTERS_MAX)
                .map(|m| (MasterId::from_raw(m.id), m.address.clone()))
                .collect();
            if self.door.heard_of != members {
                self.door.heard_of = members;
                self.relink();
            }
            return;
        }
        let there = view.members.iter().any(|member| member.id == self.config.id.raw());
        let later = view.epoch == self.group.epoch && view.index > self.state.applied_index();
        match () {
            () if view.epoch > self.group.epoch => self.doubt_epoch(view.epoch),
            () if later && !there => self.leave_for_good(view.epoch),
            () => {}
        }
    }

    /// Whether whoever says hello may go on; to a master, what it has acknowledged to this one. A chunkserver or a client
    /// that has seen a later making of the group wants nothing of this one.
    pub(crate) fn admit(
        &mut self,
        conn: ConnId,
        hello: &pb::Hello,
    ) -> Result<Option<pb::Acknowledged>, CallError> {
        let later = !self.is_outside() && hello.epoch > self.group.epoch;
        if later {
            self.doubt_epoch(hello.epoch);
        }
        if hello.role() != pb::Role::Master {
            let (epoch, own) = (hello.epoch, self.group.epoch);
            let message = format!("this master's group has epoch {own}, not {epoch}");
            if later {
                return Err(CallError::Rejected { message });
            }
            self.called(conn, hello);
            return Ok(None);
        }
        self.called(conn, hello);
        let index = self.node.matched(MasterId::from_raw(hello.node_id));
        let leads = self.node.role() == Role::Leader;
        Ok(leads.then(|| pb::Acknowledged { index, term: self.node.term() }))
    }

    /// Somebody speaks of a later making of the group. Anybody could; a master of it says so itself when it is greeted.
    pub(crate) fn doubt_epoch(&mut self, epoch: u64) {
        if std::mem::replace(&mut self.door.doubted_epoch, epoch) != epoch {
            tracing::warn!(
                epoch,
                own = self.group.epoch,
                "somebody speaks of a later making of the group, of which no master that this one knows has told"
            );
        }
    }

    /// Whether messages are of the same making of the group. Those of an earlier one are told of this one; those of a later
    /// one count for nothing here.
    pub(super) fn is_of_this_epoch(&mut self, messages: &pb::RaftMessages) -> bool {
        let (own, theirs) = (self.group.epoch, messages.epoch);
        if own == 0 || theirs == 0 || own == theirs {
            return true;
        }
        match messages.messages.first() {
            _ if theirs > own => self.doubt_epoch(theirs),
            Some(message) => self.send_view(MasterId::from_raw(message.from)),
            None => {}
        }
        false
    }

    /// Another master that this one has called has answered. What it says counts if it is where the group or the
    /// configuration knows a master to be: anybody may call here and claim anything.
    pub fn greeted(&mut self, said: &Greeting) {
        let at = |number: u64, address: &str| (number, address) == (said.number, said.address.as_str());
        let known = self.group.members.iter().any(|member| at(member.id.number(), &member.address))
            || self.config.peers.iter().any(|peer| at(peer.id, &peer.address));
        if self.is_outside() || !known {
            return;
        }
        if said.epoch > self.group.epoch {
            return self.leave_for_good(said.epoch);
        }
        let pb::Acknowledged { index, term } = said.acknowledged;
        if said.epoch == self.group.epoch && term >= self.node.term() && index > said.had {
            self.lose_log(index, said.had);
        }
    }

    /// The leader has heard from this master that it has more of the log than it has. To go on would be to vote, and to
    /// count for a majority, without what was promised.
    fn lose_log(&mut self, acknowledged: u64, had: u64) {
        if !std::mem::replace(&mut self.door.removed, true) {
            let why = format!(
                "this master had acknowledged the log up to entry {acknowledged}, and its log ends at {had}: its data directory is of an earlier time, perhaps restored from a backup. It forgets what it has and comes back as a new master"
            );
            tracing::error!("{why}");
            self.effects.push(Effect::LostLog(why));
        }
    }

    fn leave_for_good(&mut self, epoch: u64) {
        if !std::mem::replace(&mut self.door.removed, true) {
            let number = self.config.id.number();
            let why = format!(
                "the group of masters goes on without master {number}: it was removed, or left behind when the group was made anew (epoch {epoch}). Stop it; with an empty data directory it may be let in again"
            );
            tracing::error!("{why}");
            self.effects.push(Effect::LeftBehind(why));
        }
    }

    /// The connections that this master needs: to whomever its configuration names, to the members, and to those it has
    /// to answer. The group's addresses count more than the configuration's.
    pub(crate) fn links(&self) -> BTreeMap<MasterId, String> {
        let configured = self.config.peers.iter().map(|peer| (peer.id, peer.id, peer.address.clone()));
        let of = |id: MasterId, address: &String| (id.number(), id.raw(), address.clone());
        let knocks = self.door.knocks.values().map(|knock| of(knock.id, &knock.address));
        let heard = self.door.heard_of.iter().map(|(id, address)| of(*id, address));
        let members = self.group.members.iter().map(|member| of(member.id, &member.address));
        let left = self.door.left.values().map(|(id, address)| of(*id, address));
        let by_number: BTreeMap<u64, (u64, String)> = configured
            .chain(heard)
            .chain(left)
            .chain(members)
            .chain(knocks)
            .filter(|(number, ..)| *number != self.config.id.number())
            .map(|(number, id, address)| (number, (id, address)))
            .collect();
        by_number.into_values().map(|(id, address)| (MasterId::from_raw(id), address)).collect()
    }

    pub(super) fn relink(&mut self) {
        self.effects.push(Effect::Link(self.links()));
    }

    /// The leader brings the group closer to what it should be, by one change. Returns whether there is nothing to do.
    pub(super) fn mend_group(&mut self, now: Now) -> bool {
        let Some((change, member)) = self.next_change(now.mono) else { return true };
        tracing::info!(?change, name = member.name, "changing the masters' group");
        // One that is not taken now is found again.
        if let Ok(index) = self.propose_change(change, &member) {
            self.waiting.insert(index, (self.node.term(), Waiter::Internal));
        }
        false
    }

    fn next_change(&self, now: Duration) -> Option<(Change, Member)> {
        let founding = self.state.settings().is_none();
        let configured = |number: u64| self.config.peers.iter().any(|peer| peer.id == number);
        let wanted = |knock: &&Knock| {
            let old = self.group.by_number(knock.id.number());
            self.group.get(knock.id).is_none()
                && match old {
                    Some(old) => !self.node.is_active(old.id),
                    None => founding && configured(knock.id.number()),
                }
        };
        if let Some(knock) = self.door.asking(now).find(wanted) {
            let wants_vote = self.group.by_number(knock.id.number()).is_none_or(|old| old.wants_vote);
            return Some((Change::Learner(knock.id), learner(knock, wants_vote)));
        }
        let ready = |member: &&Member| !member.voter && self.node.has_caught_up(member.id);
        for member in self.group.members.iter().filter(ready) {
            let old = self.group.members.iter().find(|other| {
                other.id != member.id
                    && other.id.number() == member.id.number()
                    && !self.node.is_active(other.id)
            });
            if let Some(old) = old {
                return Some((Change::Remove(old.id), old.clone()));
            }
            if member.wants_vote {
                return Some((Change::Voter(member.id), member.clone()));
            }
        }
        None
    }

    /// Whether all that the first configuration names are voters.
    pub(super) fn is_group_complete(&self) -> bool {
        let votes = |number: u64| self.group.by_number(number).is_some_and(|member| member.voter);
        self.config.peers.iter().all(|peer| votes(peer.id))
    }

    /// Proposes a change; returns the index it will have if it is committed by this leader.
    pub(super) fn propose_change(&mut self, change: Change, member: &Member) -> Result<u64, ChangeError> {
        let context = pb::GroupMember {
            id: member.id.raw(),
            name: member.name.clone(),
            address: member.address.clone(),
            voter: member.wants_vote,
        };
        self.node.propose_change(change, &context.encode_to_vec())
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
            Change::Remove(_) => {
                self.door.left.insert(id.number(), (id, told.address));
                self.group.remove(id);
            }
            Change::Voter(_) | Change::Learner(_) => self.group.put(Member {
                id,
                name: told.name,
                address: told.address,
                voter: matches!(change, Change::Voter(_)),
                wants_vote: told.voter,
            }),
        }
        self.state.set_membership(logged.index, self.group.clone());
        self.group_changed = logged.index;
        self.door.knocks.retain(|_, knock| knock.id != id);
        self.relink();
        if self.node.role() == Role::Leader && change == Change::Remove(id) {
            self.send_view(id);
        }
    }

    /// Asks the voter that is best prepared to lead instead of this master, before this one stops. Returns whom; `None`
    /// if this master does not lead, or nobody could.
    pub fn hand_over(&mut self, now: Now) -> Option<MasterId> {
        let to = self.node.successor()?;
        self.hand_over_to(now, to);
        self.node.is_handing_over().then_some(to)
    }

    /// Asks `to` to lead instead of this master.
    pub(crate) fn hand_over_to(&mut self, now: Now, to: MasterId) {
        self.node.hand_over(to);
        self.successor_until = now.mono + self.config.election;
    }

    /// Whether it is soon known who leads, so that asking again elsewhere is too early.
    pub(super) fn awaits_successor(&self, now: Now) -> bool {
        self.node.is_handing_over() || (self.node.leader().is_none() && now.mono < self.successor_until)
    }
}

/// The change in an entry, and what it says of the member.
pub(super) fn read_change(logged: &LogEntry) -> Option<(Change, pb::GroupMember)> {
    let (change, context) = Change::of_entry(logged)?;
    Some((change, pb::GroupMember::decode(context).ok()?))
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
pub(super) fn group_of(config: &CoreConfig, state: &MetaState, recovered: &Recovered) -> Membership {
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
    config: &CoreConfig,
    group: &Membership,
    applied: u64,
    recovered: Recovered,
    now: Duration,
    entropy: &Arc<dyn mooseng_env::Entropy>,
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

#[cfg(test)]
mod tests;
