//! Parts of a chunk beside each other and beside a whole copy of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::disk::OpenMode;
use mooseng_protocol::checksum;
use mooseng_types::Part;

use super::{ROOT, check_whole, get, id, memory, open, pattern, put, token, verified_here, version};
use crate::copy_events::{CopyEvent, ToTell};
use crate::store::{CopyInfo, Incoming, Store, StoreError};

fn part(index: u8) -> Part {
    Part::new(id(0x2a).chunk(), index).unwrap()
}

/// Where a file lies that has this name without its extension.
fn file(stem: &str, extension: &str) -> PathBuf {
    Path::new(ROOT).join(format!("2a/{stem}.{extension}"))
}

/// The whole copy and two parts, each with bytes of its own.
fn fill(store: &Store) -> [Part; 3] {
    let all = [id(0x2a), part(1), part(48)];
    for one in all {
        let chunk = store.find_or_place(one).unwrap();
        put(&chunk, &token(one, 1, 1, true), 0, &pattern(100_000, one.index())).unwrap();
        chunk.clean_if_idle(Duration::from_secs(200), Duration::ZERO).unwrap();
    }
    all
}

fn holds(store: &Store, one: Part) -> bool {
    store.find(one).is_some_and(|chunk| {
        get(&chunk, 0, 100_000).is_ok_and(|bytes| bytes == pattern(100_000, one.index()))
    })
}

#[test]
fn a_part_is_stored_beside_a_whole_copy_of_its_chunk_and_neither_is_taken_for_the_other() {
    let (_, _, store, events) = memory(u64::MAX);
    put(&store.find_or_place(part(1)).unwrap(), &token(part(1), 1, 1, true), 0, b"part").unwrap();
    assert!(store.find(id(0x2a)).is_none() && store.find(part(2)).is_none());
    let [whole, first, last] = fill(&store);
    assert!([whole, first, last].into_iter().all(|one| holds(&store, one)));
    assert_eq!(store.list().iter().map(|copy| copy.part).collect::<Vec<_>>(), [whole, first, last]);
    let chunk = store.find(whole).unwrap();
    events.take_all();
    chunk.delete().unwrap();
    store.forget_if_gone(&chunk);
    assert_eq!(events.take(9), ToTell::Some(vec![(whole, CopyEvent::Lost)]));
    assert!(!holds(&store, whole) && holds(&store, first) && holds(&store, last));
    assert_eq!(store.disks()[0].copies(), 2);
}

#[test]
fn a_part_survives_a_restart_under_its_own_name() {
    let (memory, disk, store, _) = memory(u64::MAX);
    let all = fill(&store);
    let unclean = store.find(part(1)).unwrap();
    put(&unclean, &token(part(1), 1, 2, false), 0, b"").unwrap();
    drop((unclean, store));
    memory.power_cut(|| false);
    let (store, events) = open(&disk, Path::new(ROOT));
    assert_eq!(events.take(9), ToTell::Some(vec![]));
    let copy = |part, at, in_doubt| CopyInfo { part, version: version(at), in_doubt };
    assert_eq!(store.list(), [copy(all[0], 1, false), copy(all[1], 2, true), copy(all[2], 1, false)]);
    assert!(all.into_iter().all(|one| holds(&store, one)));
    let mut names = disk.list(&Path::new(ROOT).join("2a")).unwrap();
    names.sort();
    let stems = ["000000000000002a", "000000000000002a.p01", "000000000000002a.p48"];
    let mut expected: Vec<_> = stems.iter().flat_map(|it| [file(it, "data"), file(it, "meta")]).collect();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn files_under_the_name_of_another_part_are_moved_aside_and_reported() {
    let names = ["000000000000002a", "000000000000002a.p01", "000000000000002a.p02"];
    // The whole copy under a part's name, a part under the whole copy's, a part under another's.
    for (from, to, taken) in [(0, 2, part(2)), (1, 0, id(0x2a)), (1, 2, part(2))] {
        let (_, disk, store, _) = memory(u64::MAX);
        let [whole, first, last] = fill(&store);
        drop(store);
        for extension in ["data", "meta"] {
            disk.rename(&file(names[from], extension), &file(names[to], extension)).unwrap();
        }
        let (store, events) = open(&disk, Path::new(ROOT));
        assert_eq!(events.take(9), ToTell::Some(vec![(taken, CopyEvent::Lost)]), "{from} as {to}");
        assert_eq!(holds(&store, whole), to != 0 && from != 0);
        assert_eq!(holds(&store, first), from != 1);
        assert!(holds(&store, last));
        let anew = put(&store.find_or_place(taken).unwrap(), &token(taken, 1, 1, true), 0, b"x");
        assert!(matches!(anew, Err(StoreError::Broken { .. })), "{anew:?}");
    }
}

#[test]
fn a_part_that_is_broken_hinders_no_other_part_of_its_chunk_and_is_made_good_by_itself() {
    let (_, disk, store, _) = memory(u64::MAX);
    let [whole, first, last] = fill(&store);
    drop(store);
    disk.remove(&file("000000000000002a.p01", "meta")).unwrap();
    drop(open(&disk, Path::new(ROOT)));
    let (store, events) = open(&disk, Path::new(ROOT));
    assert!(holds(&store, whole) && holds(&store, last));
    let create = token(first, 1, 1, true);
    let made = put(&store.find_or_place(first).unwrap(), &create, 0, b"hole");
    assert!(matches!(made, Err(StoreError::Broken { .. })), "over starts: {made:?}");
    crate::order::delete(&store, &events, first);
    assert_eq!(events.take(9), ToTell::Some(vec![(first, CopyEvent::Lost)]));
    drop(store);
    let (store, _) = open(&disk, Path::new(ROOT));
    put(&store.find_or_place(first).unwrap(), &create, 0, b"anew").unwrap();
    assert!(holds(&store, whole) && holds(&store, last));
}

#[test]
fn a_fetched_part_gets_its_own_place_also_after_a_crash() {
    let (memory, disk, store, events) = memory(u64::MAX);
    let bytes = pattern(100_000, 5);
    let place = store.find_or_place_whole(part(7)).unwrap();
    let mut incoming = Incoming::begin(Arc::clone(&place)).unwrap();
    let of_the_whole = incoming.append(&bytes, &checksum::of_range(id(0x2a), 0, &bytes));
    assert!(matches!(of_the_whole, Err(StoreError::DamagedOnTheWay { .. })), "{of_the_whole:?}");
    incoming.append(&bytes, &checksum::of_range(part(7), 0, &bytes)).unwrap();
    incoming.publish(version(3), false).unwrap();
    assert_eq!(events.take(9), ToTell::Some(vec![(part(7), verified_here(3))]));
    drop((place, store));
    // As if the crash had come between the two renames.
    let aside = Path::new(ROOT).join("incoming/000000000000002a.p07.0.meta");
    disk.rename(&file("000000000000002a.p07", "meta"), &aside).unwrap();
    let (store, _) = open(&disk, Path::new(ROOT));
    assert_eq!(store.list(), [CopyInfo { part: part(7), version: version(3), in_doubt: false }]);
    check_whole(&store.find(part(7)).unwrap(), &bytes);
    drop(store);
    memory.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    check_whole(&store.find(part(7)).unwrap(), &bytes);
}

#[test]
fn a_file_whose_name_is_no_parts_is_left_alone() {
    let (_, disk, store, _) = memory(u64::MAX);
    drop(store);
    let strange =
        ["p00", "p49", "p1", "p001"].map(|index| file(&format!("000000000000002a.{index}"), "data"));
    strange.iter().for_each(|path| drop(disk.open(path, OpenMode::CreateNew).unwrap()));
    let (store, events) = open(&disk, Path::new(ROOT));
    assert!(store.list().is_empty());
    assert_eq!(events.take(9), ToTell::Some(vec![]));
    assert!(strange.iter().all(|path| disk.open(path, OpenMode::Read).is_ok()));
}
