//! The bytes of a copy's sidecar: identity and state in one sector, block checksums in a page of their own. Drawn byte
//! by byte, with reasons, in `docs/formats/chunk-file.md`.

use mooseng_types::{BLOCKS_PER_CHUNK, ChunkId, ChunkVersion, ClusterId, Part};

/// Bytes of the header; one sector, so that a write of it is never torn.
pub const HEADER_SIZE: usize = 512;
/// Where the table of block checksums begins.
pub(crate) const TABLE_OFFSET: u64 = 4096;
/// Bytes of a sidecar.
pub(crate) const SIDECAR_SIZE: u64 = TABLE_OFFSET + 4 * BLOCKS_PER_CHUNK as u64;

const MAGIC: &[u8; 8] = b"MNGCHUNK";
/// Of a whole copy.
const FORMAT_WHOLE: u16 = 1;
/// Of a part: with its index in byte 12.
const FORMAT_PART: u16 = 2;
const DIRTY: u16 = 1;
const INTERRUPTED: u16 = 2;
const IN_DOUBT: u16 = 4;
const CRC_AT: usize = HEADER_SIZE - 4;

/// What the first sector of a sidecar says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which copy or part of which chunk.
    pub part: Part,
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
    #[error("the sidecar has format {0}; this release knows the formats {FORMAT_WHOLE} and {FORMAT_PART}")]
    Format(u16),
    /// Whole, and still that of nothing that there is.
    #[error("the sidecar has format {format} and names the part {part:#x}, which does not go together")]
    Part {
        /// Its format.
        format: u16,
        /// The four bytes for the part.
        part: u32,
    },
}

impl Header {
    /// The sector.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[0..8].copy_from_slice(MAGIC);
        let format = if self.part.is_whole() { FORMAT_WHOLE } else { FORMAT_PART };
        out[8..10].copy_from_slice(&format.to_le_bytes());
        let flags = u16::from(self.dirty) * DIRTY
            + u16::from(self.interrupted) * INTERRUPTED
            + u16::from(self.in_doubt) * IN_DOUBT;
        out[10..12].copy_from_slice(&flags.to_le_bytes());
        out[12] = self.part.index();
        out[16..24].copy_from_slice(&self.part.chunk().raw().to_le_bytes());
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
        let chunk = ChunkId::from_raw(u64::from(word(16)) | u64::from(word(20)) << 32);
        let named = || u8::try_from(word(12)).ok().and_then(|index| Part::new(chunk, index));
        let part = match half(8) {
            FORMAT_WHOLE => named().filter(|part| part.is_whole()),
            FORMAT_PART => named().filter(|part| !part.is_whole()),
            unknown => return Err(BadSidecar::Format(unknown)),
        };
        let part = part.ok_or(BadSidecar::Part { format: half(8), part: word(12) })?;
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&sector[32..48]);
        Ok(Self {
            part,
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
            part: Part::whole(ChunkId::from_raw(0x0102_0304_0506_0708)),
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
        let later = Header::decode(&with(&header(), 3, [0; 4])).unwrap_err();
        assert_eq!(later, BadSidecar::Format(3));
        assert_eq!(later.to_string(), "the sidecar has format 3; this release knows the formats 1 and 2");
    }

    /// The bytes of `header` with another format and other bytes for the part, and a CRC that fits.
    fn with(header: &Header, format: u16, part: [u8; 4]) -> [u8; HEADER_SIZE] {
        let mut bytes = header.encode();
        bytes[8..10].copy_from_slice(&format.to_le_bytes());
        bytes[12..16].copy_from_slice(&part);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_bytes_of_a_parts_header_never_change() {
        let whole = header();
        let part = Header { part: Part::new(whole.part.chunk(), 7).unwrap(), ..whole };
        let bytes = part.encode();
        assert_eq!(bytes[..16], *b"MNGCHUNK\x02\0\x07\0\x07\0\0\0");
        assert_eq!(bytes[16..CRC_AT], whole.encode()[16..CRC_AT]);
        assert_eq!(bytes[CRC_AT..], crc32c::crc32c(&bytes[..CRC_AT]).to_le_bytes());
        assert_eq!(Header::decode(&bytes), Ok(part));
    }

    #[test]
    fn a_sidecar_that_names_its_part_in_no_known_way_is_that_of_nothing() {
        let bad = [
            (1, [1, 0, 0, 0]),
            (1, [0, 1, 0, 0]),
            (1, [0, 0, 0, 1]),
            (2, [0, 0, 0, 0]),
            (2, [49, 0, 0, 0]),
            (2, [1, 1, 0, 0]),
            (2, [1, 0, 1, 0]),
        ];
        for (format, bytes) in bad {
            let part = u32::from_le_bytes(bytes);
            let refused = Header::decode(&with(&header(), format, bytes));
            assert_eq!(refused, Err(BadSidecar::Part { format, part }), "{bytes:?}");
        }
        let last = Header::decode(&with(&header(), 2, [Part::INDEX_MAX, 0, 0, 0])).unwrap();
        assert_eq!(last.part.index(), Part::INDEX_MAX);
    }
}
