//! The master without its sockets, files and threads: events in, effects out.
//!
//! One owner, one event at a time. The edge ([`crate::server`]) and the simulator feed it the same way: requests and
//! peers' messages as they arrive, the time, the word that something is durable; and after a round of events
//! [`MasterCore::settle`], which turns everything that has gathered into one batch for the log and one message per
//! peer.

mod alike;
mod apply;
mod batches;
mod checks;
mod effect;
pub(crate) mod group;
mod housekeeping;
mod leaderless;
mod levels;
#[cfg(test)]
mod limits_tests;
mod parked;
mod snapshots;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Entropy;
use mooseng_meta::{Command, Entry, Membership, MetaState, Request};
use mooseng_protocol::frame::{self, FLAG_ERROR, FLAG_ONE_WAY, FLAG_PUSH, FLAG_REPLY, Header};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_types::{ClusterId, Levels, MasterId, TimeNs};
use prost::Message;

pub use self::effect::Effect;
pub use self::group::Greeting;

use crate::config::Peer;
use crate::digests::Digests;
use crate::raft::{Node, Output, ProposeError, Recovered, Role};
use crate::registry::Registry;
use crate::service;
use crate::sessions::Sessions;

/// Rows changed and not yet in the store, in bytes, from which on they are written there.
const FLUSH_BYTES: usize = 8 << 20;
/// Changed rows wait no longer than this, so that a restart has little to replay.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// Changed rows in memory beyond which no more changes are taken: the store cannot keep up.
const UNFLUSHED_MAX: usize = 128 << 20;

/// Bytes of one command in the log. Each request's parts are bounded far below; this makes sure that whatever is proposed
/// can be sent to the other masters, too.
pub(crate) const ENTRY_MAX: usize = 256 << 10;

/// Chunkservers find a master that has started within this time.
const YOUNG: Duration = Duration::from_secs(4);

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
    /// This master: its number and life.
    pub id: MasterId,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub address: String,
    /// The masters that found the group, or that know it: this one and where it looks for the others.
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
    /// Bytes of the log kept for masters that lag behind.
    pub log_keep_bytes: usize,
    /// The levels that this master takes part in.
    pub levels: Levels,
    /// This master was in a group, and what it had is damaged: it never founds another.
    pub lost_group: bool,
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
    /// Who is in the group, as of the last entry applied.
    pub(crate) group: Membership,
    pub(crate) door: group::Door,
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
    leaderless: leaderless::Leaderless,
    last_flush: Duration,
    flushing: Option<u64>,
    /// The last change of the group. The store must have it soon: a majority that has forgotten that it counts would need
    /// one of the group before.
    group_changed: u64,
    received: Option<snapshots::Received>,
    checks: checks::Checks,
    parked: parked::Parked,
    callers: levels::Callers,
    digests: Digests,
    durable: u64,
    purged: u64,
    /// Until then a new leader is expected to make itself known, and requests wait for it.
    successor_until: Duration,
    started: Duration,
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
        let purged = recovered.purged.0;
        let group = group::group_of(&config, &state, &recovered);
        let mut node = group::node(&config, &group, applied, recovered, now, &entropy);
        node.set_snapshot_point(Some(applied).filter(|applied| *applied > 0));
        let registry = known_servers(&state);
        let mut core = Self {
            config,
            group,
            door: group::Door::default(),
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
            leaderless: leaderless::Leaderless::default(),
            last_flush: now,
            flushing: None,
            group_changed: 0,
            received: None,
            checks: checks::Checks::default(),
            parked: parked::Parked::default(),
            callers: levels::Callers::default(),
            digests: Digests::new(),
            durable: applied,
            purged,
            successor_until: Duration::ZERO,
            started: now,
        };
        core.relink();
        core
    }

    /// Lets time pass; to be called at least every 10 ms.
    pub fn tick(&mut self, now: Now) {
        if self.door.removed {
            return;
        }
        self.node.tick(now.mono);
        self.look_for_leader(now);
        self.keep_group(now);
        self.keep_house(now);
        self.look_after_parked(now);
        if self.node.wants_snapshot() || self.group_changed > self.durable {
            self.flush(now.mono);
        }
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
            self.node.set_snapshot_point(None);
            self.effects.push(Effect::Flush(Arc::clone(self.state.store()), batch));
        }
    }

    /// The rows last handed out are durable in the store.
    pub fn flushed(&mut self, now: Now) {
        self.state.flushed();
        self.durable = self.flushing.take().unwrap_or(self.durable);
        self.founded(now.mono);
        self.node.set_snapshot_point(Some(self.durable));
        self.purge();
        self.retry_received(now);
        self.begin_check(now.mono);
    }

    fn purge(&mut self) {
        let (index, term) = self.node.purge(self.durable);
        if index > self.purged {
            self.purged = index;
            self.effects.push(Effect::Purge { index, term });
        }
    }

    /// Messages of another master.
    pub fn peer_messages(&mut self, now: Now, mut messages: pb::RaftMessages) {
        self.hear_of_group(now.mono, &mut messages);
        if self.door.removed || !self.is_of_this_epoch(&messages) {
            return;
        }
        self.hear_digest(&messages);
        self.node.told_all_have(messages.all_have);
        for message in messages.messages {
            if message.entries.iter().all(|entry| apply::is_readable(entry, self.config.levels)) {
                self.node.step(now.mono, message);
            } else {
                tracing::warn!(
                    from = message.from,
                    "dropped entries that cannot be read; run the same release on all masters"
                );
            }
        }
    }

    /// The connection to another master broke.
    pub fn peer_lost(&mut self, now: Now, peer: MasterId) {
        self.node.peer_lost(now.mono, peer);
    }

    /// Whether this master has started so lately that chunkservers may not have found it yet.
    pub(crate) fn is_young(&self, now: Now) -> bool {
        now.mono.saturating_sub(self.started) < YOUNG
    }

    /// The log is durable up to this batch.
    pub fn persisted(&mut self, number: u64) {
        let messages = self.node.persisted(number);
        self.send(messages);
    }

    /// A connection ended.
    pub fn closed(&mut self, now: Now, conn: ConnId) {
        self.registry.closed(conn);
        self.sessions.disconnected(conn, now.mono);
        self.forget_parked_of(conn);
        self.hung_up(conn);
    }

    /// A request off the wire. The answer comes as an effect, now or when a majority has it.
    pub fn request(&mut self, now: Now, conn: ConnId, header: Header, body: Bytes) {
        match service::dispatch(self, now, conn, header, body) {
            Ok(service::Answer::Now(body)) => self.reply(conn, header, Ok(&body)),
            Ok(service::Answer::Later) => {}
            Ok(service::Answer::Propose(request, command, context)) => {
                if let Err(error) = command.check() {
                    return self.reply_error(conn, header, &error.into());
                }
                let waiter = Waiter::Client { conn, header, context };
                self.gather(now, header, Gathered { request, command: *command, waiter });
            }
            Ok(service::Answer::Change(change, member, done)) => match self.propose_change(change, &member) {
                Ok(index) => {
                    let context = service::Context::Changed(done);
                    let waiter = Waiter::Client { conn, header, context };
                    self.waiting.insert(index, (self.node.term(), waiter));
                }
                Err(error) => {
                    let error = CallError::Unavailable { message: error.to_string() };
                    self.reply_error(conn, header, &error);
                }
            },
            Err(error) => self.reply_error(conn, header, &error),
        }
    }

    /// Proposes what has gathered, once the log is free.
    fn propose_gathered(&mut self, now: Now) {
        let busy = self.node.role() == Role::Leader && self.node.is_persisting();
        if self.gathered.is_empty() || busy || self.awaits_successor(now) {
            return;
        }
        for Gathered { request, command, waiter } in std::mem::take(&mut self.gathered) {
            let entry = Entry { stamp: now.wall, request, command }.encode();
            if entry.len() > ENTRY_MAX {
                let message = format!("a command of {} bytes is too long for the log", entry.len());
                self.answer_waiter(waiter, &CallError::Rejected { message });
                continue;
            }
            let proposed = match self.state.unflushed_bytes() {
                0..=UNFLUSHED_MAX => self.node.propose(entry),
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
            let Output { persist, messages, snapshots, install, committed } = output;
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
                self.apply(now, &entry);
            }
            // Requests that waited for what was applied.
            self.propose_gathered(now);
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
            self.refuse_checks(&error);
            self.refuse_parked(&error);
        }
        if leads.is_some() {
            self.registry.forget_reports();
            self.sessions.begin(now.mono, self.state.sessions().iter().map(|row| row.session));
            self.housekeeping = housekeeping::Housekeeping::default();
            let leader_address = self.config.address.clone();
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
            let (digest_index, digest) = self.digests.latest().unwrap_or_default();
            let epoch = self.group.epoch;
            for messages in batches::parts(messages) {
                let messages = pb::RaftMessages {
                    messages,
                    all_have,
                    digest_index,
                    digest,
                    epoch,
                    ..Default::default()
                };
                self.effects.push(Effect::Send(MasterId::from_raw(to), messages));
            }
        }
    }

    /// The refusal of everything but the leader.
    pub(crate) fn not_leader(&self) -> CallError {
        let leader = self.node.leader().filter(|id| *id != self.config.id);
        let member = leader.and_then(|id| self.group.get(id));
        CallError::NotLeader { leader: member.map(|member| member.address.clone()) }
    }

    pub(crate) fn reply(&mut self, conn: ConnId, to: Header, answer: Result<&[u8], &CallError>) {
        if to.flags & FLAG_ONE_WAY == 0 {
            self.effects.push(Effect::Frame(conn, reply_frame(to, answer)));
        }
    }

    pub(crate) fn reply_error(&mut self, conn: ConnId, to: Header, error: &CallError) {
        self.reply(conn, to, Err(error));
    }

    pub(crate) fn push<R: Rpc>(&mut self, conn: ConnId, message: &R) {
        self.effects.push(Effect::Frame(conn, push_frame(message)));
    }

    /// This master.
    #[must_use]
    pub fn id(&self) -> MasterId {
        self.config.id
    }

    /// Which making of the group this master belongs to; 0 while it is in none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.group.epoch
    }

    /// Whether it leads the group. One that led when the others went on without it does not.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.node.role() == Role::Leader && !self.door.removed
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

/// The chunkservers that the state knows.
fn known_servers(state: &MetaState) -> Registry {
    let mut registry = Registry::default();
    state.servers().iter().for_each(|row| registry.know(row));
    registry
}

fn push_frame<R: Rpc>(message: &R) -> Vec<u8> {
    let header = Header { kind: R::KIND, flags: FLAG_PUSH, ..Header::default() };
    // What is pushed names a few chunks or an address; one that did not fit would be as good as lost, which it may be.
    frame::encode(header, &message.encode_to_vec(), 0).unwrap_or_default()
}

/// The frame that answers `to`. An answer that does not fit into a frame, because it has in it what others have stored,
/// becomes an error.
pub(crate) fn reply_frame(to: Header, answer: Result<&[u8], &CallError>) -> Vec<u8> {
    let header = |flags| Header { flags: FLAG_REPLY | flags, deadline_ms: 0, ..to };
    let refuse = |error: &CallError| {
        // An error's text is bounded, so this one fits.
        frame::encode(header(FLAG_ERROR), &error.to_reply().encode_to_vec(), 0).unwrap_or_default()
    };
    match answer.map(|body| frame::encode(header(0), body, 0)) {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            tracing::error!(%error, request = rpc::name(to.kind), "an answer does not fit");
            refuse(&CallError::Rejected { message: format!("the answer does not fit: {error}") })
        }
        Err(error) => refuse(error),
    }
}
