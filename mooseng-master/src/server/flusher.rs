//! The thread that writes rows to the stores, so that the loop does not wait for them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use mooseng_env::Threads;
use mooseng_meta::{Batch, MetaStore};
use mooseng_types::CellId;

use super::inbox::Inbox;

/// A batch of rows, and the store it is for.
pub(super) type Flush = (CellId, Arc<dyn MetaStore>, Arc<Batch>);

/// Starts it, with room for one batch of each group. It ends when the way to it is dropped, once its work is done.
pub(super) fn start(threads: &Threads, inbox: &Arc<Inbox>, groups: usize) -> io::Result<SyncSender<Flush>> {
    let (flusher, batches) = sync_channel::<Flush>(groups);
    let done = Arc::clone(inbox);
    threads.spawn("flusher", move || {
        for (cell, store, batch) in batches {
            store.write(&batch);
            done.flushed(cell);
        }
    })?;
    Ok(flusher)
}
