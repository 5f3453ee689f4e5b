//! A door: where requests enter a process and their answers leave. It counts and times them by kind, so that what handles
//! a request need not know of it.
//!
//! Each kind has a row of plain atomics. A request that passes costs a few additions, no lock and no allocation; readers
//! see each number as it was a moment ago, not all of them as of the same moment. Time is an argument: the duration since
//! any fixed moment, the same one for `enter` and `leave`.

mod message;
mod refused;
mod snapshot;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::pb;
use crate::rpc::KINDS;
use crate::status::CallError;

pub use self::refused::Refused;
pub use self::snapshot::{Requests, Snapshot};

/// Buckets of the histogram. The last one begins at 2^22 µs, about 4 s.
pub const BUCKETS: usize = 24;
/// One for each kind, behind the one for all that are not known.
const ROWS: usize = KINDS.len() + 1;
/// Above every kind.
const KIND_END: usize = kind_end();
/// The row of each kind; 0 for those that are not known.
static ROW_OF: [u8; KIND_END] = row_of();

/// Counts requests by kind.
#[derive(Debug)]
pub struct Door {
    rows: [Row; ROWS],
    refused: Refused,
}

/// A request that has entered. To be handed to [`Door::leave`] once; until then it counts as under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Entered {
    row: u8,
    at: Duration,
}

/// How a request has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The answer was a final no.
    Refused,
    /// The answer was that it cannot be done now, or here.
    Failed,
    /// The connection ended before the answer.
    Lost,
}

impl Outcome {
    /// Of a request with this answer.
    #[must_use]
    pub fn of<T>(answer: &Result<T, CallError>) -> Self {
        match answer {
            Ok(_) => Self::Done,
            Err(error) => Self::of_error(error),
        }
    }

    /// Of a request that was answered with this error.
    #[must_use]
    pub fn of_error(error: &CallError) -> Self {
        match error {
            CallError::Refused(_) | CallError::Rejected { .. } | CallError::Forbidden { .. } => Self::Refused,
            CallError::NotLeader { .. } | CallError::Unavailable { .. } | CallError::Chunk { .. } => {
                Self::Failed
            }
            CallError::Transport(_) => Self::Lost,
        }
    }

    /// Of a request to which this is the answer.
    #[must_use]
    pub fn of_reply(error: &pb::ErrorReply) -> Self {
        match error.failure() {
            pb::Failure::Refusal | pb::Failure::Rejected | pb::Failure::Forbidden => Self::Refused,
            pb::Failure::NotLeader | pb::Failure::Unavailable | pb::Failure::Chunk | pb::Failure::Unknown => {
                Self::Failed
            }
        }
    }
}

/// What is counted of one kind. Threads that serve different kinds share no cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Row {
    requests: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    total_ns: AtomicU64,
    longest_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Door {
    fn default() -> Self {
        Self { rows: std::array::from_fn(|_| Row::default()), refused: Refused::default() }
    }
}

impl Door {
    /// A request of this kind has come.
    pub fn enter(&self, kind: u16, now: Duration) -> Entered {
        let row = ROW_OF.get(usize::from(kind)).copied().unwrap_or(0);
        self.row(row).requests.fetch_add(1, Relaxed);
        Entered { row, at: now }
    }

    /// Its answer leaves, or nobody is there to take it.
    pub fn leave(&self, entered: Entered, outcome: Outcome, now: Duration) {
        let row = self.row(entered.row);
        let ns = u64::try_from(now.saturating_sub(entered.at).as_nanos()).unwrap_or(u64::MAX);
        row.total_ns.fetch_add(ns, Relaxed);
        // Nearly always it is not: looking first spares the others the line.
        if ns > row.longest_ns.load(Relaxed) {
            row.longest_ns.fetch_max(ns, Relaxed);
        }
        if let Some(bucket) = row.buckets.get(bucket_of(ns / 1000)) {
            bucket.fetch_add(1, Relaxed);
        }
        match outcome {
            Outcome::Done => {}
            Outcome::Refused => drop(row.refused.fetch_add(1, Relaxed)),
            Outcome::Failed => drop(row.failed.fetch_add(1, Relaxed)),
            Outcome::Lost => drop(row.lost.fetch_add(1, Relaxed)),
        }
    }

    /// Where strangers and requests of wrong roles are counted.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// What has passed so far, without the kinds of which nothing has come.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let kinds = std::iter::once(0).chain(KINDS.iter().copied());
        let rows = kinds.zip(&self.rows).map(|(kind, row)| row.read(kind));
        Snapshot {
            requests: rows.filter(|row| row.requests > 0).collect(),
            strangers: self.refused.strangers(),
            forbidden: self.refused.requests(),
        }
    }

    fn row(&self, row: u8) -> &Row {
        // Never out of range: rows come from `ROW_OF` only.
        self.rows.get(usize::from(row)).unwrap_or(&self.rows[0])
    }
}

impl Row {
    fn read(&self, kind: u16) -> Requests {
        let load = |number: &AtomicU64| number.load(Relaxed);
        // What has left is read before what has come, so that no more leave than have come.
        let below_us: Vec<u64> = self.buckets.iter().map(load).collect();
        Requests {
            kind,
            refused: load(&self.refused),
            failed: load(&self.failed),
            lost: load(&self.lost),
            total_us: load(&self.total_ns) / 1000,
            max_us: load(&self.longest_ns) / 1000,
            requests: load(&self.requests),
            below_us,
        }
    }
}

/// The bucket of a time: bucket `i` has those below 2^i µs that no earlier one has, the last one all others.
fn bucket_of(us: u64) -> usize {
    ((u64::BITS - us.leading_zeros()) as usize).min(BUCKETS - 1)
}

const fn kind_end() -> usize {
    let (mut end, mut i) = (0, 0);
    while i < KINDS.len() {
        if KINDS[i] as usize >= end {
            end = KINDS[i] as usize + 1;
        }
        i += 1;
    }
    end
}

const fn row_of() -> [u8; KIND_END] {
    const { assert!(ROWS <= 256 && KIND_END <= 1 << 12, "kinds are few and dense: the table is small") };
    let (mut rows, mut i) = ([0; KIND_END], 0);
    while i < KINDS.len() {
        rows[KINDS[i] as usize] = (i + 1) as u8;
        i += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mooseng_types::FsError;
    use proptest::prelude::*;

    use super::*;
    use crate::principal::Role;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn each_kind_has_a_row_of_its_own_and_those_that_are_not_known_share_one() {
        let door = Door::default();
        for kind in KINDS.iter().chain(&[0, 3, 0x0182, 0x7fff, u16::MAX]) {
            door.leave(door.enter(*kind, us(10)), Outcome::Done, us(12));
        }
        let counts: Vec<_> = door.snapshot().requests.iter().map(|row| (row.kind, row.requests)).collect();
        let expected: Vec<_> = std::iter::once((0, 5)).chain(KINDS.iter().map(|kind| (*kind, 1))).collect();
        assert_eq!(counts, expected);
    }

    #[test]
    fn the_mean_is_of_those_that_have_left_since() {
        let door = Door::default();
        let pass = |took: u64| door.leave(door.enter(0x0404, us(0)), Outcome::Done, us(took));
        assert_eq!(door.snapshot().mean_since(None, 0x0404), None);
        pass(100);
        let earlier = door.snapshot();
        assert_eq!(earlier.mean_since(None, 0x0404), Some(us(100)));
        assert_eq!(earlier.mean_since(Some(&earlier), 0x0404), None);
        pass(10);
        pass(30);
        assert_eq!(door.snapshot().mean_since(Some(&earlier), 0x0404), Some(us(20)));
        assert_eq!(earlier.mean_since(Some(&door.snapshot()), 0x0404), Some(us(100)), "it has started anew");
    }

    #[test]
    fn what_has_not_left_is_under_way_and_a_clock_that_goes_back_counts_as_no_time() {
        let door = Door::default();
        let (first, _second) = (door.enter(0x0107, us(100)), door.enter(0x0107, us(100)));
        door.leave(first, Outcome::Lost, us(40));
        let row = &door.snapshot().requests[0];
        assert_eq!((row.requests, row.under_way(), row.errors()), (2, 1, 1));
        assert_eq!((row.total_us, row.max_us), (0, 0));
        door.refused().stranger(&"peer", &"why");
        assert_eq!((door.snapshot().strangers, door.snapshot().forbidden), (1, 0));
    }

    #[test]
    fn an_error_counts_the_same_before_and_behind_the_wire() {
        let errors = [
            (CallError::Refused(FsError::NotFound), Outcome::Refused),
            (CallError::Rejected { message: String::new() }, Outcome::Refused),
            (CallError::Forbidden { role: Role::Client, kind: 0x0504 }, Outcome::Refused),
            (CallError::NotLeader { leader: None }, Outcome::Failed),
            (CallError::Unavailable { message: String::new() }, Outcome::Failed),
        ];
        for (error, outcome) in errors {
            assert_eq!(Outcome::of_reply(&error.to_reply()), outcome, "{error}");
            assert_eq!(Outcome::of::<()>(&Err(error)), outcome);
        }
        assert_eq!(Outcome::of(&Ok(())), Outcome::Done);
    }

    #[test]
    fn threads_lose_nothing() {
        const THREADS: u64 = 4;
        const EACH: u64 = 20_000;
        let door = Door::default();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let door = &door;
                scope.spawn(move || {
                    for i in 0..EACH {
                        let entered = door.enter([0x0107, 0x0404][(i % 2) as usize], us(i));
                        let outcome = if i % 4 < 2 { Outcome::Done } else { Outcome::Failed };
                        door.leave(entered, outcome, us(i + thread + 1));
                    }
                });
            }
        });
        for row in door.snapshot().requests {
            assert_eq!((row.requests, row.under_way()), (THREADS * EACH / 2, 0));
            assert_eq!((row.failed, row.refused + row.lost), (THREADS * EACH / 4, 0));
            assert_eq!((row.total_us, row.max_us), ((1 + 2 + 3 + 4) * EACH / 2, THREADS));
        }
    }

    /// What a request costs at the door. Run it with
    /// `cargo test --release -p mooseng-protocol door -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn a_request_costs_less_than_100_ns() {
        const PASSES: u32 = 20_000_000;
        let (door, begun) = (Door::default(), std::time::Instant::now());
        for i in 0..PASSES {
            let entered = door.enter(std::hint::black_box(0x0107), us(u64::from(i)));
            door.leave(entered, Outcome::Done, std::hint::black_box(us(u64::from(i) + 300)));
        }
        let each = begun.elapsed() / PASSES;
        let begun = std::time::Instant::now();
        for _ in 0..PASSES {
            let entered = door.enter(std::hint::black_box(0x0107), begun.elapsed());
            door.leave(entered, Outcome::Done, begun.elapsed());
        }
        let timed = begun.elapsed() / PASSES;
        println!("enter and leave: {each:?}; with two looks at the clock: {timed:?}");
        assert!(each < Duration::from_nanos(100), "{each:?}");
    }

    #[derive(Debug, Default)]
    struct Model {
        times: Vec<u64>,
        errors: [u64; 4],
    }

    proptest! {
        #[test]
        fn counts_and_percentiles_are_those_of_a_list_of_all_requests(
            passed in prop::collection::vec((0usize..4, 0usize..4, 0u64..u64::MAX / 1000, 0u32..64), 1..200),
        ) {
            let (door, mut models) = (Door::default(), BTreeMap::<u16, Model>::new());
            let outcomes = [Outcome::Done, Outcome::Refused, Outcome::Failed, Outcome::Lost];
            for (kind, outcome, time, shift) in passed {
                let (kind, time) = ([0, 0x0104, 0x0107, 0x0506][kind], time >> shift >> 14);
                door.leave(door.enter(kind, us(7)), outcomes[outcome], us(7 + time));
                let model = models.entry(kind).or_default();
                model.times.push(time);
                model.errors[outcome] += 1;
            }
            let seen = door.snapshot();
            prop_assert_eq!(seen.requests.len(), models.len());
            for (row, (kind, mut model)) in seen.requests.iter().zip(models) {
                model.times.sort_unstable();
                prop_assert_eq!(row.kind, kind);
                prop_assert_eq!(&[row.refused, row.failed, row.lost][..], &model.errors[1..]);
                prop_assert_eq!(row.errors(), model.errors[1..].iter().sum::<u64>());
                prop_assert_eq!(row.requests, model.times.len() as u64);
                prop_assert_eq!(row.total_us, model.times.iter().sum::<u64>());
                prop_assert_eq!(Some(&row.max_us), model.times.last());
                for percent in [0u8, 1, 50, 90, 99, 100] {
                    let rank = (model.times.len() * usize::from(percent)).div_ceil(100).max(1);
                    let (exact, told) = (model.times[rank - 1], row.percentile_us(percent));
                    // Never too little; and less than twice as much where buckets are narrow.
                    prop_assert!(told >= exact && told <= row.max_us, "{percent}: {exact}, {told}");
                    prop_assert!(exact >= 1 << (BUCKETS - 2) || told <= (2 * exact).max(1));
                }
            }
        }
    }
}
