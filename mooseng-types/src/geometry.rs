//! How a file is cut up: chunks of 64 MiB, blocks of 64 KiB, and the arithmetic between offsets and both.

use std::fmt;

/// Bytes of a file that one chunk holds.
pub const CHUNK_SIZE: u64 = 64 << 20;
/// Bytes that one checksum covers.
pub const BLOCK_SIZE: u64 = 64 << 10;
/// Blocks of a full chunk.
pub const BLOCKS_PER_CHUNK: u32 = 1024;
/// A file up to this size, in bytes, may live in the metadata instead of a chunk.
pub const INLINE_MAX: u64 = 4096;
/// The longest name of a directory entry, in bytes (`NAME_MAX` of `pathconf(3)`).
pub const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes (`PATH_MAX` without its NUL).
pub const SYMLINK_MAX: usize = 4095;
/// The longest value of an extended attribute, in bytes (`xattr(7)`).
pub const XATTR_VALUE_MAX: usize = 65536;
/// The names of all extended attributes of one object with a NUL each, in bytes (`listxattr(2)`).
pub const XATTR_NAMES_MAX: usize = 65536;
/// The largest file, in bytes: `u32::MAX` chunks would be 256 PiB; this leaves `off_t` and chunk indexes far from overflow.
pub const FILE_SIZE_MAX: u64 = CHUNK_SIZE << 30;

/// Which chunk of a file, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(u32);

impl ChunkIndex {
    /// The chunk with this number.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number behind the index.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The chunk that holds byte `offset` of a file; `None` beyond [`FILE_SIZE_MAX`].
    #[must_use]
    pub fn of_offset(offset: u64) -> Option<Self> {
        if offset >= FILE_SIZE_MAX {
            return None;
        }
        u32::try_from(offset / CHUNK_SIZE).ok().map(Self)
    }

    /// The file offset at which the chunk begins.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.0 as u64 * CHUNK_SIZE
    }
}

impl fmt::Debug for ChunkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk[{}]", self.0)
    }
}

/// Which block of a chunk, counted from 0; below [`BLOCKS_PER_CHUNK`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(u32);

impl BlockIndex {
    /// The block that holds byte `offset` of a chunk; `None` beyond the chunk.
    #[must_use]
    pub fn of_offset(offset: u64) -> Option<Self> {
        if offset >= CHUNK_SIZE {
            return None;
        }
        u32::try_from(offset / BLOCK_SIZE).ok().map(Self)
    }

    /// The number behind the index.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The chunk offset at which the block begins.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.0 as u64 * BLOCK_SIZE
    }
}

impl fmt::Debug for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block[{}]", self.0)
    }
}

/// A part of a file that lies in one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkExtent {
    /// The chunk.
    pub index: ChunkIndex,
    /// Where the part begins, in bytes from the chunk's start.
    pub offset: u64,
    /// How long it is, in bytes; never 0.
    pub length: u64,
}

/// Cuts `length` bytes at `offset` of a file at chunk borders, in order. Bytes beyond [`FILE_SIZE_MAX`] are left out.
pub fn chunk_extents(offset: u64, length: u64) -> impl Iterator<Item = ChunkExtent> {
    let end = offset.saturating_add(length).min(FILE_SIZE_MAX);
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let index = ChunkIndex::of_offset(at)?;
        let inside = at - index.start();
        let length = (CHUNK_SIZE - inside).min(end - at);
        at += length;
        Some(ChunkExtent { index, offset: inside, length })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_over_a_chunk_border_is_cut_there() {
        let cut: Vec<_> = chunk_extents(CHUNK_SIZE - 10, 30).collect();
        assert_eq!(
            cut,
            [
                ChunkExtent { index: ChunkIndex::from_raw(0), offset: CHUNK_SIZE - 10, length: 10 },
                ChunkExtent { index: ChunkIndex::from_raw(1), offset: 0, length: 20 },
            ]
        );
        assert_eq!(chunk_extents(5, 0).count(), 0);
        assert_eq!(chunk_extents(u64::MAX, 1).count(), 0);
    }

    proptest! {
        #[test]
        fn the_cut_parts_are_the_range_again(offset in 0..FILE_SIZE_MAX, length in 0..(5 * CHUNK_SIZE)) {
            let mut at = offset;
            for part in chunk_extents(offset, length) {
                prop_assert_eq!(part.index.start() + part.offset, at);
                prop_assert!(part.length > 0 && part.offset + part.length <= CHUNK_SIZE);
                at += part.length;
            }
            prop_assert_eq!(at, (offset + length).min(FILE_SIZE_MAX));
        }
    }
}
