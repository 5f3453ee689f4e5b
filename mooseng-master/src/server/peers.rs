//! The connections to the other masters: each master dials every other it knows of and sends its messages there.
//!
//! A message for a peer that cannot be reached is dropped, and so is one behind too many unsent bytes: Raft repeats what
//! matters, and a late heartbeat is worth nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Event;
use mio::{Registry, Token};
use mooseng_env::nonce;
use mooseng_protocol::frame::{self, BODY_MAX, FLAG_ERROR, FLAG_ONE_WAY, Frame, Header};
use mooseng_protocol::handshake::{Asking, Caller, Proving};
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::Socket;
use mooseng_types::{CellId, MasterId};
use prost::Message;

use super::stream::{READ_MAX, Rest, Stream};
use crate::config::Config;
use crate::group::{Acknowledged, Greeting};
use crate::wire;

/// Tokens of peers begin here, far above those of accepted connections.
const FIRST_TOKEN: usize = 1 << 48;
/// Bytes that may wait for a peer.
const OUTPUT_MAX: usize = 32 << 20;
/// Time between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);
/// A try that takes longer is given up. The kernel would repeat its call ever more rarely, and find a peer that is back
/// only long after.
const DIAL_MAX: Duration = Duration::from_secs(1);
/// What is not acknowledged by the peer's kernel for so long ends the connection, for the same reason.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(2);

/// How a master calls another, in the life `id`.
pub(super) fn caller(config: &Config, id: MasterId, keys: &Keyring) -> Caller {
    let hello = pb::Hello::new(pb::Role::Master, &config.name, Some(config.cluster), config.levels);
    Caller::new(pb::Hello { node_id: id.raw(), ..hello }, keys.of(Role::Master).clone(), nonce)
}

/// How far a link has come.
#[derive(Debug)]
enum Stage {
    /// The network has yet to connect it, or there is none.
    Dialled,
    /// The Hello is on its way.
    Asking(Asking),
    /// The Proof is on its way.
    Proving(Proving),
    /// Both have proved that they are masters of this cluster.
    Welcome,
}

#[derive(Debug)]
struct Link {
    id: MasterId,
    address: String,
    token: Token,
    stream: Option<Stream>,
    stage: Stage,
    /// When to dial, or to dial again, unless it is connected.
    try_again: Duration,
    lost: bool,
    complained: bool,
    /// The last entry of this master's log when it sent its proof.
    had: BTreeMap<CellId, u64>,
    /// What the peer has said to that.
    greeting: Option<Greeting>,
}

#[derive(Debug)]
pub(super) struct Peers {
    /// By configured number: a new life of a master has the address of the old one.
    links: BTreeMap<u64, Link>,
    caller: Caller,
    next_token: usize,
}

/// What is true of this master when it greets a peer.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// Which making of the root's group.
    pub(super) epoch: u64,
    /// The last entry of each group's log.
    pub(super) last: BTreeMap<CellId, u64>,
}

impl Peers {
    pub(super) fn new(caller: Caller) -> Self {
        Self { links: BTreeMap::new(), caller, next_token: FIRST_TOKEN }
    }

    /// These masters are to be reached from now on, and no others.
    pub(super) fn relink(&mut self, wanted: &BTreeMap<MasterId, String>, registry: &Registry) {
        self.links.retain(|number, link| {
            let stays = wanted.iter().any(|(id, address)| id.number() == *number && *address == link.address);
            if !stays {
                link.lost = true;
                link.settle(registry);
            }
            stays
        });
        for (id, address) in wanted {
            let token = Token(self.next_token);
            let link = self.links.entry(id.number()).or_insert_with(|| {
                self.next_token += 1;
                Link::new(*id, address.clone(), token)
            });
            link.id = *id;
        }
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        token.0 >= FIRST_TOKEN
    }

    pub(super) fn event(&mut self, event: &Event, registry: &Registry, own: impl Fn() -> Own) {
        let Some(link) = self.links.values_mut().find(|link| link.token == event.token()) else { return };
        if let Some(stream) = &mut link.stream {
            stream.event(event);
        }
        if event.is_writable() && !link.is_connected() {
            link.begin(&self.caller, &own);
        }
        if event.is_readable() {
            link.readable(&own);
        }
        link.flush(registry);
        link.settle(registry);
    }

    /// Dials those that are not connected; returns those that were lost since the last call.
    pub(super) fn turn(&mut self, now: Duration, registry: &Registry) -> Vec<MasterId> {
        let mut lost = Vec::new();
        for link in self.links.values_mut() {
            if link.stream.is_some() && !link.is_welcome() && now >= link.try_again {
                link.complain("it does not answer");
                link.lost = true;
                link.settle(registry);
            }
            if std::mem::take(&mut link.lost) {
                link.try_again = now + RETRY;
                lost.push(link.id);
            }
            if link.stream.is_none() && now >= link.try_again {
                link.dial(registry);
                link.try_again = now + if link.stream.is_some() { DIAL_MAX } else { RETRY };
            }
        }
        lost
    }

    /// What peers have answered to this master's greeting since the last call.
    pub(super) fn take_greetings(&mut self) -> Vec<Greeting> {
        self.links.values_mut().filter_map(|link| link.greeting.take()).collect()
    }

    /// Queues messages for a peer.
    pub(super) fn send(&mut self, to: MasterId, said: &pb::RaftFrame) {
        let link = self.links.get_mut(&to.number()).filter(|link| link.is_welcome());
        let Some(stream) = link.and_then(|link| link.stream.as_mut()) else { return };
        if stream.unsent() > OUTPUT_MAX {
            return;
        }
        let header = Header { kind: pb::RaftFrame::KIND, flags: FLAG_ONE_WAY, ..Header::default() };
        // What is proposed is bounded so that it fits; what does not is dropped as on any bad day.
        match frame::encode(header, &said.encode_to_vec(), 0) {
            Ok(bytes) => stream.send(&bytes),
            Err(error) => tracing::error!(%error, peer = %to, "a message for another master does not fit"),
        }
    }

    /// Sends what is queued, as far as the sockets take it.
    pub(super) fn flush(&mut self, registry: &Registry) {
        for link in self.links.values_mut() {
            link.flush(registry);
            link.settle(registry);
        }
    }
}

impl Link {
    fn new(id: MasterId, address: String, token: Token) -> Self {
        Self {
            id,
            address,
            token,
            stream: None,
            stage: Stage::Dialled,
            try_again: Duration::ZERO,
            lost: false,
            complained: false,
            had: BTreeMap::new(),
            greeting: None,
        }
    }

    fn dial(&mut self, registry: &Registry) {
        let dialled = || -> io::Result<Stream> {
            let address: SocketAddr = self.address.parse().map_err(io::Error::other)?;
            let socket = Socket::dial(address)?;
            socket.set_user_timeout(UNACKNOWLEDGED_MAX)?;
            Stream::dialled(socket, registry, self.token)
        };
        match dialled() {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => self.complain(&error.to_string()),
        }
        self.stage = Stage::Dialled;
    }

    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            let address = &self.address;
            tracing::warn!(peer = %self.id, address, why, "a master cannot be reached; trying on");
        }
    }

    fn is_connected(&self) -> bool {
        !matches!(self.stage, Stage::Dialled)
    }

    fn is_welcome(&self) -> bool {
        matches!(self.stage, Stage::Welcome)
    }

    /// Begins the handshake, if the network has connected it.
    fn begin(&mut self, caller: &Caller, own: &dyn Fn() -> Own) {
        let Some(socket) = self.stream.as_ref().map(Stream::socket) else { return };
        match socket.is_connected() {
            Ok(true) => {
                // A missed option costs latency only.
                drop(socket.set_nodelay());
                let hello = pb::Hello { epoch: own().epoch, ..caller.hello.clone() };
                let asking = caller.saying(hello).begin();
                self.say(asking.hello());
                self.stage = Stage::Asking(asking);
            }
            Ok(false) => {}
            Err(error) => {
                self.complain(&error.to_string());
                self.lost = true;
            }
        }
    }

    /// Queues a step of the handshake.
    fn say<R: Rpc>(&mut self, said: &R) {
        let Some(stream) = &mut self.stream else { return };
        let header = Header { kind: R::KIND, request: 1, ..Header::default() };
        // It is a few hundred bytes.
        if let Ok(bytes) = frame::encode(header, &said.encode_to_vec(), 0) {
            stream.send(&bytes);
        }
    }

    fn flush(&mut self, registry: &Registry) {
        if self.is_connected()
            && let Some(stream) = &mut self.stream
            && stream.flush(registry).is_err()
        {
            self.lost = true;
        }
    }

    /// A peer sends nothing here but its part of the handshake.
    fn readable(&mut self, own: &dyn Fn() -> Own) {
        let Some(stream) = &mut self.stream else { return };
        // One that has more to say than its share of a turn is at something else.
        if stream.fill(&mut [0; 4096], READ_MAX) != Rest::Nothing {
            self.lost = true;
        }
        let heard = match stream.next_frame(BODY_MAX) {
            Ok(None) => return,
            Ok(Some(frame)) => self.hear(&frame, own).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = heard {
            self.complain(&why);
            self.lost = true;
        }
    }

    fn hear(&mut self, frame: &Frame, own: &dyn Fn() -> Own) -> Result<(), CallError> {
        match std::mem::replace(&mut self.stage, Stage::Dialled) {
            Stage::Asking(asking) => {
                let proving = asking.challenged(&read_reply::<pb::Hello>(frame)?)?;
                self.say(&proving.proof());
                self.stage = Stage::Proving(proving);
                self.had = own().last;
            }
            Stage::Proving(proving) => {
                let reply = proving.welcomed(&read_reply::<pb::Proof>(frame)?)?;
                self.stage = Stage::Welcome;
                self.complained = false;
                self.greeting = Some(Greeting {
                    number: self.id.number(),
                    address: self.address.clone(),
                    epoch: reply.epoch,
                    acknowledged: acknowledged(&reply),
                    had: self.had.clone(),
                });
                tracing::info!(peer = %self.id, "connected to a master");
            }
            Stage::Dialled | Stage::Welcome => {
                return Err(CallError::Rejected { message: "it speaks without being asked".into() });
            }
        }
        Ok(())
    }

    fn settle(&mut self, registry: &Registry) {
        if self.lost
            && let Some(stream) = self.stream.take()
        {
            stream.deregister(registry);
            self.stage = Stage::Dialled;
        }
    }
}

/// The reply to a step of the handshake.
fn read_reply<R: Rpc>(frame: &Frame) -> Result<R::Reply, CallError> {
    let bad = |_| CallError::Rejected { message: format!("malformed answer to {}", R::NAME) };
    if frame.header.flags & FLAG_ERROR != 0 {
        return Err(CallError::from_reply(pb::ErrorReply::decode(frame.body.clone()).map_err(bad)?));
    }
    R::Reply::decode(frame.body.clone()).map_err(bad)
}

/// What the leader of each cell's group says that this master has acknowledged to it.
fn acknowledged(reply: &pb::HelloReply) -> BTreeMap<CellId, Acknowledged> {
    let said = reply.acknowledged.iter().chain(&reply.acknowledged_cells);
    let of = |it: &pb::Acknowledged| {
        let pb::Acknowledged { index, term, cell } = *it;
        Some((wire::read_cell(cell).ok()?, Acknowledged { index, term }))
    };
    said.filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net;

    use mio::{Events, Poll};
    use mooseng_protocol::principal::PrincipalKey;
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A listener whose queue is full: the kernel ignores further calls.
    fn busy_listener() -> (net::TcpListener, Vec<net::TcpStream>) {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&fd, &net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&fd, 0).unwrap();
        let listener = net::TcpListener::from(fd);
        let address = listener.local_addr().unwrap();
        let waiting = std::iter::from_fn(|| net::TcpStream::connect_timeout(&address, RETRY).ok()).collect();
        (listener, waiting)
    }

    #[test]
    fn a_peer_that_does_not_answer_a_call_is_called_again() {
        let (listener, waiting) = busy_listener();
        let mut poll = Poll::new().unwrap();
        let id = MasterId::from_raw(2);
        let mut peers = Peers::new(Caller::new(pb::Hello::default(), PrincipalKey::new(&[7; 32]), nonce));
        let address = listener.local_addr().unwrap().to_string();
        peers.relink(&BTreeMap::from([(id, address)]), poll.registry());
        assert_eq!(peers.turn(Duration::ZERO, poll.registry()), []);
        assert_eq!(peers.turn(DIAL_MAX / 2, poll.registry()), []);
        assert_eq!(peers.turn(DIAL_MAX, poll.registry()), [id]);
        waiting.iter().for_each(|_| drop(listener.accept().unwrap()));
        assert_eq!(peers.turn(DIAL_MAX + RETRY, poll.registry()), []);
        let (mut heard, _) = listener.accept().unwrap();
        heard.set_read_timeout(Some(LIMIT)).unwrap();
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(LIMIT)).unwrap();
        let own = || Own { epoch: 0, last: BTreeMap::new() };
        events.iter().for_each(|event| peers.event(event, poll.registry(), own));
        let mut head = [0; 8];
        heard.read_exact(&mut head).unwrap();
    }
}
