//! What the two ends of a connection to a master say first: the product's Hello, with the levels that a part knows. A part
//! that is refused finds its connection closed, as does one that a master cuts off; both try again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooseng_protocol::pb;
use mooseng_protocol::principal::{Principal, Role};
use mooseng_protocol::status::CallError;
use mooseng_types::Levels;
use mooseng_types::level::SUPPORTED;

use super::deliver::framed;
use super::{Event, Happening, World};
use crate::master::{CLUSTER, address};
use crate::net::Place;

/// Time between two tries of a master to reach another.
const RETRY: Duration = Duration::from_millis(100);

/// A master's Hello to another, on its way.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) from: u64,
    pub(super) to: u64,
    to_incarnation: u64,
    conn: u64,
    said: pb::Hello,
}

/// A connection by which one master sends to another.
#[derive(Clone, Copy, Debug)]
struct Link {
    conn: u64,
    /// Of both ends.
    incarnations: (u64, u64),
    /// When the Hello arrives; what is sent comes behind it.
    open: Duration,
}

/// The connections between masters.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// By the numbers of who sends and who receives.
    links: BTreeMap<(u64, u64), Link>,
    /// When to try again.
    try_again: BTreeMap<(u64, u64), Duration>,
    /// What the receiver takes for the connection of the sender, and in which of its processes.
    heard: BTreeMap<(u64, u64), (u64, u64)>,
    /// Connections that the receiver has closed: what comes over them reaches nobody.
    shut: BTreeSet<u64>,
}

impl Peers {
    pub(super) fn is_shut(&self, conn: u64) -> bool {
        self.shut.contains(&conn)
    }

    /// Both ends of a connection.
    fn ends(&self, conn: u64) -> Option<(u64, u64)> {
        self.links.iter().find(|(_, link)| link.conn == conn).map(|(ends, _)| *ends)
    }
}

impl World {
    /// The levels of the release that a machine has.
    pub(super) fn release(&self, place: Place) -> Levels {
        self.releases.get(&place).copied().unwrap_or(SUPPORTED)
    }

    /// The connection by which `from` sends to `to`, and when it is open; a new one if there is none. `None` if `to` cannot
    /// be reached: what was to be sent is lost.
    pub(super) fn connection_to_peer(&mut self, from: u64, to: u64) -> Option<(u64, Duration)> {
        let sender = self.masters.get(&from)?;
        let receiver = self.masters.get(&to)?;
        let incarnations = (sender.incarnation, receiver.incarnation);
        if let Some(link) = self.peers.links.get(&(from, to)).filter(|link| link.incarnations == incarnations)
        {
            return Some((link.conn, link.open));
        }
        self.peers.links.remove(&(from, to));
        if self.time < self.peers.try_again.get(&(from, to)).copied().unwrap_or_default() {
            return None;
        }
        let core = &sender.running.as_ref()?.core;
        let levels = sender.levels;
        let said = pb::Hello::new(pb::Role::Master, &address(from), Some(CLUSTER), levels);
        let said = pb::Hello { epoch: core.epoch(), node_id: sender.id().raw(), ..said };
        let listens = receiver.running.is_some();
        self.peers.try_again.insert((from, to), self.time + RETRY);
        let open = listens.then(|| self.net.stream(self.time, Place::Master(from), Place::Master(to)))??;
        self.next_conn += 1;
        let conn = self.next_conn;
        self.peers.links.insert((from, to), Link { conn, incarnations, open });
        self.at(open, Event::Hello(Hello { from, to, to_incarnation: incarnations.1, conn, said }));
        Some((conn, open))
    }

    /// A master's Hello has arrived at another.
    pub(super) fn peer_says_hello(&mut self, hello: Hello) {
        let Hello { from, to, to_incarnation, conn, said } = hello;
        if self.masters.get(&to).is_none_or(|m| m.running.is_none() || m.incarnation != to_incarnation) {
            self.peers.shut.insert(conn);
            return;
        }
        // Whoever calls again has lost its connection of before.
        if let Some((older, incarnation)) = self.peers.heard.insert((from, to), (conn, to_incarnation)) {
            self.peers.shut.insert(older);
            self.after(Duration::ZERO, Event::Closed { conn: older, master: to, incarnation });
        }
        let mut refused = None;
        self.with_core(to, |core, _| refused = core.welcome(framed(conn), &said).err());
        if let Some(why) = refused {
            self.counting.counts.add(Happening::Refusal, 1);
            self.note(format!("master {to} refuses master {from}: {why}"));
            self.peers.heard.remove(&(from, to));
            self.shut_peer(conn);
        }
    }

    /// The receiver closes a connection between masters; the sender notices.
    fn shut_peer(&mut self, conn: u64) {
        self.peers.shut.insert(conn);
        let Some((from, to)) = self.peers.ends(conn) else { return };
        self.peers.links.remove(&(from, to));
        if let Some(time) = self.net.stream(self.time, Place::Master(to), Place::Master(from)) {
            self.at(time, Event::PeerLost { master: from, peer: to });
        }
    }

    /// A master has lost its connection to another, which hears of that if it can.
    pub(super) fn hang_up_on_peer(&mut self, from: u64, to: u64) {
        let Some(link) = self.peers.links.remove(&(from, to)) else { return };
        let (conn, incarnation) = (link.conn, link.incarnations.1);
        if let Some(time) = self.net.stream(self.time, Place::Master(from), Place::Master(to)) {
            self.at(time, Event::Closed { conn, master: to, incarnation });
        }
    }

    /// Whether the part at the other end of a connection may go on. It says Hello with the first that it sends.
    pub(super) fn let_in(&mut self, conn: u64) -> Result<(), CallError> {
        let Some(known) = self.conns.get(&conn).copied().filter(|known| !known.greeted) else {
            return Ok(());
        };
        let Principal { role, name, .. } = principal(known.place);
        let hello = pb::Hello::new(role.into(), &name, Some(CLUSTER), known.levels);
        let mut welcome = Ok(());
        self.with_core(known.master, |core, _| welcome = core.welcome(framed(conn), &hello).map(drop));
        welcome?;
        if let Some(known) = self.conns.get_mut(&conn) {
            known.greeted = true;
        }
        Ok(())
    }

    /// A master does not let in whoever has sent this request: it says why and closes the connection.
    pub(super) fn refuse(&mut self, conn: u64, call: u64, why: CallError) {
        let Some(known) = self.forget(conn) else { return };
        self.counting.counts.add(Happening::Refusal, 1);
        self.note(format!("master {} refuses {:?}: {why}", known.master, known.place));
        if let Some(time) = self.net.stream(self.time, Place::Master(known.master), known.place) {
            self.at(time, Event::Refused { task: known.task, call, why });
        }
    }

    /// A connection that is closed; the next request of its task opens another.
    fn forget(&mut self, conn: u64) -> Option<super::Conn> {
        let known = self.conns.remove(&conn)?;
        if self.links.get(&(known.task, known.master)) == Some(&conn) {
            self.links.remove(&(known.task, known.master));
        }
        Some(known)
    }

    /// A master closes a connection of its own accord.
    pub(super) fn cut(&mut self, master: u64, conn: u64) {
        self.note(format!("master {master} cuts off connection {conn}"));
        if self.forget(conn).is_none() {
            self.shut_peer(conn);
        }
        let Some(incarnation) = self.masters.get(&master).map(|master| master.incarnation) else { return };
        self.after(Duration::ZERO, Event::Closed { conn, master, incarnation });
    }
}

/// Who speaks from a machine. What is proved in a handshake is a matter of keys, which the world does not have.
pub(super) fn principal(place: Place) -> Principal {
    let (role, name) = match place {
        Place::Master(number) => (Role::Master, address(number)),
        Place::Server(index) => (Role::Chunkserver, crate::server::address(index)),
        Place::Client(number) => (Role::Client, format!("client {number}")),
    };
    Principal { role, name, node: 0, client: None }
}
