//! A committed entry reaches the state.

use mooseng_meta::{ClusterCommand, Command, Entry};
use mooseng_types::Levels;

use super::change::read_change;
use super::{Group, News, Ticket, Unready};
use crate::raft::LogEntry;

/// The kind of an entry that carries a command; the others change the group.
const COMMAND: u8 = 0;

/// Whether an entry of another master can be applied: a committed one that cannot ends the process.
pub(super) fn is_readable(logged: &LogEntry, levels: Levels) -> bool {
    match logged.kind {
        COMMAND => {
            logged.data.is_empty()
                || Entry::decode(&logged.data).is_ok_and(|entry| match entry.command {
                    Command::Cluster(ClusterCommand::RaiseLevel { level }) => levels.has(level),
                    _ => true,
                })
        }
        _ => read_change(logged).is_some(),
    }
}

impl Group {
    pub(super) fn apply(&mut self, logged: &LogEntry) {
        let proposed = self.waiting.remove(&logged.index);
        let mine = proposed.filter(|(term, _)| *term == logged.term).and_then(|(_, ticket)| ticket);
        if let Some((term, Some(ticket))) = proposed
            && term != logged.term
        {
            self.news.push(News::Refused(ticket, Unready::Replaced));
        }
        match logged.kind {
            COMMAND if logged.data.is_empty() => self.state.skip(logged.index),
            COMMAND => self.apply_command(logged, mine),
            _ => {
                self.apply_change(logged);
                self.news.extend(mine.map(News::Changed));
            }
        }
        self.node.applied(logged.index);
        self.digests.note(logged.index, self.state.digest());
    }

    fn apply_command(&mut self, logged: &LogEntry, ticket: Option<Ticket>) {
        match Entry::decode(&logged.data) {
            Ok(entry) => {
                let response = self.state.apply(logged.index, &entry);
                self.news.push(News::Applied { command: entry.command, response, ticket });
            }
            Err(error) => {
                // A majority agreed on bytes that this release cannot read. Leaving them out would make this replica
                // differ from the others for ever.
                tracing::error!(%error, index = logged.index, "a committed entry cannot be read; run the same release on all masters");
                std::process::abort();
            }
        }
    }
}
