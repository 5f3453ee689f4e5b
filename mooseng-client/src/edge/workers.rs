//! A few threads with a bounded queue of jobs.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};

use mooseng_env::Threads;

use crate::lock;

type Job = Box<dyn FnOnce() + Send>;

/// The threads; they end when [`Workers::close`] is called and the queue is empty.
pub(crate) struct Workers {
    queue: Mutex<Option<SyncSender<Job>>>,
    threads: Threads,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts `count` threads that share a queue of at most `queued_max` jobs.
    pub(crate) fn start(name: &str, count: usize, queued_max: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel::<Job>(queued_max);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = Threads::default();
        for number in 0..count {
            let receiver = Arc::clone(&receiver);
            threads.spawn(&format!("{name}-{number}"), move || work(&receiver))?;
        }
        Ok(Self { queue: Mutex::new(Some(sender)), threads })
    }

    /// Queues a job; `false`, and the job is dropped, if the queue is full or closed.
    pub(crate) fn try_submit(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let queue = lock(&self.queue).clone();
        match queue.map(|queue| queue.try_send(Box::new(job))) {
            Some(Ok(())) => true,
            None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => false,
        }
    }

    /// Takes no more jobs and waits for those that are queued.
    pub(crate) fn close(&self) {
        drop(lock(&self.queue).take());
        self.threads.join();
    }
}

fn work(receiver: &Mutex<Receiver<Job>>) {
    loop {
        let job = lock(receiver).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queued_job_is_done_before_close_returns_and_none_after() {
        let workers = Workers::start("test", 2, 100).unwrap();
        let done = Arc::new(Mutex::new(0));
        for _ in 0..50 {
            let done = Arc::clone(&done);
            assert!(workers.try_submit(move || *lock(&done) += 1));
        }
        workers.close();
        assert_eq!(*lock(&done), 50);
        assert!(!workers.try_submit(|| {}));
    }
}
