//! The log's writer thread: takes all work that has gathered, makes it durable with one sync, tells how far it came.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mooseng_env::Threads;

use super::segments::Segments;
use crate::raft::Persist;

/// Work that may wait: the core hands out one piece for each turn of its loop, and a turn takes a round trip.
const QUEUE_MAX: usize = 4096;

/// What the writer does, in order.
pub enum Work {
    /// Make this durable.
    Append(Persist),
    /// Put the store of a snapshot in its place, then make this durable, with which the log begins anew behind it.
    Install(Box<dyn FnOnce() -> io::Result<()> + Send>, Persist),
    /// Entries up to here are not needed any more.
    Purge {
        /// The last entry to go.
        index: u64,
        /// Its term.
        term: u64,
    },
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Append(batch) => f.debug_tuple("Append").field(batch).finish(),
            Self::Install(_, batch) => f.debug_tuple("Install").field(batch).finish_non_exhaustive(),
            Self::Purge { index, term } => f.debug_tuple("Purge").field(index).field(term).finish(),
        }
    }
}

/// The way to the writer. Dropping it ends the thread once all work is done.
#[derive(Debug)]
pub struct LogWriter {
    queue: SyncSender<Work>,
}

impl LogWriter {
    /// Starts the thread. `done` is called there with the number of the last durable batch. A failing disk ends the
    /// process: what a failed sync left on the disk is not known, and asking again would only hide that.
    pub fn start(
        threads: &Threads,
        segments: Segments,
        done: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, work) = sync_channel(QUEUE_MAX);
        threads.spawn("log-writer", move || {
            if let Err(error) = write_until_closed(segments, &work, done) {
                tracing::error!(%error, "the log cannot be written; stopping, so that no promise is broken");
                std::process::abort();
            }
        })?;
        Ok(Self { queue })
    }

    /// Hands over work; waits while too much is waiting.
    pub fn submit(&self, work: Work) {
        // The thread ends only with the process or when this handle is gone.
        drop(self.queue.send(work));
    }
}

fn write_until_closed(mut segments: Segments, work: &Receiver<Work>, done: impl Fn(u64)) -> io::Result<()> {
    let mut batches = Vec::new();
    let mut purge = None;
    while let Ok(first) = work.recv() {
        for item in std::iter::once(first).chain(work.try_iter()) {
            match item {
                Work::Append(batch) => batches.push(batch),
                Work::Install(put_in_place, batch) => {
                    segments.append(&batches)?;
                    batches.clear();
                    put_in_place()?;
                    batches.push(batch);
                }
                Work::Purge { index, term } => purge = Some((index, term)),
            }
        }
        if let Some(last) = batches.last().map(|batch| batch.number) {
            segments.append(&batches)?;
            batches.clear();
            done(last);
            segments.prepare()?;
        }
        if let Some((index, term)) = purge.take() {
            segments.purge(index, term)?;
        }
    }
    Ok(())
}
