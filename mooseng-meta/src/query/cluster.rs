//! Questions about the cluster: sessions, servers, settings, sums.

use mooseng_types::{Level, RequestId, SessionId};

use crate::key;
use crate::response::Response;
use crate::server::ServerRow;
use crate::session::{SessionRecord, SessionRow};
use crate::settings::{Settings, Totals};
use crate::state::MetaState;
use crate::tables::decode;

impl MetaState {
    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRow> {
        self.tables.rows.collect(b"s", &[], usize::MAX, |key, value| {
            let SessionRecord { name, client } = decode(key, value);
            SessionRow { session: SessionId::from_raw(key::number_at(key, 1)), name, client }
        })
    }

    /// The session is open.
    #[must_use]
    pub fn session_exists(&self, session: SessionId) -> bool {
        self.tables.windows.contains_key(&session)
    }

    /// Below which number a session has acknowledged all answers; `None` if there is no such session.
    #[must_use]
    pub fn acked_below(&self, session: SessionId) -> Option<u64> {
        Some(self.tables.windows.get(&session)?.acked_below)
    }

    /// All chunkservers that ever registered.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerRow> {
        self.tables.rows.collect(b"v", &[], usize::MAX, decode)
    }

    /// What was settled when the cluster was made; `None` before.
    #[must_use]
    pub fn settings(&self) -> Option<Settings> {
        self.tables.settings
    }

    /// The cluster's level: no format of a higher one is written.
    #[must_use]
    pub fn level(&self) -> Level {
        self.tables.level
    }

    /// Sums over the namespace.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.tables.counters.totals
    }

    /// The answer that a request was given, unless it is acknowledged or was never asked.
    #[must_use]
    pub fn stored_response(&self, id: RequestId) -> Option<Response> {
        if self.tables.windows.get(&id.session)?.highest < id.seq {
            return None;
        }
        let key = key::response(id.session, id.seq);
        self.tables.rows.read(&key, |value| match Response::decode(value) {
            Ok(response) => response,
            Err(error) => panic!("metadata row {} is damaged: {error}", key.escape_ascii()),
        })
    }
}
