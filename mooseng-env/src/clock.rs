//! Time: a monotonic clock for time-outs and leases, a wall clock for what people see.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mooseng_types::TimeNs;

/// Where time comes from.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Time since some fixed moment; never goes back. Stands still while the machine is suspended.
    fn monotonic(&self) -> Duration;

    /// The wall clock; may jump either way.
    fn wall(&self) -> TimeNs;

    /// Waits. Only for back-off between tries; never to wait for something that could be waited for itself.
    fn sleep(&self, duration: Duration);
}

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> TimeNs {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => TimeNs::from_timespec(
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                since.subsec_nanos(),
            ),
            Err(before) => {
                let before = before.duration();
                TimeNs::from_raw(-i64::try_from(before.as_nanos()).unwrap_or(i64::MAX))
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
