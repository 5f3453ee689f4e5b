//! Changes of a copy: write, truncate, sync, the way back to clean, delete.

use std::sync::Arc;
use std::time::Duration;

use mooseng_protocol::checksum;
use mooseng_protocol::token::Token;
use mooseng_types::{BLOCK_SIZE, CHUNK_SIZE, Part};

use super::chunk::{Chunk, Follows, OpenCopy, Phase, State, blocks};
use super::error::StoreError;
use crate::copy_events::CopyEvent;

/// Bytes written one after another before their write-back is begun: enough for the disk to work in large portions, little
/// enough for a sync to find almost nothing left to do.
const WRITEBACK_BYTES: u64 = 2 << 20;
/// Writes of this size and more go past the kernel's cache: to fill it would cost more than the disk, and a stream of
/// that size is seldom read back at once.
const BULK_MIN: usize = 256 << 10;

static ZEROS: [u8; BLOCK_SIZE as usize] = [0; BLOCK_SIZE as usize];

/// A write whose payload has been verified.
#[derive(Clone, Copy)]
struct Payload<'a> {
    offset: u64,
    bytes: &'a [u8],
    checksums: &'a [u32],
}

impl Payload<'_> {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl Chunk {
    /// Writes `bytes` at `offset`. `checksums` are those of its sections.
    pub(crate) fn write(
        self: &Arc<Self>,
        now: Duration,
        token: &Token,
        follows: Follows,
        offset: u64,
        bytes: &[u8],
        checksums: &[u32],
    ) -> Result<(), StoreError> {
        let part = self.id();
        if offset + bytes.len() as u64 > CHUNK_SIZE {
            return Err(StoreError::Invalid { part, what: "the write reaches beyond the chunk" });
        }
        if !checksum::matches(part, offset, bytes, checksums) {
            return Err(StoreError::DamagedOnTheWay { part });
        }
        let mut state = self.lock_to_change()?;
        let done = self.write_locked(&mut state, now, token, follows, Payload { offset, bytes, checksums });
        self.conclude(&mut state, done)
    }

    fn write_locked(
        self: &Arc<Self>,
        state: &mut State,
        now: Duration,
        token: &Token,
        follows: Follows,
        payload: Payload<'_>,
    ) -> Result<(), StoreError> {
        self.admit_change(state, token, follows, now)?;
        let copy = self.opened(state, now)?;
        let Payload { offset, bytes, checksums } = payload;
        let end = payload.end();
        let growth = end.saturating_sub(copy.length);
        if growth > 0 && self.disk.room() < growth {
            return Err(self.disk.no_space(self.id()));
        }
        let mut table = copy.table.clone();
        extend_with_zeros(self.id(), &mut table, copy.length, offset);
        let length = copy.length.max(offset);
        for ((index, section), crc) in checksum::sections(offset, bytes).zip(checksums) {
            let crc = self.merged(copy, &table, length, (index, offset), section, *crc)?;
            set(&mut table, index as usize, crc);
        }
        self.make_dirty(state, token.version)?;
        let copy = self.opened(state, now)?;
        let written = if bytes.len() >= BULK_MIN {
            copy.data.write_bulk_at(bytes, offset)
        } else {
            copy.data.write_all_at(bytes, offset)
        };
        if let Err(error) = written {
            self.undo_partial_write(copy, payload, &table)?;
            return Err(self.disk.trouble(self.id(), error));
        }
        copy.table = table;
        copy.length = copy.length.max(end);
        self.changed(copy, now, growth);
        begin_writeback(copy, offset, end);
        Ok(())
    }

    /// The checksum of a block of which `section` (at or behind `at.1`, in block `at.0`) becomes a part. Before the write,
    /// the copy, its hole filled with zeros, is `length` bytes long, with the checksums of `table`.
    fn merged(
        &self,
        copy: &OpenCopy,
        table: &[u32],
        length: u64,
        at: (u32, u64),
        section: &[u8],
        section_crc: u32,
    ) -> Result<u32, StoreError> {
        let (index, offset) = at;
        let block_start = u64::from(index) * BLOCK_SIZE;
        let from = offset.max(block_start) - block_start;
        let to = from + section.len() as u64;
        let old_length = length.saturating_sub(block_start).min(BLOCK_SIZE);
        if from == 0 && to >= old_length {
            return Ok(section_crc);
        }
        let old_crc = table.get(index as usize).copied().unwrap_or_default();
        if from == old_length {
            return Ok(crc32c::crc32c_append(old_crc, section));
        }
        // The block on the disk ends at the copy's old end; the zeros of a hole behind it are not there yet.
        let mut block = vec![0; BLOCK_SIZE as usize];
        let on_disk = copy.length.saturating_sub(block_start).min(BLOCK_SIZE) as usize;
        copy.data.read_exact_at(&mut block[..on_disk], block_start).map_err(self.io())?;
        if checksum::of_section(self.id(), index, &block[..old_length as usize]) != old_crc {
            let why = format!("block {index} does not match its checksum");
            return Err(StoreError::Broken { part: self.id(), why });
        }
        block[from as usize..to as usize].copy_from_slice(section);
        Ok(checksum::of_section(self.id(), index, &block[..old_length.max(to) as usize]))
    }

    /// After a write that may have been done in part: cuts off what went beyond the old end. Of the failed write, any part
    /// may be there, and its own bytes count as they are; around them, everything must be as it was. `intended` are the
    /// checksums that the finished write would have had.
    fn undo_partial_write(
        &self,
        copy: &mut OpenCopy,
        payload: Payload<'_>,
        intended: &[u32],
    ) -> Result<(), StoreError> {
        let broken = |why: String| StoreError::Broken { part: self.id(), why };
        copy.changes += 1;
        copy.data.set_len(copy.length).map_err(|_| broken("a write failed half-way".into()))?;
        let mut block = vec![0; BLOCK_SIZE as usize];
        for (index, section) in checksum::sections(payload.offset, payload.bytes) {
            let start = u64::from(index) * BLOCK_SIZE;
            let from = payload.offset.max(start) - start;
            if start + from >= copy.length {
                break;
            }
            let length = self.read_block(copy, index as usize, &mut block)?;
            let found = checksum::of_section(self.id(), index, &block[..length]);
            if found != copy.table[index as usize] && (from > 0 || section.len() < length) {
                // With the whole section in place, the block must be the one that was meant.
                let mut meant = block[..length].to_vec();
                let end = (from as usize + section.len()).max(length);
                meant.resize(end, 0);
                meant[from as usize..from as usize + section.len()].copy_from_slice(section);
                if checksum::of_section(self.id(), index, &meant) != intended[index as usize] {
                    return Err(broken(format!("block {index} changed around a write that failed")));
                }
            }
            copy.table[index as usize] = found;
        }
        Ok(())
    }

    /// Cuts the copy or extends it with zeros to exactly `length` bytes. What is cut off is gone for good, whatever happens to
    /// the power: what is written behind the cut and committed makes the masters count what lies between.
    pub(crate) fn truncate(
        self: &Arc<Self>,
        now: Duration,
        token: &Token,
        length: u64,
    ) -> Result<(), StoreError> {
        if length > CHUNK_SIZE {
            return Err(StoreError::Invalid { part: self.id(), what: "the length is beyond the chunk" });
        }
        let mut state = self.lock_to_change()?;
        let done = self.truncate_locked(&mut state, now, token, length);
        let cut = self.conclude(&mut state, done)?;
        drop(state);
        if cut { self.sync(now, token) } else { Ok(()) }
    }

    /// Answers whether anything was cut off.
    fn truncate_locked(
        self: &Arc<Self>,
        state: &mut State,
        now: Duration,
        token: &Token,
        length: u64,
    ) -> Result<bool, StoreError> {
        self.admit_change(state, token, Follows::Nothing, now)?;
        let copy = self.opened(state, now)?;
        let cut = length < copy.length;
        let mut table = copy.table.clone();
        if length > copy.length {
            extend_with_zeros(self.id(), &mut table, copy.length, length);
        } else {
            table.truncate(blocks(length));
            let kept = length % BLOCK_SIZE;
            let block_start = length - kept;
            let old_length = (copy.length - block_start).min(BLOCK_SIZE);
            if kept > 0 && kept < old_length {
                let index = blocks(length) - 1;
                let mut block = vec![0; BLOCK_SIZE as usize];
                let read = self.read_block(copy, index, &mut block)?;
                if checksum::of_section(self.id(), index as u32, &block[..read]) != copy.table[index] {
                    let why = format!("block {index} does not match its checksum");
                    return Err(StoreError::Broken { part: self.id(), why });
                }
                table[index] = checksum::of_section(self.id(), index as u32, &block[..kept as usize]);
            }
        }
        self.make_dirty(state, token.version)?;
        let copy = self.opened(state, now)?;
        copy.data.set_len(length).map_err(self.io())?;
        copy.table = table;
        copy.length = length;
        copy.cold_range = (0, 0);
        self.changed(copy, now, 0);
        if length == 0 {
            self.clear_doubt(state);
        }
        Ok(cut)
    }

    /// Lets a lease at the copy; makes the copy where the token allows it.
    fn admit_change(
        self: &Arc<Self>,
        state: &mut State,
        token: &Token,
        follows: Follows,
        now: Duration,
    ) -> Result<(), StoreError> {
        match self.admit_present(state) {
            Err(StoreError::NotFound { .. }) if token.create && follows == Follows::Nothing => {
                self.create(state, token.version, now)
            }
            other => other.and_then(|()| self.admit_lease(state, token, follows)),
        }
    }

    fn changed(&self, copy: &mut OpenCopy, now: Duration, growth: u64) {
        copy.changes += 1;
        copy.last_write = now;
        self.disk.use_room(growth);
    }

    /// Makes everything written so far under the token's version durable: a copy that has not taken on that version has
    /// nothing to answer for. The copy stays dirty: what is durable needs no stored checksums to be
    /// believed after a crash, only to be believed without reading it.
    pub(crate) fn sync(self: &Arc<Self>, now: Duration, token: &Token) -> Result<(), StoreError> {
        let state = self.lock();
        self.admit_present(&state)?;
        self.admit_lease(&state, token, Follows::Nothing)?;
        if state.version != token.version {
            let (part, have, need) = (self.id(), state.version, token.version);
            return Err(StoreError::Stale { part, have, need });
        }
        self.touch(now);
        let (data, covered) = match state.open.as_ref() {
            Some(copy) if copy.synced < copy.changes => (Arc::clone(&copy.data), copy.changes),
            _ => return Ok(()),
        };
        drop(state);
        // Without the lock: reads go on, and so do writes, which this sync need not cover.
        let synced = data.sync_data().map_err(|source| self.disk_fails(source));
        let mut state = self.lock();
        if let (Ok(()), Some(copy)) = (&synced, state.open.as_mut()) {
            copy.synced = copy.synced.max(covered);
        }
        self.conclude(&mut state, synced)
    }

    /// Whether the copy is dirty and has not been written for `idle`.
    pub(super) fn is_idle(&self, now: Duration, idle: Duration) -> bool {
        // Whoever has the lock is using the copy.
        let Some(state) = self.try_lock() else { return false };
        state.open.as_ref().is_some_and(|copy| copy.dirty && now.saturating_sub(copy.last_write) >= idle)
    }

    /// Makes a dirty copy clean if it has not been written for `idle`.
    pub(crate) fn clean_if_idle(self: &Arc<Self>, now: Duration, idle: Duration) -> Result<(), StoreError> {
        let mut state = self.lock_to_change()?;
        if self.disk.failed() {
            return Ok(());
        }
        let marks = state.marks();
        let done = match state.open.as_mut() {
            Some(copy) if copy.dirty && now.saturating_sub(copy.last_write) >= idle => {
                self.clean(copy).and_then(|()| self.store_clean(copy, marks))
            }
            _ => Ok(()),
        };
        self.conclude(&mut state, done)
    }

    pub(super) fn clean(&self, copy: &mut OpenCopy) -> Result<(), StoreError> {
        if copy.synced < copy.changes {
            copy.data.sync_data().map_err(|source| self.disk_fails(source))?;
            copy.synced = copy.changes;
        }
        Ok(())
    }

    /// Deletes the copy, on the order of the leader.
    pub(crate) fn delete(&self) -> Result<(), StoreError> {
        let mut state = self.lock_to_change()?;
        if matches!(state.phase, Phase::Absent | Phase::Gone) {
            state.phase = Phase::Gone;
            return Ok(());
        }
        if self.disk.failed() {
            // It may come back with the copy on it: the leader must not take it for gone.
            return Err(self.disk_fails(std::io::Error::other("out of use since an earlier error")));
        }
        let was_present = state.phase == Phase::Present;
        state.phase = Phase::Gone;
        self.close(&mut state);
        self.unpublish();
        if was_present {
            self.disk.uncount_copy();
        }
        // Sidecar last: what a crash leaves between is then a sidecar without data, which is never taken for a copy.
        let removed = self
            .disk
            .remove_if_there(&self.disk.data_path(self.id()))
            .and_then(|()| self.disk.remove_if_there(&self.disk.meta_path(self.id())));
        let removed = removed.map_err(self.io());
        self.disk.forget_broken(self.id());
        self.disk.events.note(self.id(), CopyEvent::Lost);
        self.conclude(&mut state, removed)
    }
}

/// The table after the copy grew from `from` to `to` by zeros; nothing where it did not.
fn extend_with_zeros(part: Part, table: &mut Vec<u32>, from: u64, to: u64) {
    let mut at = from;
    while at < to {
        let index = at / BLOCK_SIZE;
        let end = ((index + 1) * BLOCK_SIZE).min(to);
        let begun = match table.get(index as usize) {
            Some(crc) if !at.is_multiple_of(BLOCK_SIZE) => *crc,
            _ => checksum::seed(part, index as u32),
        };
        set(table, index as usize, crc32c::crc32c_append(begun, &ZEROS[..(end - at) as usize]));
        at = end;
    }
}

/// Sets the checksum of a block: one that there is, or the next one.
fn set(table: &mut Vec<u32>, index: usize, crc: u32) {
    match table.get_mut(index) {
        Some(old) => *old = crc,
        None => {
            debug_assert_eq!(table.len(), index, "blocks are added in order");
            table.push(crc);
        }
    }
}

fn begin_writeback(copy: &mut OpenCopy, offset: u64, end: u64) {
    let (from, to) = copy.cold_range;
    copy.cold_range = if offset == to { (from, end) } else { (offset, end) };
    let (from, to) = copy.cold_range;
    if to - from >= WRITEBACK_BYTES {
        copy.data.start_writeback(from, to - from);
        copy.cold_range = (to, to);
    }
}
