//! One accepted connection: who speaks on it, the frames that come, and when it is over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Registry, Token};
use mooseng_protocol::frame::{BODY_MAX, Frame};
use mooseng_protocol::handshake::{Heard, OPENING_MAX, Opening};
use mooseng_protocol::principal::{Keyring, Principal, Role};
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::Socket;

use super::stream::{Rest, Stream};
use super::visitors::Visitors;

/// Bytes that may wait for a peer that does not read; then it is cut off.
const OUTPUT_MAX: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    peer: SocketAddr,
    opening: Opening,
    /// Who speaks, once it has proved that.
    principal: Option<Arc<Principal>>,
    visitors: Visitors,
    ending: bool,
    broken: bool,
}

impl Connection {
    /// Takes over an accepted socket, of which the poll speaks as `token` from now on.
    pub(super) fn new(
        socket: Socket,
        peer: SocketAddr,
        registry: &Registry,
        token: Token,
        opening: Opening,
    ) -> io::Result<Self> {
        socket.set_nodelay()?;
        socket.keep_alive()?;
        Ok(Self {
            stream: Stream::connected(socket, registry, token)?,
            peer,
            opening,
            principal: None,
            visitors: Visitors::default(),
            ending: false,
            broken: false,
        })
    }

    pub(super) fn deregister(&self, registry: &Registry) {
        self.stream.deregister(registry);
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

    /// Reads as [`Stream::fill`] does.
    pub(super) fn fill(&mut self, scratch: &mut [u8], limit: usize) -> Rest {
        self.stream.fill(scratch, limit)
    }

    /// The next whole frame. One with a payload, or bytes that are none, end the connection: nobody sends a master
    /// those.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        if self.broken || self.ending {
            return None;
        }
        let body_max = if self.principal.is_some() { BODY_MAX } else { OPENING_MAX };
        match self.stream.next_frame(body_max) {
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
        self.stream.send(bytes);
        if self.stream.unsent() > OUTPUT_MAX {
            self.fail("it does not read what it asked for");
        }
    }

    pub(super) fn close_when_sent(&mut self) {
        self.ending = true;
    }

    /// Takes in what the poll says of it.
    pub(super) fn event(&mut self, event: &Event) {
        self.stream.event(event);
    }

    pub(super) fn wants_flush(&self) -> bool {
        self.broken || self.ending || self.stream.wants_flush()
    }

    /// Writes what the socket takes; `false` if the connection is done with.
    pub(super) fn flush(&mut self, registry: &Registry) -> bool {
        if self.broken || self.stream.flush(registry).is_err() {
            return false;
        }
        !self.ending || self.stream.unsent() > 0
    }
}
