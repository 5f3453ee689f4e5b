//! The rows with their types: what commands and queries read and write.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mooseng_types::{
    CellId, ChunkId, ChunkIndex, FileName, FsError, InodeId, Level, Part, ServerId, SessionId, TimeNs,
};

use crate::chunk::ChunkRow;
use crate::codec::v1::row::chunk::DeadChunk;
use crate::codec::v1::row::{Indexed, Number, RowValue};
use crate::counters::Counters;
use crate::inode::{Dentry, InodeRow};
use crate::key;
use crate::layout::Layout;
use crate::overlay::Overlay;
use crate::session::Window;
use crate::settings::Settings;

/// The value of a row that only has to be there.
const PRESENT: &[u8] = &[1];

/// The rows, and what is kept in memory of them.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) rows: Overlay,
    pub(crate) counters: Counters,
    pub(crate) windows: BTreeMap<SessionId, Window>,
    pub(crate) settings: Option<Settings>,
    /// Whose ids are given out.
    pub(crate) cell: CellId,
    /// What is written is of this level.
    pub(crate) level: Level,
    /// Chunks whose rows have changed or gone since somebody [took](crate::MetaState::take_touched) them.
    pub(crate) touched: Vec<ChunkId>,
}

/// Reads a row. A row that cannot be read stops the process: going on would make this replica answer differently.
pub(crate) fn decode<T: RowValue>(key: &[u8], value: &[u8]) -> T {
    match T::decode(value) {
        Ok(row) => row,
        Err(error) => panic!("metadata row {} is damaged: {error}", key.escape_ascii()),
    }
}

impl Tables {
    pub(crate) fn row<T: RowValue>(&self, key: &[u8]) -> Option<T> {
        self.rows.read(key, |value| decode(key, value))
    }

    pub(crate) fn inode(&self, inode: InodeId) -> Option<InodeRow> {
        self.row(&key::inode(inode))
    }

    pub(crate) fn put_inode(&mut self, inode: InodeId, row: &InodeRow) {
        self.rows.put(&key::inode(inode), row.encode(self.level));
    }

    /// The object, or `ENOENT`.
    pub(crate) fn need(&self, inode: InodeId) -> Result<InodeRow, FsError> {
        self.inode(inode).ok_or(FsError::NotFound)
    }

    /// The directory, or `ENOENT` or `ENOTDIR`.
    pub(crate) fn need_dir(&self, inode: InodeId) -> Result<InodeRow, FsError> {
        let row = self.need(inode)?;
        if row.is_dir() { Ok(row) } else { Err(FsError::NotDirectory) }
    }

    /// The directory, into which names may be put: a removed one that is still open is `ENOENT`.
    pub(crate) fn need_live_dir(&self, inode: InodeId) -> Result<InodeRow, FsError> {
        let row = self.need_dir(inode)?;
        if row.nlink > 0 { Ok(row) } else { Err(FsError::NotFound) }
    }

    /// The regular file, or `ENOENT`, `EISDIR` or `EINVAL`.
    pub(crate) fn need_file(&self, inode: InodeId) -> Result<InodeRow, FsError> {
        let row = self.need(inode)?;
        match () {
            () if row.is_file() => Ok(row),
            () if row.is_dir() => Err(FsError::IsDirectory),
            () => Err(FsError::Invalid),
        }
    }

    pub(crate) fn need_session(&self, session: SessionId) -> Result<(), FsError> {
        if self.windows.contains_key(&session) { Ok(()) } else { Err(FsError::SessionExpired) }
    }

    pub(crate) fn dentry(&self, parent: InodeId, name: &FileName) -> Option<Dentry> {
        self.row(&key::dentry(parent, name))
    }

    pub(crate) fn put_dentry(&mut self, parent: InodeId, name: &FileName, dentry: Dentry) {
        self.rows.put(&key::dentry(parent, name), Bytes::copy_from_slice(&dentry.encode()));
    }

    pub(crate) fn chunk(&self, chunk: ChunkId) -> Option<ChunkRow> {
        self.row(&key::chunk(chunk))
    }

    pub(crate) fn put_chunk(&mut self, chunk: ChunkId, row: &ChunkRow) {
        self.touched.push(chunk);
        self.move_parts(chunk, Some(&row.layout));
        self.rows.put(&key::chunk(chunk), row.encode(self.level).into());
    }

    /// Keeps the table from servers to chunks, before a chunk's row says that it lies like this, or is gone: no such row is changed
    /// without it. What does not move is not entered here, though it may not be in the table yet: [`crate::op::index`] does that.
    fn move_parts(&mut self, chunk: ChunkId, new: Option<&Layout>) {
        if self.level < Level::IDENTITY {
            return;
        }
        let old = self.chunk(chunk).map(|row| row.layout);
        if old.as_ref() == new {
            return;
        }
        let parts = |layout: Option<&Layout>| -> BTreeSet<(ServerId, Part)> {
            layout.into_iter().flat_map(|layout| layout.parts(chunk)).collect()
        };
        let (old, new) = (parts(old.as_ref()), parts(new));
        for &(server, part) in old.difference(&new) {
            self.rows.delete(&key::held(server, part));
        }
        for &(server, part) in new.difference(&old) {
            self.enter_part(server, part);
        }
    }

    /// Enters into the table from servers to chunks that a server has this.
    pub(crate) fn enter_part(&mut self, server: ServerId, part: Part) {
        self.rows.put(&key::held(server, part), Bytes::from_static(PRESENT));
    }

    /// From which chunk on the table from servers to chunks lacks what is older than the table; `None`: it is complete.
    pub(crate) fn indexed_to(&self) -> Option<ChunkId> {
        self.row(&key::INDEXED).map_or(Some(ChunkId::from_raw(0)), |Indexed(next)| next)
    }

    /// The chunk at this place of a file; the two tables agree, or the process stops.
    pub(crate) fn chunk_at(&self, inode: InodeId, index: ChunkIndex) -> Option<(ChunkId, ChunkRow)> {
        let chunk = self.row::<Number>(&key::file_chunk(inode, index))?.chunk();
        match self.chunk(chunk) {
            Some(row) => Some((chunk, row)),
            None => panic!("{inode} {index:?} leads to {chunk}, which does not exist"),
        }
    }

    /// The chunks of a file from `first` on, at most `limit`.
    pub(crate) fn chunks_from(
        &self,
        inode: InodeId,
        first: ChunkIndex,
        limit: usize,
    ) -> Vec<(ChunkIndex, ChunkId)> {
        let from = key::file_chunk(inode, first);
        self.rows.collect(&key::file_chunks(inode), &from, limit, |key, value| {
            let index = ChunkIndex::from_raw(key::short_number_at(key, 9));
            (index, decode::<Number>(key, value).chunk())
        })
    }

    /// Makes the chunk a lease's, in place of whoever had it.
    pub(crate) fn set_lease(&mut self, chunk: ChunkId, row: &mut ChunkRow, holder: Option<SessionId>) {
        if row.lease == holder {
            return;
        }
        if let Some(old) = row.lease {
            self.rows.delete(&key::lease(old, chunk));
        }
        if let Some(new) = holder {
            self.rows.put(&key::lease(new, chunk), Bytes::from_static(PRESENT));
        }
        row.lease = holder;
    }

    /// Takes a chunk from its file; what servers have of it is deleted by and by.
    pub(crate) fn kill_chunk(&mut self, chunk: ChunkId, mut row: ChunkRow) {
        self.set_lease(chunk, &mut row, None);
        self.rows.delete(&key::file_chunk(row.inode, row.index));
        self.touched.push(chunk);
        self.move_parts(chunk, None);
        self.rows.delete(&key::chunk(chunk));
        let dead = DeadChunk(row.layout.parts(chunk).map(|(server, part)| (server, part.index())).collect());
        self.rows.put(&key::dead_chunk(chunk), dead.encode(self.level).into());
        self.counters.totals.chunks -= 1;
    }

    pub(crate) fn inline(&self, inode: InodeId) -> Option<Bytes> {
        self.rows.get(&key::inline(inode))
    }

    /// A new object's id; `ENOSPC` if the cell has no more, and nothing is changed.
    pub(crate) fn new_inode(&mut self) -> Result<InodeId, FsError> {
        let inode = InodeId::of_cell(self.cell, self.counters.next_inode).ok_or(FsError::NoSpace)?;
        self.counters.next_inode += 1;
        self.counters.totals.inodes += 1;
        Ok(inode)
    }

    /// A new chunk's id; `ENOSPC` if the cell has no more, and nothing is changed.
    pub(crate) fn new_chunk(&mut self) -> Result<ChunkId, FsError> {
        let chunk = ChunkId::of_cell(self.cell, self.counters.next_chunk).ok_or(FsError::NoSpace)?;
        self.counters.next_chunk += 1;
        self.counters.totals.chunks += 1;
        Ok(chunk)
    }

    /// A new session's id; `ENOSPC` if the cell has no more, and nothing is changed.
    pub(crate) fn new_session(&mut self) -> Result<SessionId, FsError> {
        let session = SessionId::of_cell(self.cell, self.counters.next_session).ok_or(FsError::NoSpace)?;
        self.counters.next_session += 1;
        Ok(session)
    }

    pub(crate) fn new_server(&mut self) -> ServerId {
        let server = ServerId::from_raw(self.counters.next_server);
        self.counters.next_server += 1;
        server
    }

    /// Sets a file's length; the totals follow.
    pub(crate) fn set_size(&mut self, row: &mut InodeRow, size: u64) {
        let used = &mut self.counters.totals.used_bytes;
        *used = *used - row.size + size;
        row.size = size;
    }

    /// Takes one name from an object; without the last it is an orphan, to be reaped when nobody has it open.
    pub(crate) fn drop_name(&mut self, inode: InodeId, mut row: InodeRow, stamp: TimeNs) {
        row.nlink = if row.is_dir() { 0 } else { row.nlink - 1 };
        row.ctime = stamp;
        if row.nlink == 0 {
            self.rows.put(&key::orphan(inode), Bytes::from_static(PRESENT));
        }
        self.put_inode(inode, &row);
    }
}
