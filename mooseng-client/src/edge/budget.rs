//! A number of bytes that may be held at once. A permit is a guard: it gives back what it holds when it goes.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::lock;

/// The bytes that may be held.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

/// Some of a budget's bytes.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes, none of them in use.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(0), freed: Condvar::new() })
    }

    /// A permit for nothing, to merge others into.
    pub(crate) fn empty_permit(self: &Arc<Self>) -> Permit {
        Permit { budget: Arc::clone(self), bytes: 0 }
    }

    /// Takes `bytes`, waiting at most `patience` for others to give back; `None` if they do not.
    pub(crate) fn acquire(self: &Arc<Self>, bytes: usize, patience: Duration) -> Option<Permit> {
        let used = lock(&self.used);
        let fits = |used: &usize| *used + bytes <= self.limit;
        let mut used = if fits(&used) {
            used
        } else {
            let waited = self.freed.wait_timeout_while(used, patience, |used| !fits(used));
            waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
        };
        if !fits(&used) {
            return None;
        }
        *used += bytes;
        Some(Permit { budget: Arc::clone(self), bytes })
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            *lock(&self.used) -= bytes;
            self.freed.notify_all();
        }
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        *lock(&self.used)
    }
}

impl Permit {
    /// Gives back what is held beyond `bytes`.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give_back(surplus);
    }

    /// Takes over what `other` holds; both are of one budget.
    pub(crate) fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget));
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_when_the_permit_goes() {
        let budget = Budget::new(10);
        let mut held = budget.empty_permit();
        held.merge(budget.acquire(6, Duration::ZERO).unwrap());
        assert!(budget.acquire(5, Duration::ZERO).is_none());
        held.keep(5);
        held.merge(budget.acquire(5, Duration::ZERO).unwrap());
        assert_eq!(budget.used(), 10);
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_writer_waits_until_another_gives_back() {
        let budget = Budget::new(10);
        let held = budget.acquire(10, Duration::ZERO).unwrap();
        let other = Arc::clone(&budget);
        let waiter =
            std::thread::spawn(move || other.acquire(10, Duration::from_secs(10)).map(|permit| permit.bytes));
        drop(held);
        assert_eq!(waiter.join().unwrap(), Some(10));
    }
}
