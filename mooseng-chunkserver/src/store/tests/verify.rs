//! Copies that are read and checked: on order, in passes, when they were fetched.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mooseng_protocol::checksum;
use mooseng_types::Part;

use super::{ROOT, flip, get, here, id, memory, open, pattern, put, token, verified_here, version};
use crate::copy_events::{CopyEvent, CopyEvents, ToTell};
use crate::engine::Now;
use crate::keeper::Keepers;
use crate::order;
use crate::store::{Chunk, Incoming, Store};

const DAY: Duration = Duration::from_secs(86_400);
const BYTES: usize = 2_500_000;

fn now(s: u64) -> Now {
    Now { mono: Duration::from_secs(s), unix_s: 1_790_000_000 + s }
}

fn fill(store: &Store, part: Part) -> Arc<Chunk> {
    let chunk = store.find_or_place(part).unwrap();
    put(&chunk, &token(part, 1, 1, true), 0, &pattern(BYTES, 1)).unwrap();
    chunk.clean_if_idle(Duration::from_secs(900), Duration::ZERO).unwrap();
    chunk
}

fn told(events: &CopyEvents) -> Vec<(Part, CopyEvent)> {
    match events.take(100) {
        ToTell::Some(told) => told,
        ToTell::Everything => panic!("overflowed"),
    }
}

fn data(chunk: u64) -> std::path::PathBuf {
    Path::new(ROOT).join(format!("{chunk:02x}/{chunk:016x}.data"))
}

/// Does all there is to do; how many steps it took.
fn run(keepers: &Keepers, store: &Store, events: &CopyEvents, at: Now) -> usize {
    let keeper = keepers.get(0).unwrap();
    (0..1000).position(|_| !keeper.step(store, events, at)).unwrap()
}

#[test]
fn a_copy_that_is_read_on_order_is_told_as_verified_once_and_as_not_when_it_is_written_again() {
    let (_, _, store, events) = memory(u64::MAX);
    let chunk = fill(&store, id(1));
    let keepers = Keepers::new(&store, None);
    events.take_all();
    for part in [id(1), id(2)] {
        order::verify(&store, &events, &keepers, part);
    }
    assert_eq!(told(&events), [(id(2), CopyEvent::Lost)], "it is not here");
    assert_eq!(run(&keepers, &store, &events, now(0)), 4, "three pieces, and the end");
    assert_eq!(told(&events), [(id(1), verified_here(1))]);
    put(&chunk, &token(id(1), 1, 2, false), 5, b"changed").unwrap();
    put(&chunk, &token(id(1), 1, 2, false), 5, b"and again").unwrap();
    assert_eq!(told(&events), [(id(1), here(2, false))], "under whatever version: not as it was");
    order::verify(&store, &events, &keepers, id(1));
    run(&keepers, &store, &events, now(0));
    assert_eq!(told(&events), [(id(1), verified_here(2))], "also while its checksums are in memory only");
}

#[test]
fn damage_is_found_wherever_it_is_and_the_copy_is_moved_aside_and_lost() {
    let (_, disk, store, events) = memory(u64::MAX);
    let keepers = Keepers::new(&store, None);
    for (chunk, at) in [(1, 0), (2, 1 << 20), (3, BYTES as u64 - 1)] {
        drop(fill(&store, id(chunk)));
        flip(&*disk, &data(chunk), at);
        order::verify(&store, &events, &keepers, id(chunk));
        run(&keepers, &store, &events, now(0));
        assert_eq!(told(&events), [(id(chunk), CopyEvent::Lost)]);
        order::verify(&store, &events, &keepers, id(chunk));
        run(&keepers, &store, &events, now(0));
        assert_eq!(told(&events), [(id(chunk), CopyEvent::Lost)], "asked again, told again");
    }
    assert_eq!(disk.list(&Path::new(ROOT).join("damaged")).unwrap().len(), 6);
    assert!(store.list().is_empty());
}

#[test]
fn a_copy_that_changes_meanwhile_is_tried_again_and_in_the_end_told_as_not_verified() {
    let (_, disk, store, events) = memory(u64::MAX);
    let chunk = fill(&store, id(1));
    let keepers = Keepers::new(&store, None);
    let keeper = keepers.get(0).unwrap();
    let write = |n: u8| put(&chunk, &token(id(1), 1, 1, false), 0, &[n]).unwrap();
    order::verify(&store, &events, &keepers, id(1));
    keeper.step(&store, &events, now(0));
    write(1);
    run(&keepers, &store, &events, now(0));
    assert_eq!(told(&events), [(id(1), verified_here(1))], "the second time");

    order::verify(&store, &events, &keepers, id(1));
    let mut steps = 0;
    while keeper.step(&store, &events, now(0)) {
        write(steps);
        steps += 1;
        assert!(steps < 20);
    }
    assert_eq!(told(&events), [(id(1), here(1, false))]);
    // Whatever takes its place or takes it away meanwhile is not what was read.
    order::verify(&store, &events, &keepers, id(1));
    keeper.step(&store, &events, now(0));
    order::delete(&store, &events, id(1));
    run(&keepers, &store, &events, now(0));
    assert_eq!(told(&events), [(id(1), CopyEvent::Lost)]);
    assert!(disk.list(&Path::new(ROOT).join("damaged")).unwrap().is_empty());
}

#[test]
fn a_fetched_copy_is_verified_as_it_came_and_until_it_is_told() {
    let (_, _, store, events) = memory(u64::MAX);
    let chunk = store.find_or_place_whole(id(1)).unwrap();
    let fetch = |bytes: &[u8]| {
        let mut incoming = Incoming::begin(Arc::clone(&chunk)).unwrap();
        incoming.append(bytes, &checksum::of_range(id(1), 0, bytes)).unwrap();
        incoming.publish(version(3), false).unwrap();
    };
    fetch(b"whole");
    fetch(b"again");
    assert_eq!(told(&events), [(id(1), verified_here(3))]);
    fetch(b"again");
    assert_eq!(told(&events), [(id(1), here(3, false))], "nothing was read since");
    put(&chunk, &token(id(1), 1, 4, false), 0, b"x").unwrap();
    assert_eq!(told(&events), [(id(1), here(4, false))]);
}

#[test]
fn a_pass_finds_damage_goes_on_after_a_restart_and_opens_nothing_for_long() {
    let (_, disk, store, events) = memory(u64::MAX);
    for chunk in 1..=4 {
        fill(&store, id(chunk));
    }
    drop(store);
    flip(&*disk, &data(2), 2_000_000);
    let (store, _) = open(&disk, Path::new(ROOT));
    let keepers = Keepers::new(&store, Some(DAY));
    run(&keepers, &store, &events, now(0));
    let progress = |keepers: &Keepers| keepers.get(0).unwrap().progress();
    assert_eq!((progress(&keepers).position, progress(&keepers).permille()), (Some(id(1)), 250));
    assert!(store.find(id(1)).unwrap().lock().open.is_none(), "it was closed again");
    keepers.get(0).unwrap().save(&store, now(0).mono, true);
    drop(store);

    let (store, events) = open(&disk, Path::new(ROOT));
    let keepers = Keepers::new(&store, Some(DAY));
    for hour in 1..24 {
        run(&keepers, &store, &events, now(3600 * hour));
    }
    assert_eq!(told(&events), [(id(2), CopyEvent::Lost)], "good copies are nothing new");
    let done = progress(&keepers);
    assert!(!done.under_way && done.damaged_found == 1 && done.done == 4, "{done:?}");
    assert!(done.last_complete_unix_s > now(0).unix_s);
    drop(store);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert_eq!(progress(&Keepers::new(&store, Some(DAY))), done, "what it came to is on the disk");
    flip(&*disk, &Path::new(ROOT).join("scrub"), 30);
    assert_eq!(progress(&Keepers::new(&store, Some(DAY))).started_unix_s, 0, "a new one begins");
}

#[test]
fn an_order_goes_before_the_pass_and_a_disk_that_fails_is_left_alone() {
    let (memory, _, store, events) = memory(u64::MAX);
    for chunk in 1..=2 {
        fill(&store, id(chunk));
    }
    events.take_all();
    let keepers = Keepers::new(&store, Some(DAY));
    let keeper = keepers.get(0).unwrap();
    // Into the middle of the first copy.
    for _ in 0..2 {
        keeper.step(&store, &events, now(0));
    }
    order::verify(&store, &events, &keepers, id(2));
    for _ in 0..4 {
        keeper.step(&store, &events, now(0));
    }
    assert_eq!(told(&events), [(id(2), verified_here(1))]);
    assert_eq!(keeper.progress().done, 0);
    run(&keepers, &store, &events, now(0));
    assert_eq!(keeper.progress().done, 1);
    memory.set_device(9);
    store.disks()[0].look();
    order::verify(&store, &events, &keepers, id(1));
    assert!(!keeper.step(&store, &events, now(0)));
    assert!(get(&store.find(id(1)).unwrap(), 0, 1).is_err());
}

#[test]
fn a_full_disk_keeps_no_pass_from_going_on() {
    let (memory, disk, store, events) = memory(10 << 20);
    fill(&store, id(1));
    memory.set_capacity(0);
    let keepers = Keepers::new(&store, Some(DAY));
    run(&keepers, &store, &events, now(0));
    assert_eq!(keepers.get(0).unwrap().progress().done, 1);
    assert!(!store.disks()[0].failed() && disk.read_whole(&Path::new(ROOT).join("scrub")).is_err());
}
