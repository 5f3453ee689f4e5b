//! The clients' sessions as the leader sees them now: who is alive, who has which inode open. Soft state: after a
//! change of leader every session tells again what it has open, and until all have spoken (or run out of time) no
//! unlinked file is reaped.

mod open_files;

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_types::{InodeId, SessionId};

use self::open_files::OpenFiles;
use crate::conn::ConnId;

/// A mount that is said to be dead has so long to show that it is not: a live one is connected again well within it.
const REPLACED_AFTER: Duration = Duration::from_secs(2);

/// The random identity of a client.
pub type ClientId = [u8; 16];

#[derive(Debug)]
struct Session {
    /// Whose it is.
    client: ClientId,
    conn: Option<ConnId>,
    heard: Duration,
    /// When its connection ended.
    left: Duration,
    /// A mount of the same name says that this one is dead.
    replaced: bool,
    /// It has told this leader what it has open.
    confirmed: bool,
    files: OpenFiles,
}

impl Session {
    fn new(client: ClientId, now: Duration, confirmed: bool) -> Self {
        let files = OpenFiles::default();
        Self { client, conn: None, heard: now, left: Duration::ZERO, replaced: false, confirmed, files }
    }

    fn is_over(&self, now: Duration, timeout: Duration) -> bool {
        let silent = now.saturating_sub(self.heard) > timeout;
        let dead = self.replaced && self.conn.is_none();
        silent || (dead && now.saturating_sub(self.heard.max(self.left)) > REPLACED_AFTER)
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
}

impl Sessions {
    /// This master begins to lead: the sessions in the state have their whole time to come forward.
    pub fn begin(&mut self, now: Duration, sessions: impl IntoIterator<Item = (SessionId, ClientId)>) {
        self.sessions =
            sessions.into_iter().map(|(id, client)| (id, Session::new(client, now, false))).collect();
    }

    /// A session that an earlier leader opened has come to light: it has its whole time to tell what it has open.
    pub fn known(&mut self, id: SessionId, client: ClientId, now: Duration) {
        self.sessions.entry(id).or_insert(Session::new(client, now, false));
    }

    /// A session was opened: nothing is open in it.
    pub fn opened(&mut self, id: SessionId, client: ClientId, now: Duration) {
        self.sessions.entry(id).or_insert(Session::new(client, now, true)).heard = now;
    }

    /// A session ended.
    pub fn closed(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// A session is alive and takes pushes over `conn`.
    pub fn resumed(&mut self, id: SessionId, conn: ConnId, now: Duration) {
        self.heard(id, now);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.conn = Some(conn);
        }
    }

    /// A session tells everything it has open, as of its open or release with the number `as_of`.
    pub fn list_open(&mut self, id: SessionId, as_of: u64, open: impl IntoIterator<Item = InodeId>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.files.list(as_of, open);
            session.confirmed = true;
        }
    }

    /// A request of the session has come.
    pub fn heard(&mut self, id: SessionId, now: Duration) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.heard = now;
            session.replaced = false;
        }
    }

    /// The session opens an inode, by its open or release with this number.
    pub fn open(&mut self, id: SessionId, inode: InodeId, number: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.files.open(inode, number);
        }
    }

    /// The session closes an inode, unless it has opened it under a higher number.
    pub fn release(&mut self, id: SessionId, inode: InodeId, number: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.files.release(inode, number);
        }
    }

    /// Another mount says that it has taken the place of this session's, which is dead. If it shows no sign of life
    /// soon, it has ended.
    pub fn replaced(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.conn.is_none()) {
            session.replaced = true;
        }
    }

    /// A connection has ended. The session lives on: its client may be on its way back.
    pub fn disconnected(&mut self, conn: ConnId, now: Duration) {
        for session in self.sessions.values_mut().filter(|session| session.conn == Some(conn)) {
            session.conn = None;
            session.left = now;
        }
    }

    /// Whose session this is; `None` if there is no such session as far as is known here.
    #[must_use]
    pub fn client(&self, id: SessionId) -> Option<ClientId> {
        Some(self.sessions.get(&id)?.client)
    }

    /// Where pushes to the session go.
    #[must_use]
    pub fn conn(&self, id: SessionId) -> Option<ConnId> {
        self.sessions.get(&id)?.conn
    }

    /// Sessions that have been silent for `timeout`, or that are said to be dead and have not contradicted.
    pub fn expired(&self, now: Duration, timeout: Duration) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, session)| session.is_over(now, timeout)).map(|(id, _)| *id).collect()
    }

    /// Whether it is known of every session what it has open.
    #[must_use]
    pub fn all_confirmed(&self) -> bool {
        self.sessions.values().all(|session| session.confirmed)
    }

    /// Whether some session has the inode open.
    #[must_use]
    pub fn is_open(&self, inode: InodeId) -> bool {
        self.sessions.values().any(|session| session.files.is_open(inode))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn after_a_change_of_leader_nothing_counts_as_closed_until_every_session_has_spoken() {
        let mut sessions = Sessions::default();
        let (a, b) = (SessionId::from_raw(1), SessionId::from_raw(2));
        sessions.begin(SECOND, [(a, [1; 16]), (b, [2; 16])]);
        assert_eq!([a, b].map(|id| sessions.client(id)), [Some([1; 16]), Some([2; 16])]);
        sessions.resumed(a, ConnId::Framed(1), SECOND);
        assert!(!sessions.all_confirmed());
        sessions.list_open(a, 7, [InodeId::from_raw(9)]);
        assert!(!sessions.all_confirmed());
        assert_eq!(sessions.expired(10 * SECOND, 5 * SECOND), [a, b]);
        sessions.heard(a, 9 * SECOND);
        assert_eq!(sessions.expired(10 * SECOND, 5 * SECOND), [b]);
        sessions.closed(b);
        assert!(sessions.all_confirmed());
        assert!(sessions.is_open(InodeId::from_raw(9)));
        sessions.release(a, InodeId::from_raw(9), 8);
        assert!(!sessions.is_open(InodeId::from_raw(9)));
        sessions.disconnected(ConnId::Framed(1), 10 * SECOND);
        assert_eq!(sessions.conn(a), None);
    }

    #[test]
    fn a_mount_of_the_same_name_ends_a_session_only_if_that_one_is_dead() {
        let mut sessions = Sessions::default();
        let (dead, alive, connected) =
            (SessionId::from_raw(1), SessionId::from_raw(2), SessionId::from_raw(3));
        sessions.begin(SECOND, [dead, alive, connected].map(|id| (id, [0; 16])));
        sessions.resumed(connected, ConnId::Framed(3), SECOND);
        [dead, alive, connected].into_iter().for_each(|id| sessions.replaced(id));
        assert_eq!(sessions.expired(2 * SECOND, 60 * SECOND), [], "this leader is too young to know");
        sessions.resumed(alive, ConnId::Framed(2), 2 * SECOND);
        assert_eq!(sessions.expired(4 * SECOND, 60 * SECOND), [dead]);
        sessions.disconnected(ConnId::Framed(2), 100 * SECOND);
        sessions.replaced(alive);
        assert_eq!(sessions.expired(101 * SECOND, 600 * SECOND), [dead], "it may be on its way back");
        assert_eq!(sessions.expired(103 * SECOND, 600 * SECOND), [dead, alive]);
    }
}
