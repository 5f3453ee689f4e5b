//! Which copy is fetched next: a value without threads and connections. Each disk has a lane of its own, with so many fetches under
//! way at most: one that hangs holds up its own and nobody else's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mooseng_types::Part;

/// Fetches that wait for one disk.
const WAITING_MAX: usize = 1024;

/// Orders that wait for their turn.
#[derive(Debug)]
pub(crate) struct FetchQueue<O> {
    lanes: Vec<Lane>,
    /// The orders that wait, each in a lane.
    waiting: BTreeMap<Part, O>,
    /// Fetches under way for one disk.
    limit: usize,
    /// Which disk is asked first.
    turn: usize,
    under_way: BTreeSet<Part>,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Part>,
    under_way: usize,
}

/// Too many copies wait to be fetched to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many copies wait to be fetched to a disk")]
pub(crate) struct TooMany;

impl<O> FetchQueue<O> {
    /// For so many disks, with `limit` fetches under way for each.
    pub(crate) fn new(disks: usize, limit: usize) -> Self {
        let lane = || Lane { waiting: VecDeque::new(), under_way: 0 };
        let lanes = std::iter::repeat_with(lane).take(disks).collect();
        let (waiting, under_way) = (BTreeMap::new(), BTreeSet::new());
        Self { lanes, waiting, limit: limit.max(1), turn: 0, under_way }
    }

    /// An order for a copy on this disk. It takes the place of one that waits for the same copy; one that is under way goes on, and
    /// the new order is void: the leader gives it again if need be.
    pub(crate) fn push(&mut self, disk: usize, part: Part, order: O) -> Result<(), TooMany> {
        if self.under_way.contains(&part) {
            return Ok(());
        }
        if let Some(old) = self.waiting.get_mut(&part) {
            *old = order;
            return Ok(());
        }
        let lane = self.lanes.get_mut(disk).filter(|lane| lane.waiting.len() < WAITING_MAX).ok_or(TooMany)?;
        lane.waiting.push_back(part);
        self.waiting.insert(part, order);
        Ok(())
    }

    /// The next order, and its lane, in which it is under way from now on.
    pub(crate) fn start(&mut self) -> Option<(usize, Part, O)> {
        let disks = self.lanes.len();
        for step in 0..disks {
            let disk = (self.turn + step) % disks;
            let lane = self.lanes.get_mut(disk)?;
            if lane.under_way >= self.limit {
                continue;
            }
            let next = lane.waiting.pop_front().and_then(|part| self.waiting.remove_entry(&part));
            if let Some((part, order)) = next {
                lane.under_way += 1;
                self.under_way.insert(part);
                self.turn = (disk + 1) % disks;
                return Some((disk, part, order));
            }
        }
        None
    }

    /// What was started in one lane turns out to be for another disk.
    pub(crate) fn moved(&mut self, from: usize, to: usize) {
        self.count(from, |under_way| under_way.saturating_sub(1));
        self.count(to, |under_way| under_way + 1);
    }

    /// What was started has come to its end, whichever.
    pub(crate) fn finished(&mut self, disk: usize, part: Part) {
        if self.under_way.remove(&part) {
            self.count(disk, |under_way| under_way.saturating_sub(1));
        }
    }

    /// Forgets what waits.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.lanes.iter_mut().for_each(|lane| lane.waiting.clear());
    }

    fn count(&mut self, disk: usize, change: impl FnOnce(usize) -> usize) {
        if let Some(lane) = self.lanes.get_mut(disk) {
            lane.under_way = change(lane.under_way);
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::ChunkId;
    use proptest::prelude::*;

    use super::*;

    fn part(chunk: u64) -> Part {
        Part::whole(ChunkId::from_raw(chunk))
    }

    #[test]
    fn a_disk_that_hangs_holds_up_its_own_fetches_only() {
        let mut queue = FetchQueue::new(2, 2);
        for chunk in 0..6 {
            queue.push(0, part(chunk), ()).unwrap();
            queue.push(1, part(10 + chunk), ()).unwrap();
        }
        let mut of_other = 0;
        for _ in 0..8 {
            while let Some((disk, part, ())) = queue.start() {
                // Those of disk 0 never end.
                if disk == 1 {
                    of_other += 1;
                    queue.finished(1, part);
                }
            }
        }
        assert_eq!(of_other, 6);
    }

    #[test]
    fn an_order_takes_the_place_of_one_that_waits_and_not_of_one_under_way() {
        let mut queue = FetchQueue::new(1, 1);
        queue.push(0, part(1), 1).unwrap();
        assert_eq!(queue.start(), Some((0, part(1), 1)));
        for order in [1, 2] {
            queue.push(0, part(1), order).unwrap();
            queue.push(0, part(2), order).unwrap();
        }
        queue.finished(0, part(1));
        assert_eq!(queue.start(), Some((0, part(2), 2)));
        queue.finished(0, part(2));
        assert_eq!(queue.start(), None);
        for chunk in 0..WAITING_MAX as u64 {
            queue.push(0, part(chunk), 3).unwrap();
        }
        assert_eq!(queue.push(0, part(9999), 3), Err(TooMany));
        queue.clear();
        assert_eq!(queue.start(), None);
    }

    proptest! {
        #[test]
        fn no_disk_has_more_under_way_than_it_may_and_every_order_has_its_turn(
            steps in prop::collection::vec((0u8..3, 0usize..3, 0u64..20), 1..200), limit in 1usize..4,
        ) {
            let mut queue = FetchQueue::new(3, limit);
            let mut under_way: BTreeMap<Part, usize> = BTreeMap::new();
            let mut waiting = BTreeSet::new();
            for (what, disk, chunk) in steps {
                match what {
                    0 => {
                        queue.push(disk, part(chunk), ()).unwrap();
                        if !under_way.contains_key(&part(chunk)) {
                            waiting.insert(part(chunk));
                        }
                    }
                    1 => {
                        if let Some((disk, part, ())) = queue.start() {
                            prop_assert!(waiting.remove(&part));
                            under_way.insert(part, disk);
                        }
                    }
                    _ => {
                        if let Some((part, disk)) = under_way.pop_first() {
                            queue.finished(disk, part);
                        }
                    }
                }
                for disk in 0..3 {
                    prop_assert!(under_way.values().filter(|it| **it == disk).count() <= limit);
                }
            }
            while !(waiting.is_empty() && under_way.is_empty()) {
                while let Some((part, disk)) = under_way.pop_first() {
                    queue.finished(disk, part);
                }
                while let Some((disk, part, ())) = queue.start() {
                    prop_assert!(waiting.remove(&part));
                    under_way.insert(part, disk);
                }
            }
        }
    }
}
