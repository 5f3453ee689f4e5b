//! One copy of a chunk: who may touch it when, its open files, and the passage between clean and dirty.
//!
//! Two things guard a copy. Its mutex guards the state; a change (`write.rs`) holds it throughout. A read takes a
//! [`ReadPermit`] under the mutex and reads without it: a change waits until no permit is out, a new permit waits while
//! a change does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_env::{DiskFile, disk::OpenMode};
use mooseng_protocol::checksum;
use mooseng_protocol::token::Token;
use mooseng_types::{BLOCK_SIZE, BLOCKS_PER_CHUNK, CHUNK_SIZE, ChunkId, ChunkVersion};

use super::disk::ChunkDisk;
use super::error::StoreError;
use super::sidecar::{Header, SIDECAR_SIZE, TABLE_OFFSET, decode_table, encode_table};

/// How long a change waits for readers of the copy.
const READERS_WAIT: Duration = Duration::from_secs(2);

const PRESENT: u64 = 1 << 32;
const IN_DOUBT: u64 = 1 << 33;

/// One copy of a chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    id: ChunkId,
    pub(super) disk: Arc<ChunkDisk>,
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
    /// Found at start and not opened since: a process that was killed may have left a sidecar that is not durable.
    untouched: bool,
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
    /// The copy was found damaged and moved aside. Not made again under the same lease: what was written would be a
    /// hole.
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

/// While it lives, the copy does not change.
#[derive(Debug)]
pub(crate) struct ReadPermit {
    chunk: Arc<Chunk>,
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
    pub(super) fn absent(id: ChunkId, disk: Arc<ChunkDisk>) -> Self {
        let state = State {
            phase: Phase::Absent,
            version: ChunkVersion::from_raw(0),
            interrupted: false,
            untouched: false,
            readers: 0,
            writers_waiting: 0,
            open: None,
        };
        Self {
            id,
            disk,
            published: AtomicU64::new(0),
            last_used_ms: AtomicU64::new(0),
            state: Mutex::new(state),
            turn: Condvar::new(),
        }
    }

    /// A copy found at start; a dirty one is recovered now.
    pub(super) fn found(id: ChunkId, disk: Arc<ChunkDisk>, header: &Header) -> Result<Self, StoreError> {
        let chunk = Self::absent(id, disk);
        chunk.disk.count_copy();
        {
            let mut state = chunk.lock();
            state.phase = Phase::Present;
            state.untouched = true;
            chunk.set_version(&mut state, header.version);
            state.interrupted = header.dirty || header.interrupted;
            if header.dirty {
                let recovered = chunk.load(&mut state).map(drop);
                match chunk.settle(&mut state, recovered) {
                    Err(error @ (StoreError::Broken { .. } | StoreError::Disk { .. })) => return Err(error),
                    // What is in the way passes: the copy is here, and is recovered when it is used.
                    Err(error) => tracing::warn!(%error, "copy not recovered yet"),
                    Ok(()) => {}
                }
                state.open = None;
            }
        }
        Ok(chunk)
    }

    pub(crate) fn id(&self) -> ChunkId {
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

    pub(super) fn last_used_ms(&self) -> u64 {
        self.last_used_ms.load(Ordering::Relaxed)
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
            return Err(StoreError::Busy { chunk: self.id, why: "a slow reader is at work, send it again" });
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

    pub(super) fn set_version(&self, state: &mut State, version: ChunkVersion) {
        state.interrupted &= state.version == version;
        state.version = version;
        self.published.store(PRESENT | u64::from(version.raw()), Ordering::Release);
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
        let chunk = self.id;
        if self.disk.failed() {
            let source = std::io::Error::other("out of use since an earlier error");
            return Err(StoreError::Disk { chunk, path: self.disk.root().to_owned(), source });
        }
        match state.phase {
            Phase::Present => Ok(()),
            Phase::Absent => Err(StoreError::NotFound { chunk }),
            Phase::Broken => Err(StoreError::Broken { chunk, why: "found damaged before".into() }),
            Phase::Gone => Err(StoreError::Busy { chunk, why: "the copy has just been removed" }),
        }
    }

    /// Refuses a token of another time: the copy must have seen the lease before, and none after.
    pub(super) fn admit_lease(&self, state: &State, token: &Token) -> Result<(), StoreError> {
        let (chunk, have) = (self.id, state.version);
        if have < token.base_version {
            return Err(StoreError::Stale { chunk, have, need: token.base_version });
        }
        if have > token.version {
            return Err(StoreError::Fenced { chunk, have, lease: token.version });
        }
        if have == token.version && state.interrupted {
            return Err(StoreError::Interrupted { chunk, version: have });
        }
        Ok(())
    }

    /// Draws the consequences of an error: a broken copy is moved aside, a failing disk is taken out of use.
    pub(super) fn settle<T>(
        &self,
        state: &mut State,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &result {
            Err(StoreError::Broken { why, .. }) if state.phase == Phase::Present => {
                state.phase = Phase::Broken;
                state.open = None;
                self.unpublish();
                self.disk.closed(self.id);
                self.disk.uncount_copy();
                self.disk.move_aside(self.id, why);
            }
            Err(StoreError::Disk { source, .. }) => self.disk.fail(source),
            _ => {}
        }
        result
    }

    pub(super) fn io(&self) -> impl Fn(std::io::Error) -> StoreError + '_ {
        |source| self.disk.trouble(self.id, source)
    }

    /// The open copy; opens it where it is not.
    pub(super) fn opened<'a>(
        self: &Arc<Self>,
        state: &'a mut State,
        now: Duration,
    ) -> Result<&'a mut OpenCopy, StoreError> {
        self.touch(now);
        if state.open.is_none() {
            self.load(state)?;
            self.disk.opened(self);
        }
        state.open.as_mut().ok_or(StoreError::NotFound { chunk: self.id })
    }

    /// Opens the files and believes the sidecar, or makes the checksums anew where it says that it cannot be believed.
    fn load(&self, state: &mut State) -> Result<(), StoreError> {
        let broken = |why: String| StoreError::Broken { chunk: self.id, why };
        let meta = self.disk.disk.open(&self.disk.meta_path(self.id), OpenMode::Read).map_err(self.io())?;
        let header = self.disk.read_header(self.id, &*meta).map_err(self.io())?.map_err(broken)?;
        if state.untouched {
            meta.sync_data().map_err(|source| self.failed_sync(source))?;
            state.untouched = false;
        }
        let data = self.disk.disk.open(&self.disk.data_path(self.id), OpenMode::Write).map_err(self.io())?;
        let length = data.len().map_err(self.io())?;
        if length > CHUNK_SIZE {
            return Err(broken(format!("the data file has {length} bytes, more than a chunk")));
        }
        if !header.dirty && length != u64::from(header.length) {
            let why = format!("the data file has {length} bytes, the sidecar says {}", header.length);
            return Err(broken(why));
        }
        let mut copy = OpenCopy {
            data,
            length,
            table: Vec::with_capacity(BLOCKS_PER_CHUNK as usize),
            dirty: header.dirty,
            changes: u64::from(header.dirty),
            synced: 0,
            last_write: Duration::ZERO,
            cold_range: (0, 0),
            read_end: 0,
        };
        let mut table = vec![0; 4 * blocks(length)];
        let read = meta.read_exact_at(&mut table, TABLE_OFFSET);
        if !header.dirty && read.is_ok() && crc32c::crc32c(&table) == header.table_crc {
            copy.table.extend(decode_table(&table));
        } else {
            self.recover(&mut copy, header.version, state.interrupted)?;
        }
        state.open = Some(copy);
        Ok(())
    }

    /// Makes the checksums of a copy anew from its data and stores them.
    fn recover(
        &self,
        copy: &mut OpenCopy,
        version: ChunkVersion,
        interrupted: bool,
    ) -> Result<(), StoreError> {
        let mut block = vec![0; BLOCK_SIZE as usize];
        for index in 0..blocks(copy.length) {
            let crc = self.checksum_on_disk(copy, index, &mut block)?;
            copy.table.push(crc);
        }
        copy.data.sync_data().map_err(self.io())?;
        copy.synced = copy.changes;
        match self.store_clean(copy, version, interrupted) {
            // The copy stays dirty on a full disk. Its data is there and synced, and can be read.
            Err(StoreError::NoSpace { .. }) => {}
            stored => stored?,
        }
        self.published.fetch_or(IN_DOUBT, Ordering::AcqRel);
        tracing::info!(chunk = %self.id, length = copy.length, "copy recovered, its last writes are in doubt");
        Ok(())
    }

    /// Reads a block into `into` and returns its checksum.
    pub(super) fn checksum_on_disk(
        &self,
        copy: &OpenCopy,
        index: usize,
        into: &mut [u8],
    ) -> Result<u32, StoreError> {
        let start = index as u64 * BLOCK_SIZE;
        let length = usize::try_from((copy.length - start).min(BLOCK_SIZE)).unwrap_or(0);
        copy.data.read_exact_at(&mut into[..length], start).map_err(self.io())?;
        Ok(checksum::of_piece(self.id, index as u32, &into[..length]))
    }

    /// Makes the files of a new copy, dirty from its first byte. They are durable before the first write is answered: a
    /// copy that vanished with the power would be made anew by the next write under the same lease, without the first.
    pub(super) fn create(
        self: &Arc<Self>,
        state: &mut State,
        version: ChunkVersion,
        now: Duration,
    ) -> Result<(), StoreError> {
        if self.disk.room() == 0 {
            state.phase = Phase::Gone;
            return Err(StoreError::NoSpace { chunk: self.id });
        }
        let made = self.make_files(version);
        match made {
            Ok((data, meta)) => {
                let durable =
                    meta.sync_data().and_then(|()| self.disk.disk.sync_dir(&self.disk.directory(self.id)));
                if let Err(source) = durable {
                    state.phase = Phase::Gone;
                    return Err(self.failed_sync(source));
                }
                state.phase = Phase::Present;
                state.open = Some(OpenCopy {
                    data,
                    length: 0,
                    table: Vec::with_capacity(BLOCKS_PER_CHUNK as usize),
                    dirty: true,
                    changes: 1,
                    synced: 0,
                    last_write: now,
                    cold_range: (0, 0),
                    read_end: 0,
                });
                self.set_version(state, version);
                self.touch(now);
                self.disk.count_copy();
                self.disk.opened(self);
                Ok(())
            }
            Err(error) => {
                let error = self.disk.trouble(self.id, error);
                if matches!(error, StoreError::Broken { .. }) {
                    self.disk.move_aside(self.id, "files of an unknown copy are in the place of a new one");
                } else {
                    // Best effort: what is left over is found and moved aside at the next start.
                    drop(self.disk.remove_if_there(&self.disk.meta_path(self.id)));
                    drop(self.disk.remove_if_there(&self.disk.data_path(self.id)));
                }
                state.phase = Phase::Gone;
                Err(error)
            }
        }
    }

    fn make_files(&self, version: ChunkVersion) -> std::io::Result<(Arc<dyn DiskFile>, Arc<dyn DiskFile>)> {
        let data = self.disk.disk.open(&self.disk.data_path(self.id), OpenMode::CreateNew)?;
        let meta = self.disk.disk.open(&self.disk.meta_path(self.id), OpenMode::CreateNew)?;
        meta.write_all_at(&self.header(version, true, &[], 0).encode(), 0)?;
        meta.set_len(SIDECAR_SIZE)?;
        Ok((data, meta))
    }

    pub(super) fn header(&self, version: ChunkVersion, dirty: bool, table: &[u8], length: u64) -> Header {
        Header {
            chunk: self.id,
            version,
            cluster: self.disk.cluster,
            dirty,
            interrupted: false,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            table_crc: crc32c::crc32c(table),
        }
    }

    /// Prepares the copy for a change under the lease of `version`: the header on the disk says dirty and has the
    /// version before the first byte changes.
    pub(super) fn make_dirty(&self, state: &mut State, version: ChunkVersion) -> Result<(), StoreError> {
        let adopted = state.version != version;
        let Some(copy) = state.open.as_mut() else { return Err(StoreError::NotFound { chunk: self.id }) };
        if copy.dirty && !adopted {
            return Ok(());
        }
        let meta = self.disk.disk.open(&self.disk.meta_path(self.id), OpenMode::Write).map_err(self.io())?;
        meta.write_all_at(&self.header(version, true, &[], 0).encode(), 0).map_err(self.io())?;
        meta.sync_data().map_err(|source| self.failed_sync(source))?;
        copy.dirty = true;
        self.set_version(state, version);
        Ok(())
    }

    /// A failed sync is the end of the disk, whatever the error's kind: what is on it is not known any more.
    pub(super) fn failed_sync(&self, source: std::io::Error) -> StoreError {
        StoreError::Disk { chunk: self.id, path: self.disk.root().to_owned(), source }
    }

    /// Stores table and clean header, durably. The data has been synced. That the lease was `interrupted` stays known, also
    /// over a further start, until a later one writes.
    pub(super) fn store_clean(
        &self,
        copy: &mut OpenCopy,
        version: ChunkVersion,
        interrupted: bool,
    ) -> Result<(), StoreError> {
        let table = encode_table(&copy.table);
        let meta = self.disk.disk.open(&self.disk.meta_path(self.id), OpenMode::Write).map_err(self.io())?;
        meta.write_all_at(&table, TABLE_OFFSET).map_err(self.io())?;
        let header = Header { interrupted, ..self.header(version, false, &table, copy.length) };
        meta.write_all_at(&header.encode(), 0).map_err(self.io())?;
        meta.sync_data().map_err(|source| self.failed_sync(source))?;
        copy.dirty = false;
        Ok(())
    }

    /// Closes the files of a copy that nobody is using; `false` if somebody is, or if it is dirty.
    pub(super) fn close_if_clean(&self) -> bool {
        let Some(mut state) = self.try_lock() else { return false };
        if state.readers > 0 || state.open.as_ref().is_some_and(|copy| copy.dirty) {
            return false;
        }
        state.open = None;
        true
    }
}
