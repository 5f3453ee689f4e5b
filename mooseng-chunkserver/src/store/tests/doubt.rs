//! What a crash leaves in doubt: who is told, what makes a copy good again, and what never does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::disk::OpenMode;
use mooseng_protocol::checksum;

use super::{
    ROOT, ReadRequest, check_whole, get, here, id, memory, open, pattern, put, put_after, token,
    verified_here, version,
};
use crate::buffer::BufferPool;
use crate::copy_events::ToTell;
use crate::store::{Chunk, Follows, Incoming, StoreError};

fn clean(chunk: &Arc<Chunk>) {
    chunk.clean_if_idle(Duration::from_secs(500), Duration::ZERO).unwrap();
}

#[test]
fn a_lease_that_counts_on_lost_bytes_is_told_of_the_interruption_whatever_its_version() {
    let (power, disk, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, b"confirmed, not synced").unwrap();
    drop((chunk, store));
    power.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let chunk = store.find(id(1)).unwrap();
    for at in [2, 5] {
        let lease = token(id(1), 1, at, true);
        let told = put_after(&chunk, &lease, Follows::Unsynced, 0, b"");
        assert!(matches!(told, Err(StoreError::Interrupted { .. })), "{told:?}");
        let synced = chunk.sync(Duration::ZERO, &lease);
        assert!(matches!(synced, Err(StoreError::Stale { .. })), "{synced:?}");
    }
    // Who writes again whatever was not synced begins anew; from then on the interruption is forgotten.
    let lease = token(id(1), 1, 6, true);
    put(&chunk, &lease, 0, b"again").unwrap();
    put_after(&chunk, &token(id(1), 1, 7, true), Follows::Unsynced, 5, b" and on").unwrap();
    chunk.sync(Duration::ZERO, &token(id(1), 1, 7, true)).unwrap();
    assert_eq!(get(&chunk, 0, 100).unwrap(), b"again and on");
}

#[test]
fn a_truncation_under_a_new_lease_adopts_it_as_a_write_does_that_counts_on_nothing() {
    let (power, disk, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, b"lost").unwrap();
    drop((chunk, store));
    power.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let chunk = store.find(id(1)).unwrap();
    let same = chunk.truncate(Duration::ZERO, &token(id(1), 1, 1, false), 2);
    assert!(matches!(same, Err(StoreError::Interrupted { .. })), "{same:?}");
    chunk.truncate(Duration::ZERO, &token(id(1), 1, 2, false), 2).unwrap();
    put_after(&chunk, &token(id(1), 1, 2, false), Follows::Unsynced, 0, b"x").unwrap();
}

#[test]
fn what_a_truncation_cut_off_does_not_come_back_with_the_power() {
    let (power, disk, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    let first = token(id(1), 1, 1, true);
    put(&chunk, &first, 0, &pattern(200_000, 1)).unwrap();
    chunk.sync(Duration::ZERO, &first).unwrap();
    let next = token(id(1), 1, 2, false);
    chunk.truncate(Duration::ZERO, &next, 100_000).unwrap();
    // Behind the cut, and not synced: the masters will count what lies between.
    put(&chunk, &next, 150_000, b"more").unwrap();
    drop((chunk, store));
    power.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let mut kept = get(&store.find(id(1)).unwrap(), 0, 300_000).unwrap();
    assert_eq!(kept[..100_000], pattern(200_000, 1)[..100_000]);
    kept.resize(150_000, 0);
    assert!(kept[100_000..].iter().all(|byte| *byte == 0), "what was cut off is back");
}

#[test]
fn a_sync_answers_only_for_a_version_that_the_copy_has_taken_on() {
    let (_, _, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, b"x").unwrap();
    let newer = token(id(1), 1, 2, false);
    let synced = chunk.sync(Duration::ZERO, &newer);
    assert!(matches!(synced, Err(StoreError::Stale { .. })), "{synced:?}");
    put(&chunk, &newer, 0, b"").unwrap();
    chunk.sync(Duration::ZERO, &newer).unwrap();
    let older = chunk.sync(Duration::ZERO, &token(id(1), 1, 1, false));
    assert!(matches!(older, Err(StoreError::Fenced { .. })), "{older:?}");
}

#[test]
fn a_copy_stays_in_doubt_over_leases_and_clean_starts_until_it_is_cut_to_nothing() {
    let (power, disk, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, &pattern(1000, 1)).unwrap();
    chunk.sync(Duration::ZERO, &token(id(1), 1, 1, true)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 1000, &pattern(5000, 1)).unwrap();
    drop((chunk, store));
    power.power_cut(|| false);
    let in_doubt = |store: &super::Store| store.list()[0].in_doubt;
    let (store, _) = open(&disk, Path::new(ROOT));
    assert!(in_doubt(&store));
    let chunk = store.find(id(1)).unwrap();
    let lease = token(id(1), 1, 2, false);
    put(&chunk, &lease, 500, &pattern(1000, 2)).unwrap();
    assert!(in_doubt(&store), "the first half is as it was");
    clean(&chunk);
    drop((chunk, store));
    let (store, events) = open(&disk, Path::new(ROOT));
    assert!(in_doubt(&store), "after an orderly stop");
    let chunk = store.find(id(1)).unwrap();
    assert_eq!(events.take(9), ToTell::Some(vec![]));
    put(&chunk, &lease, 0, &pattern(1500, 3)).unwrap();
    assert!(in_doubt(&store), "it has lost what lay behind");
    chunk.truncate(Duration::ZERO, &lease, 0).unwrap();
    assert!(!in_doubt(&store));
    assert_eq!(events.take(9), ToTell::Some(vec![(id(1), here(2, false))]));
    put(&chunk, &lease, 0, &pattern(1500, 3)).unwrap();
    clean(&chunk);
    drop((chunk, store));
    let (store, _) = open(&disk, Path::new(ROOT));
    assert!(!in_doubt(&store));
    check_whole(&store.find(id(1)).unwrap(), &pattern(1500, 3));
}

#[test]
fn who_wants_a_whole_copy_is_not_given_one_in_doubt() {
    let (power, disk, store, _) = memory(u64::MAX);
    let lease = token(id(1), 1, 1, true);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &lease, 0, b"not synced").unwrap();
    let whole = ReadRequest { whole: true, ..super::request(1, 0, 100) };
    let read = |chunk: &Arc<Chunk>, request| chunk.read(Duration::ZERO, &request, &BufferPool::new(0));
    assert!(read(&chunk, whole).is_ok());
    drop((chunk, store));
    power.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let chunk = store.find(id(1)).unwrap();
    let refused = read(&chunk, whole).map(drop);
    assert!(matches!(refused, Err(StoreError::InDoubt { .. })), "{refused:?}");
    assert!(read(&chunk, ReadRequest { whole: false, ..whole }).is_ok(), "better than nothing");
    let refused = read(&chunk, ReadRequest { intact: true, ..whole }).map(drop);
    assert!(matches!(refused, Err(StoreError::Interrupted { .. })), "its writer is to know: {refused:?}");
}

#[test]
fn a_copy_in_doubt_is_replaced_by_a_fetched_one_of_the_same_version_unless_it_was_written_meanwhile() {
    let (power, disk, store, _) = memory(u64::MAX);
    let lease = token(id(1), 1, 1, true);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &lease, 0, b"lost").unwrap();
    drop((chunk, store));
    power.power_cut(|| false);
    let (store, events) = open(&disk, Path::new(ROOT));
    let chunk = store.find(id(1)).unwrap();
    let fetch = |chunk: &Arc<Chunk>| {
        let mut incoming = Incoming::begin(Arc::clone(chunk)).unwrap();
        incoming.append(b"good", &checksum::of_range(id(1), 0, b"good")).unwrap();
        incoming
    };
    fetch(&chunk).publish(version(1), false).unwrap();
    assert_eq!(events.take(9), ToTell::Some(vec![(id(1), here(1, true))]), "left as it is, and told so");
    let late = fetch(&chunk);
    let next = token(id(1), 1, 2, false);
    put(&chunk, &next, 1, b"new").unwrap();
    let refused = late.publish(version(2), true);
    assert!(matches!(refused, Err(StoreError::Busy { .. })), "{refused:?}");
    fetch(&chunk).publish(version(2), true).unwrap();
    assert_eq!(events.take(9), ToTell::Some(vec![(id(1), verified_here(2))]));
    assert_eq!(get(&chunk, 0, 9).unwrap(), b"good");
    put(&chunk, &next, 4, b"!").unwrap();
    chunk.sync(Duration::ZERO, &next).unwrap();
    clean(&chunk);
    drop((chunk, store));
    power.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert!(!store.list()[0].in_doubt);
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 9).unwrap(), b"good!");
}

#[test]
fn a_fetched_copy_that_a_crash_kept_from_its_place_gets_it_at_the_next_start() {
    let bytes = pattern(100_000, 5);
    let (data, meta) =
        (format!("{ROOT}/2a/000000000000002a.data"), format!("{ROOT}/2a/000000000000002a.meta"));
    let aside = |path: &str| path.replace("/2a/", "/incoming/").replace("2a.", "2a.0.");
    for data_has_its_place in [true, false] {
        let (memory, disk, store, _) = memory(u64::MAX);
        let chunk = store.find_or_place(id(0x2a)).unwrap();
        let mut incoming = Incoming::begin(Arc::clone(&chunk)).unwrap();
        incoming.append(&bytes, &checksum::of_range(id(0x2a), 0, &bytes)).unwrap();
        incoming.publish(version(3), false).unwrap();
        drop((chunk, store));
        disk.rename(Path::new(&meta), Path::new(&aside(&meta))).unwrap();
        if !data_has_its_place {
            disk.rename(Path::new(&data), Path::new(&aside(&data))).unwrap();
            let old = disk.open(Path::new(&data), OpenMode::CreateNew).unwrap();
            old.write_all_at(b"in doubt", 0).unwrap();
        }
        // The one before it was damaged.
        let damaged = format!("{ROOT}/damaged/000000000000002a.0.data");
        disk.open(Path::new(&damaged), OpenMode::CreateNew).unwrap();
        let (store, _) = open(&disk, Path::new(ROOT));
        assert_eq!(store.list().len(), 1, "data in its place: {data_has_its_place}");
        assert_eq!(get(&store.find(id(0x2a)).unwrap(), 0, 100_000).unwrap(), bytes);
        drop(store);
        memory.power_cut(|| false);
        let (store, _) = open(&disk, Path::new(ROOT));
        assert_eq!(store.list()[0].version, version(3), "for good");
        assert!(disk.list(&Path::new(ROOT).join("incoming")).unwrap().is_empty());
        let aside = disk.list(&Path::new(ROOT).join("damaged")).unwrap();
        assert!(
            aside.len() == 1 && aside != [Path::new(&damaged)],
            "what was damaged is made good: {aside:?}"
        );
    }
}

#[test]
fn a_copy_that_was_settled_on_is_whole_after_a_power_cut_and_fences_off_whoever_wrote_before() {
    let (power, disk, store, events) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, b"as it is").unwrap();
    chunk.settle_on(Duration::ZERO, version(3)).unwrap();
    assert_eq!(events.take(9), ToTell::Some(vec![(id(1), here(3, false))]));
    let fenced = put(&chunk, &token(id(1), 1, 2, false), 0, b"late");
    assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
    // An order that comes twice, or late, changes nothing.
    chunk.settle_on(Duration::ZERO, version(2)).unwrap();
    drop((chunk, store));
    power.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let copy = store.list()[0];
    assert_eq!((copy.version, copy.in_doubt), (version(3), false));
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 9).unwrap(), b"as it is");
}

#[test]
fn a_copy_in_doubt_that_is_settled_on_is_in_doubt_no_more() {
    let (power, disk, store, _) = memory(u64::MAX);
    put(&store.find_or_place(id(1)).unwrap(), &token(id(1), 1, 1, true), 0, b"x").unwrap();
    drop(store);
    power.power_cut(|| true);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert!(store.list()[0].in_doubt);
    store.find(id(1)).unwrap().settle_on(Duration::ZERO, version(2)).unwrap();
    drop(store);
    power.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    let copy = store.list()[0];
    assert_eq!((copy.version, copy.in_doubt), (version(2), false));
}
