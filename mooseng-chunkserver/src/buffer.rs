//! Buffers that are used again. The first touch of fresh memory costs about 10 µs per 4 KiB on a virtual machine, more
//! than copying through it; and a budget is what bounds the memory of all requests at work.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mooseng_protocol::frame::PAYLOAD_MAX;

use crate::pages::Pages;

/// Sizes of buffers, in bytes: one block and its neighbour, and the longest payload.
const CLASSES: [usize; 2] = [128 << 10, PAYLOAD_MAX];

/// A pool with a budget.
#[derive(Debug)]
pub(crate) struct BufferPool {
    state: Mutex<State>,
    returned: Condvar,
    budget_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: usize,
    free: [Vec<Pages>; 2],
    /// The fewest that were free at any time since the last [`BufferPool::trim`].
    never_used: [usize; 2],
}

/// Bytes on loan from a pool. They begin at a page of memory, as direct I/O wants it.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// There until the loan ends.
    pages: Option<Pages>,
    length: usize,
    class: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// A pool that has at most `budget_bytes` out at once.
    pub(crate) fn new(budget_bytes: usize) -> Arc<Self> {
        let budget_bytes = budget_bytes.max(PAYLOAD_MAX);
        Arc::new(Self { state: Mutex::default(), returned: Condvar::new(), budget_bytes })
    }

    /// A buffer of `length` bytes, at most [`PAYLOAD_MAX`], of any content. Waits while the budget is used up.
    pub(crate) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let length = length.min(PAYLOAD_MAX);
        let class = usize::from(length > CLASSES[0]);
        let size = CLASSES[class];
        let full = |state: &mut State| state.used_bytes + size > self.budget_bytes;
        let mut state = self.returned.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        state.used_bytes += size;
        let reused = state.free[class].pop();
        state.never_used[class] = state.never_used[class].min(state.free[class].len());
        drop(state);
        let pages = Some(reused.unwrap_or_else(|| Pages::new(size)));
        Buffer { pages, length, class, pool: Arc::clone(self) }
    }

    /// Gives back the memory of what nobody has needed since the last call.
    pub(crate) fn trim(&self) {
        let mut state = self.lock();
        let mut unused = Vec::new();
        for class in 0..CLASSES.len() {
            let keep = state.free[class].len() - state.never_used[class];
            unused.extend(state.free[class].drain(keep..));
            state.never_used[class] = keep;
        }
        // To give memory back takes its time.
        drop(state);
        drop(unused);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.as_deref().map_or(&[], |pages| &pages[..self.length])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages.as_deref_mut().map_or(&mut [], |pages| &mut pages[..self.length])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.used_bytes -= CLASSES[self.class];
        // What is kept for later counts against the budget as well, so that the two classes together stay below it.
        let kept: usize = state.free.iter().zip(CLASSES).map(|(free, size)| free.len() * size).sum();
        if kept + state.used_bytes < self.pool.budget_bytes {
            state.free[self.class].extend(self.pages.take());
        }
        drop(state);
        self.pool.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    #[test]
    fn memory_is_used_again_and_never_exceeds_the_budget() {
        let pool = BufferPool::new(2 * PAYLOAD_MAX);
        let first = pool.take(PAYLOAD_MAX);
        let place = first.as_ptr();
        drop(first);
        let again = pool.take(1 << 20);
        assert_eq!((again.as_ptr(), again.len()), (place, 1 << 20));

        let other = pool.take(1 << 20);
        let (got, waits) = sync_channel(1);
        let waiter = {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || got.send(pool.take(10).len()).unwrap())
        };
        assert!(waits.recv_timeout(Duration::from_millis(50)).is_err(), "the budget is used up");
        drop(other);
        assert_eq!(waits.recv_timeout(Duration::from_secs(5)).unwrap(), 10);
        waiter.join().unwrap();
    }

    #[test]
    fn what_nobody_needs_between_two_looks_is_given_back() {
        let pool = BufferPool::new(8 * PAYLOAD_MAX);
        let free = || pool.lock().free.iter().map(Vec::len).sum::<usize>();
        drop((0..6).map(|_| pool.take(PAYLOAD_MAX)).collect::<Vec<_>>());
        pool.trim();
        assert_eq!(free(), 6, "they have just been in use");
        drop((pool.take(PAYLOAD_MAX), pool.take(PAYLOAD_MAX)));
        pool.trim();
        assert_eq!(free(), 2);
        pool.trim();
        assert_eq!(free(), 0);
    }
}
