//! One group of masters: it agrees by Raft on one state. Events in, effects and news out.
//!
//! It knows no connection and no request: it is given commands with a [`Ticket`] each, messages of the other masters and
//! the time. What becomes of a command it tells by [`News`], which the desk above it reads in order; what is to be done with
//! disks and peers is an [`Effect`] for the edge.

mod alike;
mod apply;
mod change;
mod digests;
mod door;
mod effect;
mod flush;
mod groups;
mod install;
mod leaderless;
mod message;
mod news;
mod peer;
mod propose;
#[cfg(test)]
pub(crate) mod testing;
mod unready;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::Entropy;
use mooseng_meta::{Membership, MetaState};
use mooseng_types::{CellId, Levels, MasterId, TimeNs};

pub use self::apply::level_needed;
pub use self::door::{Acknowledged, Greeting};
pub use self::effect::Effect;
pub use self::groups::Groups;
pub use self::message::{Differing, Join, PeerMessages, View};
pub use self::peer::Peer;
pub use self::unready::Unready;

pub(crate) use self::change::known_group;
pub(crate) use self::door::{Door, Knock};
pub(crate) use self::news::News;
pub(crate) use self::propose::{ENTRY_MAX, Proposal, Ticket};

use self::digests::Digests;
use self::flush::Flushing;
use self::install::Received;
use self::leaderless::Leaderless;
use crate::raft::{Message, Node, Output, Recovered, Role};

/// What time it is: `mono` for time-outs and leases, `wall` for what people see.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back.
    pub mono: Duration,
    /// May jump.
    pub wall: TimeNs,
}

/// What a group is told of the master that it is in.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// This master: its number and life.
    pub id: MasterId,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub address: String,
    /// The masters that found the group, or that know it: this one and where it looks for the others.
    pub peers: Vec<Peer>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// The shortest election time-out.
    pub election: Duration,
    /// Bytes of the log kept for masters that lag behind.
    pub log_keep_bytes: usize,
    /// The levels that this master takes part in.
    pub levels: Levels,
    /// This master was in a group, and what it had is damaged: it never founds another.
    pub lost_group: bool,
}

/// A group, as one of its masters has it.
#[derive(Debug)]
pub struct Group {
    config: GroupConfig,
    /// Its members, as of the last entry applied.
    members: Membership,
    door: Door,
    node: Node,
    state: MetaState,
    entropy: Arc<dyn Entropy>,
    /// Commands that wait for the log to be free, so that all that come while it syncs share the next sync.
    gathered: Vec<Proposal>,
    /// What was proposed, by index in the log; the term tells whether what is applied there is what was proposed.
    waiting: BTreeMap<u64, (u64, Option<Ticket>)>,
    effects: Vec<Effect>,
    news: Vec<News>,
    led_term: Option<u64>,
    leaderless: Leaderless,
    flushing: Flushing,
    received: Option<Received>,
    digests: Digests,
    /// Until then a new leader is expected to make itself known, and commands wait for it.
    successor_until: Duration,
}

impl Group {
    /// A group that goes on where this master's log and store left off.
    #[must_use]
    pub fn new(
        config: GroupConfig,
        state: MetaState,
        recovered: Recovered,
        now: Duration,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let applied = state.applied_index();
        let purged = recovered.purged.0;
        let members = change::group_of(&config, &state, &recovered);
        let mut node = change::node(&config, &members, applied, recovered, now, &entropy);
        node.set_snapshot_point(Some(applied).filter(|applied| *applied > 0));
        let mut group = Self {
            config,
            members,
            door: Door::default(),
            node,
            state,
            entropy,
            gathered: Vec::new(),
            waiting: BTreeMap::new(),
            effects: Vec::new(),
            news: Vec::new(),
            led_term: None,
            leaderless: Leaderless::default(),
            flushing: Flushing::new(now, applied, purged),
            received: None,
            digests: Digests::new(),
            successor_until: Duration::ZERO,
        };
        group.relink();
        group
    }

    /// Lets time pass; to be called at least every 10 ms.
    pub fn tick(&mut self, now: Now) {
        if self.door.removed {
            return;
        }
        self.node.tick(now.mono);
        self.look_for_leader(now.mono);
        self.keep_group(now.mono);
        self.flush_if_due(now.mono);
    }

    /// Messages of another master.
    pub fn hear(&mut self, now: Duration, mut said: PeerMessages) {
        self.hear_of_group(now, &mut said);
        if self.door.removed || !self.is_of_this_epoch(&said) {
            return;
        }
        self.hear_digest(&said);
        self.node.told_all_have(said.all_have);
        for message in said.messages {
            if message.entries.iter().all(|entry| apply::is_readable(entry, self.config.levels)) {
                self.node.step(now, message);
            } else {
                tracing::warn!(
                    from = message.from,
                    "dropped entries that cannot be read; run the same release on all masters"
                );
            }
        }
    }

    /// The connection to another master broke.
    pub fn peer_lost(&mut self, now: Duration, peer: MasterId) {
        self.node.peer_lost(now, peer);
    }

    /// The log is durable up to this batch.
    pub fn persisted(&mut self, number: u64) {
        let messages = self.node.persisted(number);
        self.send(messages);
    }

    /// Proposes what has gathered and does what the consensus core wants done next. Returns whether there was anything: the
    /// desk then reads the news, and calls again.
    pub(crate) fn advance(&mut self, now: Now) -> bool {
        self.propose_gathered(now);
        let Some(Output { persist, messages, snapshots, install, committed }) = self.node.output() else {
            self.follow_role();
            return !self.news.is_empty();
        };
        self.send(messages);
        for message in snapshots {
            self.effects.push(Effect::SendSnapshot(MasterId::from_raw(message.to), message));
        }
        if let Some(index) = install {
            self.install(index);
        }
        if let Some(persist) = persist {
            self.effects.push(Effect::Persist(persist));
        }
        for entry in committed {
            self.apply(&entry);
        }
        true
    }

    /// What has become of commands since the last call, in order.
    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// What is to be done since the last call, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn follow_role(&mut self) {
        let leads = (self.node.role() == Role::Leader).then(|| self.node.term());
        if leads == self.led_term {
            return;
        }
        let led = self.led_term.is_some();
        self.led_term = leads;
        tracing::info!(role = self.node.role().name(), term = self.node.term(), "role changed");
        if led {
            let tickets = std::mem::take(&mut self.waiting).into_values().filter_map(|(_, ticket)| ticket);
            self.news.extend(tickets.map(|ticket| News::Refused(ticket, Unready::LeaderChanged)));
            self.news.push(News::LeadsNoMore);
        }
        if leads.is_some() {
            self.news.push(News::Leads);
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        let mut by_peer: BTreeMap<u64, Vec<Message>> = BTreeMap::new();
        for message in messages {
            by_peer.entry(message.to).or_default().push(message);
        }
        let all_have = if self.node.role() == Role::Leader { self.node.all_have() } else { 0 };
        for (to, messages) in by_peer {
            let (digest, epoch) = (self.digests.latest(), self.members.epoch);
            let said = PeerMessages { messages, all_have, digest, epoch, ..self.nothing_said() };
            self.effects.push(Effect::Send(MasterId::from_raw(to), said));
        }
    }

    fn nothing_said(&self) -> PeerMessages {
        PeerMessages::of(self.cell())
    }

    /// The cell whose group it is.
    #[must_use]
    pub fn cell(&self) -> CellId {
        self.state.cell()
    }

    /// Whether the group goes on without this master.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.door.removed
    }

    /// This master, and how it takes part.
    #[must_use]
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// As if the process had been started anew by a release that knows these levels.
    #[cfg(test)]
    pub(crate) fn upgrade(&mut self, levels: Levels) {
        self.config.levels = levels;
    }

    /// The members, as of the last entry applied.
    #[must_use]
    pub fn members(&self) -> &Membership {
        &self.members
    }

    /// The consensus core, to look at.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The namespace, to look at.
    #[must_use]
    pub fn state(&self) -> &MetaState {
        &self.state
    }

    /// What this master knows of the group beside what the group has agreed on.
    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// Whether this master leads. One that led when the others went on without it does not.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.node.role() == Role::Leader && !self.door.removed
    }

    /// Where the leader serves, if another master leads.
    #[must_use]
    pub fn leader_address(&self) -> Option<String> {
        let leader = self.node.leader().filter(|id| *id != self.config.id)?;
        Some(self.members.get(leader)?.address.clone())
    }

    /// The refusal of everything but the leader.
    pub(crate) fn not_leader(&self) -> Unready {
        Unready::NotLeader { leader: self.leader_address() }
    }

    /// Only the leader takes commands.
    pub(crate) fn must_lead(&self) -> Result<(), Unready> {
        if self.leads() { Ok(()) } else { Err(self.not_leader()) }
    }

    /// Changes are taken by the leader, once the state has been founded.
    pub(crate) fn must_take_changes(&self) -> Result<(), Unready> {
        self.must_lead()?;
        if self.state.settings().is_some() { Ok(()) } else { Err(Unready::Founding) }
    }

    /// Only a leader that is sure to be the only one answers reads.
    pub(crate) fn must_serve_reads(&self, now: Duration) -> Result<(), Unready> {
        self.must_lead()?;
        let sure = self.node.may_serve_reads(now) && self.state.settings().is_some();
        if sure { Ok(()) } else { Err(Unready::NoMajority) }
    }
}
