//! The sidecar of a chunk's copy: what decodes encodes to the same header, and only known flags and fields are kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooseng_chunkserver::sidecar::{BadSidecar, Header, decode_table, encode_table};

const SECTOR: usize = 512;
const CRC_AT: usize = SECTOR - 4;

/// The input's bytes as a sector; with `sealed`, one whose magic and checksum are right.
fn sector(bytes: &[u8], sealed: bool) -> [u8; SECTOR] {
    let mut out = [0; SECTOR];
    let length = bytes.len().min(SECTOR);
    out[..length].copy_from_slice(&bytes[..length]);
    if sealed {
        out[..8].copy_from_slice(b"MNGCHUNK");
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((selector, bytes)) = data.split_first() else { return };
    let sealed = selector & 1 == 1;
    match Header::decode(&sector(bytes, sealed)) {
        Ok(header) => assert_eq!(Header::decode(&header.encode()), Ok(header)),
        Err(BadSidecar::Torn) => assert!(!sealed, "magic and checksum are right"),
        Err(BadSidecar::Format(format)) => assert!(![1, 2].contains(&format)),
        Err(BadSidecar::Part { format: 1, part }) => assert_ne!(part, 0),
        Err(BadSidecar::Part { format, part }) => assert!(format == 2 && !(1..=48).contains(&part)),
    }
    let table = decode_table(bytes);
    assert_eq!(encode_table(&table), bytes[..bytes.len() / 4 * 4]);
});
