//! The chunk store without sockets and threads: one call at a time, for whoever brings a disk of his own. The simulator
//! drives it; what a request means to the store is the same here as behind a connection.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::Disk;
use mooseng_protocol::frame::PAYLOAD_MAX;
use mooseng_protocol::pb;
use mooseng_protocol::token::Token;
use mooseng_types::{ChunkId, ChunkVersion, ClusterId};

use crate::buffer::BufferPool;
use crate::changes::{Change, Changes, ToTell};
use crate::store::{Chunk, ReadBytes, Store, StoreError};

/// Changes told in one report.
const REPORT_MAX: usize = 10_000;

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The copy's version.
    pub version: ChunkVersion,
    /// The copy's length in bytes.
    pub copy_length: u64,
    /// Where in the chunk the bytes begin.
    pub offset: u64,
    /// The checksums of their pieces.
    pub checksums: Vec<u32>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The chunk store of one server.
#[derive(Debug)]
pub struct ChunkEngine {
    store: Store,
    changes: Arc<Changes>,
    buffers: Arc<BufferPool>,
}

impl ChunkEngine {
    /// Opens the store on `disks`, recovering what a crash left; an error is the disk's.
    pub fn open(disks: Vec<(Arc<dyn Disk>, PathBuf)>, cluster: ClusterId) -> io::Result<Self> {
        let changes = Arc::<Changes>::default();
        let store = Store::open(disks, cluster, 0, Arc::clone(&changes))?;
        Ok(Self { store, changes, buffers: BufferPool::new(PAYLOAD_MAX) })
    }

    /// Writes `payload` at `offset` of the token's chunk, making the copy where the token allows it.
    pub fn write(
        &self,
        now: Duration,
        token: &Token,
        offset: u64,
        payload: &[u8],
        checksums: &[u32],
    ) -> Result<(), StoreError> {
        self.change(token, |chunk| chunk.write(now, token, offset, payload, checksums))
    }

    /// Cuts the copy or extends it with zeros to exactly `length` bytes.
    pub fn truncate(&self, now: Duration, token: &Token, length: u64) -> Result<(), StoreError> {
        self.change(token, |chunk| chunk.truncate(now, token, length))
    }

    /// Makes everything written so far durable.
    pub fn sync(&self, now: Duration, token: &Token) -> Result<(), StoreError> {
        self.change(token, |chunk| chunk.sync(now, token))
    }

    fn change(
        &self,
        token: &Token,
        work: impl FnOnce(&Arc<Chunk>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let chunk = match self.store.find(token.chunk) {
            Some(chunk) => chunk,
            None if token.create => self.store.find_or_place(token.chunk)?,
            None => return Err(StoreError::NotFound { chunk: token.chunk }),
        };
        let done = work(&chunk);
        if done.is_err() {
            self.store.forget_if_gone(&chunk);
        }
        done
    }

    /// Reads at most 1 MiB from a copy that is at least as new as `oldest`.
    pub fn read(
        &self,
        now: Duration,
        chunk: ChunkId,
        oldest: ChunkVersion,
        offset: u64,
        length: u64,
    ) -> Result<Piece, StoreError> {
        let found = self.store.find(chunk).ok_or(StoreError::NotFound { chunk })?;
        let answer = found.read(now, oldest, offset, length, &self.buffers)?;
        let bytes = match answer.bytes {
            ReadBytes::Nothing => Vec::new(),
            ReadBytes::Memory { buffer, from, length } => buffer[from..from + length].to_vec(),
            ReadBytes::File(file) => {
                let mut bytes = vec![0; file.length];
                let read = file.file.read_exact_at(&mut bytes, file.offset);
                read.map_err(|source| found.disk().trouble(chunk, source))?;
                bytes
            }
        };
        Ok(Piece {
            version: answer.version,
            copy_length: answer.copy_length,
            offset: answer.offset,
            checksums: answer.checksums,
            bytes,
        })
    }

    /// Deletes copies on the leader's order; one that is not here counts as deleted.
    pub fn delete(&self, chunks: &[ChunkId]) {
        for &id in chunks {
            let Some(chunk) = self.store.find(id) else {
                self.changes.note(id, Change::Lost);
                continue;
            };
            if let Err(error) = chunk.delete() {
                tracing::warn!(%error, "copy not deleted");
            }
            self.store.forget_if_gone(&chunk);
        }
    }

    /// Makes copies clean that have not been written for `idle`.
    pub fn settle_idle(&self, now: Duration, idle: Duration) {
        let mut chunks = self.store.idle_chunks(now, idle);
        chunks.sort_by_key(|chunk| chunk.id());
        for chunk in chunks {
            if let Err(error) = chunk.settle_idle(now, idle) {
                tracing::warn!(%error, "copy not made clean");
            }
        }
    }

    /// Every copy, as a report says it: everything noted so far is covered.
    #[must_use]
    pub fn report_everything(&self) -> Vec<pb::CopyStatus> {
        self.changes.clear();
        let status = |copy: crate::store::CopyInfo| pb::CopyStatus {
            chunk: copy.chunk.raw(),
            version: copy.version.raw(),
            in_doubt: copy.in_doubt,
        };
        self.store.list().into_iter().map(status).collect()
    }

    /// What changed since the last report: copies that are here and copies that are gone. `None` if only a full report
    /// will do.
    #[must_use]
    pub fn take_changes(&self) -> Option<(Vec<pb::CopyStatus>, Vec<u64>)> {
        let ToTell::Some(changes) = self.changes.take(REPORT_MAX) else { return None };
        let mut told = (Vec::new(), Vec::new());
        for (chunk, change) in changes {
            match change {
                Change::Here(version) => told.0.push(pb::CopyStatus {
                    chunk: chunk.raw(),
                    version: version.raw(),
                    in_doubt: false,
                }),
                Change::Lost => told.1.push(chunk.raw()),
            }
        }
        Some(told)
    }

    /// The changes taken last did not reach the leader.
    pub fn report_failed(&self) {
        self.changes.put_back(ToTell::Everything);
    }

    /// The disks as a heartbeat tells them; looks anew how much room there is.
    #[must_use]
    pub fn disk_status(&self) -> Vec<pb::DiskStatus> {
        let status = self.store.disks().iter().map(|disk| {
            if let Err(error) = disk.refresh_space() {
                tracing::warn!(%error, "free space not known");
            }
            pb::DiskStatus {
                path: disk.root().display().to_string(),
                total_bytes: disk.space().0,
                free_bytes: disk.room(),
                failed: disk.failed(),
                chunks: disk.copies(),
            }
        });
        status.collect()
    }
}
