//! Errors of writing in the background: kept until a sync or a close has carried them to the programs that wrote.
//!
//! Each open file remembers how many errors it has been told, once for `write` and once for `fsync` and `close`, so that an
//! error told by a `write` is told by the next `fsync` as well. A file that is opened later begins with what no sync and no
//! close has carried, as the kernel's `errseq_t` has it.

use std::time::Duration;

use crate::ClientError;

/// Losses of one file are logged at most this often, with a count.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The errors of one file.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    last: Option<ClientError>,
    count: u64,
    /// The most of them that one sync or close has told of.
    carried: u64,
    logged: u64,
    logged_at: Option<Duration>,
}

/// How many of a file's errors one open file has been told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    write: u64,
    sync: u64,
}

/// What a program does when an error could be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// `write(2)`: the error is told, and told again by the next sync.
    Write,
    /// `fsync(2)`, `close(2)`.
    Sync,
}

impl Losses {
    pub(crate) fn note(&mut self, error: impl Into<ClientError>) {
        self.last = Some(error.into());
        self.count += 1;
    }

    /// What an open file begins with.
    pub(crate) fn begin(&self) -> Told {
        Told { write: self.count, sync: self.carried }
    }

    /// The last error, if there is one that `told` does not count yet.
    pub(crate) fn tell(&mut self, told: &mut Told, occasion: Occasion) -> Result<(), ClientError> {
        let mark = match occasion {
            Occasion::Write => &mut told.write,
            Occasion::Sync => &mut told.sync,
        };
        if *mark == self.count {
            return Ok(());
        }
        *mark = self.count;
        if occasion == Occasion::Sync {
            told.write = self.count;
            self.carried = self.count;
        }
        self.last.clone().map_or(Ok(()), Err)
    }

    /// Whether some error has reached no sync and no close.
    pub(crate) fn are_untold(&self) -> bool {
        self.carried < self.count
    }

    /// The last error and how many there were since they were logged last, if it is time.
    pub(crate) fn take_log(&mut self, now: Duration) -> Option<(&ClientError, u64)> {
        let new = self.count - self.logged;
        if new == 0 || self.logged_at.is_some_and(|at| now.saturating_sub(at) < LOG_EVERY) {
            return None;
        }
        self.logged = self.count;
        self.logged_at = Some(now);
        self.last.as_ref().map(|error| (error, new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Loss;

    #[test]
    fn an_error_told_by_a_write_is_told_by_the_next_sync_too_and_then_no_more() {
        let mut losses = Losses::default();
        let mut told = losses.begin();
        losses.note(Loss::Interrupted);
        assert!(losses.tell(&mut told, Occasion::Write).is_err());
        assert!(losses.tell(&mut told, Occasion::Write).is_ok(), "a program that writes on is not held up");
        assert!(losses.tell(&mut told, Occasion::Sync).is_err());
        assert!(losses.tell(&mut told, Occasion::Sync).is_ok());
    }

    #[test]
    fn an_error_that_nobody_was_told_reaches_whoever_opens_the_file_next() {
        let mut losses = Losses::default();
        losses.note(Loss::Interrupted);
        assert!(losses.are_untold());
        let mut next = losses.begin();
        assert!(losses.tell(&mut next, Occasion::Write).is_ok());
        assert!(losses.tell(&mut next, Occasion::Sync).is_err());
        assert!(!losses.are_untold());
        assert!(losses.tell(&mut losses.begin(), Occasion::Sync).is_ok());
    }

    #[test]
    fn losses_are_logged_once_a_second_with_a_count() {
        let mut losses = Losses::default();
        let mut logged = Vec::new();
        for ms in 0..2500 {
            losses.note(Loss::NoAnswer);
            logged.extend(losses.take_log(Duration::from_millis(ms)).map(|(_, count)| count));
        }
        assert_eq!(logged, [1, 1000, 1000]);
    }
}
