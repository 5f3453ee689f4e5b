//! The client as a whole: what its threads share, how it begins and ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooseng_env::{Clock, Entropy, SystemClock, SystemEntropy, Threads};
use mooseng_protocol::door::Snapshot;
use mooseng_protocol::principal::PrincipalKey;
use mooseng_types::{Attr, InodeId};

use crate::config::{ClientConfig, FsyncMode};
use crate::edge::budget::Budget;
use crate::edge::chunkservers::ChunkClient;
use crate::edge::data_cache::DataCache;
use crate::edge::door::TimedDoor;
use crate::edge::inode::Inode;
use crate::edge::keeper::{self, Events};
use crate::edge::masters::MasterClient;
use crate::edge::recalls::Recallers;
use crate::edge::wire::Own;
use crate::edge::workers::Workers;
use crate::file::{File, Rules};
use crate::foreign::ForeignChanges;
use crate::session::{OpenFiles, OpenList};
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
/// Idle files that are tidied up at the same time; apart from recalls, for which another client waits.
const TIDIERS: usize = 4;
/// Idle files that wait for it; the rest is found again at the next tick.
const TIDIES_QUEUED: usize = 1024;
/// Masters to which control connections are made at the same time: a minority that does not answer keeps nobody waiting.
const CONNECTORS: usize = 3;
/// Masters that wait to be connected to; the rest is found again at the next look.
const CONNECTS_QUEUED: usize = 16;
/// Closed files that are told at once; fewer wait for the next turn.
const LEAVING_MAX: usize = 256;
/// Closed files whose content version is remembered, to keep the kernel's cache of them.
const REMEMBERED_MAX: usize = 1 << 16;
/// How soon bytes that came through a mapping are committed: their file may be closed already.
const MAPPED_DELAY: Duration = Duration::from_millis(300);

/// A MooseNG file system, reached over the network. Every function may be called by several threads at once, and
/// blocks until there is an answer, at most for about `retry_ms`.
#[derive(Debug)]
pub struct Client {
    pub(crate) config: ClientConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) masters: Arc<MasterClient>,
    pub(crate) chunks: ChunkClient,
    pub(crate) write_budget: Arc<Budget>,
    pub(crate) cache: Arc<DataCache>,
    pub(crate) flushers: Workers,
    pub(crate) fetchers: Workers,
    pub(crate) recallers: Recallers,
    pub(crate) tidiers: Workers,
    pub(crate) connectors: Workers,
    pub(crate) foreign: ForeignChanges,
    /// Locked before `inodes`, and those before a file.
    opens: Mutex<OpenFiles>,
    inodes: Mutex<HashMap<InodeId, Arc<Inode>>>,
    remembered: Mutex<HashMap<InodeId, u64>>,
    /// Files that were written through a mapping, and when that is to be committed.
    mapped: Mutex<BTreeMap<InodeId, Duration>>,
    stamps: AtomicU64,
    events: Events,
    threads: Threads,
}

impl Client {
    /// Finds the leader, within 10 s, and opens a session. `key` proves that this is a client of the cluster.
    pub fn connect(config: ClientConfig, key: PrincipalKey) -> Result<Arc<Self>> {
        Self::connect_with(config, key, Arc::new(SystemClock::default()), Arc::new(SystemEntropy))
    }

    /// The same with a clock and a source of randomness of the caller's.
    pub fn connect_with(
        config: ClientConfig,
        key: PrincipalKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>> {
        config
            .check()
            .map_err(|error| ClientError::Rejected { what: "configuration", message: error.to_string() })?;
        let (own, door) = (Own::of(&config, key, &*entropy), TimedDoor::new(Arc::clone(&clock)));
        let masters = MasterClient::connect(
            &config,
            own.clone(),
            START_PATIENCE,
            Arc::clone(&door),
            Arc::clone(&clock),
            entropy,
        )?;
        let no_thread = |error: std::io::Error| ClientError::Rejected {
            what: "start a thread",
            message: error.to_string(),
        };
        let (events, receiver) = Events::new();
        let client = Arc::new(Self {
            chunks: ChunkClient::new(own, door, Arc::clone(&clock)),
            write_budget: Budget::new(config.write_buffer_bytes),
            cache: DataCache::new(config.read_ahead_bytes),
            flushers: Workers::start("flush", FLUSHERS, FLUSHES_QUEUED).map_err(no_thread)?,
            fetchers: Workers::start("fetch", FETCHERS, FETCHES_QUEUED).map_err(no_thread)?,
            recallers: Recallers::new(Arc::clone(&clock)),
            tidiers: Workers::start("tidy", TIDIERS, TIDIES_QUEUED).map_err(no_thread)?,
            connectors: Workers::start("connect", CONNECTORS, CONNECTS_QUEUED).map_err(no_thread)?,
            foreign: ForeignChanges::default(),
            opens: Mutex::default(),
            inodes: Mutex::default(),
            remembered: Mutex::default(),
            mapped: Mutex::default(),
            stamps: AtomicU64::new(1),
            events,
            threads: Threads::default(),
            masters: Arc::new(masters),
            config,
            clock,
        });
        client.recallers.start(&client).map_err(no_thread)?;
        let weak = Arc::downgrade(&client);
        let (masters, events) = (Arc::clone(&client.masters), client.events.clone());
        client
            .threads
            .spawn("session", move || keeper::run(&weak, &masters, &events, &receiver))
            .map_err(no_thread)?;
        Ok(client)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// The requests to masters and chunkservers so far, by kind: how many, what became of them, and how long they took.
    #[must_use]
    pub fn requests(&self) -> Snapshot {
        self.masters.door().snapshot()
    }

    fn log_requests(&self) {
        for row in self.requests().requests {
            tracing::debug!(
                request = row.name(),
                requests = row.requests,
                errors = row.errors(),
                total_us = row.total_us,
                max_us = row.max_us,
                p50_us = row.percentile_us(50),
                p99_us = row.percentile_us(99),
                "requests"
            );
        }
    }

    /// Sends and commits everything that programs have written, gives back leases and open files, ends the session and
    /// waits for the threads. The first error of a file is returned, after all have been tried.
    pub fn close(self: &Arc<Self>) -> Result<()> {
        let mut outcome = Ok(());
        for inode in self.known_inodes() {
            let written = self.flush_and_commit(&inode, true).and_then(|()| self.give_back(&inode));
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
        self.log_requests();
        lock(&self.inodes).clear();
        outcome
    }

    /// A number above all earlier ones: orders what the masters tell of attributes.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::AcqRel)
    }

    /// How long something is tried.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.config.retry_ms)
    }

    /// The file, if it is known here.
    pub(crate) fn known(&self, inode: InodeId) -> Option<Arc<Inode>> {
        lock(&self.inodes).get(&inode).cloned()
    }

    /// Every file known here.
    pub(crate) fn known_inodes(&self) -> Vec<Arc<Inode>> {
        lock(&self.inodes).values().cloned().collect()
    }

    /// Which files are open.
    pub(crate) fn opens(&self) -> std::sync::MutexGuard<'_, OpenFiles> {
        lock(&self.opens)
    }

    /// The files that the masters should have down as open.
    pub(crate) fn list_open(&self) -> OpenList {
        self.opens().list()
    }

    /// The file, known from here on. Its open has begun.
    pub(crate) fn hold(&self, inode: InodeId) -> Arc<Inode> {
        let mut inodes = lock(&self.inodes);
        let held = inodes.entry(inode).or_insert_with(|| {
            let rules = Rules { patience: self.patience(), durable: self.config.fsync == FsyncMode::Disk };
            let seed = self.next_stamp() as u32;
            let file = File::new(inode, rules, seed, self.masters.sessions_lost());
            Inode::new(file, self.write_budget.empty_permit())
        });
        Arc::clone(held)
    }

    /// One handle less. The masters are told in the next turn, unless leases are kept for a while.
    pub(crate) fn let_go(self: &Arc<Self>, inode: &Arc<Inode>) {
        let unclean = {
            let mut core = inode.enter(self);
            core.last_used = self.clock.monotonic();
            !core.file.is_clean()
        };
        let (many, last) = {
            let mut opens = self.opens();
            opens.closed(inode.id);
            let many = opens.idle() >= LEAVING_MAX && opens.idle().is_multiple_of(LEAVING_MAX);
            (many, !opens.is_open(inode.id))
        };
        if unclean && last {
            // What came through a mapping after the close.
            lock(&self.mapped).insert(inode.id, Duration::ZERO);
        }
        if many {
            self.tell_closed();
        }
    }

    /// The file was written through a mapping: its programs may have closed it already, so nothing else commits it soon.
    pub(crate) fn written_by_mapping(&self, inode: InodeId) {
        let due = self.clock.monotonic() + MAPPED_DELAY;
        lock(&self.mapped).entry(inode).or_insert(due);
    }

    /// Files whose mapped writes are to be committed now.
    pub(crate) fn take_mapped(&self, now: Duration) -> Vec<Arc<Inode>> {
        let mut mapped = lock(&self.mapped);
        let due: Vec<InodeId> =
            mapped.iter().filter(|(_, due)| **due <= now).map(|(inode, _)| *inode).collect();
        mapped.retain(|inode, _| !due.contains(inode));
        drop(mapped);
        due.into_iter().filter_map(|inode| self.known(inode)).collect()
    }

    /// Tells the masters which files are closed, with one request for all that hold nothing any more, and forgets them.
    pub(crate) fn tell_closed(&self) {
        let may_go = |inode| self.known(inode).is_none_or(|inode| inode.enter(self).file.may_be_forgotten());
        let Some((number, closed)) = self.opens().take_closed(may_go) else { return };
        if let Err(error) = self.masters.release(&closed, number) {
            // The complete list that a new leader gets makes up for it.
            tracing::debug!(%error, "closed files were not told");
        }
        for inode in closed {
            self.forget(inode);
        }
    }

    /// Drops a file that no program has open and that holds nothing any more.
    fn forget(&self, id: InodeId) {
        let opens = self.opens();
        let mut inodes = lock(&self.inodes);
        let Some(inode) = inodes.get(&id) else { return };
        let pages = {
            let core = inode.enter(self);
            // It may have been opened meanwhile: an open begins before it takes hold of the file.
            if opens.is_known(id) || !core.file.may_be_forgotten() {
                return;
            }
            core.file.pages()
        };
        inodes.remove(&id);
        drop((inodes, opens));
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        if let Some(pages) = pages {
            remembered.insert(id, pages);
        }
    }

    /// The content version that the kernel's pages of a file are of, if it was known here before.
    pub(crate) fn remembered(&self, inode: InodeId) -> Option<u64> {
        lock(&self.remembered).get(&inode).copied()
    }

    /// Attributes as the masters told them, asked for at `asked`, as programs here are to see them: with what this
    /// client has written and not committed yet, and never older than what it has learnt meanwhile.
    pub(crate) fn seen(&self, attr: Attr, asked: u64) -> Attr {
        let Some(inode) = self.known(attr.inode) else { return attr };
        let mut core = inode.enter(self);
        core.file.learn(attr, asked, self.next_stamp());
        if core.file.take_foreign_change() {
            self.foreign.note(attr.inode);
        }
        core.file.seen().unwrap_or(attr)
    }
}
