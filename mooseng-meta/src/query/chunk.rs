//! Questions about chunks.

use mooseng_types::{ChunkId, ChunkIndex, FsError, InodeId, Part, ServerId};

use crate::chunk::ChunkRow;
use crate::codec::v1::row::chunk::DeadChunk;
use crate::key;
use crate::state::MetaState;
use crate::tables::decode;

fn id(key: &[u8]) -> ChunkId {
    ChunkId::from_raw(key::number_at(key, 1))
}

impl MetaState {
    /// The chunks of `count` places of a file from `first` on. A place without one is a hole; so is a chunk whose
    /// committed version is 0, as far as readers are concerned.
    pub fn locate(
        &self,
        inode: InodeId,
        first: ChunkIndex,
        count: u32,
    ) -> Result<Vec<(ChunkIndex, ChunkId, ChunkRow)>, FsError> {
        self.tables.need_file(inode)?;
        let end = first.raw().saturating_add(count);
        let mut places = self.tables.chunks_from(inode, first, usize::try_from(count).unwrap_or(usize::MAX));
        places.retain(|(index, _)| index.raw() < end);
        let row = |(index, chunk)| self.tables.chunk(chunk).map(|row| (index, chunk, row));
        Ok(places.into_iter().filter_map(row).collect())
    }

    /// A chunk's row; `None` if it is dead or never was.
    #[must_use]
    pub fn chunk(&self, chunk: ChunkId) -> Option<ChunkRow> {
        self.tables.chunk(chunk)
    }

    /// Chunks from `from` on, by id, at most `limit`.
    #[must_use]
    pub fn chunks(&self, from: ChunkId, limit: usize) -> Vec<(ChunkId, ChunkRow)> {
        self.tables.rows.collect(b"c", &key::chunk(from), limit, |key, value| (id(key), decode(key, value)))
    }

    /// Dead chunks from `from` on, by id, at most `limit`, with what servers had of them.
    #[must_use]
    pub fn dead_chunks(&self, from: ChunkId, limit: usize) -> Vec<(ChunkId, Vec<(ServerId, Part)>)> {
        self.tables.rows.collect(b"g", &key::dead_chunk(from), limit, |key, value| {
            let (chunk, DeadChunk(parts)) = (id(key), decode(key, value));
            let part = |(server, index)| Some((server, Part::new(chunk, index)?));
            (chunk, parts.into_iter().filter_map(part).collect())
        })
    }

    /// The chunk's file has let it go, and servers are to delete what they have of it.
    #[must_use]
    pub fn is_dead(&self, chunk: ChunkId) -> bool {
        self.tables.rows.contains(&key::dead_chunk(chunk))
    }

    /// Whether this state has given out the number of a chunk of its cell. A chunk that it has not is of a later state than this.
    #[must_use]
    pub fn has_given_out(&self, chunk: ChunkId) -> bool {
        chunk.cell() == self.tables.cell && chunk.count() < self.tables.counters.next_chunk
    }

    /// About how many bytes a whole copy of a chunk has.
    #[must_use]
    pub fn copy_length(&self, row: &ChunkRow) -> u64 {
        let size = self.tables.inode(row.inode).map_or(0, |file| file.size);
        u64::from(row.valid_length).min(size.saturating_sub(row.index.start()))
    }
}
