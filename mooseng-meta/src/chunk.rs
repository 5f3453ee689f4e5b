//! The row of a chunk: its place in a file, its versions, its lease and where it lies.

use mooseng_types::{CHUNK_SIZE, ChunkIndex, ChunkVersion, InodeId, SessionId};

use crate::layout::Layout;

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
    /// Who has what of it.
    pub layout: Layout,
    /// Bytes of the chunk from here on read as zero, whatever a copy holds.
    pub valid_length: u32,
    /// A writer's session ended while it held the lease: what it wrote may be on one copy and not on another. Readers
    /// must all read the same copy.
    pub differs: bool,
}

impl ChunkRow {
    /// Nothing of it was ever part of the file.
    #[must_use]
    pub fn is_uncommitted(&self) -> bool {
        self.committed.raw() == 0
    }

    /// The session that may write it, if that is not `asker`.
    #[must_use]
    pub fn held_by_another(&self, asker: Option<SessionId>) -> Option<SessionId> {
        self.lease.filter(|holder| Some(*holder) != asker)
    }

    /// The bytes of the chunk that lie before `file_size`.
    fn inside(&self, file_size: u64) -> u32 {
        let inside = file_size.saturating_sub(self.index.start()).min(CHUNK_SIZE);
        u32::try_from(inside).unwrap_or(FULL_LENGTH)
    }

    /// The bytes before `file_size` are the file's as of this commit; copies may hold more, which is not.
    pub(crate) fn commit(&mut self, version: ChunkVersion, file_size: u64) {
        self.committed = version;
        self.valid_length = self.inside(file_size);
    }

    /// Limits the valid bytes to those before `file_size`: what copies hold beyond it was never part of the file.
    /// Of a chunk without a commit nothing was.
    pub(crate) fn void_beyond(&mut self, file_size: u64) {
        let inside = if self.is_uncommitted() { 0 } else { self.inside(file_size) };
        self.valid_length = self.valid_length.min(inside);
    }
}
