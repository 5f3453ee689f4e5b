//! The log's writer thread: takes all work that has gathered, makes it durable with one sync, tells how far it came.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mooseng_env::Threads;
use mooseng_types::CellId;

use super::segments::{Holder, Segments};
use crate::raft::Persist;

/// Work that may wait: the core hands out one piece for each turn of its loop, and a turn takes a round trip.
const QUEUE_MAX: usize = 4096;

/// What the writer does for a group, in order.
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

/// How far the writer has come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// The number of the last durable batch of each group that had some.
    pub batches: BTreeMap<CellId, u64>,
    /// Groups that must let go of the log up to an entry, because too much of it is kept.
    pub holders: Vec<Holder>,
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
    queue: SyncSender<(CellId, Work)>,
}

impl LogWriter {
    /// Starts the thread. `done` is told there what is durable. A failing disk ends the process: what a failed sync left on
    /// the disk is not known, and asking again would only hide that. More than `full_max` full segments are kept only as
    /// long as it takes the groups to let go of the oldest.
    pub fn start(
        threads: &Threads,
        segments: Segments,
        full_max: usize,
        done: impl Fn(Written) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, work) = sync_channel(QUEUE_MAX);
        threads.spawn("log-writer", move || {
            if let Err(error) = write_until_closed(segments, full_max, &work, done) {
                tracing::error!(%error, "the log cannot be written; stopping, so that no promise is broken");
                std::process::abort();
            }
        })?;
        Ok(Self { queue })
    }

    /// Hands over work for a group; waits while too much is waiting.
    pub fn submit(&self, cell: CellId, work: Work) {
        // The thread ends only with the process or when this handle is gone.
        drop(self.queue.send((cell, work)));
    }
}

fn write_until_closed(
    mut segments: Segments,
    full_max: usize,
    work: &Receiver<(CellId, Work)>,
    done: impl Fn(Written),
) -> io::Result<()> {
    let mut batches = Vec::new();
    let mut purge = BTreeMap::new();
    while let Ok(first) = work.recv() {
        let mut written = Written::default();
        for (cell, item) in std::iter::once(first).chain(work.try_iter()) {
            match item {
                Work::Append(batch) => {
                    written.batches.insert(cell, batch.number);
                    batches.push((cell, batch));
                }
                Work::Install(put_in_place, batch) => {
                    segments.append(&batches)?;
                    batches.clear();
                    put_in_place()?;
                    written.batches.insert(cell, batch.number);
                    batches.push((cell, batch));
                }
                Work::Purge { index, term } => drop(purge.insert(cell, (index, term))),
            }
        }
        if !batches.is_empty() {
            segments.append(&batches)?;
            batches.clear();
            written.holders = segments.holders(full_max);
            done(written);
            segments.prepare()?;
        }
        for (cell, (index, term)) in std::mem::take(&mut purge) {
            segments.purge(cell, index, term)?;
        }
    }
    Ok(())
}
