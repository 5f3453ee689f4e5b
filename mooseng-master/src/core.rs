//! The master without its sockets, files and threads: events in, effects out.
//!
//! One owner, one event at a time. The edge ([`crate::server`]) and the simulator feed it the same way: requests and
//! peers' messages as they arrive, the time, the word that something is durable; and after a round of events
//! [`MasterCore::settle`], which turns everything that has gathered into one batch for the log and one message per
//! peer.

mod apply;
mod batches;
mod housekeeping;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Entropy;
use mooseng_meta::{Batch, Command, Entry, MetaState, Request};
use mooseng_protocol::frame::{self, FLAG_ERROR, FLAG_ONE_WAY, FLAG_PUSH, FLAG_REPLY, Header};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_types::{ClusterId, MasterId, TimeNs};
use prost::Message;

use crate::config::Peer;
use crate::raft::{HardState, Node, NodeConfig, Output, Persist, ProposeError, Recovered, Role};
use crate::registry::Registry;
use crate::service;
use crate::sessions::Sessions;

/// Rows changed and not yet in the store, in bytes, from which on they are written there.
const FLUSH_BYTES: usize = 8 << 20;
/// Changed rows wait no longer than this, so that a restart has little to replay.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// Changed rows in memory beyond which no more changes are taken: the store cannot keep up.
const UNFLUSHED_MAX: usize = 128 << 20;

/// A connection, as the edge numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// What time it is: `mono` for time-outs and leases, `wall` for what people see.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back.
    pub mono: Duration,
    /// May jump.
    pub wall: TimeNs,
}

/// What the core knows of itself.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This master.
    pub id: MasterId,
    /// All masters.
    pub peers: Vec<Peer>,
    /// The cluster.
    pub cluster: ClusterId,
    /// Copies of a chunk in a new cluster.
    pub copies: u8,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// The shortest election time-out.
    pub election: Duration,
    /// When a silent session ends.
    pub session_timeout: Duration,
}

/// What the edge has to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// To the log; [`MasterCore::persisted`] follows.
    Persist(Persist),
    /// The log is not needed up to here.
    Purge {
        /// The last entry to go.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// To another master; may be lost.
    Send(MasterId, pb::RaftMessages),
    /// Bytes for a connection: a reply or a push.
    Frame(ConnId, Vec<u8>),
    /// To every client connected: this master leads now.
    Announce(Vec<u8>),
    /// To the store; [`MasterCore::flushed`] follows.
    Flush(Arc<Batch>),
}

/// Who waits for an entry to be applied.
#[derive(Debug)]
enum Waiter {
    Client { conn: ConnId, header: Header, context: service::Context },
    Internal,
}

/// A command to be proposed with the next batch.
#[derive(Debug)]
struct Gathered {
    request: Option<Request>,
    command: Command,
    waiter: Waiter,
}

/// The master without its edges.
#[derive(Debug)]
pub struct MasterCore {
    pub(crate) config: CoreConfig,
    pub(crate) node: Node,
    pub(crate) state: MetaState,
    pub(crate) key: TokenKey,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sessions: Sessions,
    pub(crate) registry: Registry,
    /// Commands that wait for the log to be free, so that all that come while it syncs share the next sync.
    gathered: Vec<Gathered>,
    /// By index in the log; the term tells whether what is applied there is what was proposed.
    waiting: BTreeMap<u64, (u64, Waiter)>,
    effects: Vec<Effect>,
    housekeeping: housekeeping::Housekeeping,
    led_term: Option<u64>,
    last_flush: Duration,
    flushing: Option<u64>,
    durable: u64,
    purged: u64,
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
        let applied = state.applied_index();
        let voters = config.peers.iter().map(|peer| MasterId::from_raw(peer.id)).collect();
        let (heartbeat, election) = (config.heartbeat, config.election);
        let node_config = NodeConfig { id: config.id, voters, heartbeat, election, applied };
        let purged = recovered.purged.0;
        let fresh = recovered.hard_state == HardState::default();
        let mut node = Node::new(&node_config, recovered, now, Arc::clone(&entropy));
        if config.peers.len() == 1 && fresh {
            node.leader_lost(now);
        }
        let mut registry = Registry::default();
        state.servers().iter().for_each(|row| registry.know(row));
        Self {
            config,
            node,
            state,
            key,
            entropy,
            sessions: Sessions::default(),
            registry,
            gathered: Vec::new(),
            waiting: BTreeMap::new(),
            effects: Vec::new(),
            housekeeping: housekeeping::Housekeeping::default(),
            led_term: None,
            last_flush: now,
            flushing: None,
            durable: applied,
            purged,
        }
    }

    /// Lets time pass; to be called at least every 10 ms.
    pub fn tick(&mut self, now: Now) {
        self.node.tick(now.mono);
        self.keep_house(now);
        let due = now.mono.saturating_sub(self.last_flush) >= FLUSH_INTERVAL;
        if self.state.unflushed_bytes() >= FLUSH_BYTES || (due && self.state.unflushed_bytes() > 0) {
            self.flush(now.mono);
        }
    }

    /// Hands all changed rows to the store, unless it is still busy with the ones before.
    pub fn flush(&mut self, now: Duration) {
        if self.flushing.is_none()
            && let Some(batch) = self.state.freeze()
        {
            self.flushing = Some(batch.applied_index);
            self.last_flush = now;
            self.effects.push(Effect::Flush(batch));
        }
    }

    /// The rows last handed out are durable in the store.
    pub fn flushed(&mut self) {
        self.state.flushed();
        self.durable = self.flushing.take().unwrap_or(self.durable);
        self.purge();
    }

    fn purge(&mut self) {
        let (index, term) = self.node.purge(self.durable);
        if index > self.purged {
            self.purged = index;
            self.effects.push(Effect::Purge { index, term });
        }
    }

    /// Messages of another master.
    pub fn peer_messages(&mut self, now: Now, messages: pb::RaftMessages) {
        self.node.told_all_have(messages.all_have);
        for message in messages.messages {
            self.node.step(now.mono, message);
        }
    }

    /// The connection to another master broke.
    pub fn peer_lost(&mut self, now: Now, peer: MasterId) {
        self.node.unreachable(peer);
        if self.node.leader() == Some(peer) {
            self.node.leader_lost(now.mono);
        }
    }

    /// The log is durable up to this batch.
    pub fn persisted(&mut self, number: u64) {
        let messages = self.node.persisted(number);
        self.send(messages);
    }

    /// A connection ended.
    pub fn closed(&mut self, conn: ConnId) {
        self.registry.closed(conn);
        self.sessions.disconnected(conn);
    }

    /// A request off the wire. The answer comes as an effect, now or when a majority has it.
    pub fn request(&mut self, now: Now, conn: ConnId, header: Header, body: Bytes) {
        match service::dispatch(self, now, conn, header, body) {
            Ok(service::Answer::Now(body)) => self.reply(conn, header, 0, &body),
            Ok(service::Answer::Propose(request, command, context)) => {
                let waiter = Waiter::Client { conn, header, context };
                self.gathered.push(Gathered { request, command: *command, waiter });
            }
            Err(error) => self.reply_error(conn, header, &error),
        }
    }

    /// Proposes what has gathered, once the log is free.
    fn propose_gathered(&mut self, now: Now) {
        if self.gathered.is_empty() || self.node.is_persisting() {
            return;
        }
        for Gathered { request, command, waiter } in std::mem::take(&mut self.gathered) {
            let entry = Entry { stamp: now.wall, request, command };
            let proposed = match self.state.unflushed_bytes() {
                0..=UNFLUSHED_MAX => self.node.propose(entry.encode()),
                _ => Err(ProposeError::Overloaded),
            };
            match proposed {
                Ok(index) => drop(self.waiting.insert(index, (self.node.term(), waiter))),
                Err(ProposeError::NotLeader) => self.answer_waiter(waiter, &self.not_leader()),
                Err(error @ ProposeError::Overloaded) => {
                    self.answer_waiter(waiter, &CallError::Unavailable { message: error.to_string() });
                }
            }
        }
    }

    fn answer_waiter(&mut self, waiter: Waiter, error: &CallError) {
        if let Waiter::Client { conn, header, .. } = waiter {
            self.reply_error(conn, header, error);
        }
    }

    /// Proposes a command of the leader's own. If it is not taken, what it is for is found again.
    pub(crate) fn propose_internal(&mut self, command: Command) {
        self.gathered.push(Gathered { request: None, command, waiter: Waiter::Internal });
    }

    /// Lets what the events so far have led to happen: everything proposed meanwhile becomes one batch.
    pub fn settle(&mut self, now: Now) {
        self.propose_gathered(now);
        while let Some(output) = self.node.output() {
            let Output { persist, messages, committed } = output;
            self.send(messages);
            if let Some(persist) = persist {
                self.effects.push(Effect::Persist(persist));
            }
            for entry in committed {
                self.apply(now, &entry);
            }
        }
        self.follow_role(now);
    }

    /// What is to be done since the last call, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn follow_role(&mut self, now: Now) {
        let leads = (self.node.role() == Role::Leader).then(|| self.node.term());
        if leads == self.led_term {
            return;
        }
        let led = self.led_term.is_some();
        self.led_term = leads;
        tracing::info!(role = self.node.role().name(), term = self.node.term(), "role changed");
        if led {
            let waiting = std::mem::take(&mut self.waiting);
            let error =
                CallError::Unavailable { message: "the leader has changed; send the request again".into() };
            for (_, (_, waiter)) in waiting {
                self.answer_waiter(waiter, &error);
            }
        }
        if leads.is_some() {
            self.registry.forget_reports();
            self.sessions.begin(now.mono, self.state.sessions().iter().map(|row| row.session));
            self.housekeeping = housekeeping::Housekeeping::default();
            let me = self.config.peers.iter().find(|peer| peer.id == self.config.id.raw());
            let leader_address = me.map_or_else(String::new, |peer| peer.address.clone());
            self.effects.push(Effect::Announce(push_frame(&pb::LeaderChanged { leader_address })));
        }
    }

    fn send(&mut self, messages: Vec<pb::RaftMessage>) {
        let mut by_peer: BTreeMap<u64, Vec<pb::RaftMessage>> = BTreeMap::new();
        for message in messages {
            by_peer.entry(message.to).or_default().push(message);
        }
        let all_have = if self.node.role() == Role::Leader { self.node.all_have() } else { 0 };
        for (to, messages) in by_peer {
            for messages in batches::parts(messages) {
                let messages = pb::RaftMessages { messages, all_have, ..Default::default() };
                self.effects.push(Effect::Send(MasterId::from_raw(to), messages));
            }
        }
    }

    /// The refusal of everything but the leader.
    pub(crate) fn not_leader(&self) -> CallError {
        let leader = self.node.leader().filter(|id| *id != self.config.id);
        let peer = leader.and_then(|id| self.config.peers.iter().find(|peer| peer.id == id.raw()));
        CallError::NotLeader { leader: peer.map(|peer| peer.address.clone()) }
    }

    pub(crate) fn reply(&mut self, conn: ConnId, to: Header, flags: u16, body: &[u8]) {
        if to.flags & FLAG_ONE_WAY == 0 {
            let header = Header { flags: FLAG_REPLY | flags, deadline_ms: 0, ..to };
            self.effects.push(Effect::Frame(conn, frame::encode(header, body, 0)));
        }
    }

    pub(crate) fn reply_error(&mut self, conn: ConnId, to: Header, error: &CallError) {
        self.reply(conn, to, FLAG_ERROR, &error.to_reply().encode_to_vec());
    }

    pub(crate) fn push<R: Rpc>(&mut self, conn: ConnId, message: &R) {
        self.effects.push(Effect::Frame(conn, push_frame(message)));
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

    /// Time of the next thing that is due without an event: never further off than one tick.
    #[must_use]
    pub fn next_tick() -> Duration {
        Duration::from_millis(10)
    }
}

fn push_frame<R: Rpc>(message: &R) -> Vec<u8> {
    let header = Header { kind: R::KIND, flags: FLAG_PUSH, ..Header::default() };
    frame::encode(header, &message.encode_to_vec(), 0)
}
