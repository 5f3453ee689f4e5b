//! The threads of one disk. Each disk has its own, so that one that hangs holds up nothing of the others.
//!
//! Ordered work of one copy is done one piece at a time, in the order in which it came: a chain's copies stay alike
//! only if every server applies the writes in the same order. Everything else is done as threads are free.
//!
//! Background work comes after that of clients ([`Turns`]), and never has more than half of the threads: a piece of it that takes
//! long, a sync for example, leaves the others to clients.

mod turns;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mooseng_env::Threads;
use mooseng_types::Part;

use crate::buffer::BufferPool;
use turns::{Class, Turns};

/// Work that may wait for one disk. With more, whoever brings it waits: that slows down one connection.
const QUEUE_MAX: usize = 1024;
/// Background work that may wait for one disk; more is refused.
const BACKGROUND_MAX: usize = 1024;
/// Payloads on their way to one disk, in bytes.
const WRITE_BUDGET_BYTES: usize = 96 << 20;
/// Bytes read from one disk and not yet sent. Not the same budget: a thread that waits for a buffer to read into must
/// not depend on work that waits for that thread.
const READ_BUDGET_BYTES: usize = 256 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// The pool's queue is full, or the pool has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk's queue is full or closed")]
pub(crate) struct NotQueued;

/// The threads of one disk.
#[derive(Debug)]
pub(crate) struct IoPool {
    shared: Arc<Shared>,
    threads: Threads,
    /// For payloads on their way to the disk.
    pub(crate) write_buffers: Arc<BufferPool>,
    /// For bytes on their way from the disk.
    pub(crate) read_buffers: Arc<BufferPool>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Ready>,
    /// Ordered work by copy; one that is here is either in `ready` or being worked on, never both.
    ordered: HashMap<Part, VecDeque<Job>>,
    waiting: usize,
    background: VecDeque<Job>,
    background_at_work: usize,
    /// How many pieces of background work may be at work at once.
    background_threads: usize,
    turns: Turns,
    stopping: bool,
}

enum Ready {
    Any(Job),
    NextOf(Part),
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl IoPool {
    /// Starts `threads` threads.
    pub(crate) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let pool = Self {
            shared: Arc::default(),
            threads: Threads::default(),
            write_buffers: BufferPool::new(WRITE_BUDGET_BYTES),
            read_buffers: BufferPool::new(READ_BUDGET_BYTES),
        };
        pool.shared.lock().background_threads = (threads / 2).max(1);
        for number in 0..threads {
            let shared = Arc::clone(&pool.shared);
            pool.threads.spawn(&format!("{name}.{number}"), move || shared.work())?;
        }
        Ok(pool)
    }

    /// Queues work; waits while the queue is full. Work of a copy is done in order.
    pub(crate) fn submit(
        &self,
        part: Option<Part>,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), NotQueued> {
        let full = |queue: &mut Queue| queue.waiting >= QUEUE_MAX && !queue.stopping;
        let queue = self.shared.room.wait_while(self.shared.lock(), full);
        self.shared.add(queue.unwrap_or_else(PoisonError::into_inner), part, Box::new(job))
    }

    /// Queues work if there is room for it now.
    pub(crate) fn try_submit(
        &self,
        part: Option<Part>,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), NotQueued> {
        let queue = self.shared.lock();
        if queue.waiting >= QUEUE_MAX {
            return Err(NotQueued);
        }
        self.shared.add(queue, part, Box::new(job))
    }

    /// Queues background work if there is room for it now.
    pub(crate) fn submit_background(&self, job: impl FnOnce() + Send + 'static) -> Result<(), NotQueued> {
        let queue = self.shared.lock();
        if queue.background.len() >= BACKGROUND_MAX {
            return Err(NotQueued);
        }
        self.shared.add_background(queue, Box::new(job))
    }

    /// Queues the next piece of background work that was let in before. Whoever lets it in sees to it that there is little of it,
    /// so it is refused only by a pool that has stopped.
    pub(crate) fn continue_background(&self, job: impl FnOnce() + Send + 'static) -> Result<(), NotQueued> {
        self.shared.add_background(self.shared.lock(), Box::new(job))
    }

    /// Does what is queued, takes nothing more, and ends the threads.
    pub(crate) fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        self.threads.join();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, mut queue: MutexGuard<'_, Queue>, part: Option<Part>, job: Job) -> Result<(), NotQueued> {
        if queue.stopping {
            return Err(NotQueued);
        }
        queue.waiting += 1;
        match part {
            None => queue.ready.push_back(Ready::Any(job)),
            Some(part) => {
                if let Some(others) = queue.ordered.get_mut(&part) {
                    others.push_back(job);
                    return Ok(());
                }
                queue.ordered.insert(part, VecDeque::from([job]));
                queue.ready.push_back(Ready::NextOf(part));
            }
        }
        drop(queue);
        self.work.notify_one();
        Ok(())
    }

    fn add_background(&self, mut queue: MutexGuard<'_, Queue>, job: Job) -> Result<(), NotQueued> {
        if queue.stopping {
            // What goes with the job may take its time.
            drop(queue);
            return Err(NotQueued);
        }
        queue.background.push_back(job);
        drop(queue);
        self.work.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            let idle = |queue: &mut Queue| !(queue.has_client() || queue.has_background() || queue.is_over());
            queue = self.work.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
            let (client, background) = (queue.has_client(), queue.has_background());
            queue = match queue.turns.next(client, background) {
                Some(Class::Client) => self.work_for_client(queue),
                Some(Class::Background) => self.work_in_background(queue),
                None => break,
            };
        }
        drop(queue);
        // The others may wait for the work that this one has just done away with.
        self.work.notify_all();
    }

    fn work_for_client<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let (job, of) = match queue.ready.pop_front() {
            Some(Ready::Any(job)) => (Some(job), None),
            Some(Ready::NextOf(part)) => {
                (queue.ordered.get_mut(&part).and_then(VecDeque::pop_front), Some(part))
            }
            None => (None, None),
        };
        queue.waiting -= usize::from(job.is_some());
        drop(queue);
        self.room.notify_one();
        if let Some(job) = job {
            job();
        }
        let mut queue = self.lock();
        if let Some(part) = of {
            if queue.ordered.get(&part).is_some_and(VecDeque::is_empty) {
                queue.ordered.remove(&part);
            } else {
                queue.ready.push_back(Ready::NextOf(part));
            }
        }
        queue
    }

    fn work_in_background<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let Some(job) = queue.background.pop_front() else { return queue };
        queue.background_at_work += 1;
        drop(queue);
        job();
        let mut queue = self.lock();
        queue.background_at_work -= 1;
        queue
    }
}

impl Queue {
    fn has_client(&self) -> bool {
        !self.ready.is_empty()
    }

    fn has_background(&self) -> bool {
        !self.background.is_empty() && self.background_at_work < self.background_threads
    }

    /// Whether the threads end: nothing is left, and nothing more comes.
    fn is_over(&self) -> bool {
        self.stopping && self.waiting == 0 && self.background.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::ChunkId;

    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn work_of_one_copy_keeps_its_order_and_a_stop_finishes_what_is_queued() {
        let pool = IoPool::start("test", 4).unwrap();
        let done = Arc::new(Mutex::new(HashMap::<u64, Vec<u32>>::new()));
        for turn in 0..200 {
            for chunk in 0..3 {
                let done = Arc::clone(&done);
                let job = move || done.lock().unwrap().entry(chunk).or_default().push(turn);
                pool.submit(Some(Part::whole(ChunkId::from_raw(chunk))), job).unwrap();
            }
        }
        pool.stop();
        assert_eq!(pool.submit(None, || ()), Err(NotQueued));
        let expected: Vec<u32> = (0..200).collect();
        let done = done.lock().unwrap();
        assert_eq!(done.len(), 3);
        assert!(done.values().all(|order| *order == expected));
    }

    #[test]
    fn a_full_queue_refuses_whoever_will_not_wait() {
        let pool = IoPool::start("test", 1).unwrap();
        let (go, wait) = sync_channel::<()>(0);
        let (started, is_started) = sync_channel::<()>(0);
        let block = move || {
            started.send(()).unwrap();
            wait.recv().unwrap();
        };
        pool.submit(None, block).unwrap();
        is_started.recv().unwrap();
        for _ in 0..QUEUE_MAX {
            pool.try_submit(None, || ()).unwrap();
        }
        assert_eq!(pool.try_submit(None, || ()), Err(NotQueued));
        go.send(()).unwrap();
        pool.stop();
    }

    #[test]
    fn background_work_waits_for_clients_leaves_them_threads_and_is_finished_by_a_stop() {
        let pool = Arc::new(IoPool::start("test", 4).unwrap());
        let (started, is_started) = sync_channel::<()>(8);
        let (go, wait) = sync_channel::<()>(0);
        let wait = Arc::new(Mutex::new(wait));
        for _ in 0..4 {
            let (started, wait) = (started.clone(), Arc::clone(&wait));
            let slow = move || {
                started.send(()).unwrap();
                wait.lock().unwrap().recv().unwrap();
            };
            pool.submit_background(slow).unwrap();
        }
        for _ in 0..2 {
            is_started.recv().unwrap();
        }
        let (done, is_done) = sync_channel::<()>(0);
        pool.submit(None, move || done.send(()).unwrap()).unwrap();
        is_done.recv().unwrap();
        assert!(is_started.try_recv().is_err(), "no more than half of the threads");
        for _ in 2..BACKGROUND_MAX {
            pool.submit_background(|| ()).unwrap();
        }
        assert_eq!(pool.submit_background(|| ()), Err(NotQueued));
        let (again, more) = (Arc::clone(&pool), started.clone());
        pool.continue_background(move || {
            // A piece that goes on while the pool is stopping does not.
            assert_eq!(again.continue_background(|| ()), Err(NotQueued));
            more.send(()).unwrap();
        })
        .unwrap();
        let stopping = Arc::clone(&pool);
        let stop = std::thread::spawn(move || stopping.stop());
        while pool.submit(None, || ()).is_ok() {}
        for _ in 0..4 {
            go.send(()).unwrap();
        }
        for _ in 0..3 {
            is_started.recv().unwrap();
        }
        stop.join().unwrap();
        assert_eq!(pool.continue_background(|| ()), Err(NotQueued));
    }
}
