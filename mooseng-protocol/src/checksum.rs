//! Block checksums: CRC-32C, begun with a seed of the chunk, the block and the part, so that intact bytes in the wrong
//! place do not pass.

use mooseng_types::{BLOCK_SIZE, Part};

/// Bytes of a seed's identity without a part's index.
const WHOLE: usize = 12;

/// The value with which the checksum of a section inside block number `block` of `part` begins: CRC-32C of the chunk's number
/// (8 bytes, little-endian), the block's (4), and for all but a whole copy the part's index (1).
#[must_use]
pub fn seed(part: Part, block: u32) -> u32 {
    let mut identity = [0; WHOLE + 1];
    identity[..8].copy_from_slice(&part.chunk().raw().to_le_bytes());
    identity[8..WHOLE].copy_from_slice(&block.to_le_bytes());
    identity[WHOLE] = part.index();
    crc32c::crc32c(if part.is_whole() { &identity[..WHOLE] } else { &identity })
}

/// Cuts `data`, which lies at byte `offset` of a copy or part, at block borders: the block's number and the section.
pub fn sections(offset: u64, data: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = data;
    let mut at = offset;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let room = usize::try_from(BLOCK_SIZE - at % BLOCK_SIZE).unwrap_or(usize::MAX);
        let (section, tail) = rest.split_at(room.min(rest.len()));
        let block = u32::try_from(at / BLOCK_SIZE).unwrap_or(u32::MAX);
        rest = tail;
        at += section.len() as u64;
        Some((block, section))
    })
}

/// The checksum of one section.
#[must_use]
pub fn of_section(part: Part, block: u32, section: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(part, block), section)
}

/// The checksums of the sections of `data` at byte `offset` of `part`, in order.
#[must_use]
pub fn of_range(part: Part, offset: u64, data: &[u8]) -> Vec<u32> {
    sections(offset, data).map(|(block, section)| of_section(part, block, section)).collect()
}

/// Whether `checksums` are those of `data` at byte `offset` of `part`.
#[must_use]
pub fn matches(part: Part, offset: u64, data: &[u8], checksums: &[u32]) -> bool {
    let mut expected = checksums.iter();
    sections(offset, data).all(|(block, section)| expected.next() == Some(&of_section(part, block, section)))
        && expected.next().is_none()
}

#[cfg(test)]
mod tests {
    use mooseng_types::ChunkId;

    use super::*;

    #[test]
    fn the_same_bytes_in_another_place_do_not_pass() {
        let data = vec![7; 100_000];
        let (chunk, other) = (Part::whole(ChunkId::from_raw(9)), Part::whole(ChunkId::from_raw(10)));
        let [first, second] = [1, 2].map(|index| Part::new(chunk.chunk(), index).unwrap());
        let sums = of_range(chunk, 1000, &data);
        assert_eq!(sums.len(), 2);
        assert!(matches(chunk, 1000, &data, &sums));
        assert!(!matches(other, 1000, &data, &sums));
        assert!(!matches(first, 1000, &data, &sums));
        assert!(!matches(second, 1000, &data, &of_range(first, 1000, &data)));
        assert!(!matches(chunk, 1000 + BLOCK_SIZE, &data, &sums));
        assert!(!matches(chunk, 1000, &data, &sums[..1]));
        assert!(!matches(chunk, 1000, &data[..10], &sums));
    }

    #[test]
    fn the_checksum_of_a_known_block_never_changes() {
        let chunk = ChunkId::from_raw(1);
        assert_eq!(of_section(Part::whole(chunk), 0, b"moose"), 0x920d_3083);
        assert_eq!(seed(Part::whole(chunk), 2), crc32c::crc32c(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]));
        let part = Part::new(chunk, 3).unwrap();
        assert_eq!(seed(part, 2), crc32c::crc32c(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3]));
        assert_eq!(of_section(part, 0, b"moose"), 0xe5f4_4be0);
    }
}
