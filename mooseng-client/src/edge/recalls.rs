//! The way of recalls: from the connection straight into a queue of their own, and from there to threads that do nothing else.
//! Another client waits for what is recalled, so nothing that this one waits for is in their way.

use std::io;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use mooseng_env::{Clock, Threads};
use mooseng_protocol::pb;
use mooseng_protocol::recall::{Recall, Recalled};
use mooseng_protocol::transport::Mux;
use prost::Message as _;

use super::door::TimedDoor;
use crate::client::Client;
use crate::lock;
use crate::session::Recalls;

/// Recalls that are served at the same time. One may take long, if the chunkservers of its file do not answer.
const RECALLERS: usize = 4;

/// The queue and its threads.
pub(crate) struct Recallers {
    queue: Arc<RecallQueue>,
    threads: Threads,
}

/// What has come and is not served yet.
pub(crate) struct RecallQueue {
    state: Mutex<State>,
    /// For all who wait: each knows only until when there was nothing to do.
    news: Condvar,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    recalls: Recalls,
    closed: bool,
}

impl std::fmt::Debug for Recallers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recallers").finish_non_exhaustive()
    }
}

impl Recallers {
    /// Without threads; what comes meanwhile waits.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let queue = RecallQueue { state: Mutex::default(), news: Condvar::new(), clock };
        Self { queue: Arc::new(queue), threads: Threads::default() }
    }

    /// Starts the threads.
    pub(crate) fn start(&self, client: &Arc<Client>) -> io::Result<()> {
        for number in 0..RECALLERS {
            let (queue, client) = (Arc::clone(&self.queue), Arc::downgrade(client));
            self.threads.spawn(&format!("recall-{number}"), move || work(&queue, &client))?;
        }
        Ok(())
    }

    /// Where recalls go.
    pub(crate) fn queue(&self) -> &Arc<RecallQueue> {
        &self.queue
    }

    /// Takes no more, and waits for what is being served. What is queued ends with the session.
    pub(crate) fn close(&self) {
        self.queue.close();
        self.threads.join();
    }
}

impl Drop for Recallers {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl RecallQueue {
    /// Whether it is to be acknowledged.
    fn take_in(&self, recall: Recall) -> bool {
        let taken = {
            let mut state = lock(&self.state);
            !state.closed && state.recalls.take_in(recall)
        };
        self.news.notify_all();
        taken
    }

    /// Waits for something to serve; `None` at the end.
    fn next(&self) -> Option<Recalled> {
        let mut state = lock(&self.state);
        while !state.closed {
            let now = self.clock.monotonic();
            if let Some(what) = state.recalls.next(now) {
                return Some(what);
            }
            state = match state.recalls.due() {
                None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let waited = self.news.wait_timeout(state, due.saturating_sub(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        None
    }

    fn put_off(&self, what: Recalled) {
        lock(&self.state).recalls.put_off(what, self.clock.monotonic());
        self.news.notify_all();
    }

    fn served(&self, what: Recalled) {
        lock(&self.state).recalls.served(what);
        self.news.notify_all();
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.news.notify_all();
    }
}

fn work(queue: &RecallQueue, client: &Weak<Client>) {
    while let Some(what) = queue.next() {
        let Some(client) = client.upgrade() else { return };
        if serve(&client, what) { queue.served(what) } else { queue.put_off(what) }
    }
}

/// Gives back what is recalled; `false` if that cannot be yet.
fn serve(client: &Client, what: Recalled) -> bool {
    let Recalled::Chunk { inode, index } = what;
    let Some(inode) = client.known(inode) else {
        // Nothing is held that the masters believe is held.
        drop(client.masters.release_leases(inode, &[index]));
        return true;
    };
    client.give_back_recalled(&inode, index).unwrap_or_else(|error| {
        // The error is kept for the programs that have the file open.
        tracing::warn!(inode = %inode.id, %error, "a recalled write lease was given back with an error");
        true
    })
}

/// Hears the recalls that one master pushes, on the thread that reads its connection.
pub(crate) struct RecallEar {
    queue: Arc<RecallQueue>,
    door: Arc<TimedDoor>,
    /// The connection: the acknowledgement counts over no other.
    mux: Arc<OnceLock<Weak<Mux>>>,
    /// Something that is not understood was told in the log.
    puzzled: bool,
}

impl RecallEar {
    /// `mux` is set once the connection stands: no master recalls anything before it was told of the session.
    pub(crate) fn new(queue: Arc<RecallQueue>, door: Arc<TimedDoor>, mux: Arc<OnceLock<Weak<Mux>>>) -> Self {
        Self { queue, door, mux, puzzled: false }
    }

    /// A recall as it was pushed.
    pub(crate) fn heard(&mut self, body: Bytes) {
        let recall = pb::Recall::decode(body).map_err(|error| error.to_string());
        match recall.and_then(|recall| Recall::try_from(recall).map_err(|error| error.to_string())) {
            Ok(recall) if self.queue.take_in(recall) => self.acknowledge(recall),
            Ok(Recall { what, .. }) => {
                tracing::debug!(?what, "too much is recalled at once; the masters will ask again");
            }
            Err(error) if !self.puzzled => {
                self.puzzled = true;
                tracing::warn!(error, "the masters recall what is not known here");
            }
            Err(_) => {}
        }
    }

    fn acknowledge(&self, recall: Recall) {
        let Some(mux) = self.mux.get().and_then(Weak::upgrade) else { return };
        let Recall { session, number, .. } = recall;
        let request = pb::AcknowledgeRecallRequest { session: session.raw(), number };
        self.door.start(&mux, &request, |answer| {
            if let Err(error) = answer {
                tracing::debug!(%error, "a recall was not acknowledged; the masters will ask again");
            }
        });
    }
}
