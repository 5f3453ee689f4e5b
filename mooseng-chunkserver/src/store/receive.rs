//! A copy fetched from another server: put together out of sight, then given its place in one step.

use std::sync::Arc;

use mooseng_env::{DiskFile, disk::OpenMode};
use mooseng_protocol::checksum;
use mooseng_types::{BLOCK_SIZE, CHUNK_SIZE, ChunkVersion};

use super::chunk::{Chunk, Phase, blocks};
use super::error::StoreError;
use super::sidecar::{SIDECAR_SIZE, TABLE_OFFSET, encode_table};

/// A copy that is being put together.
#[derive(Debug)]
pub(crate) struct Incoming {
    chunk: Arc<Chunk>,
    number: u64,
    data: Arc<dyn DiskFile>,
    length: u64,
    table: Vec<u32>,
    /// Those of the copy at hand, when the fetch began.
    changes: u64,
}

impl Incoming {
    /// Begins a copy of `chunk`.
    pub(crate) fn begin(chunk: Arc<Chunk>) -> Result<Self, StoreError> {
        if chunk.disk.room() < CHUNK_SIZE {
            return Err(chunk.disk.no_space(chunk.id()));
        }
        let number = chunk.disk.next_incoming();
        let path = chunk.disk.incoming_path(chunk.id(), number, "data");
        let data = chunk.disk.disk.open(&path, OpenMode::CreateNew);
        let data = data.map_err(|source| chunk.disk.trouble_out_of_sight(chunk.id(), source))?;
        let changes = chunk.lock().changes;
        Ok(Self { chunk, number, data, length: 0, table: Vec::new(), changes })
    }

    /// Bytes received so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends verified `bytes`, which begin at a block border and end at one or at the copy's end, with the checksums of
    /// their blocks.
    pub(crate) fn append(&mut self, bytes: &[u8], checksums: &[u32]) -> Result<(), StoreError> {
        let part = self.chunk.id();
        let end = self.length + bytes.len() as u64;
        if !self.length.is_multiple_of(BLOCK_SIZE) || end > CHUNK_SIZE {
            return Err(StoreError::Invalid { part, what: "a piece of a fetched copy is out of place" });
        }
        if !checksum::matches(part, self.length, bytes, checksums) {
            return Err(StoreError::DamagedOnTheWay { part });
        }
        self.data.write_all_at(bytes, self.length).map_err(|source| self.trouble(source))?;
        self.data.start_writeback(self.length, bytes.len() as u64);
        self.table.extend_from_slice(checksums);
        self.length = end;
        self.chunk.disk.use_room(bytes.len() as u64);
        Ok(())
    }

    /// Gives the copy its place, durably, with `version`. A copy that is already here and as new stays instead; with
    /// `replace`, not if it is of the same version and in doubt.
    pub(crate) fn publish(self, version: ChunkVersion, replace: bool) -> Result<(), StoreError> {
        debug_assert_eq!(self.table.len(), blocks(self.length), "a checksum for each block");
        let (chunk, disk) = (&self.chunk, &self.chunk.disk);
        let meta = self.write_sidecar(version).map_err(|source| self.trouble(source))?;
        let mut state = chunk.lock_to_change()?;
        if state.phase == Phase::Gone {
            return Err(StoreError::Busy { part: chunk.id(), why: "deleted while it was fetched" });
        }
        let here = state.phase == Phase::Present;
        if here && state.version >= version {
            if !(replace && state.in_doubt && state.version == version) {
                chunk.remind(&state);
                return Ok(());
            }
            if state.changes != self.changes {
                return Err(StoreError::Busy { part: chunk.id(), why: "written while it was fetched" });
            }
        }
        let synced = self.data.sync_data().and_then(|()| meta.sync_data());
        let placed = synced.map_err(|source| chunk.disk_fails(source)).and_then(|()| self.place());
        chunk.conclude(&mut state, placed)?;
        chunk.close(&mut state);
        state.phase = Phase::Present;
        chunk.changing(&mut state);
        (state.version, state.interrupted, state.in_doubt) = (version, false, false);
        chunk.publish(&state);
        disk.forget_broken(chunk.id());
        if !here {
            disk.count_copy();
        }
        // What was checked when it came is what was written, from the same bytes.
        chunk.note_verified(&mut state);
        Ok(())
    }

    fn write_sidecar(&self, version: ChunkVersion) -> std::io::Result<Arc<dyn DiskFile>> {
        let (chunk, disk) = (&self.chunk, &self.chunk.disk);
        let table = encode_table(&self.table);
        let path = disk.incoming_path(chunk.id(), self.number, "meta");
        let meta = disk.disk.open(&path, OpenMode::CreateNew)?;
        meta.set_len(SIDECAR_SIZE)?;
        meta.write_all_at(&table, TABLE_OFFSET)?;
        meta.write_all_at(&chunk.fetched_header(version, &table, self.length).encode(), 0)?;
        Ok(meta)
    }

    fn trouble(&self, source: std::io::Error) -> StoreError {
        self.chunk.disk.trouble_out_of_sight(self.chunk.id(), source)
    }

    /// The old sidecar goes first: a crash between the steps leaves no sidecar beside the data, never that of one copy
    /// beside the data of another. What is left to do then, the next start does (`found.rs`).
    fn place(&self) -> Result<(), StoreError> {
        let (chunk, disk) = (&self.chunk, &self.chunk.disk);
        let (data, meta) = (disk.data_path(chunk.id()), disk.meta_path(chunk.id()));
        let directory = disk.directory(chunk.id());
        disk.sync_incoming().map_err(|source| chunk.disk_fails(source))?;
        disk.remove_if_there(&meta).map_err(chunk.io())?;
        disk.disk.sync_dir(&directory).map_err(|source| chunk.disk_fails(source))?;
        disk.disk.rename(&disk.incoming_path(chunk.id(), self.number, "data"), &data).map_err(chunk.io())?;
        disk.disk.rename(&disk.incoming_path(chunk.id(), self.number, "meta"), &meta).map_err(chunk.io())?;
        disk.disk.sync_dir(&directory).map_err(|source| chunk.disk_fails(source))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        for extension in ["data", "meta"] {
            let path = self.chunk.disk.incoming_path(self.chunk.id(), self.number, extension);
            // Gone already if the copy was published; what is left otherwise, the next start removes.
            drop(self.chunk.disk.remove_if_there(&path));
        }
    }
}

impl Chunk {
    /// Gives up a place that was chosen for a copy which did not come to be.
    pub(crate) fn give_up_place(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Absent {
            state.phase = Phase::Gone;
        }
    }

    /// The copy, if there is one at least as new as `version`, and whether it is in doubt.
    pub(crate) fn has(&self, version: ChunkVersion) -> Option<(ChunkVersion, bool)> {
        self.published().filter(|(have, _)| *have >= version)
    }
}
