//! One accepted connection: bytes in, frames out, bytes out.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use mooseng_protocol::frame::{self, BODY_MAX, Frame};
use mooseng_protocol::handshake::{Heard, OPENING_MAX, Opening};
use mooseng_protocol::principal::{Keyring, Principal, Role};
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::keep_alive;

use super::visitors::Visitors;

/// Bytes taken from one connection in one turn, so that none starves the others.
pub(super) const READ_MAX: usize = 1 << 20;
/// Bytes that may wait for a peer that does not read; then it is cut off.
const OUTPUT_MAX: usize = 64 << 20;

/// What a connection has left to read when its share of a turn is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Nothing; the poll says when more has come.
    Nothing,
    /// Something, perhaps. The poll has said so once and does not say it again.
    More,
    /// Nothing will come any more.
    End,
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    input: BytesMut,
    output: BytesMut,
    opening: Opening,
    /// Who speaks, once it has proved that.
    principal: Option<Arc<Principal>>,
    visitors: Visitors,
    may_write: bool,
    waits_to_write: bool,
    ending: bool,
    broken: bool,
}

impl Connection {
    /// Takes over an accepted socket, of which the poll speaks as `token` from now on.
    pub(super) fn new(
        mut socket: TcpStream,
        peer: SocketAddr,
        registry: &Registry,
        token: Token,
        opening: Opening,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        keep_alive(&socket)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Self {
            socket,
            peer,
            input: BytesMut::new(),
            output: BytesMut::new(),
            opening,
            principal: None,
            visitors: Visitors::default(),
            may_write: true,
            waits_to_write: false,
            ending: false,
            broken: false,
        })
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        // The socket is closed next, which takes it off the list in any case.
        drop(registry.deregister(&mut self.socket));
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Who speaks; `None` before that is proved.
    pub(super) fn principal(&self) -> Option<&Arc<Principal>> {
        self.principal.as_ref()
    }

    /// Its requests that are not answered yet.
    pub(super) fn visitors(&mut self) -> &mut Visitors {
        &mut self.visitors
    }

    /// Whether it is cut off for what the peer has done.
    pub(super) fn has_failed(&self) -> bool {
        self.broken
    }

    pub(super) fn is_masters(&self) -> bool {
        self.principal.as_ref().is_some_and(|principal| principal.role == Role::Master)
    }

    /// A frame has come of one that is not known yet.
    pub(super) fn hear(&mut self, keys: &Keyring, frame: &Frame) -> Result<Heard, CallError> {
        self.opening.hear(keys, frame.header.kind, &frame.body)
    }

    /// Whether it has taken too long to prove who it is.
    pub(super) fn is_overdue(&self, now: Duration) -> bool {
        self.principal.is_none() && self.opening.is_overdue(now)
    }

    pub(super) fn welcome(&mut self, principal: Principal) {
        tracing::debug!(peer = %self.peer, ?principal, "connected");
        self.principal = Some(Arc::new(principal));
    }

    /// Whether this is the connection on which a client's session listens. Its others wait for answers only.
    pub(super) fn takes_pushes(&self) -> bool {
        self.principal.as_ref().is_some_and(|it| it.role == Role::Client && it.node != 0)
    }

    /// Reads what there is, `limit` bytes or a little more, by way of `scratch`.
    pub(super) fn fill(&mut self, scratch: &mut [u8], limit: usize) -> Rest {
        let mut taken = 0;
        while taken < limit {
            match self.socket.read(scratch) {
                Ok(0) => return Rest::End,
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    taken += count;
                    // A short read has emptied the socket; asking again would only cost a system call.
                    if count < scratch.len() {
                        return Rest::Nothing;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Rest::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Rest::End,
            }
        }
        Rest::More
    }

    /// The next whole frame. One with a payload, or bytes that are none, end the connection: nobody sends a master
    /// those.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        if self.broken || self.ending {
            return None;
        }
        let body_max = if self.principal.is_some() { BODY_MAX } else { OPENING_MAX };
        match frame::decode_up_to(&mut self.input, body_max) {
            Ok(Some(frame)) if frame.payload_length == 0 => Some(frame),
            Ok(Some(_)) => {
                self.fail("a frame with a payload");
                None
            }
            Ok(None) => None,
            Err(error) => {
                self.fail(&error.to_string());
                None
            }
        }
    }

    /// The peer does what it must not.
    pub(super) fn fail(&mut self, why: &str) {
        // Of strangers only their number is told.
        if let Some(principal) = &self.principal {
            tracing::warn!(peer = %self.peer, name = principal.name, why, "a connection is cut");
        }
        self.broken = true;
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        if self.output.len() > OUTPUT_MAX {
            self.fail("it does not read what it asked for");
        }
    }

    pub(super) fn close_when_sent(&mut self) {
        self.ending = true;
    }

    pub(super) fn may_write(&mut self) {
        self.may_write = true;
    }

    pub(super) fn wants_flush(&self) -> bool {
        self.broken || self.ending || (self.may_write && !self.output.is_empty())
    }

    /// Writes what the socket takes; `false` if the connection is done with.
    pub(super) fn flush(&mut self, registry: &Registry, token: Token) -> bool {
        while !self.broken && self.may_write && !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => return false,
                Ok(sent) => self.output.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.may_write = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.output.is_empty() {
            // A large listing must not keep its room for ever.
            self.output = BytesMut::new();
        }
        let waits = !self.output.is_empty();
        if waits != self.waits_to_write {
            let interest = if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            if registry.reregister(&mut self.socket, token, interest).is_err() {
                return false;
            }
            self.waits_to_write = waits;
        }
        let ended = self.ending && self.output.is_empty();
        !self.broken && !ended
    }
}

#[cfg(test)]
mod tests {
    use std::net;

    use super::*;

    #[test]
    fn what_exceeds_the_share_of_a_turn_is_said_to_be_left_until_it_is_read() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let sent: Vec<u8> = (0..100).collect();
        peer.write_all(&sent).unwrap();
        while socket.peek(&mut [0; 200]).unwrap() < sent.len() {}
        socket.set_nonblocking(true).unwrap();
        let poll = mio::Poll::new().unwrap();
        let socket = TcpStream::from_std(socket);
        let opening = Opening::new(Duration::ZERO, [0; 32]);
        let mut connection = Connection::new(socket, address, poll.registry(), Token(0), opening).unwrap();
        let mut fill = || connection.fill(&mut [0; 16], 48);
        assert_eq!([fill(), fill(), fill()], [Rest::More, Rest::More, Rest::Nothing]);
        drop(peer);
        while fill() != Rest::End {}
        assert_eq!(connection.input, sent);
    }
}
