//! Copies moved aside, disks that vanish, writes that fail half-way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, FsDisk, MemoryDisk};
use mooseng_protocol::checksum;
use mooseng_types::BLOCK_SIZE;

use super::{CLUSTER, ROOT, damaged, flip, get, id, mark, memory, open, pattern, put, token, version};
use crate::copy_events::{CopyEvent, ToTell};
use crate::store::{Incoming, Store, StoreError};

#[test]
fn a_copy_that_was_moved_aside_is_not_made_again_after_a_start_by_whatever_lease() {
    let create = token(id(0x2a), 1, 1, true);
    let (disk, store, _) = damaged(|disk, _, meta| flip(disk, &meta, 30));
    for _ in 0..2 {
        let (store, _) = open(&disk, Path::new(ROOT));
        let chunk = store.find_or_place(id(0x2a)).unwrap();
        let made = put(&chunk, &create, 0, b"zeros around me");
        assert!(matches!(made, Err(StoreError::Broken { .. })), "{made:?}");
        assert!(matches!(put(&chunk, &token(id(0x2a), 1, 9, true), 0, b"x"), Err(StoreError::Broken { .. })));
        assert!(store.list().is_empty());
    }
    // A fetched copy takes its place, for good.
    let chunk = store.find_or_place_whole(id(0x2a)).unwrap();
    let mut incoming = Incoming::begin(Arc::clone(&chunk)).unwrap();
    incoming.append(b"good", &checksum::of_range(id(0x2a), 0, b"good")).unwrap();
    incoming.publish(version(1), false).unwrap();
    drop((chunk, store));
    let (store, _) = open(&disk, Path::new(ROOT));
    assert_eq!(get(&store.find(id(0x2a)).unwrap(), 0, 9).unwrap(), b"good");
    assert_eq!(disk.list(&Path::new(ROOT).join("damaged")).unwrap().len(), 2, "kept for people");
}

#[test]
fn a_broken_chunk_that_the_leader_gave_up_may_be_made_anew() {
    let (disk, store, events) = damaged(|disk, _, meta| flip(disk, &meta, 30));
    assert_eq!(events.take(9), ToTell::Some(vec![(id(0x2a), CopyEvent::Lost)]));
    crate::order::delete(&store, &events, id(0x2a));
    assert_eq!(events.take(9), ToTell::Some(vec![(id(0x2a), CopyEvent::Lost)]));
    drop(store);
    let (store, _) = open(&disk, Path::new(ROOT));
    let chunk = store.find_or_place(id(0x2a)).unwrap();
    put(&chunk, &token(id(0x2a), 1, 1, true), 0, b"anew").unwrap();
}

#[test]
fn what_is_left_of_a_copy_that_was_never_made_hinders_nobody() {
    let (_, disk, store, _) = memory(u64::MAX);
    drop(store);
    let base = Path::new(ROOT).join("05/0000000000000005");
    disk.open(&base.with_extension("data"), OpenMode::CreateNew).unwrap();
    let (store, _) = open(&disk, Path::new(ROOT));
    put(&store.find_or_place(id(5)).unwrap(), &token(id(5), 1, 1, true), 0, b"made").unwrap();
}

#[test]
fn a_disk_that_is_another_one_or_not_there_is_out_of_use_and_its_copies_are_lost() {
    type Trouble = fn(&MemoryDisk);
    let identity = || PathBuf::from(ROOT).join("identity");
    let troubles: [Trouble; 3] = [
        |disk| disk.remove(&Path::new(ROOT).join("identity")).unwrap(),
        |disk| disk.set_device(2),
        |disk| {
            disk.write_whole(&Path::new(ROOT).join("identity"), b"mooseng chunks, of somebody else").unwrap()
        },
    ];
    for trouble in troubles {
        let (disk, _, store, events) = memory(u64::MAX);
        assert!(!disk.read_whole(&identity()).unwrap().is_empty());
        put(&store.find_or_place(id(1)).unwrap(), &token(id(1), 1, 1, true), 0, b"x").unwrap();
        store.disks()[0].look();
        assert!(!store.disks()[0].failed());
        trouble(&disk);
        store.disks()[0].look();
        assert!(store.disks()[0].failed());
        store.report_failed_disks();
        assert_eq!(events.take(9), ToTell::Some(vec![(id(1), CopyEvent::Lost)]));
        assert!(matches!(store.find_or_place(id(2)), Err(StoreError::NoDisk { .. })));
    }
}

#[test]
fn a_vanished_directory_is_noticed_by_the_first_copy_that_is_made_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("disk");
    std::fs::create_dir(&root).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(FsDisk);
    let (store, _) = open(&disk, &root);
    put(&store.find_or_place(id(1)).unwrap(), &token(id(1), 1, 1, true), 0, b"x").unwrap();
    store.find(id(1)).unwrap().clean_if_idle(Duration::from_secs(500), Duration::ZERO).unwrap();
    std::fs::rename(&root, dir.path().join("disk.gone")).unwrap();
    let made = put(&store.find_or_place(id(2)).unwrap(), &token(id(2), 1, 1, true), 0, b"x");
    assert!(matches!(made, Err(StoreError::Disk { .. })), "{made:?}");
    assert!(store.disks()[0].failed());

    std::fs::rename(dir.path().join("disk.gone"), &root).unwrap();
    let (store, events) = open(&disk, &root);
    std::fs::rename(&root, dir.path().join("disk.gone")).unwrap();
    let read = get(&store.find(id(1)).unwrap(), 0, 1);
    assert!(
        matches!(read, Err(StoreError::Disk { .. })),
        "not one copy is damaged, the disk is gone: {read:?}"
    );
    assert!(store.disks()[0].failed());
    drop(events);
}

#[test]
fn a_copy_of_a_failed_disk_is_fetched_to_another_one_and_never_made_there_by_a_write() {
    let disks = [MemoryDisk::new(1 << 30), MemoryDisk::new(1 << 29)];
    disks.iter().for_each(|disk| mark(disk, Path::new(ROOT)));
    let mounted = disks.iter().map(|disk| (Arc::new(disk.clone()) as Arc<dyn Disk>, PathBuf::from(ROOT)));
    let store = Store::open(mounted.collect(), CLUSTER, 0, Arc::default()).unwrap();
    let create = token(id(1), 1, 1, true);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &create, 0, b"on the larger one").unwrap();
    disks[0].set_device(9);
    store.disks()[0].look();
    assert!(matches!(
        put(&store.find_or_place(id(1)).unwrap(), &create, 0, b"x"),
        Err(StoreError::Disk { .. })
    ));
    let place = store.find_or_place_whole(id(1)).unwrap();
    assert!(matches!(put(&place, &create, 0, b"x"), Err(StoreError::Broken { .. })));
    let mut incoming = Incoming::begin(place).unwrap();
    incoming.append(b"whole", &checksum::of_range(id(1), 0, b"whole")).unwrap();
    incoming.publish(version(1), false).unwrap();
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 9).unwrap(), b"whole");
    put(&store.find_or_place(id(2)).unwrap(), &token(id(2), 1, 1, true), 0, b"x").unwrap();
}

#[test]
fn a_write_that_fails_half_way_blesses_nothing_around_it() {
    // A full disk stops the write behind the first block; the store's own count of the room is too high.
    let block = BLOCK_SIZE as usize;
    let (disk, store, events) = {
        let (memory, disk, store, events) = memory(1 << 30);
        put(
            &store.find_or_place(id(0x2a)).unwrap(),
            &token(id(0x2a), 1, 1, true),
            0,
            &pattern(2 * block - 100, 1),
        )
        .unwrap();
        memory.set_capacity(3 * block as u64);
        (disk, store, events)
    };
    let chunk = store.find(id(0x2a)).unwrap();
    let lease = token(id(0x2a), 1, 1, false);
    // The write begins behind a hole: the last block is not its own. It rots.
    let data = Path::new(ROOT).join("2a/000000000000002a.data");
    flip(&*disk, &data, 2 * BLOCK_SIZE - 107);
    let full = put(&chunk, &lease, 2 * BLOCK_SIZE + 10, &pattern(3 * block, 2));
    assert!(matches!(full, Err(StoreError::NoSpace { .. })), "{full:?}");
    assert!(get(&chunk, 0, 100).is_ok());
    assert!(matches!(get(&chunk, BLOCK_SIZE, 100), Err(StoreError::Broken { .. })), "the rot is found");
    assert_eq!(events.take(9), ToTell::Some(vec![(id(0x2a), CopyEvent::Lost)]));
}

#[test]
fn a_copy_that_lost_all_its_bytes_with_the_power_and_then_its_sidecar_is_not_made_again() {
    let (power, disk, store, _) = memory(u64::MAX);
    let create = token(id(0x2a), 1, 1, true);
    put(&store.find_or_place(id(0x2a)).unwrap(), &create, 0, b"confirmed, not synced").unwrap();
    drop(store);
    power.power_cut(|| false);
    drop(open(&disk, Path::new(ROOT)));
    flip(&*disk, Path::new(&format!("{ROOT}/2a/000000000000002a.meta")), 59);
    let (store, _) = open(&disk, Path::new(ROOT));
    let made = put(&store.find_or_place(id(0x2a)).unwrap(), &create, 0, b"more");
    assert!(matches!(made, Err(StoreError::Broken { .. })), "{made:?}");
}
