//! A limit of bytes per second, as a value: whoever has moved bytes is told how long to rest. What was not used is saved up for a
//! second, and no more.

use std::time::Duration;

/// Bytes that may be moved.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// 0: without a limit.
    bytes_per_s: u64,
    /// What is moved now has to wait for what was moved before up to here.
    free_at: Duration,
}

impl TokenBucket {
    /// So many bytes per second; 0 for any number.
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, free_at: Duration::ZERO }
    }

    /// Notes that bytes were moved; how long to rest before more are.
    pub(crate) fn spend(&mut self, now: Duration, bytes: u64) -> Duration {
        if self.bytes_per_s == 0 {
            return Duration::ZERO;
        }
        let saved_from = now.saturating_sub(Duration::from_secs(1));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.free_at = self.free_at.max(saved_from).saturating_add(cost);
        self.free_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_saved_in_a_second_is_spent_at_once_and_the_rest_is_waited_for() {
        let mut bucket = TokenBucket::new(1000);
        let at = Duration::from_secs(100);
        assert_eq!(bucket.spend(at, 1000), Duration::ZERO);
        assert_eq!(bucket.spend(at, 500), Duration::from_millis(500));
        assert_eq!(bucket.spend(at, 500), Duration::from_secs(1), "the next one waits for both");
        assert_eq!(bucket.spend(at * 2, 1000), Duration::ZERO);
        assert_eq!(TokenBucket::new(0).spend(at, u64::MAX), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn whoever_rests_as_told_stays_below_the_limit(
            rate in 1u64..1 << 30, moves in prop::collection::vec((0u64..1 << 21, 0u64..2000), 1..100),
        ) {
            let mut bucket = TokenBucket::new(rate);
            let begun = Duration::from_secs(10);
            let (mut now, mut moved) = (begun, 0u64);
            for (bytes, pause_ms) in moves {
                now += bucket.spend(now, bytes) + Duration::from_millis(pause_ms);
                moved += bytes;
                // What was saved up in the second before, and what a piece may be too many.
                let allowed = rate as f64 * ((now - begun).as_secs_f64() + 1.0) + 1.0;
                prop_assert!(moved as f64 <= allowed * 1.000_001, "{moved} of {allowed}");
            }
        }
    }
}
