//! What is known of a file that is, or was a moment ago, open here: one small state under one lock, never held across
//! a request.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooseng_types::{Attr, ChunkId, ChunkIndex, ChunkVersion, InodeId, ServerId, TimeNs};

use crate::budget::Permit;
use crate::chunk_client::ChunkRef;
use crate::master_client::{Located, Placement};
use crate::read_ahead::ReadAhead;
use crate::write_buffer::WriteBuffer;
use crate::{ClientError, Result, lock};

/// A file known here.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) id: InodeId,
    state: Mutex<State>,
    /// A piece was confirmed, a lease came or went, a release is through.
    pub(crate) changed: Condvar,
    /// Held by whoever flushes and commits, across the requests: one at a time per file.
    pub(crate) committing: Mutex<()>,
}

/// Where the content lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Nowhere: there is none.
    Empty,
    /// In the metadata; this is it.
    Inline(Bytes),
    /// In chunks, or not known: a look at the masters will tell.
    Chunks,
}

/// Whether the masters have the file down as open by this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtMasters {
    /// It is not.
    Closed,
    /// It is.
    Open,
    /// It is, but nobody here needs it: the next batch of releases tells them, unless it is opened before.
    Leaving,
    /// A release is under way; an open has to wait for it, or the two could change places.
    Releasing,
}

/// A lease as it is used for requests.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) chunk: ChunkRef,
    pub(crate) servers: Vec<Placement>,
}

/// How far a lease is.
#[derive(Debug)]
pub(crate) enum LeaseState {
    /// Somebody is getting, renewing or giving it back; wait.
    Busy,
    /// It is held.
    Held(Arc<Grant>),
    /// A new grant is needed, without these servers.
    Broken(Vec<ServerId>),
}

/// The write lease of one chunk and what was done under it.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) state: LeaseState,
    /// The last grant whose chain was made ready; a grant that follows it directly finds the copies as they were left.
    pub(crate) ready: Option<(ChunkId, ChunkVersion)>,
    /// The last version that the copies are known to have.
    pub(crate) adopted: Option<ChunkVersion>,
    /// Requests under way that use the grant.
    pub(crate) users: u32,
    /// Something was written that no sync has covered.
    pub(crate) unsynced: bool,
    /// Something was written that no commit has covered.
    pub(crate) uncommitted: bool,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            state: LeaseState::Broken(Vec::new()),
            ready: None,
            adopted: None,
            users: 0,
            unsynced: false,
            uncommitted: false,
        }
    }
}

impl Lease {
    /// Whether the grant of this version is the one that is held.
    pub(crate) fn holds(&self, version: ChunkVersion) -> bool {
        matches!(&self.state, LeaseState::Held(grant) if grant.chunk.version == version)
    }
}

/// The state of a file.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) handles: u32,
    pub(crate) at_masters: AtMasters,
    /// As the masters last told, and when that was by the client's count of such tellings.
    pub(crate) attr: Option<Attr>,
    pub(crate) attr_stamp: u64,
    /// The end of the file as programs here see it.
    pub(crate) size: u64,
    /// The last write here that no commit has told the masters.
    pub(crate) mtime: Option<TimeNs>,
    /// The highest end of what chunkservers have confirmed since the last commit.
    pub(crate) landed: u64,
    pub(crate) layout: Layout,
    pub(crate) buffer: WriteBuffer,
    pub(crate) permit: Permit,
    pub(crate) leases: BTreeMap<ChunkIndex, Lease>,
    /// `None` for a hole.
    pub(crate) located: HashMap<ChunkIndex, Option<Arc<Located>>>,
    /// Names the state of the content in the cache of pieces.
    pub(crate) content: u64,
    /// The last error of writing in the background, and how many there were.
    error: Option<ClientError>,
    errors: u64,
    sessions_lost: u64,
    pub(crate) last_used: Duration,
    /// Until then the file is believed to have no `security.capability`, for which the kernel asks at every write.
    pub(crate) no_capability_until: Duration,
}

impl Inode {
    pub(crate) fn new(id: InodeId, permit: Permit, content: u64, sessions_lost: u64) -> Arc<Self> {
        let state = State {
            handles: 0,
            at_masters: AtMasters::Closed,
            attr: None,
            attr_stamp: 0,
            size: 0,
            mtime: None,
            landed: 0,
            layout: Layout::Chunks,
            buffer: WriteBuffer::default(),
            permit,
            leases: BTreeMap::new(),
            located: HashMap::new(),
            content,
            error: None,
            errors: 0,
            sessions_lost,
            last_used: Duration::ZERO,
            no_capability_until: Duration::ZERO,
        };
        Arc::new(Self { id, state: Mutex::new(state), changed: Condvar::new(), committing: Mutex::new(()) })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for a change of the state.
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the masters know all that was done here.
    pub(crate) fn is_clean(&self) -> bool {
        self.buffer.is_empty() && self.mtime.is_none() && self.leases.values().all(|lease| !lease.uncommitted)
    }

    /// Whether no program has the file open and nothing is held for it.
    pub(crate) fn is_unused(&self) -> bool {
        self.handles == 0 && self.is_clean() && self.leases.is_empty()
    }

    /// Keeps an error of the background until a program asks.
    pub(crate) fn latch(&mut self, error: ClientError) {
        tracing::error!(%error, "written data was lost");
        self.error = Some(error);
        self.errors += 1;
    }

    /// How many errors there have been; a handle remembers how many it has told.
    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    /// Leases end with their session. What was written under them and not committed is lost.
    pub(crate) fn forget_leases_of_lost_sessions(&mut self, sessions_lost: u64) {
        if self.sessions_lost == sessions_lost {
            return;
        }
        self.sessions_lost = sessions_lost;
        let lost = self.leases.values().any(|lease| lease.uncommitted || lease.unsynced);
        self.leases.retain(|_, lease| {
            *lease = Lease { users: lease.users, ..Lease::default() };
            lease.users > 0
        });
        self.located.clear();
        if lost {
            let last = "the session expired before the data was committed".to_owned();
            self.latch(ClientError::GaveUp { what: "write", after_ms: 0, last });
        }
    }

    /// The attributes as programs here are to see them.
    pub(crate) fn seen(&self, mut attr: Attr) -> Attr {
        if !self.is_clean() {
            attr.size = attr.size.max(self.size);
            if let Some(mtime) = self.mtime {
                attr.mtime = mtime;
                attr.ctime = attr.ctime.max(mtime);
            }
        }
        attr
    }

    /// The masters have told attributes. `content` names a new state of the content in case it has changed.
    pub(crate) fn learn(&mut self, attr: Attr, stamp: u64, content: u64) {
        if self.is_clean() {
            let same = self.attr.is_some_and(|old| (old.mtime, old.size) == (attr.mtime, attr.size));
            if !same {
                self.located.clear();
                self.content = content;
                self.layout = if attr.size == 0 { Layout::Empty } else { Layout::Chunks };
            }
            self.size = attr.size;
        } else {
            self.size = self.size.max(attr.size);
        }
        self.attr = Some(attr);
        self.attr_stamp = stamp;
    }

    /// The masters have confirmed a change that was made here: the content is what this client believes it to be.
    pub(crate) fn confirm(&mut self, attr: Attr, stamp: u64) {
        self.attr = Some(attr);
        self.attr_stamp = stamp;
        self.size = if self.is_clean() { attr.size } else { self.size.max(attr.size) };
    }
}

/// An open file. Given back by [`Client::release`](crate::Client::release).
#[derive(Debug)]
pub struct OpenFile {
    pub(crate) inode: Arc<Inode>,
    pub(crate) read_ahead: Mutex<ReadAhead>,
    errors_told: AtomicU64,
    /// The content is what this client last saw when it opened the file: caches of it may be kept.
    pub(crate) unchanged: bool,
}

impl OpenFile {
    pub(crate) fn new(inode: Arc<Inode>, errors: u64, unchanged: bool) -> Arc<Self> {
        let errors_told = AtomicU64::new(errors);
        Arc::new(Self { inode, read_ahead: Mutex::default(), errors_told, unchanged })
    }

    /// The file that is open.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        self.inode.id
    }

    /// Whether size and modification time are those of the last time this client opened the file.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.unchanged
    }

    /// Tells an error of writing in the background, once to each open file.
    pub(crate) fn tell_error(&self, state: &State) -> Result<()> {
        if self.errors_told.swap(state.errors, Ordering::Relaxed) == state.errors {
            return Ok(());
        }
        state.error.clone().map_or(Ok(()), Err)
    }
}
