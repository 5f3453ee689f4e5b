//! A committed entry reaches the state, and whoever waits for it gets the answer.

use mooseng_meta::{ClusterCommand, Command, Entry, Response};
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{FsError, Levels};

use super::group::read_change;
use super::{MasterCore, Now, Waiter};
use crate::raft::LogEntry;
use crate::service;

/// The kind of an entry that carries a command; the others change the group.
const COMMAND: u8 = 0;

/// Whether an entry of another master can be applied: a committed one that cannot ends the process.
pub(super) fn is_readable(entry: &pb::RaftEntry, levels: Levels) -> bool {
    let Ok(kind) = u8::try_from(entry.kind) else { return false };
    let logged = LogEntry { term: entry.term, index: entry.index, kind, data: entry.data.clone() };
    match kind {
        COMMAND => {
            entry.data.is_empty()
                || Entry::decode(&entry.data).is_ok_and(|entry| match entry.command {
                    Command::Cluster(ClusterCommand::RaiseLevel { level }) => levels.has(level),
                    _ => true,
                })
        }
        _ => read_change(&logged).is_some(),
    }
}

impl MasterCore {
    pub(super) fn apply(&mut self, now: Now, logged: &LogEntry) {
        let response = match logged.kind {
            COMMAND if logged.data.is_empty() => {
                self.state.skip(logged.index);
                Response::Done
            }
            COMMAND => self.apply_command(logged),
            _ => {
                self.apply_change(logged);
                Response::Done
            }
        };
        self.node.applied(logged.index);
        self.digests.note(logged.index, self.state.digest());
        let mine = self.waiting.get(&logged.index).is_some_and(|(term, _)| *term == logged.term);
        if let (false, Some(_), Response::Session(session)) = (mine, self.led_term, &response) {
            self.sessions.known(*session, now.mono);
        }
        let Some((term, waiter)) = self.waiting.remove(&logged.index) else { return };
        let Waiter::Client { conn, header, context } = waiter else { return };
        if term != logged.term {
            let message = "another leader's entry took this one's place; send the request again".into();
            return self.reply_error(conn, header, &CallError::Unavailable { message });
        }
        match service::complete(self, now, conn, context, response) {
            Ok(body) => self.reply(conn, header, Ok(&body)),
            Err(error) => self.reply_error(conn, header, &error),
        }
    }

    fn apply_command(&mut self, logged: &LogEntry) -> Response {
        match Entry::decode(&logged.data) {
            Ok(entry) => {
                let response = self.state.apply(logged.index, &entry);
                // A follower may lead next, before a server that another master has made known speaks to it. A copy on
                // a server without an address would be left out of the next write.
                if matches!(entry.command, Command::Cluster(ClusterCommand::RegisterServer { .. })) {
                    self.know_servers();
                }
                self.leases_moved(entry.command.moves_leases());
                if let Command::Cluster(ClusterCommand::RaiseLevel { level }) = entry.command {
                    self.cut_off_below(level);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mooseng_types::{ChunkId, InodeId, ServerId, TimeNs};

    use super::super::testing::{Leader, NOW, config, core};
    use super::*;
    use crate::raft::{HardState, Recovered};

    #[test]
    fn a_server_that_another_master_made_known_has_an_address_here_before_it_speaks() {
        let (uuid, name, address) = ([1; 16], "s".to_owned(), "s:1".to_owned());
        let command = ClusterCommand::RegisterServer { uuid, name, address }.into();
        let entry = Entry { stamp: TimeNs::from_raw(0), request: None, command };
        let logged = LogEntry { term: 1, index: 1, kind: 0, data: entry.encode().into() };
        let hard_state = HardState { term: 1, vote: 0, commit: 1 };
        let recovered = Recovered { hard_state, purged: (0, 0), entries: vec![logged] };
        let mut core = core(config(3), recovered);
        core.settle(NOW);
        assert_eq!(core.state().applied_index(), 1);
        let server = core.state().servers()[0].server;
        assert_eq!(server, ServerId::from_raw(1));
        let known = core.registry.addresses(ChunkId::from_raw(1), &[server], Duration::ZERO);
        assert_eq!(known, [(server, "s:1".to_owned())]);
    }

    #[test]
    fn a_session_that_an_earlier_leader_opened_last_has_its_files_kept_by_the_next_one() {
        let command = ClusterCommand::OpenSession { client: [1; 16], name: "mount".to_owned() }.into();
        let entry = Entry { stamp: TimeNs::from_raw(0), request: None, command };
        let logged = LogEntry { term: 1, index: 1, kind: 0, data: entry.encode().into() };
        // Not known to be committed: it is applied when this master leads already.
        let hard_state = HardState { term: 1, vote: 0, commit: 0 };
        let recovered = Recovered { hard_state, purged: (0, 0), entries: vec![logged] };
        let mut leader = Leader::with(core(config(1), recovered));
        let session = 1;
        let meta = Some(pb::RequestMeta { session, seq: 1, acked_below: 1 });
        let create = pb::CreateRequest { meta, parent: 1, name: "f".into(), kind: 8, ..Default::default() };
        let file = leader.ask(1, &create).unwrap().attr.unwrap().inode;
        leader.ask(1, &pb::OpenRequest { session, inode: file, number: 1 }).unwrap();
        assert!(leader.core.sessions.is_open(InodeId::from_raw(file)));
        assert!(!leader.core.sessions.all_confirmed(), "it may have more open than this master knows");
    }
}
