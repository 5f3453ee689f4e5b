//! What a door has turned away, or refused for the sender's role: counted, and told in the log ever more rarely, so that
//! nobody can fill a disk by knocking.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::status::CallError;

/// The counts of one door.
#[derive(Debug, Default)]
pub struct Refused {
    strangers: AtomicU64,
    forbidden: AtomicU64,
}

impl Refused {
    /// A connection has ended on which nobody had proved a role.
    pub fn stranger(&self, peer: &dyn Display, why: &dyn Display) {
        if let Some(count) = count(&self.strangers) {
            tracing::warn!(%peer, %why, count, "a stranger was refused");
        }
    }

    /// A request came from a role that must not send it.
    pub fn forbidden(&self, name: &str, error: &CallError) {
        if let Some(count) = count(&self.forbidden) {
            tracing::warn!(name, %error, count, "a request was refused");
        }
    }

    /// How many strangers there were.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    /// How many requests came from a wrong role.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.forbidden.load(Ordering::Relaxed)
    }
}

/// Counts one more; the number if it is worth a line: the first, and each that doubles it.
fn count(counter: &AtomicU64) -> Option<u64> {
    let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
    count.is_power_of_two().then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_and_little_of_it_told() {
        let counter = AtomicU64::new(0);
        let told: Vec<u64> = (0..1000).filter_map(|_| count(&counter)).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(counter.into_inner(), 1000);
    }
}
