//! What the masters recall, from the word that it has come until it is given back: what is acknowledged, what is served next.
//! Pure.
//!
//! A recall that was acknowledged is not forgotten here: the masters count on it. Of one inode one recall at a time is served,
//! in the order in which they came; those of different inodes do not wait for each other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mooseng_protocol::recall::{Recall, Recalled};
use mooseng_types::InodeId;

/// Recalls that have come and are not served yet. One more is not acknowledged, so the masters send it again.
const RECALLS_MAX: usize = 1024;
/// What could not be given back yet is looked at again after this time.
const PUT_OFF: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Waiting {
    recall: Recall,
    not_before: Duration,
}

/// The recalls of a client.
#[derive(Debug, Default)]
pub struct Recalls {
    /// In the order in which they came; none twice of the same.
    waiting: VecDeque<Waiting>,
    serving: BTreeMap<InodeId, Recall>,
}

impl Recalls {
    /// A recall has come, perhaps not for the first time. Whether it is to be acknowledged: it will be served, or is.
    pub fn take_in(&mut self, recall: Recall) -> bool {
        if self.serving.get(&recall.what.inode()) == Some(&recall) {
            return true;
        }
        // Another number for the same means that it was given back meanwhile, and taken again: what is being served may be
        // the one before.
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.recall.what == recall.what) {
            waiting.recall = recall;
            return true;
        }
        let room = self.waiting.len() + self.serving.len() < RECALLS_MAX;
        if room {
            self.waiting.push_back(Waiting { recall, not_before: Duration::ZERO });
        }
        room
    }

    /// What is to be served next. Whoever takes it says [`served`](Self::served) or [`put_off`](Self::put_off) afterwards.
    pub fn next(&mut self, now: Duration) -> Option<Recalled> {
        let may = |waiting: &Waiting| waiting.not_before <= now && self.is_free(waiting);
        let at = self.waiting.iter().position(may)?;
        let recall = self.waiting.remove(at)?.recall;
        self.serving.insert(recall.what.inode(), recall);
        Some(recall.what)
    }

    /// When something can be served, if nothing comes or is served before.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.waiting.iter().filter(|waiting| self.is_free(waiting)).map(|waiting| waiting.not_before).min()
    }

    fn is_free(&self, waiting: &Waiting) -> bool {
        !self.serving.contains_key(&waiting.recall.what.inode())
    }

    /// It was given back, or there is nothing to give back, or it failed: then the masters will ask again.
    pub fn served(&mut self, what: Recalled) {
        self.serving.remove(&what.inode());
    }

    /// It cannot be given back yet. It waits for a while, and others pass it.
    pub fn put_off(&mut self, what: Recalled, now: Duration) {
        let Some(recall) = self.serving.remove(&what.inode()) else { return };
        if !self.waiting.iter().any(|waiting| waiting.recall.what == what) {
            self.waiting.push_back(Waiting { recall, not_before: now + PUT_OFF });
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::{ChunkIndex, SessionId};
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(1);

    fn chunk(inode: u64, index: u32) -> Recalled {
        Recalled::Chunk { inode: InodeId::from_raw(inode), index: ChunkIndex::from_raw(index) }
    }

    fn recall(number: u64, what: Recalled) -> Recall {
        Recall { session: SessionId::from_raw(1), number, what }
    }

    #[test]
    fn what_is_recalled_again_is_acknowledged_and_served_once() {
        let mut recalls = Recalls::default();
        let first = recall(1, chunk(1, 0));
        assert!(recalls.take_in(first) && recalls.take_in(first));
        assert_eq!(recalls.next(START), Some(first.what));
        assert!(recalls.take_in(first), "it is being served");
        recalls.served(first.what);
        assert_eq!(recalls.next(START), None);
    }

    #[test]
    fn a_new_recall_of_what_is_being_served_is_served_after_it() {
        let mut recalls = Recalls::default();
        assert!(recalls.take_in(recall(1, chunk(1, 0))));
        recalls.next(START);
        assert!(recalls.take_in(recall(2, chunk(1, 0))));
        assert_eq!(recalls.next(START), None);
        recalls.served(chunk(1, 0));
        assert_eq!(recalls.next(START), Some(chunk(1, 0)));
    }

    #[test]
    fn what_cannot_be_given_back_yet_is_not_forgotten_and_keeps_nobody_waiting() {
        let mut recalls = Recalls::default();
        assert!(recalls.take_in(recall(1, chunk(1, 0))) && recalls.take_in(recall(2, chunk(1, 1))));
        recalls.next(START);
        recalls.put_off(chunk(1, 0), START);
        assert_eq!(recalls.next(START), Some(chunk(1, 1)));
        recalls.served(chunk(1, 1));
        assert_eq!((recalls.next(START), recalls.due()), (None, Some(START + PUT_OFF)));
        assert_eq!(recalls.next(START + PUT_OFF), Some(chunk(1, 0)));
    }

    #[test]
    fn a_recall_beyond_the_bound_is_not_acknowledged() {
        let mut recalls = Recalls::default();
        let mut take_in = |inode| recalls.take_in(recall(inode, chunk(inode, 0)));
        assert!((0..RECALLS_MAX as u64).all(&mut take_in));
        assert!(!take_in(RECALLS_MAX as u64));
        recalls.next(START);
        assert!(!recalls.take_in(recall(5000, chunk(5000, 0))), "what is being served may be put off");
    }

    proptest! {
        #[test]
        fn recalls_of_an_inode_are_served_one_by_one_in_the_order_in_which_they_came(
            steps in proptest::collection::vec((0u8..6, 1u64..4, 0u32..3), 1..100)
        ) {
            let mut recalls = Recalls::default();
            let (mut now, mut number) = (START, 0);
            // Naive: what is owed, and from when on; and what is being served, under which number.
            let mut owed: Vec<(Recalled, Duration)> = Vec::new();
            let mut serving: Vec<Recall> = Vec::new();
            for (step, inode, index) in steps {
                let what = chunk(inode, index);
                match step {
                    0..=1 => {
                        // Sent again under the last number, or new.
                        number += u64::from(step);
                        let came = recall(number, what);
                        prop_assert!(recalls.take_in(came));
                        if !serving.contains(&came) && !owed.iter().any(|(it, _)| *it == what) {
                            owed.push((what, Duration::ZERO));
                        }
                    }
                    2..=3 => {
                        let free = |it: &Recalled| !serving.iter().any(|other| other.what.inode() == it.inode());
                        let due = owed.iter().filter(|(it, _)| free(it)).map(|(_, from)| *from).min();
                        prop_assert_eq!(recalls.due(), due);
                        let first = owed.iter().position(|(it, from)| *from <= now && free(it));
                        let expected = first.map(|at| owed.remove(at).0);
                        prop_assert_eq!(recalls.next(now), expected);
                        serving.extend(recalls.serving.values().filter(|it| Some(it.what) == expected));
                    }
                    4 => now += PUT_OFF / 2,
                    _ => {
                        if let Some(done) = serving.pop() {
                            if index == 0 {
                                recalls.put_off(done.what, now);
                                if !owed.iter().any(|(it, _)| *it == done.what) {
                                    owed.push((done.what, now + PUT_OFF));
                                }
                            } else {
                                recalls.served(done.what);
                            }
                        }
                    }
                }
            }
        }
    }
}
