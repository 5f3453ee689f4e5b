//! The open copy: made, opened, and its passage between clean and dirty.

use std::sync::Arc;
use std::time::Duration;

use mooseng_env::{DiskFile, disk::OpenMode};
use mooseng_protocol::checksum;
use mooseng_types::{BLOCK_SIZE, BLOCKS_PER_CHUNK, CHUNK_SIZE, ChunkVersion};

use super::chunk::{Chunk, OpenCopy, Phase, State, blocks};
use super::error::StoreError;
use super::sidecar::{Header, SIDECAR_SIZE, TABLE_OFFSET, decode_table, encode_table};

/// What a clean header says of a copy besides its content.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub(super) version: ChunkVersion,
    pub(super) interrupted: bool,
    pub(super) in_doubt: bool,
}

impl State {
    pub(super) fn marks(&self) -> Marks {
        Marks { version: self.version, interrupted: self.interrupted, in_doubt: self.in_doubt }
    }
}

impl OpenCopy {
    fn new(data: Arc<dyn DiskFile>, length: u64, dirty: bool, now: Duration) -> Self {
        Self {
            data,
            length,
            table: Vec::with_capacity(blocks(length)),
            dirty,
            changes: u64::from(dirty),
            synced: 0,
            last_write: now,
            cold_range: (0, 0),
            read_end: 0,
        }
    }
}

impl Chunk {
    /// The open copy; opens it where it is not.
    pub(super) fn opened<'a>(
        self: &Arc<Self>,
        state: &'a mut State,
        now: Duration,
    ) -> Result<&'a mut OpenCopy, StoreError> {
        self.touch(now);
        self.open_unused(state)
    }

    /// The same for one who does not use the copy: it stays the first to be closed.
    pub(super) fn open_unused<'a>(
        self: &Arc<Self>,
        state: &'a mut State,
    ) -> Result<&'a mut OpenCopy, StoreError> {
        if state.open.is_none() {
            self.load(state)?;
            self.open_copies.opened(self);
        }
        state.open.as_mut().ok_or(StoreError::NotFound { part: self.id() })
    }

    /// Opens the files. A dirty header says that the stored checksums mean nothing: they are made anew. A clean one
    /// promises that they are right: where they are not, the copy is damaged, and its bytes cannot vouch for themselves.
    pub(super) fn load(&self, state: &mut State) -> Result<(), StoreError> {
        let broken = |why: String| StoreError::Broken { part: self.id(), why };
        let meta = self.disk.disk.open(&self.disk.meta_path(self.id()), OpenMode::Read).map_err(self.io())?;
        let header = self.disk.read_header(self.id(), &*meta).map_err(self.io())?.map_err(broken)?;
        if state.untouched {
            meta.sync_data().map_err(|source| self.disk_fails(source))?;
            state.untouched = false;
        }
        let data =
            self.disk.disk.open(&self.disk.data_path(self.id()), OpenMode::Write).map_err(self.io())?;
        let length = data.len().map_err(self.io())?;
        if length > CHUNK_SIZE {
            return Err(broken(format!("the data file has {length} bytes, more than a chunk")));
        }
        if !header.dirty && length != u64::from(header.length) {
            let why = format!("the data file has {length} bytes, the sidecar says {}", header.length);
            return Err(broken(why));
        }
        let mut copy = OpenCopy::new(data, length, header.dirty, Duration::ZERO);
        if header.dirty {
            self.recover(&mut copy, state.marks())?;
        } else {
            let mut table = vec![0; 4 * blocks(length)];
            meta.read_exact_at(&mut table, TABLE_OFFSET).map_err(self.io())?;
            if crc32c::crc32c(&table) != header.table_crc {
                return Err(broken("its table of checksums is damaged".into()));
            }
            copy.table.extend(decode_table(&table));
        }
        state.open = Some(copy);
        Ok(())
    }

    /// Makes the checksums of a dirty copy anew from its data and stores them.
    ///
    /// Nobody can tell more of it: which blocks were written since the table was stored is not known, so a block that
    /// does not match the old table may be new, or half of each, or rotten. What was synced is there, if the disk keeps
    /// its word; the rest, and damage that happened meanwhile, is what the mark *in doubt* stands for.
    fn recover(&self, copy: &mut OpenCopy, marks: Marks) -> Result<(), StoreError> {
        let mut block = vec![0; BLOCK_SIZE as usize];
        for index in 0..blocks(copy.length) {
            let length = self.read_block(copy, index, &mut block)?;
            copy.table.push(checksum::of_section(self.id(), index as u32, &block[..length]));
        }
        copy.data.sync_data().map_err(|source| self.disk_fails(source))?;
        copy.synced = copy.changes;
        match self.store_clean(copy, marks) {
            // The copy stays dirty on a full disk. Its data is there and synced, and can be read.
            Err(StoreError::NoSpace { .. }) => {}
            stored => stored?,
        }
        tracing::info!(copy = %self.id(), length = copy.length, "copy recovered, its last writes are in doubt");
        Ok(())
    }

    /// Reads a block into `into` and returns its length.
    pub(super) fn read_block(
        &self,
        copy: &OpenCopy,
        index: usize,
        into: &mut [u8],
    ) -> Result<usize, StoreError> {
        let start = index as u64 * BLOCK_SIZE;
        let length = usize::try_from((copy.length - start).min(BLOCK_SIZE)).unwrap_or(0);
        copy.data.read_exact_at(&mut into[..length], start).map_err(self.io())?;
        Ok(length)
    }

    /// Makes the files of a new copy, dirty from its first byte. They are durable before the first write is answered: a
    /// copy that vanished with the power would be made anew by the next write under the same lease, without the first.
    pub(super) fn create(
        self: &Arc<Self>,
        state: &mut State,
        version: ChunkVersion,
        now: Duration,
    ) -> Result<(), StoreError> {
        // Whatever goes wrong, the next one who tries begins with a place of his own.
        state.phase = Phase::Gone;
        if self.disk.room() == 0 {
            return Err(self.disk.no_space(self.id()));
        }
        let (data, meta) = self.make_files(version).map_err(|source| self.not_made(state, source))?;
        meta.sync_data()
            .and_then(|()| self.disk.disk.sync_dir(&self.disk.directory(self.id())))
            .map_err(|source| self.disk_fails(source))?;
        state.phase = Phase::Present;
        let mut copy = OpenCopy::new(data, 0, true, now);
        copy.table.reserve(BLOCKS_PER_CHUNK as usize);
        state.open = Some(copy);
        self.set_version(state, version);
        self.touch(now);
        self.disk.count_copy();
        self.open_copies.opened(self);
        Ok(())
    }

    /// Why a copy was not made.
    fn not_made(&self, state: &mut State, source: std::io::Error) -> StoreError {
        if source.kind() == std::io::ErrorKind::NotFound {
            // The directories are made at start: they are there unless the disk is not.
            return self.disk_fails(source);
        }
        let error = self.disk.trouble(self.id(), source);
        if matches!(error, StoreError::Broken { .. }) {
            state.phase = Phase::Broken;
            self.disk.move_aside(self.id(), "files of an unknown copy are in the place of a new one");
        } else {
            // Best effort: what is left over is found at the next start.
            drop(self.disk.remove_if_there(&self.disk.meta_path(self.id())));
            drop(self.disk.remove_if_there(&self.disk.data_path(self.id())));
        }
        error
    }

    fn make_files(&self, version: ChunkVersion) -> std::io::Result<(Arc<dyn DiskFile>, Arc<dyn DiskFile>)> {
        let data = self.disk.disk.open(&self.disk.data_path(self.id()), OpenMode::CreateNew)?;
        let meta = self.disk.disk.open(&self.disk.meta_path(self.id()), OpenMode::CreateNew)?;
        let marks = Marks { version, interrupted: false, in_doubt: false };
        meta.write_all_at(&self.dirty_header(marks).encode(), 0)?;
        meta.set_len(SIDECAR_SIZE)?;
        Ok((data, meta))
    }

    fn dirty_header(&self, marks: Marks) -> Header {
        Header { dirty: true, ..self.clean_header(marks, &[], 0) }
    }

    fn clean_header(&self, marks: Marks, table: &[u8], length: u64) -> Header {
        Header {
            part: self.id(),
            version: marks.version,
            cluster: self.disk.cluster,
            dirty: false,
            interrupted: marks.interrupted,
            in_doubt: marks.in_doubt,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            table_crc: crc32c::crc32c(table),
        }
    }

    /// The header of a copy that was fetched whole.
    pub(super) fn fetched_header(&self, version: ChunkVersion, table: &[u8], length: u64) -> Header {
        self.clean_header(Marks { version, interrupted: false, in_doubt: false }, table, length)
    }

    /// Prepares the copy for a change under the lease of `version`: the header on the disk says dirty and has the
    /// version before the first byte changes.
    pub(super) fn make_dirty(&self, state: &mut State, version: ChunkVersion) -> Result<(), StoreError> {
        self.changing(state);
        let adopted = state.version != version;
        let marks = Marks { version, interrupted: false, in_doubt: state.in_doubt };
        let Some(copy) = state.open.as_mut() else { return Err(StoreError::NotFound { part: self.id() }) };
        if copy.dirty && !adopted {
            return Ok(());
        }
        let meta =
            self.disk.disk.open(&self.disk.meta_path(self.id()), OpenMode::Write).map_err(self.io())?;
        meta.write_all_at(&self.dirty_header(marks).encode(), 0).map_err(self.io())?;
        meta.sync_data().map_err(|source| self.disk_fails(source))?;
        copy.dirty = true;
        self.set_version(state, version);
        Ok(())
    }

    /// Stores table and clean header, durably, in this order: a clean header vouches for the table. The data has been
    /// synced.
    pub(super) fn store_clean(&self, copy: &mut OpenCopy, marks: Marks) -> Result<(), StoreError> {
        let table = encode_table(&copy.table);
        let meta =
            self.disk.disk.open(&self.disk.meta_path(self.id()), OpenMode::Write).map_err(self.io())?;
        meta.write_all_at(&table, TABLE_OFFSET).map_err(self.io())?;
        meta.sync_data().map_err(|source| self.disk_fails(source))?;
        meta.write_all_at(&self.clean_header(marks, &table, copy.length).encode(), 0).map_err(self.io())?;
        meta.sync_data().map_err(|source| self.disk_fails(source))?;
        copy.dirty = false;
        Ok(())
    }
}
