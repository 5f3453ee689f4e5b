//! Block checksums: CRC-32C, begun with a seed of the chunk and the block, so that intact bytes in the wrong place
//! do not pass.

use mooseng_types::{BLOCK_SIZE, ChunkId};

/// The value with which the checksum of a piece inside block number `block` of `chunk` begins.
#[must_use]
pub fn seed(chunk: ChunkId, block: u32) -> u32 {
    let mut identity = [0; 12];
    identity[..8].copy_from_slice(&chunk.raw().to_le_bytes());
    identity[8..].copy_from_slice(&block.to_le_bytes());
    crc32c::crc32c(&identity)
}

/// Cuts `data`, which lies at byte `offset` of a chunk, at block borders: the block's number and the piece.
pub fn pieces(offset: u64, data: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = data;
    let mut at = offset;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let room = usize::try_from(BLOCK_SIZE - at % BLOCK_SIZE).unwrap_or(usize::MAX);
        let (piece, tail) = rest.split_at(room.min(rest.len()));
        let block = u32::try_from(at / BLOCK_SIZE).unwrap_or(u32::MAX);
        rest = tail;
        at += piece.len() as u64;
        Some((block, piece))
    })
}

/// The checksum of one piece.
#[must_use]
pub fn of_piece(chunk: ChunkId, block: u32, piece: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(chunk, block), piece)
}

/// The checksums of the pieces of `data` at byte `offset` of `chunk`, in order.
#[must_use]
pub fn of_range(chunk: ChunkId, offset: u64, data: &[u8]) -> Vec<u32> {
    pieces(offset, data).map(|(block, piece)| of_piece(chunk, block, piece)).collect()
}

/// Whether `checksums` are those of `data` at byte `offset` of `chunk`.
#[must_use]
pub fn matches(chunk: ChunkId, offset: u64, data: &[u8], checksums: &[u32]) -> bool {
    let mut expected = checksums.iter();
    pieces(offset, data).all(|(block, piece)| expected.next() == Some(&of_piece(chunk, block, piece)))
        && expected.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_in_another_place_do_not_pass() {
        let data = vec![7; 100_000];
        let (chunk, other) = (ChunkId::from_raw(9), ChunkId::from_raw(10));
        let sums = of_range(chunk, 1000, &data);
        assert_eq!(sums.len(), 2);
        assert!(matches(chunk, 1000, &data, &sums));
        assert!(!matches(other, 1000, &data, &sums));
        assert!(!matches(chunk, 1000 + BLOCK_SIZE, &data, &sums));
        assert!(!matches(chunk, 1000, &data, &sums[..1]));
        assert!(!matches(chunk, 1000, &data[..10], &sums));
    }

    #[test]
    fn the_checksum_of_a_known_block_never_changes() {
        assert_eq!(of_piece(ChunkId::from_raw(1), 0, b"moose"), 0x920d_3083);
    }
}
