//! A point in time as a value.

/// Nanoseconds since 1970-01-01 UTC; negative before it. Spans the years 1677 to 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TimeNs(i64);

const SECOND: i64 = 1_000_000_000;

impl TimeNs {
    /// The time this many nanoseconds after the epoch.
    #[must_use]
    pub const fn from_raw(raw: i64) -> Self {
        Self(raw)
    }

    /// Nanoseconds after the epoch.
    #[must_use]
    pub const fn raw(self) -> i64 {
        self.0
    }

    /// The time of a `timespec`; out-of-range seconds are clamped to the ends of the span.
    #[must_use]
    pub const fn from_timespec(seconds: i64, nanoseconds: u32) -> Self {
        Self(seconds.saturating_mul(SECOND).saturating_add(nanoseconds as i64))
    }

    /// Seconds, rounded down, and the nanoseconds above them, as in a `timespec`.
    #[must_use]
    pub const fn timespec(self) -> (i64, u32) {
        (self.0.div_euclid(SECOND), self.0.rem_euclid(SECOND) as u32)
    }

    /// This time and `ms` milliseconds more.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_epoch_keeps_its_nanoseconds() {
        assert_eq!(TimeNs::from_raw(-1).timespec(), (-1, 999_999_999));
        assert_eq!(TimeNs::from_timespec(-1, 999_999_999), TimeNs::from_raw(-1));
        assert_eq!(TimeNs::from_timespec(i64::MAX, 0), TimeNs::from_raw(i64::MAX));
    }
}
