//! Ends silent sessions.

use std::time::Duration;

use mooseng_meta::ClusterCommand;

use super::{Round, Worker};

/// A session that is silent for longer than this ends.
#[derive(Debug)]
pub(super) struct ExpireSessions {
    pub(super) timeout: Duration,
}

impl Worker for ExpireSessions {
    fn name(&self) -> &'static str {
        "expire-sessions"
    }

    fn work(&mut self, round: &mut Round<'_>) {
        for session in round.sessions.expired(round.now, self.timeout) {
            tracing::info!(%session, "a silent session ends");
            round.sessions.closed(session);
            round.propose(ClusterCommand::CloseSession { session });
        }
    }
}
