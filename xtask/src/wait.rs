//! Waiting for other processes: with a limit, and ending at once when somebody presses ctrl-c.
//!
//! Another process tells nothing that one could block on, so this asks again every few milliseconds. All polling of this
//! program is in this file.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const POLL: Duration = Duration::from_millis(20);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on SIGINT, SIGTERM and SIGHUP end every wait with an error, so that guards run and clean up.
pub(crate) fn catch_signals() -> Result<()> {
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("register a signal")?;
    }
    Ok(())
}

pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Fails once a signal has come: for loops that do not wait.
pub(crate) fn check_interrupt() -> Result<()> {
    if interrupted() { bail!("interrupted") } else { Ok(()) }
}

/// Asks `done` until it says yes; an error after `limit`, or when a signal comes.
pub(crate) fn until(limit: Duration, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !done()? {
        check_interrupt()?;
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        pause(POLL);
    }
    Ok(())
}

/// The same for clean-up, which goes on after a signal; says whether it was done in time.
pub(crate) fn quietly(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        pause(POLL);
    }
    true
}

/// Lets the load run for a while: the one thing here that is about time itself.
pub(crate) fn let_run(time: Duration) -> Result<()> {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        check_interrupt()?;
        pause(POLL.min(deadline.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "other processes give nothing to block on; every caller has a limit"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The lock of a mutex, also after a thread of the load panicked while it held it.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_answer_or_with_its_limit() {
        let mut asked = 0;
        until(Duration::from_secs(5), "the third answer", || {
            asked += 1;
            Ok(asked == 3)
        })
        .unwrap();
        let error = until(Duration::ZERO, "nothing", || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
    }
}
