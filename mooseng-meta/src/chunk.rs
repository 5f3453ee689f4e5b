//! The row of a chunk: its place in a file, its versions, its lease and its servers.

use mooseng_types::{CHUNK_SIZE, ChunkIndex, ChunkVersion, InodeId, ServerId, SessionId};

/// [`ChunkRow::valid_length`] of a chunk none of whose bytes is void.
pub(crate) const FULL_LENGTH: u32 = CHUNK_SIZE as u32;

/// What the masters know of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkRow {
    /// The file it belongs to.
    pub inode: InodeId,
    /// Which chunk of the file.
    pub index: ChunkIndex,
    /// The last version whose bytes are part of the file; 0: none yet. A copy below it is stale.
    pub committed: ChunkVersion,
    /// The last version given out with a lease.
    pub granted: ChunkVersion,
    /// Who may write it now.
    pub lease: Option<SessionId>,
    /// Who has a copy, in chain order.
    pub servers: Vec<ServerId>,
    /// Bytes of the chunk from here on read as zero, whatever a copy holds.
    pub valid_length: u32,
}

impl ChunkRow {
    /// Limits the valid bytes to those before `file_size`: what copies hold beyond it was never part of the file.
    pub(crate) fn void_beyond(&mut self, file_size: u64) {
        let inside = file_size.saturating_sub(self.index.start()).min(CHUNK_SIZE);
        self.valid_length = self.valid_length.min(u32::try_from(inside).unwrap_or(FULL_LENGTH));
    }
}
