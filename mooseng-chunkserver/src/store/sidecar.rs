//! The bytes of a copy's sidecar: identity and state in one sector, block checksums in a page of their own. Drawn byte
//! by byte, with reasons, in `docs/formats/chunk-file.md`.

use mooseng_types::{BLOCKS_PER_CHUNK, ChunkId, ChunkVersion, ClusterId};

/// Bytes of the header; one sector, so that a write of it is never torn.
pub const HEADER_SIZE: usize = 512;
/// Where the table of block checksums begins.
pub(crate) const TABLE_OFFSET: u64 = 4096;
/// Bytes of a sidecar.
pub(crate) const SIDECAR_SIZE: u64 = TABLE_OFFSET + 4 * BLOCKS_PER_CHUNK as u64;

const MAGIC: &[u8; 8] = b"MNGCHUNK";
const FORMAT: u16 = 1;
const DIRTY: u16 = 1;
const INTERRUPTED: u16 = 2;
const IN_DOUBT: u16 = 4;
const CRC_AT: usize = HEADER_SIZE - 4;

/// What the first sector of a sidecar says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which chunk.
    pub chunk: ChunkId,
    /// The newest write lease that has written to the copy.
    pub version: ChunkVersion,
    /// Whose it is.
    pub cluster: ClusterId,
    /// The copy may have changed since length and checksums were last stored.
    pub dirty: bool,
    /// A crash may have taken what was written under the lease of `version` and not synced.
    pub interrupted: bool,
    /// A crash may have taken some of its content, and nobody has written or fetched it anew since.
    pub in_doubt: bool,
    /// Bytes of the data file; means nothing while dirty.
    pub length: u32,
    /// CRC-32C of the table's used part; means nothing while dirty.
    pub table_crc: u32,
}

/// Why a sidecar cannot be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSidecar {
    /// Wrong magic or checksum.
    #[error("the sidecar is torn or not one")]
    Torn,
    /// Written by a later release.
    #[error("the sidecar has format {0}, which this release does not know")]
    Format(u16),
}

impl Header {
    /// The sector.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[0..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        let flags = u16::from(self.dirty) * DIRTY
            + u16::from(self.interrupted) * INTERRUPTED
            + u16::from(self.in_doubt) * IN_DOUBT;
        out[10..12].copy_from_slice(&flags.to_le_bytes());
        out[16..24].copy_from_slice(&self.chunk.raw().to_le_bytes());
        out[24..28].copy_from_slice(&self.version.raw().to_le_bytes());
        out[28..32].copy_from_slice(&self.length.to_le_bytes());
        out[32..48].copy_from_slice(&self.cluster.bytes());
        out[48..52].copy_from_slice(&self.table_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the sector.
    pub fn decode(sector: &[u8; HEADER_SIZE]) -> Result<Self, BadSidecar> {
        let half = |at: usize| u16::from_le_bytes([sector[at], sector[at + 1]]);
        let word =
            |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
        if &sector[0..8] != MAGIC || crc32c::crc32c(&sector[..CRC_AT]) != word(CRC_AT) {
            return Err(BadSidecar::Torn);
        }
        if half(8) != FORMAT {
            return Err(BadSidecar::Format(half(8)));
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&sector[32..48]);
        Ok(Self {
            chunk: ChunkId::from_raw(u64::from(word(16)) | u64::from(word(20)) << 32),
            version: ChunkVersion::from_raw(word(24)),
            cluster: ClusterId::from_bytes(cluster),
            dirty: half(10) & DIRTY != 0,
            interrupted: half(10) & INTERRUPTED != 0,
            in_doubt: half(10) & IN_DOUBT != 0,
            length: word(28),
            table_crc: word(48),
        })
    }
}

/// The bytes of a table.
#[must_use]
pub fn encode_table(table: &[u32]) -> Vec<u8> {
    table.iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

/// The checksums in a table's bytes.
#[must_use]
pub fn decode_table(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            chunk: ChunkId::from_raw(0x0102_0304_0506_0708),
            version: ChunkVersion::from_raw(9),
            cluster: ClusterId::from_bytes([0xcc; 16]),
            dirty: true,
            interrupted: true,
            in_doubt: true,
            length: 65_537,
            table_crc: 0x1122_3344,
        }
    }

    #[test]
    fn the_bytes_of_a_header_never_change() {
        let bytes = header().encode();
        assert_eq!(
            bytes[..52],
            *b"MNGCHUNK\x01\0\x07\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\x01\0\x01\0\
            \xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\x44\x33\x22\x11"
        );
        assert!(bytes[52..CRC_AT].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[CRC_AT..], crc32c::crc32c(&bytes[..CRC_AT]).to_le_bytes());
        assert_eq!(encode_table(&[1, 0xffff_fffe]), [1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(SIDECAR_SIZE, 8192);
    }

    #[test]
    fn a_header_reads_back_and_no_bit_of_it_may_change() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok(header()));
        for at in 0..HEADER_SIZE * 8 {
            let mut changed = bytes;
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(Header::decode(&changed), Err(BadSidecar::Torn), "bit {at}");
        }
        assert_eq!(decode_table(&encode_table(&[7, 8])), [7, 8]);
    }

    #[test]
    fn a_format_of_a_later_release_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(BadSidecar::Format(2)));
    }
}
