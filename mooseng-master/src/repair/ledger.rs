//! What is known of all chunks of a cell: how many copies each has, which are in trouble, which must be looked at again.
//!
//! It is the leader's own and begins empty. A row that changes and a server that tells something *mark* chunks; what concerns
//! many of them is a *sweep*, done a part at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mooseng_types::{ChunkId, ChunkVersion, Part, ServerId};

use super::{Condition, Standings, Tally, Urgency};

/// Chunks to be looked at, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sweep {
    /// All rows from this one on.
    Rows(ChunkId),
    /// All that a server has or should have, behind this.
    Server(ServerId, Option<Part>),
}

/// The ledger.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How the servers stand, as of the last look.
    pub(crate) standings: Standings,
    tallies: BTreeMap<ChunkId, Tally>,
    /// Chunks by copies wanted and live.
    matrix: BTreeMap<(u8, u8), u64>,
    listed: BTreeMap<Condition, BTreeSet<ChunkId>>,
    /// Chunks of which no row tells and that are not about to be deleted, on some server.
    unknown: BTreeSet<ChunkId>,
    todo: BTreeMap<Urgency, BTreeSet<ChunkId>>,
    urgent: BTreeMap<ChunkId, Urgency>,
    /// Marked chunks, and when each is to be looked at.
    due: BTreeMap<ChunkId, Duration>,
    by_time: BTreeSet<(Duration, ChunkId)>,
    sweeps: VecDeque<Sweep>,
    /// All rows have been looked at in this leader's time.
    complete: bool,
    /// Versions that were given out to nobody in this leader's time, to settle what copies may differ in.
    settling: BTreeMap<ChunkId, ChunkVersion>,
}

impl Ledger {
    /// Begins anew: another master led until now.
    pub(crate) fn begin(&mut self) {
        *self = Self::default();
        self.sweep_rows();
    }

    /// A chunk is to be looked at, not before `at`. Of two marks the later one counts.
    pub(crate) fn mark(&mut self, chunk: ChunkId, at: Duration) {
        let due = self.due.entry(chunk).or_insert(at);
        self.by_time.remove(&(*due, chunk));
        *due = (*due).max(at);
        self.by_time.insert((*due, chunk));
    }

    /// All rows are to be looked at: what is wanted may have changed.
    pub(crate) fn sweep_rows(&mut self) {
        self.sweeps.retain(|sweep| !matches!(sweep, Sweep::Rows(_)));
        self.sweeps.push_back(Sweep::Rows(ChunkId::from_raw(0)));
    }

    /// All that a server has or should have is to be looked at.
    pub(crate) fn sweep_server(&mut self, server: ServerId) {
        self.sweeps.retain(|sweep| !matches!(sweep, Sweep::Server(other, _) if *other == server));
        self.sweeps.push_back(Sweep::Server(server, None));
    }

    /// The sweep that is on, taken out; the caller puts back what is left of it.
    pub(crate) fn take_sweep(&mut self) -> Option<Sweep> {
        self.sweeps.pop_front()
    }

    /// What is left of a sweep is done later, after the others; `None` if nothing is.
    pub(crate) fn swept(&mut self, sweep: Sweep, left: Option<Sweep>) {
        match left {
            Some(left) => self.sweeps.push_back(left),
            None => self.complete |= matches!(sweep, Sweep::Rows(_)),
        }
    }

    /// Up to `limit` marked chunks that are due.
    pub(crate) fn take_due(&mut self, now: Duration, limit: usize) -> Vec<ChunkId> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(&(at, chunk)) = self.by_time.first()
            && at <= now
        {
            self.by_time.pop_first();
            self.due.remove(&chunk);
            taken.push(chunk);
        }
        taken
    }

    /// This version was given out to nobody, to settle what the copies of a chunk may differ in.
    pub(crate) fn settle(&mut self, chunk: ChunkId, version: ChunkVersion) {
        self.settling.insert(chunk, version);
    }

    /// The version by which a chunk is being settled.
    pub(crate) fn settling(&self, chunk: ChunkId) -> Option<ChunkVersion> {
        self.settling.get(&chunk).copied()
    }

    /// A chunk has nothing to settle any more.
    pub(crate) fn settled(&mut self, chunk: ChunkId) {
        self.settling.remove(&chunk);
    }

    /// How a chunk is, and how urgent what is to be done about it; `None`: it does not count, or nothing is to be done.
    pub(crate) fn note(&mut self, chunk: ChunkId, tally: Option<Tally>, urgency: Option<Urgency>) {
        let before = match tally {
            Some(tally) => self.tallies.insert(chunk, tally),
            None => self.tallies.remove(&chunk),
        };
        if before != tally {
            self.strike_out(chunk, before);
            if let Some(tally) = tally {
                *self.matrix.entry((tally.wanted, tally.live)).or_default() += 1;
                for condition in tally.conditions() {
                    self.listed.entry(condition).or_default().insert(chunk);
                }
            }
        }
        let before = match urgency {
            Some(urgency) => self.urgent.insert(chunk, urgency),
            None => self.urgent.remove(&chunk),
        };
        if before != urgency {
            if let Some(list) = before.and_then(|before| self.todo.get_mut(&before)) {
                list.remove(&chunk);
            }
            if let Some(urgency) = urgency {
                self.todo.entry(urgency).or_default().insert(chunk);
            }
        }
        self.unknown.remove(&chunk);
    }

    /// Servers have this chunk, and no row tells of it.
    pub(crate) fn note_unknown(&mut self, chunk: ChunkId, urgency: Option<Urgency>) {
        self.note(chunk, None, urgency);
        self.unknown.insert(chunk);
    }

    fn strike_out(&mut self, chunk: ChunkId, tally: Option<Tally>) {
        let Some(tally) = tally else { return };
        let cell = (tally.wanted, tally.live);
        if let Some(count) = self.matrix.get_mut(&cell) {
            *count -= 1;
            if *count == 0 {
                self.matrix.remove(&cell);
            }
        }
        for condition in tally.conditions() {
            if let Some(list) = self.listed.get_mut(&condition) {
                list.remove(&chunk);
            }
        }
    }

    /// Chunks about which something is to be done, in one urgency, behind `after`.
    pub(crate) fn todo(&self, urgency: Urgency, after: Option<ChunkId>) -> impl Iterator<Item = ChunkId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.todo.get(&urgency).into_iter().flat_map(move |list| list.range((from, Unbounded)).copied())
    }

    /// How many chunks wait for something to be done.
    pub(crate) fn todo_len(&self) -> usize {
        self.urgent.len()
    }

    /// Chunks by copies wanted and live.
    pub(crate) fn matrix(&self) -> impl Iterator<Item = ((u8, u8), u64)> {
        self.matrix.iter().map(|(cell, count)| (*cell, *count))
    }

    /// The chunks in a condition, behind `after`.
    pub(crate) fn listed(
        &self,
        condition: Condition,
        after: Option<ChunkId>,
    ) -> impl Iterator<Item = ChunkId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.listed.get(&condition).into_iter().flat_map(move |list| list.range((from, Unbounded)).copied())
    }

    /// How many chunks are in a condition.
    pub(crate) fn count(&self, condition: Condition) -> u64 {
        self.listed.get(&condition).map_or(0, BTreeSet::len) as u64
    }

    /// How many chunks servers have of which no row tells.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown.len() as u64
    }

    /// Whether every row has been looked at in this leader's time, and all that concerns many of them since.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete && self.sweeps.is_empty()
    }

    /// How many marked chunks have yet to be looked at.
    pub(crate) fn marked_len(&self) -> usize {
        self.due.len()
    }

    /// Whether there is something to look at.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        !self.sweeps.is_empty() || self.by_time.first().is_some_and(|(at, _)| *at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(raw: u64) -> ChunkId {
        ChunkId::from_raw(raw)
    }

    #[test]
    fn a_marked_chunk_is_due_once_at_its_latest_mark() {
        let mut ledger = Ledger::default();
        let at = Duration::from_secs;
        ledger.mark(chunk(1), at(5));
        ledger.mark(chunk(2), at(3));
        ledger.mark(chunk(1), at(4));
        assert_eq!(ledger.take_due(at(4), 9), [chunk(2)]);
        assert!(ledger.is_due(at(5)) && !ledger.is_due(at(4)));
        ledger.mark(chunk(3), at(1));
        assert_eq!(ledger.take_due(at(9), 1), [chunk(3)]);
        assert_eq!(ledger.take_due(at(9), 9), [chunk(1)]);
        assert!(ledger.take_due(at(99), 9).is_empty() && !ledger.is_due(at(99)));
    }

    #[test]
    fn the_ledger_is_complete_when_all_sweeps_have_ended() {
        let mut ledger = Ledger::default();
        ledger.begin();
        let server = ServerId::from_raw(1);
        ledger.sweep_server(server);
        let rows = ledger.take_sweep().unwrap();
        assert_eq!(rows, Sweep::Rows(chunk(0)));
        ledger.swept(rows, Some(Sweep::Rows(chunk(7))));
        ledger.sweep_server(server);
        assert_eq!(ledger.take_sweep(), Some(Sweep::Rows(chunk(7))), "a server's is done anew, behind it");
        ledger.swept(rows, None);
        assert!(!ledger.is_complete());
        let of_server = ledger.take_sweep().unwrap();
        assert_eq!(of_server, Sweep::Server(server, None));
        ledger.swept(of_server, None);
        assert!(ledger.is_complete() && !ledger.is_due(Duration::MAX));
    }
}
