//! The master without its sockets, files and threads: events in, effects out.
//!
//! One owner, one event at a time. The edge ([`crate::server`]) and the simulator feed it the same way: requests and
//! peers' messages as they arrive, the time, the word that something is durable; and after a round of events
//! [`MasterCore::settle`], which turns everything that has gathered into one batch for the log and one message per
//! peer. It only hands events on: to the [`Group`], which agrees, or to the desk ([`crate::desk`]), which answers.

#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Entropy;
use mooseng_meta::{Checked, MetaState, MetaStore};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_types::MasterId;

pub use crate::conn::ConnId;
pub use crate::desk::{Desk, DeskConfig};
pub use crate::group::{Greeting, Group, GroupConfig, Now};

use crate::group::PeerMessages;
use crate::raft::{Message, Node, Recovered};
use crate::{desk, group};

/// What the core knows of itself.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// For its group.
    pub group: GroupConfig,
    /// For its desk.
    pub desk: DeskConfig,
}

/// What the edge has to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// For the group.
    Group(group::Effect),
    /// For the desk.
    Desk(desk::Effect),
}

/// The master without its edges.
#[derive(Debug)]
pub struct MasterCore {
    pub(crate) group: Group,
    pub(crate) desk: Desk,
}

impl MasterCore {
    /// A master that goes on where its log and its store left off.
    #[must_use]
    pub fn new(
        config: CoreConfig,
        key: TokenKey,
        state: MetaState,
        recovered: Recovered,
        now: Duration,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let desk = Desk::new(config.desk, key, &state, now, Arc::clone(&entropy));
        Self { group: Group::new(config.group, state, recovered, now, entropy), desk }
    }

    /// Lets time pass; to be called at least every 10 ms.
    pub fn tick(&mut self, now: Now) {
        self.group.tick(now);
        if !self.is_removed() {
            self.desk.tick(&mut self.group, now);
        }
    }

    /// Lets what the events so far have led to happen: everything proposed meanwhile becomes one batch.
    pub fn settle(&mut self, now: Now) {
        loop {
            let more = self.group.advance(now);
            for news in self.group.take_news() {
                self.desk.hear(&mut self.group, now, news);
            }
            if !more {
                return;
            }
        }
    }

    /// What is to be done since the last call, in order. A group that must not serve any more says so before the desk
    /// answers anybody.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        let group = self.group.take_effects().into_iter().map(Effect::Group);
        group.chain(self.desk.take_effects().into_iter().map(Effect::Desk)).collect()
    }

    /// Hands all changed rows to the store, unless it is still busy with the ones before.
    pub fn flush(&mut self, now: Duration) {
        self.group.flush(now);
    }

    /// The rows last handed out are durable in the store.
    pub fn flushed(&mut self, now: Now) {
        self.group.flushed(now);
    }

    /// Messages of another master.
    pub fn peer_messages(&mut self, now: Now, said: PeerMessages) {
        self.group.hear(now.mono, said);
    }

    /// The connection to another master broke.
    pub fn peer_lost(&mut self, now: Now, peer: MasterId) {
        self.group.peer_lost(now.mono, peer);
    }

    /// Another master that this one has called has answered.
    pub fn greeted(&mut self, said: &Greeting) {
        self.group.greeted(said);
    }

    /// The log is durable up to this batch.
    pub fn persisted(&mut self, number: u64) {
        self.group.persisted(number);
    }

    /// All rows of a snapshot are there, in a store of their own.
    pub fn snapshot_received(&mut self, now: Now, message: Message, store: Arc<dyn MetaStore>) {
        self.group.snapshot_received(now.mono, message, store);
    }

    /// The rows of a snapshot that was to be sent have arrived there, or will not.
    pub fn snapshot_sent(&mut self, peer: MasterId, arrived: bool) {
        self.group.snapshot_sent(peer, arrived);
    }

    /// Whether a connection that says hello may go on; to a master, what it has acknowledged to this one.
    pub fn admit(&mut self, conn: ConnId, hello: &pb::Hello) -> Result<Option<pb::Acknowledged>, CallError> {
        self.desk.admit(&mut self.group, conn, hello)
    }

    /// A connection ended.
    pub fn closed(&mut self, now: Now, conn: ConnId) {
        self.desk.closed(now.mono, conn);
    }

    /// A request off the wire. The answer comes as an effect, now or when a majority has it.
    pub fn request(&mut self, now: Now, conn: ConnId, header: Header, body: Bytes) {
        self.desk.request(&mut self.group, now, conn, header, body);
    }

    /// What a check has found, or why it could not be made.
    pub fn checked(&mut self, now: Now, found: Result<Checked, CallError>) {
        self.desk.checked(&mut self.group, now, found);
    }

    /// Asks the voter that is best prepared to lead instead of this master, before this one stops. Returns whom; `None`
    /// if this master does not lead, or nobody could.
    pub fn hand_over(&mut self, now: Now) -> Option<MasterId> {
        self.group.hand_over(now.mono)
    }

    /// The connections that this master needs to others.
    #[must_use]
    pub fn links(&self) -> BTreeMap<MasterId, String> {
        self.group.links()
    }

    /// This master.
    #[must_use]
    pub fn id(&self) -> MasterId {
        self.group.config().id
    }

    /// Which making of the group this master belongs to; 0 while it is in none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.group.members().epoch
    }

    /// Whether it leads the group. One that led when the others went on without it does not.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.group.leads()
    }

    /// Where the leader serves, if another one leads.
    #[must_use]
    pub fn leader_address(&self) -> Option<String> {
        self.group.leader_address()
    }

    /// Whether the group goes on without this master.
    fn is_removed(&self) -> bool {
        self.group.door().removed
    }

    /// The consensus core, to look at.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.group.node()
    }

    /// The namespace, to look at.
    #[must_use]
    pub fn state(&self) -> &MetaState {
        self.group.state()
    }

    /// Time of the next thing that is due without an event: never further off than one tick.
    #[must_use]
    pub fn next_tick() -> Duration {
        Duration::from_millis(10)
    }
}
