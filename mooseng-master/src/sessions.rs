//! The clients' sessions as the leader sees them now: who is alive, who has which inode open. Soft state: after a
//! change of leader every session tells again what it has open, and until all have spoken (or run out of time) no
//! unlinked file is reaped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooseng_types::{InodeId, SessionId};

use crate::core::ConnId;

#[derive(Debug)]
struct Session {
    conn: Option<ConnId>,
    heard: Duration,
    /// It has told this leader what it has open.
    confirmed: bool,
    open: BTreeSet<InodeId>,
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
}

impl Sessions {
    /// This master begins to lead: the sessions in the state have their whole time to come forward.
    pub fn begin(&mut self, now: Duration, sessions: impl IntoIterator<Item = SessionId>) {
        let fresh = |id| (id, Session { conn: None, heard: now, confirmed: false, open: BTreeSet::new() });
        self.sessions = sessions.into_iter().map(fresh).collect();
    }

    /// A session was opened: nothing is open in it.
    pub fn opened(&mut self, id: SessionId, now: Duration) {
        let session = Session { conn: None, heard: now, confirmed: true, open: BTreeSet::new() };
        self.sessions.entry(id).or_insert(session).heard = now;
    }

    /// A session ended.
    pub fn closed(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// A session is alive and takes pushes over `conn`.
    pub fn resumed(&mut self, id: SessionId, conn: ConnId, now: Duration) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.heard = now;
            session.conn = Some(conn);
        }
    }

    /// A session tells everything it has open.
    pub fn list_open(&mut self, id: SessionId, open: impl IntoIterator<Item = InodeId>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.open = open.into_iter().collect();
            session.confirmed = true;
        }
    }

    /// A request of the session has come.
    pub fn heard(&mut self, id: SessionId, now: Duration) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.heard = now;
        }
    }

    /// The session opens or closes an inode.
    pub fn set_open(&mut self, id: SessionId, inode: InodeId, open: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            if open {
                session.open.insert(inode);
            } else {
                session.open.remove(&inode);
            }
        }
    }

    /// A connection has ended. The session lives on: its client may be on its way back.
    pub fn disconnected(&mut self, conn: ConnId) {
        for session in self.sessions.values_mut().filter(|session| session.conn == Some(conn)) {
            session.conn = None;
        }
    }

    /// Where pushes to the session go.
    #[must_use]
    pub fn conn(&self, id: SessionId) -> Option<ConnId> {
        self.sessions.get(&id)?.conn
    }

    /// Sessions that have been silent for `timeout`.
    pub fn expired(&self, now: Duration, timeout: Duration) -> Vec<SessionId> {
        let silent = |session: &Session| now.saturating_sub(session.heard) > timeout;
        self.sessions.iter().filter(|(_, session)| silent(session)).map(|(id, _)| *id).collect()
    }

    /// Whether the session's client is connected.
    #[must_use]
    pub fn is_connected(&self, id: SessionId) -> bool {
        self.conn(id).is_some()
    }

    /// Whether it is known of every session what it has open.
    #[must_use]
    pub fn all_confirmed(&self) -> bool {
        self.sessions.values().all(|session| session.confirmed)
    }

    /// Whether some session has the inode open.
    #[must_use]
    pub fn is_open(&self, inode: InodeId) -> bool {
        self.sessions.values().any(|session| session.open.contains(&inode))
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

    #[test]
    fn after_a_change_of_leader_nothing_counts_as_closed_until_every_session_has_spoken() {
        let mut sessions = Sessions::default();
        let (a, b) = (SessionId::from_raw(1), SessionId::from_raw(2));
        let second = Duration::from_secs(1);
        sessions.begin(second, [a, b]);
        sessions.resumed(a, ConnId(1), second);
        assert!(!sessions.all_confirmed());
        sessions.list_open(a, [InodeId::from_raw(9)]);
        assert!(!sessions.all_confirmed());
        assert_eq!(sessions.expired(10 * second, 5 * second), [a, b]);
        sessions.heard(a, 9 * second);
        assert_eq!(sessions.expired(10 * second, 5 * second), [b]);
        sessions.closed(b);
        assert!(sessions.all_confirmed());
        assert!(sessions.is_open(InodeId::from_raw(9)));
        sessions.set_open(a, InodeId::from_raw(9), false);
        assert!(!sessions.is_open(InodeId::from_raw(9)));
        sessions.disconnected(ConnId(1));
        assert_eq!(sessions.conn(a), None);
    }
}
