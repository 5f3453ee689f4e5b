//! The edge of the master: one thread that owns the core and all sockets.
//!
//! *Wait for events → feed the core → settle → perform the effects.* All that arrived in one turn becomes one batch for
//! the log and one message per peer. The thread never waits for the log or the store: the log's writer and the flusher
//! are threads of their own, and tell by a flag and a wake-up that something is durable.

mod check;
mod connection;
mod connections;
mod facade;
mod flusher;
pub(crate) mod grpc;
mod inbox;
mod listener;
mod outgoing;
mod peers;
mod snapshots;
mod stream;
mod visitors;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use anyhow::Context as _;
use mio::{Events, Poll, Token};
use mooseng_env::{Clock, Entropy, SystemEntropy, Threads, nonce};
use mooseng_protocol::door::{Door, Outcome};
use mooseng_protocol::frame::{FLAG_ONE_WAY, Frame};
use mooseng_protocol::handshake::{Heard, OPENING_MAX, Opening};
use mooseng_protocol::pb;
use mooseng_protocol::principal::Keyring;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::token::TokenKey;
use mooseng_types::CellId;
use prost::Message;

pub use self::inbox::{FacadeReply, Inbox};

use self::connection::Connection;
use self::connections::Connections;
use self::facade::Facade;
use self::flusher::Flush;
use self::listener::Listener;
use self::peers::{Own, Peers};
use self::snapshots::{Incoming, Snapshots, put_in_place};
use self::stream::{READ_MAX, Rest};
use crate::config::Config;
use crate::core::{ConnId, Effect, MasterCore, Now};
use crate::desk::{self, reply_frame};
use crate::group;
use crate::open::{Opened, SEGMENT_BYTES, note_lost_log, open, take_out_of_service};
use crate::raft::Persist;
use crate::raft::log::{LogWriter, Work, Written};
use crate::store::StorePlace;
use crate::wire;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// That of the first connection.
const FIRST_CONNECTION: usize = 2;
/// Bytes asked of a socket at once.
const SCRATCH: usize = 64 << 10;
/// Full segments of the log that are kept beside those with what lagging masters need.
const FULL_SPARE: usize = 4;
/// How long a master that is told to stop waits for another to lead.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// The master at work.
pub struct Server {
    core: MasterCore,
    /// Where every request is counted, that is not known to those who handle it.
    door: Arc<Door>,
    clock: Arc<dyn Clock>,
    poll: Poll,
    listener: Listener,
    connections: Connections,
    keys: Keyring,
    /// Connections that have something to read.
    readable: BTreeSet<Token>,
    peers: Peers,
    log: LogWriter,
    flusher: SyncSender<Flush>,
    snapshots: Snapshots,
    place: StorePlace,
    data: PathBuf,
    /// The stores of snapshots that have come and are not in their places yet.
    incoming: BTreeMap<CellId, PathBuf>,
    inbox: Arc<Inbox>,
    threads: Arc<Threads>,
    facade: Facade,
    last_tick: Duration,
    scratch: Vec<u8>,
    ended: Ended,
}

/// How a master's work has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It lacks what it had acknowledged. Opened again it is another master, which asks to be let in.
    LostLog,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the data directory, which is this process's alone, and begins to listen. Nothing is served before
    /// [`Server::run`].
    pub fn open(config: &Config, clock: Arc<dyn Clock>, threads: &Arc<Threads>) -> anyhow::Result<Self> {
        let opened = open(config, &SystemEntropy)?;
        Self::start(config, opened, clock, threads).with_context(|| {
            format!("listen on {}: is the port in use, or the address not of this machine?", config.listen)
        })
    }

    /// Binds the listener and starts the threads of log, store and snapshots in `threads`.
    fn start(
        config: &Config,
        opened: Opened,
        clock: Arc<dyn Clock>,
        threads: &Arc<Threads>,
    ) -> io::Result<Self> {
        let Opened { id, root, others, segments, place, cache, lost_group } = opened;
        let poll = Poll::new()?;
        let address: SocketAddr = config.listen.parse().map_err(io::Error::other)?;
        let listener = Listener::bind(address, poll.registry(), LISTENER)?;
        let inbox = Arc::new(Inbox::new(mio::Waker::new(poll.registry(), WAKER)?));
        let done = Arc::clone(&inbox);
        let full_max = config.log_keep_bytes.div_ceil(SEGMENT_BYTES as usize) + FULL_SPARE;
        let log = LogWriter::start(threads, segments, full_max, move |written| done.written(written))?;
        let flusher = flusher::start(threads, &inbox, 1 + others.len())?;
        let keys = Keyring::derive(config.secret.bytes());
        let to_peer = peers::caller(config, id, &keys);
        let incoming = Incoming { place: place.clone(), cache, levels: config.levels };
        let snapshots = Snapshots::start(threads, &inbox, &clock, to_peer.clone(), incoming)?;
        let key = TokenKey::new(config.secret.bytes());
        let now = clock.monotonic();
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let core = MasterCore::new(&config.core(id, lost_group), key, root, others, now, &entropy);
        Ok(Self {
            door: core.desk.door(),
            core,
            clock,
            poll,
            listener,
            connections: Connections::new(FIRST_CONNECTION),
            keys,
            readable: BTreeSet::new(),
            peers: Peers::new(to_peer),
            log,
            flusher,
            snapshots,
            place,
            data: config.data.clone(),
            incoming: BTreeMap::new(),
            inbox,
            threads: Arc::clone(threads),
            facade: Facade::new(),
            last_tick: now,
            scratch: vec![0; SCRATCH],
            ended: Ended::Stopped,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.address()
    }

    /// How others reach the loop.
    #[must_use]
    pub fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Serves until told to stop; then lets another master lead, and writes to the store what is not there yet.
    pub fn run(mut self) -> io::Result<Ended> {
        let mut events = Events::with_capacity(1024);
        while !self.inbox.stopping() {
            self.turn(&mut events)?;
        }
        let begun = self.now();
        if let Some(to) = self.core.hand_over(begun) {
            tracing::info!(%to, "another master is to lead");
            // Until the new ones are known: they may need this master's vote.
            while self.core.awaits_leaders()
                && self.clock.monotonic().saturating_sub(begun.mono) < HAND_OVER_MAX
            {
                self.turn(&mut events)?;
            }
        }
        if self.ended == Ended::Stopped {
            let now = self.now();
            self.core.flush(now.mono);
            self.perform()?;
        }
        Ok(self.ended)
        // Dropping the ways to the writer and the flusher ends these threads once their work is done.
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.monotonic(), wall: self.clock.wall() }
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let due = (self.last_tick + MasterCore::next_tick()).saturating_sub(self.clock.monotonic());
        let due = if self.readable.is_empty() { due } else { Duration::ZERO };
        match self.poll.poll(events, Some(due)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = self.now();
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept(),
                WAKER => {}
                token if self.peers.owns(token) => {
                    let own = || Own { epoch: self.core.epoch(), last: self.core.last_indexes() };
                    self.peers.event(event, self.poll.registry(), own);
                }
                token => {
                    if event.is_readable() {
                        self.readable.insert(token);
                    }
                    if (event.is_writable() || event.is_read_closed())
                        && let Some(connection) = self.connections.get(token)
                    {
                        connection.event(event);
                    }
                }
            }
        }
        for token in std::mem::take(&mut self.readable) {
            self.serve(now, token);
        }
        self.take_inbox(now);
        for greeting in self.peers.take_greetings() {
            self.core.greeted(&greeting);
        }
        for peer in self.peers.turn(now.mono, self.poll.registry()) {
            self.core.peer_lost(now, peer);
        }
        if now.mono.saturating_sub(self.last_tick) >= MasterCore::next_tick() {
            self.last_tick = now.mono;
            let overdue = self.connections.take_overdue(now.mono);
            overdue.into_iter().for_each(|token| self.close(token));
            if self.listener.has_failed() {
                self.accept();
            }
            self.core.tick(now);
        }
        self.core.settle(now);
        self.perform()
    }

    fn accept(&mut self) {
        while let Some((socket, peer)) = self.listener.next() {
            if self.connections.are_full() {
                self.door.refused().stranger(&peer, &"too many connections are open");
                continue;
            }
            let opening = Opening::new(self.clock.monotonic(), nonce());
            match self.connections.add((socket, peer), self.poll.registry(), opening) {
                Ok(displaced) => displaced.into_iter().for_each(|token| self.close(token)),
                Err(error) => tracing::warn!(%error, %peer, "a connection was not accepted"),
            }
        }
    }

    fn serve(&mut self, now: Now, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        let limit = if connection.principal().is_some() { READ_MAX } else { OPENING_MAX };
        let rest = connection.fill(&mut self.scratch, limit);
        while let Some(frame) = self.connections.get(token).and_then(Connection::next_frame) {
            self.enter(now, token, frame);
        }
        match rest {
            Rest::Nothing => {}
            Rest::More => drop(self.readable.insert(token)),
            Rest::End => self.close(token),
        }
    }

    /// A frame comes in at the door. One that nobody answers leaves when it is taken in.
    fn enter(&mut self, now: Now, token: Token, frame: Frame) {
        let header = frame.header;
        if header.flags & FLAG_ONE_WAY == 0 {
            if let Some(connection) = self.connections.get(token) {
                connection.visitors().enter(&self.door, header, now.mono);
            }
            return self.frame(now, token, frame);
        }
        let begun = self.clock.monotonic();
        let entered = self.door.enter(header.kind, begun);
        self.frame(now, token, frame);
        let kept = self.connections.get(token).is_some_and(|connection| !connection.has_failed());
        let outcome = if kept { Outcome::Done } else { Outcome::Refused };
        self.door.leave(entered, outcome, self.clock.monotonic());
    }

    fn frame(&mut self, now: Now, token: Token, frame: Frame) {
        let Some(connection) = self.connections.get(token) else { return };
        let Some(principal) = connection.principal().map(Arc::clone) else {
            return self.greet(token, &frame);
        };
        let header = frame.header;
        let is_peer = connection.is_masters();
        if is_peer && Snapshots::takes(header.kind) {
            if let Err(error) = self.snapshots.take(token, header, frame.body) {
                self.inbox.answer(token, header, Err(error));
            }
            return;
        }
        if !is_peer || header.kind != pb::RaftFrame::KIND {
            return self.core.request(now, &principal, conn_of(token), header, frame.body);
        }
        let said = pb::RaftFrame::decode(frame.body).map_err(|error| error.to_string());
        match said.and_then(|frame| wire::read(frame).map_err(|error| error.to_string())) {
            Ok(said) => said.into_iter().for_each(|said| self.core.peer_messages(now, said)),
            Err(error) => connection.fail(&error),
        }
    }

    /// A frame of one that has yet to prove who it is.
    fn greet(&mut self, token: Token, frame: &Frame) {
        let Some(connection) = self.connections.get(token) else { return };
        let peer = connection.peer();
        let answer = match connection.hear(&self.keys, frame) {
            Ok(Heard::Challenge(challenge)) => Ok(challenge.encode_to_vec()),
            Ok(Heard::Proven(proven)) => {
                connection.welcome(proven.principal().clone());
                let reply = self.core.welcome(conn_of(token), proven.hello());
                reply.map(|reply| proven.welcome(&reply).encode_to_vec()).inspect_err(|error| {
                    tracing::warn!(%error, %peer, "a connection was rejected");
                })
            }
            Err(error) => Err(error),
        };
        self.send(token, &reply_frame(frame.header, answer.as_deref()));
        if answer.is_err()
            && let Some(connection) = self.connections.get(token)
        {
            connection.close_when_sent();
        }
    }

    fn take_inbox(&mut self, now: Now) {
        let Written { batches, holders } = self.inbox.take_written();
        for (cell, number) in batches {
            self.core.persisted(cell, number);
        }
        for (cell, index) in holders {
            self.core.let_go(now, cell, index);
        }
        let flushed = self.inbox.take_flushed();
        let news = self.inbox.take_snapshot_news();
        for (token, header, done) in news.answers {
            self.send(token, &reply_frame(header, done.as_ref().map(|()| &[][..])));
        }
        for (cell, peer, arrived) in news.sent {
            self.core.snapshot_sent(cell, peer, arrived);
            self.snapshots.gone(&mut self.core, peer);
        }
        for arrived in news.arrived.into_values() {
            self.incoming.insert(arrived.cell, arrived.dir);
            self.core.snapshot_received(now, arrived.cell, arrived.message, arrived.store);
        }
        // After what has arrived: a snapshot that has waited for this gives way to a later one.
        for cell in flushed {
            self.core.flushed(now, cell);
        }
        if let Some(found) = self.inbox.take_checked() {
            self.core.checked(now, found);
        }
        while let Some((kind, body, reply)) = self.inbox.take_request() {
            let header = self.facade.enter(&self.door, kind, reply, now.mono);
            self.core.request(now, &self.facade.principal, ConnId::Facade(header.request), header, body);
        }
    }

    fn perform(&mut self) -> io::Result<()> {
        for effect in self.core.take_effects() {
            match effect {
                Effect::Group(cell, effect) => self.perform_for_group(cell, effect)?,
                Effect::Desk(effect) => self.perform_for_desk(effect),
                Effect::Send(to, said) => {
                    wire::frames(said).iter().for_each(|frame| self.peers.send(to, frame));
                }
                Effect::Link(masters) => self.peers.relink(&masters, self.poll.registry()),
            }
        }
        self.peers.flush(self.poll.registry());
        let broken = self.connections.flush(self.poll.registry());
        broken.into_iter().for_each(|token| self.close(token));
        Ok(())
    }

    fn perform_for_group(&mut self, cell: CellId, effect: group::Effect) -> io::Result<()> {
        match effect {
            group::Effect::Persist(batch) => self.persist(cell, batch),
            group::Effect::SendSnapshot(to, message) => {
                self.snapshots.want(&mut self.core, to, cell, message)
            }
            // The core has made one of all groups'.
            group::Effect::Relink | group::Effect::Send(..) => {}
            group::Effect::LeftBehind(why) => take_out_of_service(&self.data, &why)?,
            group::Effect::LostLog(why) => {
                note_lost_log(&self.data, &why)?;
                self.ended = Ended::LostLog;
                self.inbox.stop();
            }
            group::Effect::OutOfService(why) => {
                take_out_of_service(&self.data, &why)?;
                return Err(io::Error::other(why));
            }
            group::Effect::Purge { index, term } => self.log.submit(cell, Work::Purge { index, term }),
            // The flusher has room for one batch of each group, and a group hands out one at a time.
            group::Effect::Flush(store, batch) => drop(self.flusher.send((cell, store, batch))),
        }
        Ok(())
    }

    fn perform_for_desk(&mut self, effect: desk::Effect) {
        match effect {
            desk::Effect::Frame(ConnId::Facade(number), bytes) => {
                self.facade.answer(&self.door, number, &bytes, self.clock.monotonic());
            }
            desk::Effect::Frame(ConnId::Framed(token), bytes) => self.send(Token(token), &bytes),
            desk::Effect::Cut(ConnId::Framed(token)) => {
                if let Some(connection) = self.connections.get(Token(token)) {
                    connection.close_when_sent();
                }
            }
            // The facade speaks for nobody that has levels.
            desk::Effect::Cut(ConnId::Facade(_)) => {}
            desk::Effect::Announce(bytes) => self.connections.announce(&bytes),
            desk::Effect::Check(store) => {
                check::start(&self.threads, &self.inbox, store, self.core.state().cell());
            }
        }
    }

    fn persist(&mut self, cell: CellId, batch: Persist) {
        let incoming = batch.snapshot.and_then(|_| self.incoming.remove(&cell));
        let work = match incoming {
            Some(dir) => {
                let place = self.place.of(cell);
                Work::Install(Box::new(move || put_in_place(&place, &dir)), batch)
            }
            None => Work::Append(batch),
        };
        self.log.submit(cell, work);
    }

    fn send(&mut self, token: Token, bytes: &[u8]) {
        if let Some(connection) = self.connections.get(token) {
            connection.visitors().answered(&self.door, bytes, self.clock.monotonic());
            connection.send(bytes);
        }
    }

    fn close(&mut self, token: Token) {
        if let Some(mut connection) = self.connections.remove(token, self.poll.registry()) {
            if connection.is_masters() {
                self.snapshots.closed(token);
            }
            if connection.principal().is_none() {
                self.door.refused().stranger(&connection.peer(), &"it has not proved that it belongs here");
            }
            let now = self.now();
            connection.visitors().lost(&self.door, now.mono);
            self.core.closed(now, conn_of(token));
        }
    }
}

fn conn_of(token: Token) -> ConnId {
    ConnId::Framed(token.0)
}
