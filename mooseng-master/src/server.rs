//! The edge of the master: one thread that owns the core and all sockets.
//!
//! *Wait for events → feed the core → settle → perform the effects.* All that arrived in one turn becomes one batch for
//! the log and one message per peer. The thread never waits for the log or the store: the log's writer and the flusher
//! are threads of their own, and tell by a flag and a wake-up that something is durable.

mod connection;
mod inbox;
mod peers;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use mooseng_env::{Clock, Threads};
use mooseng_meta::{Batch, MetaStore};
use mooseng_protocol::frame::{FLAG_ERROR, FLAG_REPLY, Frame, Header};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::greet;
use mooseng_protocol::{PROTOCOL_VERSION, frame, pb};
use prost::Message;

pub use self::inbox::{FacadeReply, Inbox};

use self::connection::Connection;
use self::peers::Peers;
use crate::config::Config;
use crate::core::{ConnId, Effect, MasterCore, Now};
use crate::raft::log::{LogWriter, Segments, Work};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// Connections that may be open at once; further ones are closed at once.
const CONNECTIONS_MAX: usize = 4096;
/// Bytes asked of a socket at once.
const SCRATCH: usize = 64 << 10;
/// First number of the facade's requests among the connections'.
const FACADE_FIRST: u64 = 1 << 62;

/// The master at work.
pub struct Server {
    core: MasterCore,
    clock: Arc<dyn Clock>,
    poll: Poll,
    listener: TcpListener,
    connections: HashMap<Token, Connection>,
    next_token: usize,
    peers: Peers,
    hello: pb::HelloReply,
    log: LogWriter,
    flusher: SyncSender<Arc<Batch>>,
    inbox: Arc<Inbox>,
    facade: HashMap<ConnId, FacadeReply>,
    next_facade: u64,
    last_tick: Duration,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds the listener and starts the writer and flusher threads in `threads`.
    pub fn start(
        config: &Config,
        core: MasterCore,
        segments: Segments,
        store: Arc<dyn MetaStore>,
        clock: Arc<dyn Clock>,
        threads: &Threads,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let address: SocketAddr = config.listen.parse().map_err(io::Error::other)?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let inbox = Arc::new(Inbox::new(mio::Waker::new(poll.registry(), WAKER)?));
        let done = Arc::clone(&inbox);
        let log = LogWriter::start(threads, segments, move |number| done.persisted(number))?;
        let (flusher, batches) = sync_channel::<Arc<Batch>>(1);
        let done = Arc::clone(&inbox);
        threads.spawn("flusher", move || {
            for batch in batches {
                store.write(&batch);
                done.flushed();
            }
        })?;
        let hello = pb::HelloReply {
            cluster_id: Bytes::copy_from_slice(&config.cluster.bytes()),
            protocol_version: PROTOCOL_VERSION,
            name: config.name.clone(),
            epoch: 0,
            leader_address: String::new(),
        };
        let last_tick = clock.monotonic();
        Ok(Self {
            core,
            clock,
            poll,
            listener,
            connections: HashMap::new(),
            next_token: 2,
            peers: Peers::new(config),
            hello,
            log,
            flusher,
            inbox,
            facade: HashMap::new(),
            next_facade: FACADE_FIRST,
            last_tick,
            scratch: vec![0; SCRATCH],
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// How others reach the loop.
    #[must_use]
    pub fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Serves until told to stop, then writes to the store what is not there yet.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.inbox.stopping() {
            self.turn(&mut events)?;
        }
        let now = self.now();
        self.core.flush(now.mono);
        self.perform()
        // Dropping the ways to the writer and the flusher ends these threads once their work is done.
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.monotonic(), wall: self.clock.wall() }
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let due = (self.last_tick + MasterCore::next_tick()).saturating_sub(self.clock.monotonic());
        match self.poll.poll(events, Some(due)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = self.now();
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept()?,
                WAKER => {}
                token if self.peers.owns(token) => {
                    self.peers.event(event, self.poll.registry());
                }
                token => self.serve(now, token, event.is_readable(), event.is_writable()),
            }
        }
        self.take_inbox(now);
        for peer in self.peers.turn(now.mono, self.poll.registry()) {
            self.core.peer_lost(now, peer);
        }
        if now.mono.saturating_sub(self.last_tick) >= MasterCore::next_tick() {
            self.last_tick = now.mono;
            self.core.tick(now);
        }
        self.core.settle(now);
        self.perform()
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (socket, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    // Too many open files, or a peer that has gone again: nothing that ends the service.
                    tracing::warn!(%error, "a connection was not accepted");
                    return Ok(());
                }
            };
            if self.connections.len() >= CONNECTIONS_MAX {
                tracing::warn!(%peer, "too many connections; one was turned away");
                continue;
            }
            let token = Token(self.next_token);
            self.next_token += 1;
            let mut connection = Connection::new(socket, peer)?;
            connection.register(self.poll.registry(), token)?;
            self.connections.insert(token, connection);
        }
    }

    fn serve(&mut self, now: Now, token: Token, readable: bool, writable: bool) {
        if readable {
            let alive = self.connections.get_mut(&token).is_some_and(|c| c.fill(&mut self.scratch));
            while let Some(frame) = self.connections.get_mut(&token).and_then(Connection::next_frame) {
                self.frame(now, token, frame);
            }
            if !alive {
                self.close(token);
                return;
            }
        }
        if writable && let Some(connection) = self.connections.get_mut(&token) {
            connection.may_write();
        }
    }

    fn frame(&mut self, now: Now, token: Token, frame: Frame) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if !connection.greeted() {
            return self.greet(token, &frame);
        }
        let header = frame.header;
        let conn = ConnId(token.0 as u64);
        if header.kind != pb::RaftMessages::KIND {
            return self.core.request(now, conn, header, frame.body);
        }
        if connection.role() != pb::Role::Master {
            connection.fail("a client must not speak for a master");
            return;
        }
        match pb::RaftMessages::decode(frame.body) {
            Ok(messages) => self.core.peer_messages(now, messages),
            Err(error) => connection.fail(&error.to_string()),
        }
    }

    fn greet(&mut self, token: Token, frame: &Frame) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let hello = match pb::Hello::decode(frame.body.clone()) {
            Ok(hello) if frame.header.kind == pb::Hello::KIND => hello,
            _ => return connection.fail("the first frame is no hello"),
        };
        match greet(&hello, &self.hello) {
            Ok(()) => {
                connection.greet(&hello);
                let reply = pb::HelloReply { leader_address: self.leader_address(), ..self.hello.clone() };
                let header = Header { flags: FLAG_REPLY, ..frame.header };
                self.send(token, &frame::encode(header, &reply.encode_to_vec(), 0));
            }
            Err(error) => {
                tracing::warn!(%error, peer = %connection.peer(), "a connection was rejected");
                let header = Header { flags: FLAG_REPLY | FLAG_ERROR, ..frame.header };
                self.send(token, &frame::encode(header, &error.to_reply().encode_to_vec(), 0));
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.close_when_sent();
                }
            }
        }
    }

    fn leader_address(&self) -> String {
        match self.core.not_leader() {
            CallError::NotLeader { leader } => leader.unwrap_or_default(),
            _ => String::new(),
        }
    }

    fn take_inbox(&mut self, now: Now) {
        if let Some(number) = self.inbox.take_persisted() {
            self.core.persisted(number);
        }
        if self.inbox.take_flushed() {
            self.core.flushed();
        }
        while let Some((kind, body, reply)) = self.inbox.take_request() {
            let conn = ConnId(self.next_facade);
            self.next_facade += 1;
            self.facade.insert(conn, reply);
            self.core.request(now, conn, Header { kind, request: conn.0, ..Header::default() }, body);
        }
    }

    fn perform(&mut self) -> io::Result<()> {
        for effect in self.core.take_effects() {
            match effect {
                Effect::Persist(batch) => self.log.submit(Work::Append(batch)),
                Effect::Purge { index, term } => self.log.submit(Work::Purge { index, term }),
                Effect::Send(peer, messages) => self.peers.send(peer, &messages),
                Effect::Frame(conn, bytes) if conn.0 >= FACADE_FIRST => {
                    if let Some(reply) = self.facade.remove(&conn) {
                        inbox::answer_facade(reply, &bytes);
                    }
                }
                Effect::Frame(conn, bytes) => {
                    let token = Token(usize::try_from(conn.0).map_err(io::Error::other)?);
                    self.send(token, &bytes);
                }
                Effect::Announce(bytes) => {
                    self.connections.values_mut().filter(|c| c.takes_pushes()).for_each(|c| c.send(&bytes));
                }
                // The flusher takes one batch at a time, and the core hands out one at a time.
                Effect::Flush(batch) => drop(self.flusher.send(batch)),
            }
        }
        self.peers.flush(self.poll.registry());
        self.flush_connections();
        Ok(())
    }

    fn send(&mut self, token: Token, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.send(bytes);
        }
    }

    fn flush_connections(&mut self) {
        let registry = self.poll.registry();
        let mut broken = Vec::new();
        for (token, connection) in &mut self.connections {
            if connection.wants_flush() && !connection.flush(registry, *token) {
                broken.push(*token);
            }
        }
        broken.into_iter().for_each(|token| self.close(token));
    }

    fn close(&mut self, token: Token) {
        if let Some(mut connection) = self.connections.remove(&token) {
            connection.deregister(self.poll.registry());
            self.core.closed(ConnId(token.0 as u64));
        }
    }
}

/// The hello that a master sends to another.
fn hello_to_peer(config: &Config) -> pb::Hello {
    pb::Hello {
        cluster_id: Bytes::copy_from_slice(&config.cluster.bytes()),
        protocol_version: PROTOCOL_VERSION,
        role: pb::Role::Master.into(),
        name: config.name.clone(),
        epoch: 0,
        node_id: config.id.raw(),
    }
}
