//! One copy of a chunk, whole or a part: what is known of it, who may touch it when, and what follows from an error.
//!
//! Two things guard a copy. Its mutex guards the state; a change (`write.rs`) holds it throughout. A read takes a
//! [`ReadPermit`] under the mutex and reads without it: a change waits until no permit is out, a new permit waits while
//! a change does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_env::DiskFile;
use mooseng_protocol::token::Token;
use mooseng_types::{BLOCK_SIZE, ChunkVersion, Part};

use super::disk::ChunkDisk;
use super::error::StoreError;
use super::open_copies::{Closable, OpenCopies};
use super::sidecar::Header;
use crate::copy_events::CopyEvent;

/// How long a change waits for readers of the copy.
const READERS_WAIT: Duration = Duration::from_secs(2);

const PRESENT: u64 = 1 << 32;
const IN_DOUBT: u64 = 1 << 33;

/// One copy of a chunk, whole or a part.
#[derive(Debug)]
pub(crate) struct Chunk {
    id: Part,
    pub(super) disk: Arc<ChunkDisk>,
    pub(super) open_copies: Arc<OpenCopies<Chunk>>,
    /// Version, `PRESENT`, `IN_DOUBT`: for reports, which must not wait for a disk.
    published: AtomicU64,
    last_used_ms: AtomicU64,
    state: Mutex<State>,
    turn: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) version: ChunkVersion,
    /// Found dirty at start: writes under the lease of `version` may be lost, so none more may be added to them, nor any
    /// sync answer for them.
    pub(super) interrupted: bool,
    /// Found dirty at some start, and not written anew as a whole since: other copies may have what this one has lost.
    pub(super) in_doubt: bool,
    /// Found at start and not opened since: a process that was killed may have left a sidecar that is not durable.
    pub(super) untouched: bool,
    /// Counts the changes since the start.
    pub(super) changes: u64,
    /// Every block was read and matched, and the copy has not changed since.
    pub(super) verified: bool,
    readers: u32,
    writers_waiting: u32,
    pub(super) open: Option<OpenCopy>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// A place on a disk was chosen; no file was made yet.
    Absent,
    /// The copy is here.
    Present,
    /// The copy was found damaged and moved aside, now or before a start. Never made again by a write: what was written
    /// before would be a hole. Only a fetched copy takes its place.
    Broken,
    /// Deleted, or never came to be. The store has forgotten this one.
    Gone,
}

/// A copy with open files.
#[derive(Debug)]
pub(super) struct OpenCopy {
    pub(super) data: Arc<dyn DiskFile>,
    pub(super) length: u64,
    /// A checksum for each block that begins below `length`.
    pub(super) table: Vec<u32>,
    /// The header on the disk says dirty.
    pub(super) dirty: bool,
    /// Counts the changes of the data file.
    pub(super) changes: u64,
    /// The last change that a finished sync has covered.
    pub(super) synced: u64,
    pub(super) last_write: Duration,
    /// Bytes written one after another for which no write-back has begun.
    pub(super) cold_range: (u64, u64),
    /// Where the last read ended, to know a sequential reader.
    pub(super) read_end: u64,
}

/// Whether the holder of a lease counts on what this copy got before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Follows {
    /// It has written under an earlier version what no sync has covered, and will not write it again.
    Unsynced,
    /// The copy has confirmed something under the lease. One that is not there has lost it, and is not made anew.
    Something,
    /// It writes again whatever no sync has covered, and knows of nothing that the copy should have.
    Nothing,
}

/// While it lives, the copy does not change.
#[derive(Debug)]
pub(crate) struct ReadPermit {
    chunk: Arc<Chunk>,
}

impl ReadPermit {
    pub(super) fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        self.chunk.lock().readers -= 1;
        self.chunk.turn.notify_all();
    }
}

/// Blocks that begin below `length`.
pub(super) fn blocks(length: u64) -> usize {
    usize::try_from(length.div_ceil(BLOCK_SIZE)).unwrap_or(usize::MAX)
}

impl Chunk {
    /// A chunk that is to be made on `disk`.
    pub(super) fn absent(id: Part, disk: Arc<ChunkDisk>, open_copies: Arc<OpenCopies<Self>>) -> Self {
        Self::without_copy(id, disk, open_copies, Phase::Absent)
    }

    /// A chunk whose copy was moved aside before a start.
    pub(super) fn broken(id: Part, disk: Arc<ChunkDisk>, open_copies: Arc<OpenCopies<Self>>) -> Self {
        Self::without_copy(id, disk, open_copies, Phase::Broken)
    }

    fn without_copy(
        id: Part,
        disk: Arc<ChunkDisk>,
        open_copies: Arc<OpenCopies<Self>>,
        phase: Phase,
    ) -> Self {
        let state = State {
            phase,
            version: ChunkVersion::from_raw(0),
            interrupted: false,
            in_doubt: false,
            untouched: false,
            changes: 0,
            verified: false,
            readers: 0,
            writers_waiting: 0,
            open: None,
        };
        Self {
            id,
            disk,
            open_copies,
            published: AtomicU64::new(0),
            last_used_ms: AtomicU64::new(0),
            state: Mutex::new(state),
            turn: Condvar::new(),
        }
    }

    /// A copy found at start; a dirty one is recovered now.
    pub(super) fn found(
        id: Part,
        disk: Arc<ChunkDisk>,
        open_copies: Arc<OpenCopies<Self>>,
        header: &Header,
    ) -> Result<Self, StoreError> {
        let chunk = Self::absent(id, disk, open_copies);
        chunk.disk.count_copy();
        chunk.take_over(&mut chunk.lock(), header)?;
        Ok(chunk)
    }

    /// Becomes the copy whose files have this header; a dirty one is recovered.
    pub(super) fn take_over(&self, state: &mut State, header: &Header) -> Result<(), StoreError> {
        state.phase = Phase::Present;
        state.untouched = true;
        state.interrupted = header.dirty || header.interrupted;
        state.in_doubt = header.dirty || header.in_doubt;
        state.version = header.version;
        self.publish(state);
        if !header.dirty {
            return Ok(());
        }
        let recovered = self.load(state).map(drop);
        let concluded = self.conclude(state, recovered);
        state.open = None;
        match concluded {
            Err(error @ (StoreError::Broken { .. } | StoreError::Disk { .. })) => Err(error),
            // What is in the way passes: the copy is here, and is recovered when it is used.
            Err(error) => {
                tracing::warn!(%error, "copy not recovered yet");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    pub(crate) fn id(&self) -> Part {
        self.id
    }

    pub(crate) fn disk(&self) -> &Arc<ChunkDisk> {
        &self.disk
    }

    /// The copy's version and whether its content is in doubt; `None` if there is no copy to speak of.
    pub(crate) fn published(&self) -> Option<(ChunkVersion, bool)> {
        let published = self.published.load(Ordering::Acquire);
        let version = u32::try_from(published & u64::from(u32::MAX)).unwrap_or(0);
        let there = published & PRESENT != 0 && !self.disk.failed();
        there.then_some((ChunkVersion::from_raw(version), published & IN_DOUBT != 0))
    }

    pub(super) fn touch(&self, now: Duration) {
        self.last_used_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if nobody has it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock().ok()
    }

    /// The lock with no reader at work. A reader that does not come to an end is not waited for for ever.
    pub(super) fn lock_to_change(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.lock();
        if state.readers == 0 {
            return Ok(state);
        }
        state.writers_waiting += 1;
        let reading = |state: &mut State| state.readers > 0;
        let waited = self.turn.wait_timeout_while(state, READERS_WAIT, reading);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.writers_waiting -= 1;
        if state.writers_waiting == 0 {
            self.turn.notify_all();
        }
        if state.readers > 0 {
            return Err(StoreError::Busy { part: self.id, why: "a slow reader is at work" });
        }
        Ok(state)
    }

    /// The lock with no change waiting, for one who will take a permit.
    pub(super) fn lock_to_read(&self) -> MutexGuard<'_, State> {
        let waiting = |state: &mut State| state.writers_waiting > 0;
        self.turn.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn permit(self: &Arc<Self>, state: &mut State) -> ReadPermit {
        state.readers += 1;
        ReadPermit { chunk: Arc::clone(self) }
    }

    /// Takes on the version of a lease. An interruption of an earlier one is over: whoever has the new one knows of it,
    /// or has lost nothing by it.
    pub(super) fn set_version(&self, state: &mut State, version: ChunkVersion) {
        state.interrupted &= state.version == version;
        state.version = version;
        self.publish(state);
        let event = CopyEvent::Here { version, in_doubt: state.in_doubt, verified: false };
        self.disk.events.note_in_passing(self.id, event);
    }

    /// The copy is in doubt no more, which the masters will want to know.
    pub(super) fn clear_doubt(&self, state: &mut State) {
        if std::mem::take(&mut state.in_doubt) {
            self.publish(state);
            let event = CopyEvent::Here { version: state.version, in_doubt: false, verified: false };
            self.disk.events.note(self.id, event);
        }
    }

    /// Tells the leader once more what it may know already.
    pub(super) fn remind(&self, state: &State) {
        self.disk.events.remind(self.id, state.version, state.in_doubt);
    }

    pub(super) fn publish(&self, state: &State) {
        let doubt = if state.in_doubt { IN_DOUBT } else { 0 };
        self.published.store(PRESENT | doubt | u64::from(state.version.raw()), Ordering::Release);
    }

    pub(super) fn unpublish(&self) {
        self.published.store(0, Ordering::Release);
    }

    /// Whether the store should forget this chunk.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().phase == Phase::Gone
    }

    /// Refuses where there is no copy to work on.
    pub(super) fn admit_present(&self, state: &State) -> Result<(), StoreError> {
        let part = self.id;
        if self.disk.failed() {
            return Err(self.disk_fails(std::io::Error::other("out of use since an earlier error")));
        }
        match state.phase {
            Phase::Present => Ok(()),
            Phase::Absent => Err(StoreError::NotFound { part }),
            Phase::Broken => Err(StoreError::Broken { part, why: "found damaged before".into() }),
            Phase::Gone => Err(StoreError::Busy { part, why: "the copy has just been removed" }),
        }
    }

    /// Refuses a token of another time: the copy must have seen the lease before, and none after. A copy that may have lost
    /// what was written under one takes no more under that one, nor under a later one that counts on it.
    pub(super) fn admit_lease(
        &self,
        state: &State,
        token: &Token,
        follows: Follows,
    ) -> Result<(), StoreError> {
        let (part, have) = (self.id, state.version);
        if have < token.base_version {
            return Err(StoreError::Stale { part, have, need: token.base_version });
        }
        if have > token.version {
            return Err(StoreError::Fenced { part, have, lease: token.version });
        }
        if state.interrupted && (have == token.version || follows == Follows::Unsynced) {
            return Err(StoreError::Interrupted { part, version: have });
        }
        Ok(())
    }

    /// Draws the consequences of an error: a broken copy is moved aside, a failing disk is taken out of use.
    pub(super) fn conclude<T>(
        &self,
        state: &mut State,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &result {
            Err(StoreError::Broken { why, .. }) if state.phase == Phase::Present => {
                // With the whole disk gone, every copy looks broken.
                if let Err(source) = self.disk.check_mark() {
                    self.disk.fail(&source);
                    return Err(self.disk_fails(source));
                }
                state.phase = Phase::Broken;
                self.close(state);
                self.unpublish();
                self.disk.uncount_copy();
                self.disk.move_aside(self.id, why);
            }
            Err(StoreError::Disk { source, .. }) => self.disk.fail(source),
            _ => {}
        }
        result
    }

    /// What follows from an error of a read that was made without the lock. The caller has no permit any more.
    pub(crate) fn read_failed(self: &Arc<Self>, source: std::io::Error) -> StoreError {
        self.conclude_unlocked(self.disk.trouble(self.id, source))
    }

    pub(super) fn conclude_unlocked(self: &Arc<Self>, error: StoreError) -> StoreError {
        let mut state = match self.lock_to_change() {
            Ok(state) => state,
            // The next one who reads finds it again.
            Err(busy) => return busy,
        };
        match self.conclude::<()>(&mut state, Err(error)) {
            Err(error) => error,
            Ok(()) => StoreError::NotFound { part: self.id },
        }
    }

    pub(super) fn io(&self) -> impl Fn(std::io::Error) -> StoreError + '_ {
        |source| self.disk.trouble(self.id, source)
    }

    /// An error that is the end of the disk, whatever its kind. A failed sync is one: what is on the disk is not known
    /// any more.
    pub(super) fn disk_fails(&self, source: std::io::Error) -> StoreError {
        StoreError::Disk { part: self.id, path: self.disk.root().to_owned(), source }
    }

    /// Closes the files, if they are open.
    pub(super) fn close(&self, state: &mut State) {
        state.open = None;
        self.open_copies.closed(self);
    }
}

impl Closable for Chunk {
    fn last_used_ms(&self) -> u64 {
        self.last_used_ms.load(Ordering::Relaxed)
    }

    fn try_close(&self) -> bool {
        let Some(mut state) = self.try_lock() else { return false };
        // A dirty copy on a disk that is out of use does not become clean any more.
        let dirty = state.open.as_ref().is_some_and(|copy| copy.dirty) && !self.disk.failed();
        if state.readers > 0 || dirty {
            return false;
        }
        self.close(&mut state);
        true
    }
}
