//! A light load by several threads, each with a journal of what was acknowledged, in a directory of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::journal::Journal;
use crate::random::Random;
use crate::wait;

/// Between two operations of one thread.
const PAUSE: Duration = Duration::from_millis(5);

/// Threads that use the file system.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    longest: Arc<Mutex<Duration>>,
    journals: Vec<Arc<Mutex<Journal>>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts a thread for each of these directories, which it makes.
    pub(super) fn start(context: &Context, places: Vec<PathBuf>, random: &mut Random) -> Result<Self> {
        let mut load =
            Self { stop: Arc::default(), longest: Arc::default(), journals: Vec::new(), threads: Vec::new() };
        for (thread, place) in places.into_iter().enumerate() {
            let log = context.scratch.join(format!("journal-{thread}.log"));
            let journal = Journal::new(place, &log, random.next())?;
            let journal = Arc::new(Mutex::new(journal));
            load.journals.push(Arc::clone(&journal));
            let (stop, longest) = (Arc::clone(&load.stop), Arc::clone(&load.longest));
            load.threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let mut journal = wait::lock(&journal);
                    let begun = Instant::now();
                    journal.step().context("an operation failed")?;
                    let took = begun.elapsed();
                    drop(journal);
                    let mut longest = wait::lock(&longest);
                    *longest = took.max(*longest);
                    drop(longest);
                    wait::let_run(PAUSE)?;
                }
                Ok(())
            }));
        }
        Ok(load)
    }

    pub(super) fn reset_stall(&self) {
        *wait::lock(&self.longest) = Duration::ZERO;
    }

    pub(super) fn stall(&self) -> Duration {
        *wait::lock(&self.longest)
    }

    /// Lets something happen while no operation is under way below `point`; elsewhere the load goes on.
    pub(super) fn without<T>(&self, point: &Path, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let here = |journal: &MutexGuard<'_, Journal>| journal.place.starts_with(point);
        let _held: Vec<_> = self.journals.iter().map(|it| wait::lock(it)).filter(here).collect();
        act()
    }

    /// An error if a thread has met one.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.threads.iter().position(JoinHandle::is_finished) {
            Some(ended) => {
                let thread = self.threads.swap_remove(ended);
                thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))?
            }
            None => Ok(()),
        }
    }

    /// Ends the load and compares what is there with what was acknowledged.
    pub(super) fn finish(self) -> Result<Vec<Arc<Mutex<Journal>>>> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??;
        }
        for journal in &self.journals {
            let wrong = wait::lock(journal).audit()?;
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
        Ok(self.journals)
    }
}
