//! What a chunkserver should have.

use mooseng_types::{ChunkId, Level, Part, ServerId};

use crate::key;
use crate::state::MetaState;

impl MetaState {
    /// Where the table from servers to chunks goes on; `None` if nothing is to be entered, because it is complete or because the
    /// cluster's level does not have it.
    #[must_use]
    pub fn next_to_index(&self) -> Option<ChunkId> {
        if self.level() < Level::IDENTITY { None } else { self.tables.indexed_to() }
    }

    /// Whether the table from servers to chunks has everything.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        self.tables.indexed_to().is_none()
    }

    /// What a server should have, after `after`, at most `limit` of it, ascending. `None` until the table that says it is
    /// [complete](MetaState::is_indexed).
    #[must_use]
    pub fn held_by(&self, server: ServerId, after: Option<Part>, limit: usize) -> Option<Vec<Part>> {
        if !self.is_indexed() {
            return None;
        }
        // The first key above one is the same with a zero behind it.
        let from = after.map_or(Vec::new(), |part| [&key::held(server, part)[..], &[0]].concat());
        Some(self.tables.rows.collect(&key::held_by(server), &from, limit, |key, _| {
            match key::held_at(key) {
                Some((_, part)) => part,
                None => panic!("metadata row {} is damaged", key.escape_ascii()),
            }
        }))
    }
}
