//! How this master comes into the group, and learns that the group goes on without it.
//!
//! A master whose directory is new is in no group: it asks every master of its configuration to be let in, and votes for
//! nobody. If all of them ask, nobody has a group yet, and the one with the lowest number founds it, but for one case: if
//! any of them had a group whose log turned out to be damaged, an empty one must not take its place. How the leader lets
//! masters in is in `change`.

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_meta::{Member, Membership};
use mooseng_protocol::limits::TEXT_MAX;
use mooseng_types::{CellId, MasterId};

use super::{Effect, Group, Join, PeerMessages, View, change};
use crate::raft::{HardState, Persist, Recovered, Role};

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

/// What a master has acknowledged to the leader, as the leader knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    /// It has the log on disk up to this entry.
    pub index: u64,
    /// The leader's term.
    pub term: u64,
}

/// What another master has said when this one called it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// Its configured number.
    pub number: u64,
    /// Where it was called.
    pub address: String,
    /// Which making of the root's group it is in.
    pub epoch: u64,
    /// What this master has acknowledged to it, for each cell that it leads.
    pub acknowledged: BTreeMap<CellId, Acknowledged>,
    /// The last entry of this master's log when it called, for each cell.
    pub had: BTreeMap<CellId, u64>,
}

/// What this master knows of the group beside what the group has agreed on.
#[derive(Debug, Default)]
pub(crate) struct Door {
    knocked: Duration,
    /// By configured number.
    pub(super) knocks: BTreeMap<u64, Knock>,
    /// Of a master without a group: the group that others have told it of.
    pub(super) heard_of: Vec<(MasterId, String)>,
    founding: bool,
    /// It has been said that nobody who asks may found a group.
    said_lost: bool,
    /// Those who were taken out of the group while this master was in it, by number: they are to hear of it.
    pub(super) left: BTreeMap<u64, (MasterId, String)>,
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

    /// Whether one more may ask, once those who do not ask any more are forgotten.
    fn has_room(&mut self, now: Duration) -> bool {
        self.knocks.retain(|_, knock| now.saturating_sub(knock.heard) < KNOCK_FOR);
        self.knocks.len() < MASTERS_MAX
    }
}

impl Group {
    /// Whether this master is in no group.
    pub(super) fn is_outside(&self) -> bool {
        self.members.members.is_empty()
    }

    pub(super) fn keep_group(&mut self, now: Duration) {
        if self.is_outside() {
            self.knock(now);
            if self.do_all_ask(now) {
                self.found_unless_lost(now);
            }
        }
    }

    fn knock(&mut self, now: Duration) {
        if now.saturating_sub(self.door.knocked) < KNOCK_EVERY && self.door.knocked > Duration::ZERO {
            return;
        }
        self.door.knocked = now;
        let join = Join {
            id: self.config.id,
            name: self.config.name.clone(),
            address: self.config.address.clone(),
            lost_group: self.config.lost_group,
        };
        for to in self.links().into_keys() {
            let join = Some(join.clone());
            self.effects.push(Effect::Send(to, PeerMessages { join, ..self.nothing_said() }));
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
        self.members = self.state.membership().clone();
        let recovered = Recovered { hard_state, purged: FOUNDED, entries: Vec::new() };
        self.node = change::node(&self.config, &self.members, index, recovered, now, &self.entropy);
        let snapshot = Some(FOUNDED);
        self.effects.push(Effect::Persist(Persist { number: 0, snapshot, entries: Vec::new(), hard_state }));
        self.flushing.purged = index;
        self.relink();
    }

    /// Another master asks to be let in, or tells of a group.
    pub(super) fn hear_of_group(&mut self, now: Duration, said: &mut PeerMessages) {
        if let Some(join) = said.join.take() {
            self.hear_knock(now, join);
        }
        if let Some(view) = said.view.take() {
            self.hear_view(&view);
        }
        // Only a master that has been left out speaks without being in the group; a new member may not be known here yet.
        let stranger = said.messages.first().map(|message| MasterId::from_raw(message.from));
        if let Some(from) = stranger.filter(|from| !self.is_outside() && self.members.get(*from).is_none()) {
            self.send_view(from);
        }
    }

    fn hear_knock(&mut self, now: Duration, join: Join) {
        let id = join.id;
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

    pub(super) fn send_view(&mut self, to: MasterId) {
        let (epoch, members) = (self.members.epoch, self.members.members.clone());
        let view = View { epoch, index: self.state.applied_index(), members };
        // A forged message says that it is this master's own; and one may lead when it learns that it is removed.
        if to != self.config.id {
            self.effects.push(Effect::Send(to, PeerMessages { view: Some(view), ..self.nothing_said() }));
        }
    }

    fn hear_view(&mut self, view: &View) {
        if self.is_outside() {
            let members = view
                .members
                .iter()
                .take(MASTERS_MAX)
                .map(|member| (member.id, member.address.clone()))
                .collect();
            if self.door.heard_of != members {
                self.door.heard_of = members;
                self.relink();
            }
            return;
        }
        let there = view.members.iter().any(|member| member.id == self.config.id);
        let later = view.epoch == self.members.epoch && view.index > self.state.applied_index();
        match () {
            () if view.epoch > self.members.epoch => self.doubt_epoch(view.epoch),
            () if later && !there => self.leave_for_good(view.epoch),
            () => {}
        }
    }

    /// Whether a chunkserver or a client that has seen this making of the group may go on here: one that has seen a later
    /// one wants nothing of this one.
    pub(crate) fn is_of_an_earlier_epoch(&mut self, epoch: u64) -> bool {
        let later = !self.is_outside() && epoch > self.members.epoch;
        if later {
            self.doubt_epoch(epoch);
        }
        later
    }

    /// What a master has acknowledged to this one, if this one leads.
    pub(crate) fn acknowledged_by(&self, id: MasterId) -> Option<Acknowledged> {
        let (index, term) = (self.node.matched(id), self.node.term());
        (self.node.role() == Role::Leader).then_some(Acknowledged { index, term })
    }

    /// Somebody speaks of a later making of the group. Anybody could; a master of it says so itself when it is greeted.
    fn doubt_epoch(&mut self, epoch: u64) {
        if std::mem::replace(&mut self.door.doubted_epoch, epoch) != epoch {
            tracing::warn!(
                epoch,
                own = self.members.epoch,
                "somebody speaks of a later making of the group, of which no master that this one knows has told"
            );
        }
    }

    /// Whether messages are of the same making of the group. Those of an earlier one are told of this one; those of a later
    /// one count for nothing here.
    pub(super) fn is_of_this_epoch(&mut self, said: &PeerMessages) -> bool {
        let (own, theirs) = (self.members.epoch, said.epoch);
        if own == 0 || theirs == 0 || own == theirs {
            return true;
        }
        match said.messages.first() {
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
        let known = self.members.members.iter().any(|member| at(member.id.number(), &member.address))
            || self.config.peers.iter().any(|peer| at(peer.id, &peer.address));
        if self.is_outside() || !known {
            return;
        }
        // The other groups' epochs rise with the root's.
        if self.cell() == CellId::ROOT && said.epoch > self.members.epoch {
            return self.leave_for_good(said.epoch);
        }
        let Some(&Acknowledged { index, term }) = said.acknowledged.get(&self.cell()) else { return };
        let had = said.had.get(&self.cell()).copied().unwrap_or(0);
        if said.epoch == self.members.epoch && term >= self.node.term() && index > had {
            self.lose_log(index, had);
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

    pub(crate) fn leave_for_good(&mut self, epoch: u64) {
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
    pub fn links(&self) -> BTreeMap<MasterId, String> {
        let configured = self.config.peers.iter().map(|peer| (peer.id, peer.id, peer.address.clone()));
        let of = |id: MasterId, address: &String| (id.number(), id.raw(), address.clone());
        let knocks = self.door.knocks.values().map(|knock| of(knock.id, &knock.address));
        let heard = self.door.heard_of.iter().map(|(id, address)| of(*id, address));
        let members = self.members.members.iter().map(|member| of(member.id, &member.address));
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
        self.effects.push(Effect::Relink);
    }
}

#[cfg(test)]
mod tests;
