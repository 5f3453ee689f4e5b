//! Which snapshot goes to which master next: one at a time to each, because the receiver takes one at a time. With many
//! groups in one process, a master that comes in needs one of each.

use std::collections::{BTreeMap, VecDeque};

use mooseng_types::{CellId, MasterId};

use crate::raft::Message;

/// A snapshot of a cell that a master needs.
pub(super) type Wanted = (CellId, Message);

/// The snapshots that are wanted. A group wants one for each master at most, so this is bounded by the groups.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Behind the one that is on its way, by the master that it is for.
    waiting: BTreeMap<MasterId, VecDeque<Wanted>>,
}

impl Outgoing {
    /// A group wants a snapshot sent. Returns it if it is to go now: [`Outgoing::next`] follows when it has gone.
    pub(super) fn want(&mut self, to: MasterId, cell: CellId, message: Message) -> Option<Wanted> {
        let Some(waiting) = self.waiting.get_mut(&to) else {
            self.waiting.insert(to, VecDeque::new());
            return Some((cell, message));
        };
        // What the group wanted before, perhaps as an earlier leader, it does not want any more.
        waiting.retain(|(other, _)| *other != cell);
        waiting.push_back((cell, message));
        None
    }

    /// The one on its way to this master has arrived, or will not. Returns the one that is to go now.
    pub(super) fn next(&mut self, to: MasterId) -> Option<Wanted> {
        let next = self.waiting.get_mut(&to)?.pop_front();
        if next.is_none() {
            self.waiting.remove(&to);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: MasterId = MasterId::new(2, 7);
    const OTHER: MasterId = MasterId::new(3, 7);

    fn wanted(cell: u16, term: u64) -> Wanted {
        (CellId::from_raw(cell), Message { term, ..Message::default() })
    }

    fn want(outgoing: &mut Outgoing, to: MasterId, (cell, message): Wanted) -> Option<Wanted> {
        outgoing.want(to, cell, message)
    }

    #[test]
    fn one_snapshot_at_a_time_goes_to_a_master_and_the_others_follow_in_turn() {
        let mut outgoing = Outgoing::default();
        assert_eq!(want(&mut outgoing, TO, wanted(0, 1)), Some(wanted(0, 1)));
        assert_eq!(want(&mut outgoing, TO, wanted(1, 1)), None);
        assert_eq!(want(&mut outgoing, TO, wanted(2, 1)), None);
        assert_eq!(
            want(&mut outgoing, OTHER, wanted(1, 1)),
            Some(wanted(1, 1)),
            "another master waits for nobody"
        );
        assert_eq!(outgoing.next(TO), Some(wanted(1, 1)));
        assert_eq!(outgoing.next(TO), Some(wanted(2, 1)));
        assert_eq!(outgoing.next(TO), None);
        assert_eq!(outgoing.next(OTHER), None);
        assert_eq!(
            want(&mut outgoing, TO, wanted(1, 1)),
            Some(wanted(1, 1)),
            "nothing is on its way any more"
        );
    }

    #[test]
    fn what_a_group_wants_takes_the_place_of_what_it_wanted_before() {
        let mut outgoing = Outgoing::default();
        want(&mut outgoing, TO, wanted(0, 1));
        want(&mut outgoing, TO, wanted(1, 1));
        want(&mut outgoing, TO, wanted(2, 1));
        assert_eq!(want(&mut outgoing, TO, wanted(1, 5)), None);
        assert_eq!([outgoing.next(TO), outgoing.next(TO)], [Some(wanted(2, 1)), Some(wanted(1, 5))]);
        assert_eq!(outgoing.next(TO), None);
    }
}
