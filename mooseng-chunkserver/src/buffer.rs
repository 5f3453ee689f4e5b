//! Buffers that are used again. The first touch of fresh memory costs about 10 µs per 4 KiB on a virtual machine, more
//! than copying through it; and a budget is what bounds the memory of all requests at work.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mooseng_protocol::frame::PAYLOAD_MAX;

use crate::pages::Pages;

/// Sizes of buffers, in bytes: one block and its neighbour, a client's piece, and the longest payload.
const CLASSES: [usize; 3] = [128 << 10, PIECE, PAYLOAD_MAX];

/// The class of buffers that are halves of huge pages.
const PIECES: usize = 1;
const PIECE: usize = 1 << 20;

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
    free: [Vec<Pages>; CLASSES.len()],
    /// The fewest that were free at any time since the last [`BufferPool::trim`].
    never_used: [usize; CLASSES.len()],
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
        let class = CLASSES.iter().position(|size| length <= *size).unwrap_or(CLASSES.len() - 1);
        let size = CLASSES[class];
        let full = |state: &mut State| state.used_bytes + size > self.budget_bytes;
        let mut state = self.returned.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        state.used_bytes += size;
        let reused = state.free[class].pop();
        state.never_used[class] = state.never_used[class].min(state.free[class].len());
        drop(state);
        let pages = Some(reused.unwrap_or_else(|| self.fresh(class)));
        Buffer { pages, length, class, pool: Arc::clone(self) }
    }

    /// Memory that was not used before. The other half of a huge page is kept for the next buffer.
    fn fresh(&self, class: usize) -> Pages {
        if class != PIECES {
            return Pages::new(CLASSES[class]);
        }
        let [first, second] = Pages::halves();
        let _too_much = self.keep(&mut self.lock(), class, second);
        first
    }

    /// Keeps memory for later; gives it back where the pool has enough. What is kept counts against the budget as well, so
    /// that the classes together stay below it.
    fn keep(&self, state: &mut State, class: usize, pages: Pages) -> Option<Pages> {
        let kept: usize = state.free.iter().zip(CLASSES).map(|(free, size)| free.len() * size).sum();
        if kept + state.used_bytes + CLASSES[class] > self.budget_bytes {
            return Some(pages);
        }
        state.free[class].push(pages);
        None
    }

    /// Gives back the memory of what nobody has needed since the last call.
    pub(crate) fn trim(&self) {
        let mut state = self.lock();
        let mut unused = Vec::new();
        for class in 0..CLASSES.len() {
            let never_used = state.never_used[class];
            unused.extend(state.free[class].drain(..never_used));
            state.never_used[class] = state.free[class].len();
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
        let too_much = self.pages.take().and_then(|pages| self.pool.keep(&mut state, self.class, pages));
        drop(state);
        self.pool.returned.notify_all();
        // To give memory back takes its time.
        drop(too_much);
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
        let again = pool.take(PIECE + 1);
        assert_eq!((again.as_ptr(), again.len()), (place, PIECE + 1));

        let other = pool.take(PAYLOAD_MAX);
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
    fn two_pieces_share_a_huge_page_where_the_budget_allows_both() {
        let pool = BufferPool::new(4 * PIECE);
        let (first, second) = (pool.take(PIECE), pool.take(PIECE));
        assert_eq!(first.as_ptr_range().end, second.as_ptr());

        let small = BufferPool::new(PAYLOAD_MAX);
        drop(small.take(PIECE));
        let kept = small.lock().free.iter().map(Vec::len).sum::<usize>();
        assert_eq!(kept, 1, "there is no room for a second piece");
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
