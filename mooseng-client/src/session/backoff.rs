//! How long to wait between tries. Pure but for the random number it is given.

use std::time::Duration;

/// Doubles from a first wait to a longest one, with jitter so that clients do not come back in step. It may stay at a
/// short wait for a while first.
#[derive(Debug, Clone)]
pub struct Backoff {
    next_us: u64,
    longest_us: u64,
    /// No wait is longer than this as long as `eager_left_us` of waiting is left.
    eager_us: u64,
    eager_left_us: u64,
}

impl Backoff {
    /// For masters among whom nobody leads: an election takes some tens or hundreds of milliseconds, and whoever comes
    /// late prolongs the stall by what it is late. After a second it is no election any more.
    #[must_use]
    pub fn election() -> Self {
        Self { next_us: 2_000, longest_us: 250_000, eager_us: 16_000, eager_left_us: 1_000_000 }
    }

    /// For a lease that is being recalled from another client: usually a few milliseconds.
    #[must_use]
    pub fn lease_held() -> Self {
        Self { next_us: 2_000, longest_us: 20_000, eager_us: 0, eager_left_us: 0 }
    }

    /// The next wait: between half of the current step and the whole of it.
    pub fn next(&mut self, random: u64) -> Duration {
        let step = self.next_us;
        let wait = step / 2 + random % (step / 2 + 1);
        self.eager_left_us = self.eager_left_us.saturating_sub(wait);
        let longest = if self.eager_left_us > 0 { self.eager_us } else { self.longest_us };
        self.next_us = (step * 2).min(longest);
        Duration::from_micros(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_jitter_stays_within_the_step() {
        let mut calm = Backoff::lease_held();
        let waits: Vec<_> = (0..8).map(|_| calm.next(0).as_micros()).collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000]);
        let mut late = Backoff::lease_held();
        for _ in 0..100 {
            assert!(late.next(u64::MAX) <= Duration::from_millis(20));
        }
    }

    #[test]
    fn during_an_election_nobody_is_late_by_more_than_one_short_wait_and_afterwards_waits_are_long() {
        for random in [0, u64::MAX] {
            let mut backoff = Backoff::election();
            let mut waited = Duration::ZERO;
            let mut tries = 0;
            while waited < Duration::from_secs(1) {
                let wait = backoff.next(random);
                assert!(wait <= Duration::from_millis(16), "{wait:?} after {waited:?}");
                waited += wait;
                tries += 1;
            }
            assert!(tries < 140, "{tries} tries in a second");
            let later: Vec<_> = (0..10).map(|_| backoff.next(random)).collect();
            assert!(later[9] >= Duration::from_millis(125), "{later:?}");
        }
    }
}
