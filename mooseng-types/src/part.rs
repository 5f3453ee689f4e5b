//! What a chunkserver stores: a whole copy of a chunk, or one part of a chunk that is erasure coded.

use std::fmt;

use crate::id::ChunkId;

/// A copy or a part of a chunk. Its index goes into file names, checksum seeds, tokens and reports, so that a part is never
/// taken for a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    chunk: ChunkId,
    index: u8,
}

impl Part {
    /// Most parts of a chunk that hold its data.
    pub const DATA_MAX: u8 = 32;
    /// Most parts of a chunk that hold parity.
    pub const PARITY_MAX: u8 = 16;
    /// The highest index.
    pub const INDEX_MAX: u8 = Self::DATA_MAX + Self::PARITY_MAX;

    /// A whole copy of the chunk.
    #[must_use]
    pub const fn whole(chunk: ChunkId) -> Self {
        Self { chunk, index: 0 }
    }

    /// The part with this index: 0 is a whole copy, 1 to k are data, k + 1 to k + m are parity. `None` above
    /// [`Part::INDEX_MAX`].
    #[must_use]
    pub const fn new(chunk: ChunkId, index: u8) -> Option<Self> {
        if index > Self::INDEX_MAX { None } else { Some(Self { chunk, index }) }
    }

    /// Of which chunk.
    #[must_use]
    pub const fn chunk(self) -> ChunkId {
        self.chunk
    }

    /// Which one of the chunk; 0 is a whole copy.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.index
    }

    /// Whether it is a whole copy.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.index == 0
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole() { write!(f, "{}", self.chunk) } else { write!(f, "{}p{}", self.chunk, self.index) }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_what_it_is_and_has_an_index_of_a_stripe() {
        let chunk = ChunkId::from_raw(7);
        assert_eq!(Part::new(chunk, 0), Some(Part::whole(chunk)));
        assert_eq!(Part::new(chunk, Part::INDEX_MAX + 1), None);
        let part = Part::new(chunk, 3).unwrap();
        assert_eq!((part.chunk(), part.index(), part.is_whole()), (chunk, 3, false));
        assert_eq!(format!("{} {part}", Part::whole(chunk)), "c7 c7p3");
    }
}
