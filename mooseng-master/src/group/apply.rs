//! A committed entry reaches the state.

use mooseng_meta::{ClusterCommand, Command, Entry, MetaState};
use mooseng_types::{Level, Levels};

use super::change::read_change;
use super::{Group, News, Ticket, Unready};
use crate::raft::LogEntry;

/// The kind of an entry that carries a command; the others change the group.
const COMMAND: u8 = 0;

/// Whether an entry of another master can be applied: a committed one that cannot ends the process.
pub(super) fn is_readable(logged: &LogEntry, levels: Levels) -> bool {
    match logged.kind {
        COMMAND => {
            let readable = logged.data.is_empty() || Entry::decode(&logged.data).is_ok();
            readable && raises_to(logged).is_none_or(|level| levels.has(level))
        }
        _ => read_change(logged).is_some(),
    }
}

/// The level that an entry raises the cluster to, if it is one that does.
fn raises_to(logged: &LogEntry) -> Option<Level> {
    if logged.kind != COMMAND || logged.data.is_empty() {
        return None;
    }
    match Entry::decode(&logged.data).ok()?.command {
        Command::Cluster(ClusterCommand::RaiseLevel { level }) => Some(level),
        _ => None,
    }
}

/// The level that a master has to know to go on with this store and this log: an entry that raises the level may wait in
/// the log.
#[must_use]
pub fn level_needed(state: &MetaState, log: &[LogEntry]) -> Level {
    let waiting = log.iter().filter(|entry| entry.index > state.applied_index());
    waiting.filter_map(raises_to).fold(state.level(), Level::max)
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
                let chunks = self.state.take_touched();
                self.news.push(News::Applied { command: entry.command, response, ticket, chunks });
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mooseng_meta::MemoryStore;
    use mooseng_types::{CellId, SessionId, TimeNs};

    use super::*;

    #[test]
    fn a_master_needs_the_level_that_an_entry_of_its_log_will_raise_it_to() {
        let mut state = MetaState::open(Arc::new(MemoryStore::new()), CellId::ROOT).unwrap();
        state.skip(7);
        let entry = |index, command: Command| {
            let data = Entry { stamp: TimeNs::from_raw(0), request: None, command }.encode();
            LogEntry { term: 1, index, kind: 0, data: data.into() }
        };
        let raise = || ClusterCommand::RaiseLevel { level: Level::IDENTITY }.into();
        let other = || ClusterCommand::CloseSession { session: SessionId::from_raw(9) }.into();
        assert_eq!(level_needed(&state, &[]), Level::FIRST);
        assert_eq!(level_needed(&state, &[entry(8, other())]), Level::FIRST);
        assert_eq!(level_needed(&state, &[entry(8, other()), entry(9, raise())]), Level::IDENTITY);
        assert_eq!(level_needed(&state, &[entry(7, raise())]), Level::FIRST, "the state has it");
    }
}
