//! A committed entry reaches the state, and whoever waits for it gets the answer.

use mooseng_meta::{Command, Entry, Response};
use mooseng_protocol::status::CallError;
use mooseng_types::FsError;

use super::{MasterCore, Now, Waiter};
use crate::raft::LogEntry;
use crate::service;

impl MasterCore {
    pub(super) fn apply(&mut self, now: Now, logged: &LogEntry) {
        let response = if logged.data.is_empty() {
            self.state.skip(logged.index);
            Response::Done
        } else {
            self.apply_command(logged)
        };
        self.node.applied(logged.index);
        let Some((term, waiter)) = self.waiting.remove(&logged.index) else { return };
        let Waiter::Client { conn, header, context } = waiter else { return };
        if term != logged.term {
            let message = "another leader's entry took this one's place; send the request again".into();
            return self.reply_error(conn, header, &CallError::Unavailable { message });
        }
        match service::complete(self, now, conn, context, response) {
            Ok(body) => self.reply(conn, header, 0, &body),
            Err(error) => self.reply_error(conn, header, &error),
        }
    }

    fn apply_command(&mut self, logged: &LogEntry) -> Response {
        match Entry::decode(&logged.data) {
            Ok(entry) => {
                let response = self.state.apply(logged.index, &entry);
                // A follower may lead next, before a server that another master has made known speaks to it. A copy on
                // a server without an address would be left out of the next write.
                if matches!(entry.command, Command::RegisterServer { .. }) {
                    self.know_servers();
                }
                response
            }
            Err(error) => {
                // A majority agreed on bytes that this release cannot read. Leaving them out would make this replica
                // differ from the others for ever.
                tracing::error!(%error, index = logged.index, "a committed entry cannot be read; run the same release on all masters");
                std::process::abort();
            }
        }
    }

    /// The refusals of a state that a waiting client sees.
    pub(crate) fn refused(response: Response) -> Result<Response, CallError> {
        match response {
            Response::Refused(error) => Err(CallError::Refused(error)),
            other => Ok(other),
        }
    }

    /// What a reply of the wrong shape means: a bug, told as an I/O error instead of a wrong result.
    pub(crate) fn mismatched(response: &Response) -> CallError {
        tracing::error!(?response, "a command was answered in the wrong shape");
        CallError::Refused(FsError::Io)
    }
}
