//! How long to wait between tries. Pure but for the random number it is given.

use std::time::Duration;

/// Doubles from a first wait to a longest one, with jitter so that clients do not come back in step.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next_us: u64,
    longest_us: u64,
}

impl Backoff {
    /// For a master or chunkserver that does not answer.
    pub(crate) fn unavailable() -> Self {
        Self { next_us: 5_000, longest_us: 250_000 }
    }

    /// For a lease that is being recalled from another client: usually a few milliseconds.
    pub(crate) fn lease_held() -> Self {
        Self { next_us: 2_000, longest_us: 20_000 }
    }

    /// The next wait: between half of the current step and the whole of it.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let step = self.next_us;
        self.next_us = (step * 2).min(self.longest_us);
        Duration::from_micros(step / 2 + random % (step / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_jitter_stays_within_the_step() {
        let mut calm = Backoff::unavailable();
        let waits: Vec<_> = (0..8).map(|_| calm.next(0).as_micros()).collect();
        assert_eq!(waits, [2500, 5000, 10_000, 20_000, 40_000, 80_000, 125_000, 125_000]);
        let mut late = Backoff::lease_held();
        for _ in 0..100 {
            assert!(late.next(u64::MAX) <= Duration::from_millis(20));
        }
    }
}
