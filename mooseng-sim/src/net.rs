//! The network: how long a message takes, and whether it arrives. Masters talk in messages that may be lost, doubled
//! and overtaken; everybody else over connections, which keep the order and break as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::entropy::Rng;

/// A machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    Master(u64),
    Server(u32),
    Client(u64),
}

impl Place {
    /// A number for each, for the hash of a run.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Master(id) => id,
            Self::Server(index) => 1000 + u64::from(index),
            Self::Client(number) => 2000 + number,
        }
    }
}

/// The network's present state.
#[derive(Debug)]
pub(crate) struct Net {
    rng: Rng,
    cut: BTreeSet<(Place, Place)>,
    /// Of a thousand messages, so many are lost, and so many doubled.
    pub(crate) loss: u64,
    pub(crate) doubling: u64,
    /// And so many come far too late: behind many that were sent after them.
    pub(crate) straying: u64,
    /// The longest a message takes.
    pub(crate) slowest: Duration,
    last_arrival: BTreeMap<(Place, Place), Duration>,
}

const FASTEST: Duration = Duration::from_micros(100);
/// The longest that a message goes astray.
const STRAYS: Duration = Duration::from_secs(2);

impl Net {
    pub(crate) fn new(rng: Rng) -> Self {
        let slowest = Duration::from_millis(3);
        Self {
            rng,
            cut: BTreeSet::new(),
            loss: 0,
            doubling: 0,
            straying: 0,
            slowest,
            last_arrival: BTreeMap::new(),
        }
    }

    /// Nothing passes from `from` to `to` from now on.
    pub(crate) fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    /// Whether anybody is cut off from anybody.
    pub(crate) fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Everything is as it should be again.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
        self.doubling = 0;
        self.straying = 0;
        self.slowest = Duration::from_millis(3);
    }

    /// When copies of a message that is sent now arrive: none, one or two.
    pub(crate) fn message(&mut self, now: Duration, from: Place, to: Place) -> Vec<Duration> {
        if self.cut.contains(&(from, to)) || self.rng.chance(self.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.rng.chance(self.doubling));
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let slowest = if self.rng.chance(self.straying) { STRAYS } else { self.slowest };
            arrivals.push(now + self.rng.between(FASTEST, slowest));
        }
        arrivals
    }

    /// When bytes sent now over the connection arrive, behind all sent before; `None` if the connection breaks.
    pub(crate) fn stream(&mut self, now: Duration, from: Place, to: Place) -> Option<Duration> {
        if self.cut.contains(&(from, to)) || self.rng.chance(self.loss / 4) {
            return None;
        }
        let arrival = now + self.rng.between(FASTEST, self.slowest);
        let last = self.last_arrival.entry((from, to)).or_default();
        *last = arrival.max(*last + Duration::from_micros(1));
        Some(*last)
    }
}
