//! *What all clients see of a shared name fits one order, and an answer takes effect between request and reply*
//! (Herlihy and Wing, 1990). Nothing another client has seen is ever taken back, and no deposed leader answers from
//! memory. The search is the one of Wing and Gong, with a memory of where it has been (Lowe, 2017).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::oracle::{SharedCall, SharedOp};

/// What a shared name leads to; `Some(0)`: to a file whose maker never learned its inode.
type State = Option<u64>;

/// What is wrong with the history of one name.
#[must_use]
pub fn linearizable(calls: &[SharedCall]) -> Option<String> {
    // What was only looked at and never answered says nothing.
    let calls: Vec<_> =
        calls.iter().filter(|c| c.answered.is_some() || c.op != SharedOp::Lookup).copied().collect();
    let mut search = Search { calls: &calls, seen: BTreeSet::new() };
    (!search.fits(vec![false; calls.len()], None)).then(|| format!("linearizable: no order fits {calls:?}"))
}

struct Search<'a> {
    calls: &'a [SharedCall],
    seen: BTreeSet<(Vec<bool>, State)>,
}

impl Search<'_> {
    fn fits(&mut self, done: Vec<bool>, state: State) -> bool {
        let mut left = vec![(done, state)];
        while let Some((done, state)) = left.pop() {
            let open = || self.calls.iter().zip(&done).filter(|(_, done)| !**done).map(|(call, _)| call);
            if open().all(|call| call.answered.is_none()) {
                return true;
            }
            if !self.seen.insert((done.clone(), state)) {
                continue;
            }
            let first_answer = open().filter_map(|call| call.answered).min().unwrap_or(Duration::MAX);
            for (at, call) in self.calls.iter().enumerate() {
                if done[at] || call.invoked > first_answer {
                    continue;
                }
                if let Some(after) = step(state, call) {
                    let mut with = done.clone();
                    with[at] = true;
                    left.push((with, after));
                }
            }
        }
        false
    }
}

/// The state after `call`; `None` if it cannot have been answered so in this one.
fn step(state: State, call: &SharedCall) -> Option<State> {
    let unanswered = call.answered.is_none();
    match (call.op, call.result, state) {
        (SharedOp::Create, _, None) if unanswered => Some(Some(0)),
        (SharedOp::Unlink, _, Some(_)) if unanswered => Some(None),
        (SharedOp::Create, Some(inode), None) => Some(Some(inode)),
        (SharedOp::Create, None, Some(_)) => Some(state),
        (SharedOp::Unlink, Some(_), Some(_)) => Some(None),
        (SharedOp::Unlink | SharedOp::Lookup, None, None) => Some(None),
        (SharedOp::Lookup, Some(seen), Some(inode)) if inode == seen || inode == 0 => Some(Some(seen)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(span: (u64, u64), op: SharedOp, result: Option<u64>) -> SharedCall {
        let ms = Duration::from_millis;
        let answered = (span.1 > 0).then(|| ms(span.1));
        SharedCall { invoked: ms(span.0), answered, op, result }
    }

    #[test]
    fn a_stale_look_fits_no_order_and_a_concurrent_one_does() {
        let create = call((1, 5), SharedOp::Create, Some(7));
        assert!(linearizable(&[create, call((2, 3), SharedOp::Lookup, None)]).is_none());
        assert!(linearizable(&[create, call((6, 7), SharedOp::Lookup, None)]).is_some());
        assert!(linearizable(&[create, call((6, 7), SharedOp::Lookup, Some(8))]).is_some());
    }

    #[test]
    fn what_was_never_answered_may_have_happened_at_any_time_or_not_at_all() {
        let create = call((1, 2), SharedOp::Create, Some(7));
        let unlink = call((3, 0), SharedOp::Unlink, None);
        let there = call((4, 5), SharedOp::Lookup, Some(7));
        let gone = call((6, 7), SharedOp::Lookup, None);
        assert!(linearizable(&[create, unlink, there]).is_none());
        assert!(linearizable(&[create, unlink, there, gone]).is_none());
        let back = call((8, 9), SharedOp::Lookup, Some(7));
        assert!(linearizable(&[create, unlink, gone, back]).is_some());
    }

    #[test]
    fn a_name_is_made_once() {
        let first = call((1, 2), SharedOp::Create, Some(7));
        let second = call((3, 4), SharedOp::Create, Some(8));
        assert!(linearizable(&[first, second]).is_some());
        let unlink = call((1, 9), SharedOp::Unlink, Some(0));
        assert!(linearizable(&[first, unlink, second]).is_none());
    }
}
