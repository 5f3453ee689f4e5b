//! The masters' log on disk: whatever bytes a segment holds, the log opens or is refused; what opens reads back the same
//! after it is opened again and appended to.
#![no_main]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, MemoryDisk};
use mooseng_master::raft::log::{LogOpenError, LogOptions, Segments};
use mooseng_master::raft::{HardState, LogEntry, Persist, Recovered};
use mooseng_types::{CellId, ClusterId, MasterId};

const HEADER: usize = 64;
const RECORD_HEAD: usize = 24;
const CLUSTER: [u8; 16] = [1; 16];

fn open(disk: &MemoryDisk) -> Result<(Segments, BTreeMap<CellId, Recovered>), LogOpenError> {
    let options = LogOptions {
        dir: PathBuf::from("/log"),
        segment_bytes: 4096,
        cluster: ClusterId::from_bytes(CLUSTER),
        master: MasterId::from_raw(1),
    };
    Segments::open(Arc::new(disk.clone()), options)
}

/// A valid header of segment `number`, as `docs/formats` draws it.
fn header(number: u64, chain: u32) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(b"MNGRLOG1");
    out[8..16].copy_from_slice(&number.to_le_bytes());
    out[16..32].copy_from_slice(&CLUSTER);
    out[32] = 1;
    out[40..44].copy_from_slice(&chain.to_le_bytes());
    let crc = crc32c::crc32c(&out[..60]);
    out[60..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Gives every record its place in the chain and a right checksum, as far as the lengths lead; returns the last chain.
fn seal(records: &mut [u8], segment: u64, mut chain: u32) -> u32 {
    let mut at = 0;
    while let Some(head) = records.get(at..at + RECORD_HEAD) {
        // Two bytes of length are enough for inputs of this size.
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let end = at + RECORD_HEAD + length;
        if length == 0 || end > records.len() {
            break;
        }
        records[at + 2..at + 4].fill(0);
        records[at + 16..at + 20].copy_from_slice(&chain.to_le_bytes());
        let crc = crc32c::crc32c(&segment.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &records[at..at + 20]);
        chain = crc32c::crc32c_append(crc, &records[at + RECORD_HEAD..end]);
        records[at + 20..at + 24].copy_from_slice(&chain.to_le_bytes());
        at = end.next_multiple_of(8);
    }
    chain
}

fn write(disk: &MemoryDisk, number: u64, bytes: &[u8]) {
    let path = Path::new("/log").join(format!("{number:016x}.log"));
    let file = disk.open(&path, OpenMode::CreateNew).expect("a new file");
    file.write_all_at(bytes, 0).expect("there is room");
}

fuzz_target!(|data: &[u8]| {
    let Some((&[mode, split], bytes)) = data.split_first_chunk::<2>() else { return };
    let disk = MemoryDisk::new(1 << 24);
    disk.create_dir_all(Path::new("/log")).expect("a folder in memory");
    match mode % 3 {
        0 => write(&disk, 1, bytes),
        1 => write(&disk, 1, &[&header(1, 0), bytes].concat()),
        // Two segments, or one, of records whose checksums and chain are right.
        _ => {
            let mut bytes = bytes.to_vec();
            let border =
                if mode & 0x80 == 0 { bytes.len() } else { (usize::from(split) * 8).min(bytes.len()) };
            let (first, second) = bytes.split_at_mut(border);
            let chain = seal(first, 1, 0);
            write(&disk, 1, &[&header(1, 0), &*first].concat());
            if mode & 0x80 != 0 {
                seal(second, 2, chain);
                write(&disk, 2, &[&header(2, chain), &*second].concat());
            }
        }
    }
    let Ok((log, recovered)) = open(&disk) else { return };
    drop(log);
    let (mut log, again) = open(&disk).expect("what opened once opens again");
    assert_eq!(again, recovered);

    // One of the groups in it goes on, or one that was not in it.
    let cell = recovered.keys().nth(usize::from(split) % 3).copied().unwrap_or(CellId::ROOT);
    let before = recovered.get(&cell).cloned().unwrap_or_default();
    let index = before.entries.last().map_or(before.purged.0, |entry| entry.index).saturating_add(1);
    let entry = LogEntry { term: 9, index, kind: 0, data: Bytes::from_static(b"appended") };
    let hard_state = HardState { term: 9, vote: 1, commit: 0 };
    let batch = Persist { number: 1, snapshot: None, entries: vec![entry.clone()], hard_state };
    // Refused only behind a batch number after which there is none.
    if let Err(error) = log.append(&[(cell, batch)]) {
        assert!(error.to_string().contains("batch numbers"), "{error}");
        return;
    }
    drop(log);
    let (_, after) = open(&disk).expect("an appended log opens");
    for (other, recovered) in &recovered {
        if *other != cell {
            assert_eq!(after.get(other), Some(recovered), "the others' logs are as they were");
        }
    }
    let after = &after[&cell];
    assert_eq!((after.hard_state, after.entries.last()), (hard_state, Some(&entry)));
});
