//! What has passed a door, as of a moment: numbers to show, and to send to others who show them.

use std::time::Duration;

use crate::rpc;

use super::BUCKETS;

/// What has passed a door since its process started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// By kind, of those of which something has come.
    pub requests: Vec<Requests>,
    /// Connections that have ended without a proof of their role.
    pub strangers: u64,
    /// Requests from a role that must not send them.
    pub forbidden: u64,
}

impl Snapshot {
    /// The requests of one kind.
    #[must_use]
    pub fn of(&self, kind: u16) -> Option<&Requests> {
        self.requests.iter().find(|row| row.kind == kind)
    }

    /// How long requests of one kind took that have left since an earlier snapshot, on average; `None` if none has. Of a process
    /// that has started anew meanwhile: since then.
    #[must_use]
    pub fn mean_since(&self, earlier: Option<&Self>, kind: u16) -> Option<Duration> {
        let now = self.of(kind)?;
        let before =
            earlier.and_then(|earlier| earlier.of(kind)).filter(|before| before.left() <= now.left());
        let (left, total_us) = before.map_or((0, 0), |before| (before.left(), before.total_us));
        let micros = now.total_us.saturating_sub(total_us).checked_div(now.left() - left)?;
        Some(Duration::from_micros(micros))
    }
}

/// The requests of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Requests {
    /// The number of the kind; 0 for all that are not known.
    pub kind: u16,
    /// That have come; those that are not answered yet included.
    pub requests: u64,
    /// The answer was a final no.
    pub refused: u64,
    /// The answer was that it cannot be done now, or here.
    pub failed: u64,
    /// The connection ended before the answer.
    pub lost: u64,
    /// From the arrival to the answer, all together.
    pub total_us: u64,
    /// The longest.
    pub max_us: u64,
    /// How many took less than 2^i µs and are in no earlier bucket; the last one has all others.
    pub below_us: Vec<u64>,
}

impl Requests {
    /// The name of the kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        rpc::name(self.kind)
    }

    /// Those that were not done.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.refused.saturating_add(self.failed).saturating_add(self.lost)
    }

    /// Those that have not left yet.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.requests.saturating_sub(self.left())
    }

    /// The time within which so many in a hundred have left: the upper end of the bucket in which the last of them is,
    /// so never too little, and less than twice as much up to 4 s. 0 if none has left.
    #[must_use]
    pub fn percentile_us(&self, percent: u8) -> u64 {
        let left = u128::from(self.left());
        let rank = (left * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.below_us.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank {
                let end = if bucket + 1 < BUCKETS { 1 << bucket } else { u64::MAX };
                return self.max_us.min(end);
            }
        }
        0
    }

    fn left(&self) -> u64 {
        self.below_us.iter().copied().fold(0, u64::saturating_add)
    }
}
