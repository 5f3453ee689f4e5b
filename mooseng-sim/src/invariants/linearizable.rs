//! *What all clients see of an object fits one order, and an answer takes effect between request and reply* (Herlihy
//! and Wing, 1990). Nothing another client has seen is ever taken back, and no deposed leader answers from memory. The
//! search is the one of Wing and Gong, with a memory of where it has been (Lowe, 2017).
//!
//! What was never answered may have taken effect at any time since it was sent first, or not at all. A request that was
//! sent several times under one number is one operation.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

/// Where the search gives up: histories are kept so short that it never comes there.
const STATES_MAX: usize = 1_000_000;

/// Something that clients share, as simple as it can be said.
pub(crate) trait Object: Debug {
    /// What is asked.
    type Op: Clone + Debug;
    /// What is answered.
    type Answer: Clone + Debug;
    /// What there is between two operations; the default is there at first.
    type State: Clone + Ord + Default + Debug;

    /// Whether the operation changes nothing, so that it says nothing where it was not answered.
    fn only_looks(op: &Self::Op) -> bool;

    /// The state after an operation; `None` if it cannot have been answered so in this state. Without an answer: the
    /// state after it took effect, `None` where it has no effect.
    fn step(state: &Self::State, op: &Self::Op, answer: Option<&Self::Answer>) -> Option<Self::State>;
}

/// One operation.
#[derive(Debug)]
pub(crate) struct Call<O: Object> {
    /// When it was sent first.
    pub(crate) invoked: Duration,
    pub(crate) op: O::Op,
    /// When it was answered, and what; `None` if it never was.
    pub(crate) answered: Option<(Duration, O::Answer)>,
}

/// What is wrong with the history of one object, given in the order of the invocations.
pub(crate) fn linearizable<O: Object>(calls: &[Call<O>]) -> Option<String> {
    let calls: Vec<_> =
        calls.iter().filter(|call| call.answered.is_some() || !O::only_looks(&call.op)).collect();
    let mut search = Search::<O> { calls: &calls, seen: BTreeSet::new() };
    match search.fits() {
        Some(true) => None,
        Some(false) => Some(format!("linearizable: no order fits {calls:?}")),
        None => Some(format!("linearizable: no end was found for {} operations", calls.len())),
    }
}

/// Which calls have taken effect, a bit for each.
type Done = Vec<u64>;

struct Search<'a, O: Object> {
    calls: &'a [&'a Call<O>],
    seen: BTreeSet<(Done, O::State)>,
}

fn is_done(done: &Done, at: usize) -> bool {
    done.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
}

impl<O: Object> Search<'_, O> {
    /// Whether some order fits; `None` if that took too long to find out.
    fn fits(&mut self) -> Option<bool> {
        let mut left = vec![(vec![0; self.calls.len().div_ceil(64)], O::State::default())];
        while let Some((done, state)) = left.pop() {
            let open = self.calls.iter().enumerate().filter(|(at, _)| !is_done(&done, *at));
            let answers = open.filter_map(|(_, call)| call.answered.as_ref().map(|(time, _)| *time));
            let Some(first_answer) = answers.min() else { return Some(true) };
            if !self.seen.insert((done.clone(), state.clone())) {
                continue;
            }
            if self.seen.len() > STATES_MAX {
                return None;
            }
            for (at, call) in self.calls.iter().enumerate() {
                if call.invoked > first_answer {
                    break;
                }
                let answer = call.answered.as_ref().map(|(_, answer)| answer);
                if !is_done(&done, at)
                    && let Some(after) = O::step(&state, &call.op, answer)
                {
                    let mut with = done.clone();
                    with[at / 64] |= 1 << (at % 64);
                    left.push((with, after));
                }
            }
        }
        Some(false)
    }
}
