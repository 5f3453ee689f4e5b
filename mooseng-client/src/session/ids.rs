//! Numbers the requests of a session and knows which are still unanswered. Pure.

use std::collections::BTreeSet;

/// The numbers of one session.
#[derive(Debug, Default)]
pub struct RequestIds {
    last: u64,
    in_flight: BTreeSet<u64>,
}

impl RequestIds {
    /// A number for a new request, rising from 1.
    pub fn begin(&mut self) -> u64 {
        self.last += 1;
        self.in_flight.insert(self.last);
        self.last
    }

    /// The lowest number that is still unanswered: the masters may forget the answers to all below it. Never above a
    /// number that is in flight, and so never above the one that is being sent.
    #[must_use]
    pub fn acked_below(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(self.last + 1)
    }

    /// The answer to `seq` has arrived, or nobody waits for it any more.
    pub fn end(&mut self, seq: u64) {
        self.in_flight.remove(&seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_unanswered_request_holds_back_the_acknowledgement() {
        let mut ids = RequestIds::default();
        let (first, second, third) = (ids.begin(), ids.begin(), ids.begin());
        assert_eq!((first, second, third), (1, 2, 3));
        ids.end(second);
        ids.end(third);
        assert_eq!(ids.acked_below(), 1);
        ids.end(first);
        assert_eq!(ids.acked_below(), 4);
    }

    proptest! {
        #[test]
        fn nothing_unanswered_is_ever_acknowledged(steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..100)) {
            let mut ids = RequestIds::default();
            let mut open = Vec::new();
            let mut acked = 0;
            for (begin, which) in steps {
                if begin || open.is_empty() {
                    open.push(ids.begin());
                } else {
                    ids.end(open.swap_remove(which.index(open.len())));
                }
                let now = ids.acked_below();
                prop_assert!(open.iter().all(|seq| *seq >= now));
                prop_assert!(now >= acked);
                acked = now;
            }
        }
    }
}
