//! The store against a plain vector, against power cuts, full disks, failing disks and damage.

mod doubt;
mod fetch;
mod gone;
mod open;
mod parts;
mod quarantine;
mod verify;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, FsDisk, MemoryDisk, SystemEntropy};
use mooseng_protocol::checksum;
use mooseng_protocol::token::Token;
use mooseng_types::{BLOCK_SIZE, ChunkId, ChunkVersion, ClusterId, Part, SessionId};
use proptest::prelude::*;

use super::{Chunk, Follows, Incoming, ReadAnswer, ReadBytes, ReadRequest, Store, StoreError};
use crate::buffer::BufferPool;
use crate::copy_events::{CopyEvent, CopyEvents, ToTell};
use crate::identity::mark_disk;

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
const ROOT: &str = "/disk";
const SPAN: u64 = 5 * BLOCK_SIZE;

fn open(disk: &Arc<dyn Disk>, root: &Path) -> (Store, Arc<CopyEvents>) {
    let events = Arc::<CopyEvents>::default();
    let disks = vec![(Arc::clone(disk), root.to_owned())];
    mark(&**disk, root);
    (Store::open(disks, CLUSTER, 0, Arc::clone(&events)).unwrap(), events)
}

fn mark(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).unwrap();
    mark_disk(disk, &SystemEntropy, root, CLUSTER, ClusterId::from_bytes([1; 16])).unwrap();
}

fn here(at: u32, in_doubt: bool) -> CopyEvent {
    CopyEvent::Here { version: version(at), in_doubt, verified: false }
}

fn verified_here(at: u32) -> CopyEvent {
    CopyEvent::Here { version: version(at), in_doubt: false, verified: true }
}

fn memory(capacity: u64) -> (MemoryDisk, Arc<dyn Disk>, Store, Arc<CopyEvents>) {
    let memory = MemoryDisk::new(capacity);
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    let (store, events) = open(&disk, Path::new(ROOT));
    (memory, disk, store, events)
}

fn id(raw: u64) -> Part {
    Part::whole(ChunkId::from_raw(raw))
}

fn version(raw: u32) -> ChunkVersion {
    ChunkVersion::from_raw(raw)
}

fn token(part: Part, base: u32, at: u32, create: bool) -> Token {
    Token {
        part,
        base_version: version(base),
        version: version(at),
        read: true,
        write: true,
        create,
        session: SessionId::from_raw(1),
        expiry_unix_s: u64::MAX,
    }
}

fn put(chunk: &Arc<Chunk>, token: &Token, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
    put_after(chunk, token, Follows::Nothing, offset, bytes)
}

fn put_after(
    chunk: &Arc<Chunk>,
    token: &Token,
    follows: Follows,
    offset: u64,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let sums = checksum::of_range(chunk.id(), offset, bytes);
    chunk.write(Duration::from_secs(100), token, follows, offset, bytes, &sums)
}

fn request(oldest: u32, offset: u64, length: u64) -> ReadRequest {
    ReadRequest { oldest: version(oldest), offset, length, verify: false, intact: false, whole: false }
}

/// The bytes of an answer, verified as a client does it.
fn verified(part: Part, answer: ReadAnswer) -> (u64, Vec<u8>) {
    let bytes = match answer.bytes {
        ReadBytes::Nothing => vec![],
        ReadBytes::Memory { buffer, from, length } => buffer[from..from + length].to_vec(),
        ReadBytes::File(bytes) => {
            let mut read = vec![0; bytes.length];
            bytes.file.read_exact_at(&mut read, bytes.offset).unwrap();
            read
        }
    };
    assert!(checksum::matches(part, answer.offset, &bytes, &answer.checksums), "{part}: bad checksums");
    (answer.offset, bytes)
}

/// Reads exactly a range; bytes beyond the copy are left out.
fn get(chunk: &Arc<Chunk>, offset: u64, length: u64) -> Result<Vec<u8>, StoreError> {
    let buffers = BufferPool::new(8 << 20);
    let answer = chunk.read(Duration::from_secs(200), &request(0, offset, length), &buffers)?;
    let copy_length = answer.copy_length;
    let (start, bytes) = verified(chunk.id(), answer);
    let from = offset.min(copy_length).saturating_sub(start) as usize;
    let to = ((offset + length).min(copy_length).saturating_sub(start) as usize).min(bytes.len());
    Ok(bytes[from.min(to)..to].to_vec())
}

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u64, length: usize, fill: u8 },
    Truncate(u64),
    Sync,
    Clean,
    Read { offset: u64, length: u64 },
    Reopen,
}

fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let near_border = prop_oneof![0..SPAN, (0u64..5, 0u64..3).prop_map(|(b, d)| b * BLOCK_SIZE + d)];
    let length = prop_oneof![1usize..100, 1usize..200_000, Just(BLOCK_SIZE as usize)];
    let step = prop_oneof![
        6 => (near_border.clone(), length, any::<u8>())
            .prop_map(|(offset, length, fill)| Step::Write { offset, length, fill }),
        2 => near_border.clone().prop_map(Step::Truncate),
        1 => Just(Step::Sync),
        1 => Just(Step::Clean),
        4 => (near_border, 1u64..200_000).prop_map(|(offset, length)| Step::Read { offset, length }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..max)
}

fn pattern(length: usize, fill: u8) -> Vec<u8> {
    (0..length).map(|i| fill ^ (i / 256) as u8).collect()
}

fn write_model(model: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if model.len() < end {
        model.resize(end, 0);
    }
    model[start..end].copy_from_slice(bytes);
}

fn check_whole(chunk: &Arc<Chunk>, model: &[u8]) {
    let mut at = 0;
    while at < model.len() {
        let length = (model.len() - at).min(1 << 20);
        assert!(get(chunk, at as u64, length as u64).unwrap() == model[at..at + length], "from {at}");
        at += length;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn copies_and_parts_of_one_chunk_read_like_vectors_whatever_is_done_to_them(
        steps in steps(60), whose in prop::collection::vec(0usize..3, 60),
    ) {
        let (_, disk, mut store, _) = memory(u64::MAX);
        let parts = [0, 1, 48].map(|index| Part::new(id(0x1ff).chunk(), index).unwrap());
        let mut tokens = parts.map(|part| token(part, 1, 1, true));
        let mut chunks = parts.map(|part| store.find_or_place(part).unwrap());
        let mut models: [Vec<u8>; 3] = Default::default();
        for (chunk, token) in chunks.iter().zip(&tokens) {
            chunk.truncate(Duration::ZERO, token, 0).unwrap();
        }
        for (step, whose) in steps.into_iter().zip(whose) {
            let (chunk, token, model) = (&chunks[whose], &tokens[whose], &mut models[whose]);
            match step {
                Step::Write { offset, length, fill } => {
                    let bytes = pattern(length, fill);
                    put(chunk, token, offset, &bytes).unwrap();
                    write_model(model, offset, &bytes);
                }
                Step::Truncate(length) => {
                    chunk.truncate(Duration::from_secs(100), token, length).unwrap();
                    model.resize(length as usize, 0);
                }
                Step::Sync => chunk.sync(Duration::from_secs(100), token).unwrap(),
                Step::Clean => chunk.clean_if_idle(Duration::from_secs(200), Duration::ZERO).unwrap(),
                Step::Read { offset, length } => {
                    let end = model.len().min((offset + length) as usize);
                    let expected = &model[end.min(offset as usize)..end];
                    prop_assert!(get(chunk, offset, length).unwrap() == expected);
                }
                Step::Reopen => {
                    // As after a kill: nothing was closed, everything written is in the page cache.
                    drop((chunks, store));
                    store = open(&disk, Path::new(ROOT)).0;
                    chunks = parts.map(|part| store.find(part).unwrap());
                    // Whoever wrote before it needs a new lease.
                    for (chunk, token) in chunks.iter().zip(&mut tokens) {
                        token.version = token.version.next();
                        put(chunk, token, 0, b"").unwrap();
                    }
                }
            }
        }
        for (chunk, model) in chunks.iter().zip(&models) {
            check_whole(chunk, model);
        }
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_nothing_unreadable(
        before in steps(12), after in steps(12), seed: u64, clean: bool,
    ) {
        let (memory, disk, store, _) = memory(u64::MAX);
        let token = token(id(5), 1, 1, true);
        let chunk = store.find_or_place(id(5)).unwrap();
        chunk.truncate(Duration::ZERO, &token, 0).unwrap();
        // Every value that a byte has had since the sync; the last of them is what it was synced with.
        let mut model = Vec::new();
        apply(&chunk, &token, &before, &mut model, &mut |_, _| {});
        chunk.sync(Duration::from_secs(100), &token).unwrap();
        if clean {
            chunk.clean_if_idle(Duration::from_secs(200), Duration::ZERO).unwrap();
        }
        let synced = model.clone();
        let mut written: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut shortest = synced.len();
        apply(&chunk, &token, &after, &mut model, &mut |offset, model| {
            shortest = shortest.min(model.len());
            for at in offset..model.len() as u64 {
                written.entry(at / 512).or_default();
            }
        });
        drop((chunk, store));
        let mut state = seed | 1;
        memory.power_cut(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state & 1 == 0
        });
        let (store, events) = open(&disk, Path::new(ROOT));
        prop_assert_eq!(events.take(10), ToTell::Some(vec![]), "the copy was synced, it must not be lost");
        let chunk = store.find(id(5)).unwrap();
        let length = chunk
            .read(Duration::ZERO, &request(1, 0, 1), &BufferPool::new(4 << 20))
            .unwrap()
            .copy_length;
        let left = get(&chunk, 0, length.min(1 << 20)).unwrap();
        for (at, byte) in left.iter().enumerate().take(synced.len().min(shortest)) {
            if !written.contains_key(&(at as u64 / 512)) {
                prop_assert_eq!(*byte, synced[at], "synced byte {} changed", at);
            }
        }
        if written.is_empty() && shortest == synced.len() {
            prop_assert!(left == synced);
        }
    }
}

/// Applies the changes among `steps`; `changed` hears from which offset on bytes may have changed.
fn apply(
    chunk: &Arc<Chunk>,
    token: &Token,
    steps: &[Step],
    model: &mut Vec<u8>,
    changed: &mut dyn FnMut(u64, &Vec<u8>),
) {
    for step in steps {
        match step {
            Step::Write { offset, length, fill } => {
                let bytes = pattern(*length, *fill);
                put(chunk, token, *offset, &bytes).unwrap();
                let from = (model.len() as u64).min(*offset);
                let tail = model.split_off((*offset as usize + length).min(model.len()));
                write_model(model, *offset, &bytes);
                changed(from, model);
                model.extend(tail);
            }
            Step::Truncate(length) => {
                chunk.truncate(Duration::from_secs(100), token, *length).unwrap();
                let from = (model.len() as u64).min(*length);
                model.resize(*length as usize, 0);
                changed(from, model);
            }
            _ => {}
        }
    }
}

#[test]
fn a_copy_on_a_real_disk_goes_out_unread_once_its_writer_rests() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(FsDisk);
    let (store, _) = open(&disk, dir.path());
    let chunk = store.find_or_place(id(9)).unwrap();
    let token = token(id(9), 1, 1, true);
    let bytes = pattern(300_000, 3);
    put(&chunk, &token, 0, &bytes).unwrap();
    let buffers = BufferPool::new(4 << 20);
    let read = |now| chunk.read(Duration::from_secs(now), &request(1, 1000, 150_000), &buffers).unwrap();
    assert!(matches!(read(100).bytes, ReadBytes::Memory { .. }), "it is being written");
    let answer = read(102);
    assert!(matches!(answer.bytes, ReadBytes::File(_)));
    let (start, got) = verified(id(9), answer);
    assert_eq!(start, 0);
    assert!(got == bytes[..3 * BLOCK_SIZE as usize]);
    chunk.clean_if_idle(Duration::from_secs(200), Duration::ZERO).unwrap();
    drop((chunk, store));
    let (store, _) = open(&disk, dir.path());
    assert_eq!(store.list()[0].version, version(1));
    assert!(!store.list()[0].in_doubt);
    check_whole(&store.find(id(9)).unwrap(), &bytes);
}

#[test]
fn versions_fence_both_ways() {
    let (_, disk, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    assert!(matches!(put(&chunk, &token(id(1), 3, 4, false), 0, b"x"), Err(StoreError::NotFound { .. })));
    put(&chunk, &token(id(1), 3, 4, true), 0, b"first").unwrap();
    put(&chunk, &token(id(1), 4, 6, false), 0, b"newer").unwrap();
    let late = put(&chunk, &token(id(1), 4, 5, false), 0, b"late!");
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
    assert!(matches!(
        chunk.truncate(Duration::ZERO, &token(id(1), 4, 5, false), 0),
        Err(StoreError::Fenced { .. })
    ));
    let missed = put(&chunk, &token(id(1), 7, 8, true), 0, b"stale");
    assert!(matches!(missed, Err(StoreError::Stale { .. })), "{missed:?}");
    assert!(matches!(chunk.sync(Duration::ZERO, &token(id(1), 7, 8, false)), Err(StoreError::Stale { .. })));
    let buffers = BufferPool::new(0);
    let read = chunk.read(Duration::ZERO, &request(7, 0, 5), &buffers);
    assert!(matches!(read, Err(StoreError::Stale { .. })), "{read:?}");
    assert_eq!(get(&chunk, 0, 5).unwrap(), b"newer");
    drop((chunk, store));
    assert_eq!(open(&disk, Path::new(ROOT)).0.list()[0].version, version(6), "the version is on the disk");
}

#[test]
fn an_adopted_version_is_durable_before_the_first_byte_under_it() {
    let (memory, disk, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, b"old").unwrap();
    chunk.clean_if_idle(Duration::from_secs(200), Duration::ZERO).unwrap();
    put(&chunk, &token(id(1), 1, 2, false), 0, b"new").unwrap();
    drop((chunk, store));
    memory.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let copy = store.list()[0];
    assert_eq!((copy.version, copy.in_doubt), (version(2), true));
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 3).unwrap(), b"old");
}

#[test]
fn a_lease_that_a_crash_interrupted_stays_so_over_further_starts() {
    let (memory, disk, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, b"lost").unwrap();
    drop((chunk, store));
    memory.power_cut(|| false);
    for _ in 0..3 {
        let (store, _) = open(&disk, Path::new(ROOT));
        let chunk = store.find(id(1)).unwrap();
        let synced = chunk.sync(Duration::ZERO, &token(id(1), 1, 1, false));
        assert!(matches!(synced, Err(StoreError::Interrupted { .. })), "{synced:?}");
    }
    let (store, _) = open(&disk, Path::new(ROOT));
    let chunk = store.find(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 2, false), 0, b"again").unwrap();
    chunk.sync(Duration::ZERO, &token(id(1), 1, 2, false)).unwrap();
    chunk.clean_if_idle(Duration::from_secs(200), Duration::ZERO).unwrap();
    drop((chunk, store));
    let (store, _) = open(&disk, Path::new(ROOT));
    store.find(id(1)).unwrap().sync(Duration::ZERO, &token(id(1), 1, 2, false)).unwrap();
}

#[test]
fn bytes_damaged_on_the_way_are_never_stored() {
    let (_, _, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    let token = token(id(1), 1, 1, true);
    put(&chunk, &token, 0, b"good").unwrap();
    let sums = checksum::of_range(id(1), 0, b"good");
    let refused = chunk.write(Duration::ZERO, &token, Follows::Nothing, 0, b"goof", &sums);
    assert!(matches!(refused, Err(StoreError::DamagedOnTheWay { .. })));
    let beyond = chunk.write(Duration::ZERO, &token, Follows::Nothing, (64 << 20) - 2, b"good", &sums);
    assert!(matches!(beyond, Err(StoreError::Invalid { .. })));
    assert_eq!(get(&chunk, 0, 10).unwrap(), b"good");
}

#[test]
fn a_full_disk_refuses_and_keeps_what_it_had() {
    let (memory, _, store, _) = memory(400_000);
    let chunk = store.find_or_place(id(1)).unwrap();
    let token = token(id(1), 1, 1, true);
    let bytes = pattern(200_000, 1);
    put(&chunk, &token, 0, &bytes).unwrap();
    // The store's own count of the room says no first; then, with a stale count, the disk does.
    assert!(matches!(put(&chunk, &token, 200_000, &pattern(300_000, 2)), Err(StoreError::NoSpace { .. })));
    memory.set_capacity(1 << 30);
    store.disks()[0].look();
    memory.set_capacity(300_000);
    assert!(matches!(put(&chunk, &token, 190_000, &pattern(300_000, 2)), Err(StoreError::NoSpace { .. })));
    check_whole(&chunk, &bytes);
    put(&chunk, &token, 10, &[9; 100]).unwrap();
    assert_eq!(get(&chunk, 9, 3).unwrap(), [bytes[9], 9, 9]);
    store.disks()[0].use_room(u64::MAX);
    let other = store.find_or_place(id(2));
    assert!(matches!(other, Err(StoreError::NoSpace { .. })), "{other:?}");
}

#[test]
fn a_failed_sync_is_the_end_of_the_disk_and_its_copies_are_reported_lost() {
    let (memory, _, store, events) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    let token = token(id(1), 1, 1, true);
    put(&chunk, &token, 0, b"x").unwrap();
    memory.fail_syncs(true);
    assert!(matches!(chunk.sync(Duration::ZERO, &token), Err(StoreError::Disk { .. })));
    memory.fail_syncs(false);
    assert!(matches!(chunk.sync(Duration::ZERO, &token), Err(StoreError::Disk { .. })), "never tried again");
    assert!(matches!(put(&chunk, &token, 0, b"y"), Err(StoreError::Disk { .. })));
    assert!(store.list().is_empty());
    store.report_failed_disks();
    store.report_failed_disks();
    assert_eq!(events.take(10), ToTell::Some(vec![(id(1), CopyEvent::Lost)]));
    let elsewhere = store.find_or_place(id(2));
    assert!(matches!(elsewhere, Err(StoreError::NoDisk { .. })), "a failed disk is not a full one");
}

#[test]
fn a_disk_that_fails_at_start_does_not_take_the_others_with_it() {
    let (bad, good) = (MemoryDisk::new(1 << 30), MemoryDisk::new(1 << 30));
    [&bad, &good].into_iter().for_each(|disk| mark(disk, Path::new(ROOT)));
    bad.fail_syncs(true);
    let disks: [Arc<dyn Disk>; 2] = [Arc::new(bad), Arc::new(good)];
    let open = |disks: &[Arc<dyn Disk>]| {
        let disks = disks.iter().map(|disk| (Arc::clone(disk), PathBuf::from(ROOT))).collect();
        Store::open(disks, CLUSTER, 0, Arc::default())
    };
    let store = open(&disks).unwrap();
    assert_eq!([0, 1].map(|disk: usize| store.disks()[disk].failed()), [true, false]);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, b"goes on").unwrap();
    assert!(open(&disks[..1]).is_err(), "nothing is left to serve with");
}

/// Writes a clean copy, damages it, and gives the disk back.
fn damaged(damage: impl FnOnce(&dyn Disk, PathBuf, PathBuf)) -> (Arc<dyn Disk>, Store, Arc<CopyEvents>) {
    let (_, disk, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(0x2a)).unwrap();
    put(&chunk, &token(id(0x2a), 1, 1, true), 0, &pattern(200_000, 1)).unwrap();
    chunk.clean_if_idle(Duration::from_secs(200), Duration::ZERO).unwrap();
    drop((chunk, store));
    let base = Path::new(ROOT).join("2a/000000000000002a");
    damage(&*disk, base.with_extension("data"), base.with_extension("meta"));
    let (store, events) = open(&disk, Path::new(ROOT));
    (disk, store, events)
}

fn flip(disk: &dyn Disk, path: &Path, at: u64) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_copy_that_cannot_be_believed_is_moved_aside_and_reported_but_never_deleted() {
    type Damage = fn(&dyn Disk, PathBuf, PathBuf);
    let cases: [(Damage, usize); 4] = [
        (|disk, _, meta| flip(disk, &meta, 30), 2),
        (|disk, _, meta| disk.remove(&meta).unwrap(), 1),
        (|disk, data, _| disk.remove(&data).unwrap(), 1),
        (|disk, _, meta| disk.open(&meta, OpenMode::Write).unwrap().set_len(100).unwrap(), 2),
    ];
    for (damage, files) in cases {
        let (disk, store, events) = damaged(damage);
        assert!(store.list().is_empty());
        assert_eq!(events.take(10), ToTell::Some(vec![(id(0x2a), CopyEvent::Lost)]));
        assert_eq!(disk.list(&Path::new(ROOT).join("damaged")).unwrap().len(), files);
    }
}

#[test]
fn a_damaged_block_is_found_when_it_is_read_or_changed_and_the_copy_is_never_made_again() {
    let token = token(id(0x2a), 1, 1, true);
    type Way<'a> = &'a dyn Fn(&Arc<Chunk>) -> StoreError;
    let ways: [Way<'_>; 4] = [
        &|chunk| get(chunk, 70_000, 100).unwrap_err(),
        &|chunk| get(chunk, 10, 190_000).unwrap_err(),
        &|chunk| put(chunk, &token, 70_000, b"in the block").unwrap_err(),
        &|chunk| chunk.truncate(Duration::ZERO, &token, 70_000).unwrap_err(),
    ];
    for way in ways {
        let (_, store, events) = damaged(|disk, data, _| flip(disk, &data, 66_000));
        let chunk = store.find(id(0x2a)).unwrap();
        assert!(get(&chunk, 0, 1000).is_ok(), "other blocks are intact");
        assert!(matches!(way(&chunk), StoreError::Broken { .. }));
        assert_eq!(events.take(10), ToTell::Some(vec![(id(0x2a), CopyEvent::Lost)]));
        assert!(store.list().is_empty());
        assert!(matches!(put(&chunk, &token, 0, b"x"), Err(StoreError::Broken { .. })));
    }
}

#[test]
fn a_data_file_cut_short_and_a_damaged_table_are_found_when_the_copy_is_opened() {
    let (_, store, _) =
        damaged(|disk, data, _| disk.open(&data, OpenMode::Write).unwrap().set_len(9).unwrap());
    let chunk = store.find(id(0x2a)).unwrap();
    assert!(matches!(get(&chunk, 0, 9), Err(StoreError::Broken { .. })));

    // The same bit of damage in the data: checksums made anew would bless it.
    let (_, store, events) = damaged(|disk, data, meta| {
        flip(disk, &meta, 4097);
        flip(disk, &data, 10);
    });
    assert!(matches!(get(&store.find(id(0x2a)).unwrap(), 0, 9), Err(StoreError::Broken { .. })));
    assert_eq!(events.take(10), ToTell::Some(vec![(id(0x2a), CopyEvent::Lost)]));
}

#[test]
fn a_deleted_copy_is_gone_from_disk_and_index() {
    let (_, disk, store, events) = memory(u64::MAX);
    let chunk = store.find_or_place(id(0x2a)).unwrap();
    put(&chunk, &token(id(0x2a), 1, 1, true), 0, b"x").unwrap();
    chunk.delete().unwrap();
    store.forget_if_gone(&chunk);
    assert!(store.find(id(0x2a)).is_none());
    assert!(disk.list(&Path::new(ROOT).join("2a")).unwrap().is_empty());
    assert_eq!(events.take(10), ToTell::Some(vec![(id(0x2a), CopyEvent::Lost)]));
    assert_eq!(store.disks()[0].copies(), 0);
    assert!(matches!(put(&chunk, &token(id(0x2a), 1, 1, true), 0, b"x"), Err(StoreError::Busy { .. })));
}

#[test]
fn a_fetched_copy_replaces_a_stale_one_and_survives_a_power_cut() {
    let (memory, disk, store, events) = memory(u64::MAX);
    let chunk = store.find_or_place(id(0x2a)).unwrap();
    put(&chunk, &token(id(0x2a), 1, 1, true), 0, b"stale").unwrap();
    let bytes = pattern(100_000, 5);
    let fetch = |bytes: &[u8]| {
        let mut incoming = Incoming::begin(Arc::clone(&chunk)).unwrap();
        incoming.append(bytes, &checksum::of_range(id(0x2a), 0, bytes)).unwrap();
        incoming
    };
    fetch(&bytes).publish(version(3), false).unwrap();
    check_whole(&chunk, &bytes);
    fetch(b"older").publish(version(2), false).unwrap();
    assert_eq!(events.take(10), ToTell::Some(vec![(id(0x2a), verified_here(3))]));
    drop(fetch(b"not finished"));
    drop((chunk, store));
    memory.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert_eq!(store.list()[0].version, version(3));
    check_whole(&store.find(id(0x2a)).unwrap(), &bytes);
    assert!(disk.list(&Path::new(ROOT).join("incoming")).unwrap().is_empty());
}

#[test]
fn a_full_disk_at_start_hides_no_copy() {
    let (memory, disk, store, _) = memory(1 << 20);
    let token = token(id(1), 0, 1, true);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token, 0, &pattern(70_000, 3)).unwrap();
    chunk.sync(Duration::ZERO, &token).unwrap();
    drop((chunk, store));
    memory.power_cut(|| false);
    // The table's place is a hole, which this disk knows only as an end of the file: to fill it takes room.
    let meta = Path::new(ROOT).join("01/0000000000000001.meta");
    disk.open(&meta, OpenMode::Write).unwrap().set_len(512).unwrap();
    memory.set_capacity(0);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert_eq!(store.list().len(), 1);
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 70_000).unwrap(), pattern(70_000, 3));
}

#[test]
fn after_a_crash_no_sync_answers_for_what_was_written_before() {
    let (memory, disk, store, _) = memory(1 << 20);
    let first = token(id(1), 0, 1, true);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &first, 0, &[1; 1000]).unwrap();
    chunk.sync(Duration::ZERO, &first).unwrap();
    put(&chunk, &first, 0, &[2; 1000]).unwrap();
    drop((chunk, store));
    memory.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let chunk = store.find(id(1)).unwrap();
    assert!(matches!(chunk.sync(Duration::ZERO, &first), Err(StoreError::Interrupted { .. })));
    assert!(matches!(put(&chunk, &first, 1000, &[2; 10]), Err(StoreError::Interrupted { .. })));
    let second = token(id(1), 0, 2, false);
    put(&chunk, &second, 0, &[2; 1000]).unwrap();
    chunk.sync(Duration::ZERO, &second).unwrap();
    assert_eq!(get(&chunk, 0, 1000).unwrap(), [2; 1000]);
}

#[test]
fn a_copy_made_before_a_kill_and_synced_after_it_survives_a_power_cut() {
    let (memory, disk, store, _) = memory(1 << 20);
    let first = token(id(1), 0, 1, true);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &first, 0, &[1; 1000]).unwrap();
    drop((chunk, store));
    // Killed: what was written is still there, but not on the disk.
    let (store, _) = open(&disk, Path::new(ROOT));
    let chunk = store.find(id(1)).unwrap();
    let second = token(id(1), 0, 2, true);
    put(&chunk, &second, 0, &[2; 1000]).unwrap();
    chunk.sync(Duration::ZERO, &second).unwrap();
    drop((chunk, store));
    memory.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 1000).unwrap(), [2; 1000]);
}

#[test]
fn a_copy_that_was_written_is_not_made_anew_under_the_same_lease_after_a_power_cut() {
    let (memory, disk, store, _) = memory(1 << 20);
    let first = token(id(1), 0, 1, true);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &first, 0, &[1; 1000]).unwrap();
    drop((chunk, store));
    memory.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let chunk = store.find(id(1)).unwrap();
    assert!(matches!(put(&chunk, &first, 1000, &[2; 10]), Err(StoreError::Interrupted { .. })));
}
