//! The bytes of a record.
//!
//! ```text
//! segment header, 64 bytes                     record, 24 bytes and the content, padded with zeros to 8
//!   0  8 bytes "MNGRLOG1"                        0  u32  length of the content; 0 ends the segment
//!   8  u64  segment number, from 1               4  u8   kind: 1 entry, 2 voter, 3 mark, 4 restart
//!  16  16 bytes cluster id                       5  u8   1 in the last record of a batch, else 0; 2 zero bytes
//!  32  u64  id of the master                     8  u64  batch: which sync made it durable
//!  40  u32  chain: CRC of the record before     16  u32  chain: CRC of the record before
//!  44  16 zero bytes                            20  u32  CRC-32C, begun with the segment number,
//!  60  u32  CRC-32C of bytes 0..60                       of bytes 0..20 and the content
//!
//! entry: u64 term, u64 index, u8 kind, data     state: u64 term, u64 vote, u64 commit     mark: u64 index, u64 term
//! restart: as a mark, and nothing of what came before counts, on neither side of that index: a snapshot has its place
//! ```
//!
//! All little-endian. The chain makes a record worthless outside its place, the segment number in the CRC makes the
//! leftovers of a recycled segment worthless, and the batch number tells a torn tail (nothing of a later batch follows)
//! from damage (something does, so what is broken had been synced). A batch counts when its last record is there.

use bytes::Bytes;
use mooseng_types::{CellId, ClusterId, MasterId};

use crate::raft::{HardState, LogEntry};

/// Bytes of a segment's header.
pub(super) const HEADER_SIZE: usize = 64;
/// Bytes before a record's content.
pub(super) const RECORD_HEAD: usize = 24;
/// Bytes of a mark's record.
pub const MARK_SIZE: usize = RECORD_HEAD + 16;
/// The longest content: a command is far below it.
pub(super) const CONTENT_MAX: usize = 16 << 20;
/// Batches are counted one by one from 1, so none comes near this; beyond it, the number of the next could overflow.
pub(super) const BATCH_MAX: u64 = 1 << 62;
const MAGIC: [u8; 8] = *b"MNGRLOG1";

/// Bytes that are not what the log writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogFormatError {
    /// Not a segment of this release.
    #[error("not a MooseNG log segment, or of a later release")]
    NotASegment,
    /// The header's checksum does not match.
    #[error("the segment's header is damaged")]
    DamagedHeader,
    /// Of another cluster.
    #[error("the segment belongs to cluster {0}")]
    OtherCluster(ClusterId),
    /// Of another master.
    #[error("the segment belongs to master {0}")]
    OtherMaster(MasterId),
}

/// Who a log belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pub(super) cluster: ClusterId,
    pub(super) master: MasterId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) chain: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Content {
    Entry(LogEntry),
    State(HardState),
    /// Entries up to this index (of this term) are purged.
    Mark {
        index: u64,
        term: u64,
    },
    /// The log begins anew behind this index (of this term).
    Restart {
        index: u64,
        term: u64,
    },
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

impl SegmentHeader {
    pub(super) fn encode(self, owner: Owner) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..32].copy_from_slice(&owner.cluster.bytes());
        out[32..40].copy_from_slice(&owner.master.raw().to_le_bytes());
        out[40..44].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; HEADER_SIZE], owner: Owner) -> Result<Self, LogFormatError> {
        if bytes[..8] != MAGIC {
            return Err(LogFormatError::NotASegment);
        }
        if crc32c::crc32c(&bytes[..60]) != word(bytes, 60) {
            return Err(LogFormatError::DamagedHeader);
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[16..32]);
        let (cluster, master) = (ClusterId::from_bytes(cluster), MasterId::from_raw(long(bytes, 32)));
        if cluster != owner.cluster {
            return Err(LogFormatError::OtherCluster(cluster));
        }
        if master != owner.master {
            return Err(LogFormatError::OtherMaster(master));
        }
        Ok(Self { number: long(bytes, 8), chain: word(bytes, 40) })
    }
}

fn checksum(segment: u64, head: &[u8], content: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), &head[..20]);
    crc32c::crc32c_append(crc, content)
}

/// Whose a record is, and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) cell: CellId,
    pub(super) segment: u64,
    pub(super) batch: u64,
    /// Nothing of the batch follows.
    pub(super) last: bool,
}

/// Appends the record of `content` to `out` and moves `chain` on.
pub(super) fn encode(out: &mut Vec<u8>, content: &Content, place: Place, chain: &mut u32) {
    let start = out.len();
    out.resize(start + RECORD_HEAD, 0);
    let kind = match content {
        Content::Entry(entry) => {
            out.extend_from_slice(&entry.term.to_le_bytes());
            out.extend_from_slice(&entry.index.to_le_bytes());
            out.push(entry.kind);
            out.extend_from_slice(&entry.data);
            1
        }
        Content::State(state) => {
            out.extend([state.term, state.vote, state.commit].iter().flat_map(|n| n.to_le_bytes()));
            2
        }
        Content::Mark { index, term } => {
            out.extend([index, term].iter().flat_map(|n| n.to_le_bytes()));
            3
        }
        Content::Restart { index, term } => {
            out.extend([index, term].iter().flat_map(|n| n.to_le_bytes()));
            4
        }
    };
    let length = u32::try_from(out.len() - start - RECORD_HEAD).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4] = kind;
    out[start + 5] = u8::from(place.last);
    out[start + 6..start + 8].copy_from_slice(&place.cell.raw().to_le_bytes());
    out[start + 8..start + 16].copy_from_slice(&place.batch.to_le_bytes());
    out[start + 16..start + 20].copy_from_slice(&chain.to_le_bytes());
    *chain = checksum(place.segment, &out[start..start + 20], &out[start + RECORD_HEAD..]);
    out[start + 20..start + 24].copy_from_slice(&chain.to_le_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
}

/// A record as it stands in a segment, whether or not it belongs there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) cell: CellId,
    pub(super) content: Content,
    pub(super) batch: u64,
    pub(super) last: bool,
    pub(super) chain: u32,
    pub(super) crc: u32,
    /// Bytes it takes with its padding.
    pub(super) size: usize,
}

/// Length of the content and number of the batch, if the front of `bytes` looks like a record. Where a segment was in use
/// before, anything may stand at any place, and a checksum over what some bytes there mean as a length may be long.
fn head_of(bytes: &[u8]) -> Option<(usize, u64)> {
    let head = bytes.get(..RECORD_HEAD)?;
    let (length, batch) = (usize::try_from(word(head, 0)).ok()?, long(head, 8));
    let is_one = matches!((head[4], length), (1, 17..=CONTENT_MAX) | (2, 24) | (3 | 4, 16))
        && head[5] <= 1
        && batch <= BATCH_MAX;
    is_one.then_some((length, batch))
}

/// The batch of what looks like a record at the front of `bytes`.
pub(super) fn batch_of(bytes: &[u8]) -> Option<u64> {
    head_of(bytes).map(|(_, batch)| batch)
}

/// The record at the front of `bytes` if it is whole and of this segment; its place in the chain is the caller's to check.
pub(super) fn decode(bytes: &[u8], segment: u64) -> Option<Found> {
    let (length, batch) = head_of(bytes)?;
    let head = bytes.get(..RECORD_HEAD)?;
    let content = bytes.get(RECORD_HEAD..RECORD_HEAD + length)?;
    let crc = word(head, 20);
    if checksum(segment, head, content) != crc {
        return None;
    }
    let parsed = match (head[4], length) {
        (1, 17..) => Content::Entry(LogEntry {
            term: long(content, 0),
            index: long(content, 8),
            kind: content[16],
            data: Bytes::copy_from_slice(&content[17..]),
        }),
        (2, 24) => Content::State(HardState {
            term: long(content, 0),
            vote: long(content, 8),
            commit: long(content, 16),
        }),
        (3, 16) => Content::Mark { index: long(content, 0), term: long(content, 8) },
        (4, 16) => Content::Restart { index: long(content, 0), term: long(content, 8) },
        _ => return None,
    };
    let size = (RECORD_HEAD + length).next_multiple_of(8);
    let cell = CellId::from_raw(u16::from_le_bytes([head[6], head[7]]));
    Some(Found { cell, content: parsed, batch, last: head[5] == 1, chain: word(head, 16), crc, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_record_never_change() {
        let mut out = Vec::new();
        let mut chain = 0x0102_0304;
        let entry = LogEntry { term: 2, index: 3, kind: 0, data: Bytes::from_static(b"abc") };
        encode(
            &mut out,
            &Content::Entry(entry.clone()),
            Place { cell: CellId::ROOT, segment: 7, batch: 9, last: true },
            &mut chain,
        );
        let expected = [
            20, 0, 0, 0, 1, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 26, 187, 166, 129, 2, 0, 0, 0, 0, 0,
            0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0,
        ];
        assert_eq!(out, expected);
        let found = decode(&out, 7).unwrap();
        assert_eq!(
            (found.content, found.batch, found.chain, found.size),
            (Content::Entry(entry), 9, 0x0102_0304, 48)
        );
        assert_eq!(decode(&out, 8), None, "of another segment");
        let (mut other, cell) = (Vec::new(), CellId::from_raw(0x0201));
        let place = Place { cell, segment: 7, batch: 9, last: true };
        encode(&mut other, &Content::Mark { index: 1, term: 1 }, place, &mut chain);
        assert_eq!((&other[..8], decode(&other, 7).unwrap().cell), (&[16, 0, 0, 0, 3, 1, 1, 2][..], cell));
    }

    #[test]
    fn a_header_is_of_one_cluster_and_one_master() {
        let owner = Owner { cluster: ClusterId::from_bytes([5; 16]), master: MasterId::from_raw(2) };
        let header = SegmentHeader { number: 3, chain: 4 };
        let bytes = header.encode(owner);
        assert_eq!(SegmentHeader::decode(&bytes, owner), Ok(header));
        let other = Owner { cluster: ClusterId::from_bytes([6; 16]), ..owner };
        assert_eq!(SegmentHeader::decode(&bytes, other), Err(LogFormatError::OtherCluster(owner.cluster)));
        let other = Owner { master: MasterId::from_raw(1), ..owner };
        assert_eq!(SegmentHeader::decode(&bytes, other), Err(LogFormatError::OtherMaster(owner.master)));
        let mut damaged = bytes;
        damaged[9] ^= 1;
        assert_eq!(SegmentHeader::decode(&damaged, owner), Err(LogFormatError::DamagedHeader));
    }
}
