//! The connections that are open, and which of them have yet to prove whose they are.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::{Registry, Token};
use mooseng_protocol::handshake::Opening;
use mooseng_protocol::transport::Socket;

use super::connection::Connection;

/// Connections that may be open at once; further ones are closed at once.
const CONNECTIONS_MAX: usize = 4096;
/// The latest connections among which some may have yet to prove whose they are. All clients of a cluster come at once when
/// another master leads.
const STRANGERS_MAX: usize = 1024;

/// All connections of one master, by the numbers under which the poll knows them.
pub(super) struct Connections {
    open: HashMap<Token, Connection>,
    /// The latest ones by age, from the first that may have yet to prove whose it is.
    strangers: VecDeque<Token>,
    next: usize,
}

impl Connections {
    /// None is open. The first one's number is `first`.
    pub(super) fn new(first: usize) -> Self {
        Self { open: HashMap::new(), strangers: VecDeque::new(), next: first }
    }

    /// Whether there is room for no more.
    pub(super) fn are_full(&self) -> bool {
        self.open.len() >= CONNECTIONS_MAX
    }

    /// Takes one in. Returns the one that loses its place for it: the oldest, if it has proved nothing.
    pub(super) fn add(
        &mut self,
        (socket, peer): (Socket, SocketAddr),
        registry: &Registry,
        opening: Opening,
    ) -> io::Result<Option<Token>> {
        let token = Token(self.next);
        self.next += 1;
        self.open.insert(token, Connection::new(socket, peer, registry, token, opening)?);
        self.strangers.push_back(token);
        let oldest = if self.strangers.len() > STRANGERS_MAX { self.strangers.pop_front() } else { None };
        Ok(oldest.filter(|token| self.is_stranger(*token)))
    }

    /// Those that have had their time to prove whose they are.
    pub(super) fn take_overdue(&mut self, now: Duration) -> Vec<Token> {
        let open = &self.open;
        let is_done = |token: &mut Token| {
            open.get(token).is_none_or(|it| it.principal().is_some() || it.is_overdue(now))
        };
        let done: Vec<Token> = std::iter::from_fn(|| self.strangers.pop_front_if(is_done)).collect();
        done.into_iter().filter(|token| self.is_stranger(*token)).collect()
    }

    fn is_stranger(&self, token: Token) -> bool {
        self.open.get(&token).is_some_and(|it| it.principal().is_none())
    }

    /// The one with this number, if it is open.
    pub(super) fn get(&mut self, token: Token) -> Option<&mut Connection> {
        self.open.get_mut(&token)
    }

    /// Takes one out, to be closed.
    pub(super) fn remove(&mut self, token: Token, registry: &Registry) -> Option<Connection> {
        let connection = self.open.remove(&token)?;
        connection.deregister(registry);
        Some(connection)
    }

    /// Sends this to all clients' sessions.
    pub(super) fn announce(&mut self, bytes: &[u8]) {
        self.open.values_mut().filter(|it| it.takes_pushes()).for_each(|it| it.send(bytes));
    }

    /// Writes what the sockets take. Returns those that are done with.
    pub(super) fn flush(&mut self, registry: &Registry) -> Vec<Token> {
        let waiting = self.open.iter_mut().filter(|(_, it)| it.wants_flush());
        waiting.filter_map(|(token, it)| (!it.flush(registry)).then_some(*token)).collect()
    }
}

#[cfg(test)]
mod tests {
    use mio::Poll;
    use mooseng_protocol::handshake::HANDSHAKE_MAX;
    use mooseng_protocol::principal::{Principal, Role};

    use super::*;

    fn socket() -> (Socket, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        (Socket::connect(peer, Duration::from_secs(5)).unwrap(), peer)
    }

    #[test]
    fn the_oldest_stranger_gives_way_and_one_that_has_proved_its_role_does_not() {
        let poll = Poll::new().unwrap();
        let mut all = Connections::new(2);
        let opening = |at| Opening::new(at, [0; 32]);
        let add = |all: &mut Connections, at| all.add(socket(), poll.registry(), opening(at)).unwrap();
        assert_eq!(add(&mut all, Duration::ZERO), None);
        let principal = Principal { role: Role::Client, name: "x".into(), node: 0, client: None };
        all.get(Token(2)).unwrap().welcome(principal);
        (1..STRANGERS_MAX).for_each(|_| assert_eq!(add(&mut all, Duration::ZERO), None));
        assert_eq!(add(&mut all, HANDSHAKE_MAX), None, "the oldest is known");
        assert_eq!(add(&mut all, HANDSHAKE_MAX), Some(Token(3)));
        // The server closes it.
        assert!(all.remove(Token(3), poll.registry()).is_some());
        let overdue = all.take_overdue(HANDSHAKE_MAX);
        assert_eq!((overdue.len(), overdue.first()), (STRANGERS_MAX - 2, Some(&Token(4))));
        assert!(all.take_overdue(HANDSHAKE_MAX).is_empty(), "the others have time left");
    }
}
