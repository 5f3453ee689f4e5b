//! A machine's clocks: none of them right, none of them wrong in the same way.

use std::time::Duration;

use mooseng_master::core::Now;
use mooseng_types::TimeNs;

use crate::entropy::Rng;

/// Clocks run at most this much too fast or too slow, in millionths. The masters' leases allow for a tenth.
const DRIFT_MAX: u64 = 40_000;
/// When the world begins, in seconds since 1970.
const EPOCH: i64 = 1_700_000_000;

/// The clocks of one machine.
#[derive(Clone, Debug)]
pub(crate) struct MachineClock {
    /// Millionths of a second that pass here in a second.
    rate: u64,
    offset: Duration,
    /// Of the wall clock only.
    wall_offset_ms: i64,
    /// What of that somebody has set it to.
    set_by_ms: i64,
}

impl MachineClock {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let rate = 1_000_000 - DRIFT_MAX + rng.below(2 * DRIFT_MAX + 1);
        Self {
            rate,
            offset: rng.ms(1, 1_000_000),
            wall_offset_ms: i64::try_from(rng.below(5000)).unwrap_or(0),
            set_by_ms: 0,
        }
    }

    /// From now on it runs far slower than any clock may.
    pub(crate) fn slow_down(&mut self, time: Duration) {
        let shown = self.now(time).mono;
        self.rate /= 20;
        self.offset += shown.saturating_sub(self.now(time).mono);
    }

    /// The wall clock is set to another time, later or earlier; the monotonic one knows nothing of it.
    pub(crate) fn jump(&mut self, ms: i64) {
        self.wall_offset_ms += ms;
        self.set_by_ms += ms;
    }

    /// Whether somebody has set the wall clock wrong.
    pub(crate) fn is_set(&self) -> bool {
        self.set_by_ms != 0
    }

    /// The wall clock shows again what it would show if nobody had touched it.
    pub(crate) fn set_right(&mut self) {
        self.wall_offset_ms -= std::mem::take(&mut self.set_by_ms);
    }

    /// What the machine's clocks show at `time` of the world.
    pub(crate) fn now(&self, time: Duration) -> Now {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / 1000 * self.rate / 1000;
        let wall = TimeNs::from_raw(TimeNs::from_timespec(EPOCH, 0).raw() + self.wall_offset_ms * 1_000_000);
        Now {
            mono: self.offset + Duration::from_micros(micros),
            wall: wall.plus_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Seconds since 1970, for tokens.
    pub(crate) fn unix_seconds(&self, time: Duration) -> u64 {
        u64::try_from(self.now(time).wall.timespec().0).unwrap_or(0)
    }
}
