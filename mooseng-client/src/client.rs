//! The client as a whole: what its threads share, how it begins and ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooseng_env::{Clock, Entropy, SystemClock, SystemEntropy, Threads};
use mooseng_types::{Attr, InodeId, TimeNs};

use crate::budget::Budget;
use crate::chunk_client::ChunkClient;
use crate::config::ClientConfig;
use crate::data_cache::DataCache;
use crate::inode::{AtMasters, Inode};
use crate::master_client::MasterClient;
use crate::session::{self, Events};
use crate::workers::Workers;
use crate::{ClientError, Result, lock};

/// How long to look for a leader at the start.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Pieces that are written at the same time.
const FLUSHERS: usize = 8;
/// Full pieces that wait for a flusher; the write buffer bounds them too.
const FLUSHES_QUEUED: usize = 256;
/// Pieces that are read ahead at the same time.
const FETCHERS: usize = 8;
/// Pieces that wait to be read ahead.
const FETCHES_QUEUED: usize = 64;
/// Recalls of leases that are served at the same time.
const RECALLERS: usize = 2;
/// Recalls that wait; one beyond them is told again by the masters.
const RECALLS_QUEUED: usize = 1024;
/// Idle files that are tidied up at the same time; apart from recalls, for which another client waits.
const TIDIERS: usize = 4;
/// Idle files that wait for it; the rest is found again at the next tick.
const TIDIES_QUEUED: usize = 1024;
/// Masters to which control connections are made at the same time: a minority that does not answer keeps nobody waiting.
const CONNECTORS: usize = 3;
/// Masters that wait to be connected to; the rest is found again at the next look.
const CONNECTS_QUEUED: usize = 16;
/// Closed files of which the masters are told by one request.
const LEAVING_MAX: usize = 256;
/// Closed files whose time and size are remembered, to keep the kernel's cache of them.
const REMEMBERED_MAX: usize = 1 << 16;

/// A MooseNG file system, reached over the network. Every function may be called by several threads at once, and
/// blocks until there is an answer, at most for about `retry_ms`.
#[derive(Debug)]
pub struct Client {
    pub(crate) config: ClientConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) masters: Arc<MasterClient>,
    pub(crate) chunks: ChunkClient,
    pub(crate) write_budget: Arc<Budget>,
    pub(crate) cache: Arc<DataCache>,
    pub(crate) flushers: Workers,
    pub(crate) fetchers: Workers,
    pub(crate) recallers: Workers,
    pub(crate) tidiers: Workers,
    pub(crate) connectors: Workers,
    pub(crate) inodes: Mutex<HashMap<InodeId, Arc<Inode>>>,
    pub(crate) remembered: Mutex<HashMap<InodeId, (TimeNs, u64)>>,
    /// Closed files that the masters have down as open.
    leaving: Mutex<Vec<Arc<Inode>>>,
    stamps: AtomicU64,
    events: Events,
    threads: Threads,
}

impl Client {
    /// Finds the leader, within 10 s, and opens a session.
    pub fn connect(config: ClientConfig) -> Result<Arc<Self>> {
        Self::connect_with(config, Arc::new(SystemClock::default()), Arc::new(SystemEntropy))
    }

    /// The same with a clock and a source of randomness of the caller's.
    pub fn connect_with(
        config: ClientConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>> {
        config
            .check()
            .map_err(|error| ClientError::Rejected { what: "configuration", message: error.to_string() })?;
        let masters =
            MasterClient::connect(&config, START_PATIENCE, Arc::clone(&clock), Arc::clone(&entropy))?;
        let no_thread = |error: std::io::Error| ClientError::Rejected {
            what: "start a thread",
            message: error.to_string(),
        };
        let (events, receiver) = Events::new();
        let client = Arc::new(Self {
            chunks: ChunkClient::new(config.cluster(), config.name.clone(), Arc::clone(&clock)),
            write_budget: Budget::new(config.write_buffer_bytes),
            cache: DataCache::new(config.read_ahead_bytes),
            flushers: Workers::start("flush", FLUSHERS, FLUSHES_QUEUED).map_err(no_thread)?,
            fetchers: Workers::start("fetch", FETCHERS, FETCHES_QUEUED).map_err(no_thread)?,
            recallers: Workers::start("recall", RECALLERS, RECALLS_QUEUED).map_err(no_thread)?,
            tidiers: Workers::start("tidy", TIDIERS, TIDIES_QUEUED).map_err(no_thread)?,
            connectors: Workers::start("connect", CONNECTORS, CONNECTS_QUEUED).map_err(no_thread)?,
            inodes: Mutex::default(),
            remembered: Mutex::default(),
            leaving: Mutex::default(),
            stamps: AtomicU64::new(1),
            events,
            threads: Threads::default(),
            masters: Arc::new(masters),
            config,
            clock,
            entropy,
        });
        let weak = Arc::downgrade(&client);
        let (masters, events) = (Arc::clone(&client.masters), client.events.clone());
        client
            .threads
            .spawn("session", move || session::run(&weak, &masters, &events, &receiver))
            .map_err(no_thread)?;
        Ok(client)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Sends and commits everything that programs have written, gives back leases and open files, ends the session and
    /// waits for the threads. The first error of a file is returned, after all have been tried.
    pub fn close(&self) -> Result<()> {
        let mut outcome = Ok(());
        for inode in self.known_inodes() {
            let written =
                self.flush_and_commit(&inode, true).and_then(|()| self.release_leases(&inode, None));
            if let Err(error) = written {
                tracing::error!(inode = %inode.id, %error, "written data could not be saved");
                outcome = outcome.and(Err(error));
            }
        }
        self.flushers.close();
        self.fetchers.close();
        // While the session's thread still takes what they tell it.
        self.connectors.close();
        self.events.stop();
        self.threads.join();
        self.recallers.close();
        self.tidiers.close();
        // The session would expire by itself.
        if let Err(error) = self.masters.close_session() {
            tracing::warn!(%error, "the session could not be closed");
        }
        lock(&self.inodes).clear();
        outcome
    }

    /// A number above all earlier ones: orders what the masters tell of attributes, and names states of content.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::AcqRel)
    }

    /// The file, if it is known here.
    pub(crate) fn known(&self, inode: InodeId) -> Option<Arc<Inode>> {
        lock(&self.inodes).get(&inode).cloned()
    }

    /// Every file known here.
    pub(crate) fn known_inodes(&self) -> Vec<Arc<Inode>> {
        lock(&self.inodes).values().cloned().collect()
    }

    /// The files that the masters should have down as open.
    pub(crate) fn open_inodes(&self) -> Vec<u64> {
        let known = self.known_inodes();
        known
            .iter()
            .filter(|inode| matches!(inode.state().at_masters, AtMasters::Open | AtMasters::Leaving))
            .map(|inode| inode.id.raw())
            .collect()
    }

    /// The file, with one handle more.
    pub(crate) fn hold(&self, inode: InodeId) -> Arc<Inode> {
        let mut inodes = lock(&self.inodes);
        let held = inodes.entry(inode).or_insert_with(|| {
            Inode::new(
                inode,
                self.write_budget.empty_permit(),
                self.next_stamp(),
                self.masters.sessions_lost(),
            )
        });
        held.state().handles += 1;
        Arc::clone(held)
    }

    /// One handle less. The last one tells the masters, unless leases are kept for a while.
    pub(crate) fn let_go(&self, inode: &Arc<Inode>) {
        {
            let mut state = inode.state();
            state.handles = state.handles.saturating_sub(1);
            state.last_used = self.clock.monotonic();
        }
        self.forget_if_unused(inode);
    }

    /// Drops a file that no program has open and that holds nothing any more: at once if the masters have it closed,
    /// else after the next [`Client::tell_closed`].
    pub(crate) fn forget_if_unused(&self, inode: &Arc<Inode>) {
        let mut state = inode.state();
        if !state.is_unused() {
            return;
        }
        match state.at_masters {
            AtMasters::Leaving | AtMasters::Releasing => {}
            AtMasters::Open => {
                if let Some(attr) = state.attr {
                    self.remember(&attr);
                }
                state.at_masters = AtMasters::Leaving;
                drop(state);
                let many = {
                    let mut leaving = lock(&self.leaving);
                    leaving.push(Arc::clone(inode));
                    leaving.len() >= LEAVING_MAX
                };
                if many {
                    self.tell_closed();
                }
            }
            AtMasters::Closed => {
                drop(state);
                let mut inodes = lock(&self.inodes);
                // Looked at again under the lock, without which it may have been opened meanwhile.
                let state = inode.state();
                if state.is_unused() && state.at_masters == AtMasters::Closed {
                    inodes.remove(&inode.id);
                }
            }
        }
    }

    /// Tells the masters which files are closed, with one request for all.
    pub(crate) fn tell_closed(&self) {
        let mut leaving = std::mem::take(&mut *lock(&self.leaving));
        leaving.retain(|inode| {
            let mut state = inode.state();
            let leaves = state.at_masters == AtMasters::Leaving && state.is_unused();
            match state.at_masters {
                AtMasters::Leaving if leaves => state.at_masters = AtMasters::Releasing,
                AtMasters::Leaving => state.at_masters = AtMasters::Open,
                AtMasters::Open | AtMasters::Closed | AtMasters::Releasing => {}
            }
            leaves
        });
        if leaving.is_empty() {
            return;
        }
        if let Err(error) = self.masters.release(leaving.iter().map(|inode| inode.id)) {
            // The complete list that a new leader gets makes up for it.
            tracing::debug!(%error, "closed files were not told");
        }
        for inode in leaving {
            inode.state().at_masters = AtMasters::Closed;
            inode.changed.notify_all();
            self.forget_if_unused(&inode);
        }
    }

    fn remember(&self, attr: &Attr) {
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(attr.inode, (attr.mtime, attr.size));
    }

    /// Attributes as the masters told them, asked for at `stamp`, as programs here are to see them: with what this
    /// client has written and not committed yet, and never older than what it has learnt meanwhile.
    pub(crate) fn seen(&self, attr: Attr, stamp: u64) -> Attr {
        let Some(inode) = self.known(attr.inode) else { return attr };
        let content = self.next_stamp();
        let mut state = inode.state();
        match state.attr {
            Some(newer) if state.attr_stamp > stamp => state.seen(newer),
            _ => {
                state.learn(attr, content, content);
                state.seen(attr)
            }
        }
    }
}
