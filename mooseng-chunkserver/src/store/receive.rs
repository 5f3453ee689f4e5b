//! A copy fetched from another server: put together out of sight, then given its place in one step.

use std::sync::Arc;

use mooseng_env::{DiskFile, disk::OpenMode};
use mooseng_protocol::checksum;
use mooseng_types::{BLOCK_SIZE, CHUNK_SIZE, ChunkVersion};

use super::chunk::{Chunk, Phase, blocks};
use super::error::StoreError;
use super::sidecar::{SIDECAR_SIZE, TABLE_OFFSET, encode_table};
use crate::changes::Change;

/// A copy that is being put together.
#[derive(Debug)]
pub(crate) struct Incoming {
    chunk: Arc<Chunk>,
    number: u64,
    data: Arc<dyn DiskFile>,
    length: u64,
    table: Vec<u32>,
}

impl Incoming {
    /// Begins a copy of `chunk`.
    pub(crate) fn begin(chunk: Arc<Chunk>) -> Result<Self, StoreError> {
        if chunk.disk.room() < CHUNK_SIZE {
            return Err(StoreError::NoSpace { chunk: chunk.id() });
        }
        let number = chunk.disk.next_incoming();
        let path = chunk.disk.incoming_path(chunk.id(), number, "data");
        let data = chunk.disk.disk.open(&path, OpenMode::CreateNew).map_err(chunk.io())?;
        Ok(Self { chunk, number, data, length: 0, table: Vec::new() })
    }

    /// Bytes received so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends verified `bytes`, which begin at a block border and end at one or at the copy's end, with the checksums of
    /// their blocks.
    pub(crate) fn append(&mut self, bytes: &[u8], checksums: &[u32]) -> Result<(), StoreError> {
        let chunk = self.chunk.id();
        let end = self.length + bytes.len() as u64;
        if !self.length.is_multiple_of(BLOCK_SIZE) || end > CHUNK_SIZE {
            return Err(StoreError::Invalid { chunk, what: "a piece of a fetched copy is out of place" });
        }
        if !checksum::matches(chunk, self.length, bytes, checksums) {
            return Err(StoreError::DamagedOnTheWay { chunk });
        }
        self.data.write_all_at(bytes, self.length).map_err(self.chunk.io())?;
        self.data.start_writeback(self.length, bytes.len() as u64);
        self.table.extend_from_slice(checksums);
        self.length = end;
        self.chunk.disk.use_room(bytes.len() as u64);
        Ok(())
    }

    /// Gives the copy its place, durably, with `version`. A copy that is already here and as new stays instead.
    pub(crate) fn publish(self, version: ChunkVersion) -> Result<(), StoreError> {
        debug_assert_eq!(self.table.len(), blocks(self.length), "a checksum for each block");
        let chunk = &self.chunk;
        let disk = &chunk.disk;
        let table = encode_table(&self.table);
        let meta_path = disk.incoming_path(chunk.id(), self.number, "meta");
        let meta = disk.disk.open(&meta_path, OpenMode::CreateNew).map_err(chunk.io())?;
        meta.set_len(SIDECAR_SIZE).map_err(chunk.io())?;
        meta.write_all_at(&table, TABLE_OFFSET).map_err(chunk.io())?;
        let header = chunk.header(version, false, &table, self.length);
        meta.write_all_at(&header.encode(), 0).map_err(chunk.io())?;
        let mut state = chunk.lock_to_change()?;
        if state.phase == Phase::Gone {
            return Err(StoreError::Busy { chunk: chunk.id(), why: "deleted while it was fetched" });
        }
        let here = state.phase == Phase::Present;
        if here && state.version >= version {
            disk.changes.note(chunk.id(), Change::Here(state.version));
            return Ok(());
        }
        let synced = self.data.sync_data().and_then(|()| meta.sync_data());
        let placed = synced.map_err(|source| chunk.failed_sync(source)).and_then(|()| self.place());
        chunk.settle(&mut state, placed)?;
        state.open = None;
        state.phase = Phase::Present;
        chunk.set_version(&mut state, version);
        disk.closed(chunk.id());
        if !here {
            disk.count_copy();
        }
        disk.changes.note(chunk.id(), Change::Here(version));
        Ok(())
    }

    /// The old sidecar goes first: a crash between the steps leaves data without a sidecar, never the sidecar of one copy
    /// beside the data of another.
    fn place(&self) -> Result<(), StoreError> {
        let (chunk, disk) = (&self.chunk, &self.chunk.disk);
        let (data, meta) = (disk.data_path(chunk.id()), disk.meta_path(chunk.id()));
        let directory = disk.directory(chunk.id());
        disk.remove_if_there(&meta).map_err(chunk.io())?;
        disk.disk.sync_dir(&directory).map_err(|source| chunk.failed_sync(source))?;
        disk.disk.rename(&disk.incoming_path(chunk.id(), self.number, "data"), &data).map_err(chunk.io())?;
        disk.disk.rename(&disk.incoming_path(chunk.id(), self.number, "meta"), &meta).map_err(chunk.io())?;
        disk.disk.sync_dir(&directory).map_err(|source| chunk.failed_sync(source))
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

    /// The version of the copy, if there is one at least as new as `version`.
    pub(crate) fn has(&self, version: ChunkVersion) -> Option<ChunkVersion> {
        self.published().map(|(have, _)| have).filter(|have| *have >= version)
    }
}
