//! The master without its sockets, files and threads: events in, effects out.
//!
//! One owner, one event at a time. The edge ([`crate::server`]) and the simulator feed it the same way: requests and
//! peers' messages as they arrive, the time, the word that something is durable; and after a round of events
//! [`MasterCore::settle`], which turns everything that has gathered into one batch for the log and one message per
//! peer. It only hands events on: to the [`Group`] of a cell, which agrees, or to the desk ([`crate::desk`]), which
//! answers.

#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Entropy;
use mooseng_meta::{Checked, MetaState, MetaStore};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::principal::Principal;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_types::{CellId, MasterId};

pub use crate::conn::ConnId;
pub use crate::desk::{Desk, DeskConfig, Healing, Limits};
pub use crate::group::{Greeting, Group, GroupConfig, Groups, Now};

use crate::group::PeerMessages;
use crate::raft::{Message, Node, Recovered};
use crate::{desk, group};

/// What the core knows of itself.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// For its groups.
    pub group: GroupConfig,
    /// For its desk.
    pub desk: DeskConfig,
}

/// What the edge has to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// For the group of a cell.
    Group(CellId, group::Effect),
    /// For the desk.
    Desk(desk::Effect),
    /// To another master, all that the groups have to say to it; may be lost.
    Send(MasterId, Vec<PeerMessages>),
    /// These masters are to be reached from now on, at these addresses, and no others.
    Link(BTreeMap<MasterId, String>),
}

/// The master without its edges.
#[derive(Debug)]
pub struct MasterCore {
    pub(crate) groups: Groups,
    pub(crate) desk: Desk,
    /// Cells to whose groups something has happened that has not been settled.
    touched: BTreeSet<CellId>,
    effects: Vec<Effect>,
    /// What the groups have to say to other masters.
    said: BTreeMap<MasterId, Vec<PeerMessages>>,
    /// The masters that this one was told to reach.
    linked: BTreeMap<MasterId, String>,
}

impl MasterCore {
    /// A master that goes on where its log and its stores left off: that of the root's group, and those of others.
    #[must_use]
    pub fn new(
        config: &CoreConfig,
        key: TokenKey,
        root: (MetaState, Recovered),
        others: Vec<(MetaState, Recovered)>,
        now: Duration,
        entropy: &Arc<dyn Entropy>,
    ) -> Self {
        let desk = Desk::new(config.desk.clone(), key, &root.0, now, Arc::clone(entropy));
        let group =
            |(state, recovered)| Group::new(config.group.clone(), state, recovered, now, Arc::clone(entropy));
        let groups = Groups::new(group(root), others.into_iter().map(group));
        let touched = groups.iter().map(Group::cell).collect();
        Self { groups, desk, touched, effects: Vec::new(), said: BTreeMap::new(), linked: BTreeMap::new() }
    }

    /// Lets time pass; to be called at least every 10 ms.
    pub fn tick(&mut self, now: Now) {
        for group in self.groups.iter_mut() {
            group.tick(now);
            if !group.is_removed() {
                self.desk.tick(group, now);
            }
            self.touched.insert(group.cell());
        }
    }

    /// Lets what the events so far have led to happen: everything proposed meanwhile becomes one batch.
    pub fn settle(&mut self, now: Now) {
        while let Some(cell) = self.touched.pop_first() {
            let Some(group) = self.groups.get_mut(cell) else { continue };
            loop {
                let more = group.advance(now);
                for news in group.take_news() {
                    self.desk.hear(group, now, news);
                }
                if !more {
                    break;
                }
            }
            self.drain(cell);
        }
    }

    /// What is to be done since the last call, in order. A group that must not serve any more says so before the desk
    /// answers anybody.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        for cell in self.touched.clone() {
            self.drain(cell);
        }
        let mut effects = std::mem::take(&mut self.effects);
        effects.extend(self.desk.take_effects().into_iter().map(Effect::Desk));
        effects.extend(std::mem::take(&mut self.said).into_iter().map(|(to, said)| Effect::Send(to, said)));
        effects
    }

    /// Takes over what a group wants to have done.
    fn drain(&mut self, cell: CellId) {
        let Some(group) = self.groups.get_mut(cell) else { return };
        let mut relink = false;
        for effect in group.take_effects() {
            match effect {
                group::Effect::Relink => relink = true,
                group::Effect::Send(to, said) => self.said.entry(to).or_default().push(said),
                effect => self.effects.push(Effect::Group(cell, effect)),
            }
        }
        if relink {
            let links = self.links();
            if self.linked != links {
                self.linked.clone_from(&links);
                self.effects.push(Effect::Link(links));
            }
        }
    }

    /// The group of a cell, to which something happens.
    fn touch(&mut self, cell: CellId) -> Option<&mut Group> {
        let group = self.groups.get_mut(cell)?;
        self.touched.insert(cell);
        Some(group)
    }

    /// Hands all changed rows to the stores, unless they are still busy with the ones before.
    pub fn flush(&mut self, now: Duration) {
        for group in self.groups.iter_mut() {
            group.flush(now);
            self.touched.insert(group.cell());
        }
    }

    /// The rows last handed out are durable in the store of a cell.
    pub fn flushed(&mut self, now: Now, cell: CellId) {
        if let Some(group) = self.touch(cell) {
            group.flushed(now);
        }
    }

    /// Messages of another master.
    pub fn peer_messages(&mut self, now: Now, said: PeerMessages) {
        if let Some(group) = self.touch(said.cell) {
            group.hear(now.mono, said);
        }
    }

    /// The connection to another master broke.
    pub fn peer_lost(&mut self, now: Now, peer: MasterId) {
        for group in self.groups.iter_mut() {
            group.peer_lost(now.mono, peer);
            self.touched.insert(group.cell());
        }
    }

    /// Another master that this one has called has answered.
    pub fn greeted(&mut self, said: &Greeting) {
        for group in self.groups.iter_mut() {
            group.greeted(said);
            self.touched.insert(group.cell());
        }
    }

    /// The log is durable up to this batch of a cell.
    pub fn persisted(&mut self, cell: CellId, number: u64) {
        if let Some(group) = self.touch(cell) {
            group.persisted(number);
        }
    }

    /// Too much of the log is kept, and this cell needs what is oldest: up to this entry it must let go.
    pub fn let_go(&mut self, now: Now, cell: CellId, index: u64) {
        if let Some(group) = self.touch(cell) {
            group.let_go(now.mono, index);
        }
    }

    /// All rows of a snapshot are there, in a store of their own.
    pub fn snapshot_received(&mut self, now: Now, cell: CellId, message: Message, store: Arc<dyn MetaStore>) {
        if let Some(group) = self.touch(cell) {
            group.snapshot_received(now.mono, message, store);
        }
    }

    /// The rows of a snapshot that was to be sent have arrived there, or will not.
    pub fn snapshot_sent(&mut self, cell: CellId, peer: MasterId, arrived: bool) {
        if let Some(group) = self.touch(cell) {
            group.snapshot_sent(peer, arrived);
        }
    }

    /// A part that has proved who it is says Hello. It is told what this master is, or why the two cannot work together,
    /// and then the connection is of no use.
    pub fn welcome(&mut self, conn: ConnId, hello: &pb::Hello) -> Result<pb::HelloReply, CallError> {
        self.desk.welcome(&mut self.groups, conn, hello)
    }

    /// A connection ended.
    pub fn closed(&mut self, now: Now, conn: ConnId) {
        self.desk.closed(now.mono, conn);
    }

    /// A request off the wire, of one that has proved who it is. The answer comes as an effect, now or when a majority has it.
    pub fn request(&mut self, now: Now, from: &Principal, conn: ConnId, header: Header, body: Bytes) {
        if let Some(cell) = self.desk.request(&mut self.groups, now, from, conn, header, body) {
            self.touched.insert(cell);
        }
    }

    /// What a check has found, or why it could not be made.
    pub fn checked(&mut self, now: Now, found: Result<Checked, CallError>) {
        let root = self.groups.root_mut();
        self.touched.insert(root.cell());
        self.desk.checked(root, now, found);
    }

    /// Asks the voters that are best prepared to lead instead of this master, before this one stops. Returns whom;
    /// `None` if this master leads no group, or nobody could.
    pub fn hand_over(&mut self, now: Now) -> Option<MasterId> {
        let mut to = None;
        for group in self.groups.iter_mut() {
            to = group.hand_over(now.mono).or(to);
            self.touched.insert(group.cell());
        }
        to
    }

    /// Whether this master still leads a group, or nobody is known to lead one of them.
    #[must_use]
    pub fn awaits_leaders(&self) -> bool {
        let id = self.id();
        self.groups.iter().any(|group| group.node().leader().is_none_or(|leader| leader == id))
    }

    /// The connections that this master needs to others. The addresses that the root's group knows count more.
    #[must_use]
    pub fn links(&self) -> BTreeMap<MasterId, String> {
        let by_number = |id: &MasterId| id.number();
        let mut links: BTreeMap<u64, (MasterId, String)> = BTreeMap::new();
        for (id, address) in self.groups.iter().flat_map(Group::links) {
            links.entry(by_number(&id)).or_insert((id, address));
        }
        links.into_values().collect()
    }

    /// This master.
    #[must_use]
    pub fn id(&self) -> MasterId {
        self.groups.root().config().id
    }

    /// Which making of the root's group this master belongs to; 0 while it is in none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.groups.root().members().epoch
    }

    /// The last entry of each group's log.
    #[must_use]
    pub fn last_indexes(&self) -> BTreeMap<CellId, u64> {
        self.groups.iter().map(|group| (group.cell(), group.node().last_index())).collect()
    }

    /// Whether it leads the root's group. One that led when the others went on without it does not.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.groups.root().leads()
    }

    /// Where the leader of the root's group serves, if another one leads.
    #[must_use]
    pub fn leader_address(&self) -> Option<String> {
        self.groups.root().leader_address()
    }

    /// How far the chunks of a cell are, if this master leads it.
    #[must_use]
    pub fn healing(&self, cell: CellId) -> Option<Healing> {
        self.desk.healing(cell)
    }

    /// The groups, to look at.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The consensus core of the root's group, to look at.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.groups.root().node()
    }

    /// The root's namespace, to look at.
    #[must_use]
    pub fn state(&self) -> &MetaState {
        self.groups.root().state()
    }

    /// Time of the next thing that is due without an event: never further off than one tick.
    #[must_use]
    pub fn next_tick() -> Duration {
        Duration::from_millis(10)
    }
}
