//! Copies that go into quarantine and come back: under power cuts at every step, on full disks, beside garbage.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, DiskFile, MemoryDisk};
use mooseng_types::Part;
use proptest::prelude::*;

use super::{ROOT, check_whole, damaged, flip, get, here, id, memory, open, pattern, put, token, version};
use crate::copy_events::{CopyEvent, CopyEvents, ToTell};
use crate::order::{self, Condemned};
use crate::store::{Store, StoreError};

const UNTIL: u64 = 1_790_000_000;

/// A disk that the process can use for so many more changes of names, and then not at all.
#[derive(Debug)]
struct Stopping {
    memory: MemoryDisk,
    left: AtomicU32,
    /// A directory that has no room for a name that ends so.
    full_for: Mutex<Option<&'static str>>,
}

impl Stopping {
    fn spend(&self) -> io::Result<()> {
        let spent = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        spent.map(drop).map_err(|_| io::Error::other("the power is gone"))
    }
}

impl Disk for Stopping {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.memory.open(path, mode)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.memory.create_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.spend().and_then(|()| self.memory.sync_dir(path))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.spend().and_then(|()| self.memory.remove(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let full = self.full_for.lock().unwrap().is_some_and(|end| to.to_str().unwrap().ends_with(end));
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.spend().and_then(|()| self.memory.rename(from, to))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.memory.list(path)
    }
    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        self.memory.space(path)
    }
    fn device(&self, path: &Path) -> io::Result<u64> {
        self.memory.device(path)
    }
}

fn stopping(memory: &MemoryDisk) -> Arc<Stopping> {
    let (memory, left) = (memory.clone(), AtomicU32::new(u32::MAX));
    Arc::new(Stopping { memory, left, full_for: Mutex::default() })
}

fn quarantine(store: &Store, events: &CopyEvents, part: Part, at: u32) {
    order::quarantine(store, events, Condemned { part, version: version(at) }, UNTIL);
}

/// A clean copy.
fn fill(store: &Store, part: Part, at: u32, bytes: &[u8]) {
    let chunk = store.find_or_place(part).unwrap();
    put(&chunk, &token(part, at, at, true), 0, bytes).unwrap();
    chunk.clean_if_idle(Duration::from_secs(500), Duration::ZERO).unwrap();
}

fn files(disk: &dyn Disk, directory: &str) -> Vec<PathBuf> {
    disk.list(&Path::new(ROOT).join(directory)).unwrap()
}

fn kept(store: &Store) -> Vec<(Part, u32, u64)> {
    let mut kept: Vec<_> =
        store.in_quarantine().iter().map(|(it, length, _)| (it.part, it.version.raw(), *length)).collect();
    kept.sort_unstable();
    kept
}

#[test]
fn a_copy_in_quarantine_is_out_of_use_and_comes_back_as_it_was() {
    let (_, disk, store, events) = memory(u64::MAX);
    let part = Part::new(id(0x2a).chunk(), 7).unwrap();
    for part in [id(0x2a), part] {
        fill(&store, part, 3, &pattern(100_000, part.index()));
        quarantine(&store, &events, part, 3);
        assert_eq!(events.take(9), ToTell::Some(vec![(part, CopyEvent::Lost)]));
        assert!(store.find(part).is_none());
    }
    assert!(store.list().is_empty() && files(&*disk, "2a").is_empty());
    assert_eq!(store.disks()[0].copies(), 0);
    assert_eq!(store.disks()[0].quarantine().totals(), (200_000, 2));
    let until = [".v3.1790000000.data", ".v3.1790000000.meta"];
    let named = |stem: &str| until.map(|rest| Path::new(ROOT).join(format!("quarantine/{stem}{rest}")));
    let expected = [named("000000000000002a.p07"), named("000000000000002a")].concat();
    assert_eq!(files(&*disk, "quarantine"), expected);
    drop(store);
    let (store, events) = open(&disk, Path::new(ROOT));
    assert_eq!(store.disks()[0].quarantine().totals(), (200_000, 2));
    assert!(matches!(store.restore(id(0x2a), version(4)), Err(StoreError::NotKept { .. })));
    for part in [id(0x2a), part] {
        store.restore(part, version(3)).unwrap();
        assert_eq!(events.take(9), ToTell::Some(vec![(part, here(3, false))]));
        check_whole(&store.find(part).unwrap(), &pattern(100_000, part.index()));
    }
    assert_eq!((store.disks()[0].copies(), store.disks()[0].quarantine().totals()), (2, (0, 0)));
    assert!(files(&*disk, "quarantine").is_empty());
    put(&store.find(id(0x2a)).unwrap(), &token(id(0x2a), 3, 4, false), 0, b"goes on").unwrap();
}

#[test]
fn a_copy_that_somebody_has_written_meanwhile_stays() {
    let (_, _, store, events) = memory(u64::MAX);
    fill(&store, id(1), 5, b"newer");
    quarantine(&store, &events, id(1), 4);
    assert_eq!(events.take(9), ToTell::Some(vec![(id(1), here(5, false))]));
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 9).unwrap(), b"newer");
    quarantine(&store, &events, id(2), 4);
    assert_eq!(events.take(9), ToTell::Some(vec![(id(2), CopyEvent::Lost)]), "it is not here at all");
}

#[test]
fn a_copy_that_is_being_written_goes_with_all_that_was_written_and_one_in_doubt_comes_back_so() {
    let (power, disk, store, events) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, &pattern(70_000, 1)).unwrap();
    quarantine(&store, &events, id(1), 1);
    assert!(matches!(put(&chunk, &token(id(1), 1, 1, true), 0, b"late"), Err(StoreError::Busy { .. })));
    drop((chunk, store));
    power.power_cut(|| false);
    let (store, _) = open(&disk, Path::new(ROOT));
    store.restore(id(1), version(1)).unwrap();
    check_whole(&store.find(id(1)).unwrap(), &pattern(70_000, 1));
    put(&store.find(id(1)).unwrap(), &token(id(1), 1, 2, false), 0, b"x").unwrap();
    drop(store);
    let (store, events) = open(&disk, Path::new(ROOT));
    quarantine(&store, &events, id(1), 2);
    events.take_all();
    store.restore(id(1), version(2)).unwrap();
    assert_eq!(events.take(9), ToTell::Some(vec![(id(1), here(2, true))]));
}

#[test]
fn whatever_moment_the_power_goes_a_copy_is_in_place_or_in_quarantine_and_never_half_of_it() {
    for (is_restore, survives, cut) in [
        (false, false, true),
        (false, true, true),
        (false, false, false),
        (true, false, true),
        (true, true, true),
        (true, false, false),
    ] {
        let mut outcomes = BTreeMap::new();
        for steps in 0..20 {
            let memory = MemoryDisk::new(u64::MAX);
            let stopping = stopping(&memory);
            let disk: Arc<dyn Disk> = stopping.clone();
            let (store, events) = open(&disk, Path::new(ROOT));
            fill(&store, id(0x2a), 3, &pattern(100_000, 5));
            if is_restore {
                quarantine(&store, &events, id(0x2a), 3);
            }
            stopping.left.store(steps, Ordering::Relaxed);
            if is_restore {
                drop(store.restore(id(0x2a), version(3)));
            } else {
                quarantine(&store, &events, id(0x2a), 3);
            }
            let finished = stopping.left.load(Ordering::Relaxed) > 0;
            drop(store);
            if cut {
                memory.power_cut(|| survives);
            }
            let disk: Arc<dyn Disk> = Arc::new(memory);
            let (store, events) = open(&disk, Path::new(ROOT));
            let what = format!("restore {is_restore}, after {steps} steps");
            let in_place = store.find(id(0x2a)).is_some();
            assert_eq!(kept(&store).len(), usize::from(!in_place), "{what}");
            assert_eq!(files(&*disk, "quarantine").len(), 2 * usize::from(!in_place), "{what}");
            assert_eq!(files(&*disk, "2a").len(), 2 * usize::from(in_place), "{what}");
            assert!(files(&*disk, "damaged").is_empty(), "{what}");
            assert_eq!(events.take(9), ToTell::Some(vec![]), "{what}");
            if finished {
                assert_eq!(in_place, is_restore, "{what}");
                break;
            }
            if !in_place {
                store.restore(id(0x2a), version(3)).unwrap();
            }
            check_whole(&store.find(id(0x2a)).unwrap(), &pattern(100_000, 5));
            *outcomes.entry(in_place).or_insert(0) += 1;
        }
        assert_eq!(outcomes.len(), 2, "both are seen: {outcomes:?}");
    }
}

#[test]
fn a_power_cut_while_the_quarantine_is_emptied_leaves_whole_copies_only() {
    for steps in 0..8 {
        for survives in [false, true] {
            let memory = MemoryDisk::new(u64::MAX);
            let stopping = stopping(&memory);
            let disk: Arc<dyn Disk> = stopping.clone();
            let (store, events) = open(&disk, Path::new(ROOT));
            for chunk in [1, 2] {
                fill(&store, id(chunk), 3, b"kept");
                quarantine(&store, &events, id(chunk), 3);
            }
            stopping.left.store(steps, Ordering::Relaxed);
            store.disks()[0].tidy_quarantine(UNTIL);
            drop(store);
            memory.power_cut(|| survives);
            let disk: Arc<dyn Disk> = Arc::new(memory);
            let (store, _) = open(&disk, Path::new(ROOT));
            for (part, at, _) in kept(&store) {
                store.restore(part, version(at)).unwrap();
                assert_eq!(get(&store.find(part).unwrap(), 0, 9).unwrap(), b"kept");
            }
            assert!(files(&*disk, "quarantine").is_empty(), "nothing is left over");
        }
    }
}

#[test]
fn a_clock_that_jumps_takes_few_copies_at_once_and_only_those_whose_time_is_over() {
    let (_, _, store, events) = memory(u64::MAX);
    for chunk in 0..40 {
        fill(&store, id(chunk), 1, b"x");
        quarantine(&store, &events, id(chunk), 1);
    }
    let disk = &store.disks()[0];
    disk.tidy_quarantine(UNTIL - 1);
    assert_eq!(disk.quarantine().totals(), (40, 40));
    let left = [0, 1, 2, 3].map(|_| {
        disk.tidy_quarantine(u64::MAX);
        disk.quarantine().totals().1
    });
    assert_eq!(left, [24, 8, 0, 0]);
}

#[test]
fn where_somebody_finds_no_room_the_first_in_quarantine_go_before_their_time() {
    let (memory, disk, store, events) = memory(10 << 20);
    for chunk in 0..8 {
        fill(&store, id(chunk), 1, &pattern(1 << 20, 1));
        let copy = Condemned { part: id(chunk), version: version(1) };
        order::quarantine(&store, &events, copy, UNTIL + chunk);
    }
    let chunk_disk = &store.disks()[0];
    chunk_disk.look();
    chunk_disk.tidy_quarantine(0);
    assert_eq!(chunk_disk.quarantine().totals().1, 8, "there is room, and nobody has asked for more");
    let chunk = store.find_or_place(id(100)).unwrap();
    let create = token(id(100), 1, 1, true);
    let big = pattern(4 << 20, 2);
    assert!(matches!(put(&chunk, &create, 0, &big), Err(StoreError::NoSpace { .. })));
    chunk_disk.look();
    chunk_disk.tidy_quarantine(0);
    let left: Vec<_> = kept(&store).iter().map(|(part, ..)| *part).collect();
    assert_eq!(left, [4, 5, 6, 7].map(id), "the first of them");
    put(&chunk, &create, 0, &big).unwrap();
    memory.set_capacity(5 << 20);
    chunk_disk.look();
    chunk_disk.tidy_quarantine(0);
    assert_eq!(chunk_disk.quarantine().totals(), (0, 0));
    assert!(files(&*disk, "quarantine").is_empty() && !chunk_disk.failed());
}

#[test]
fn a_full_disk_keeps_nobody_out_of_quarantine() {
    let (memory, _, store, events) = memory(10 << 20);
    fill(&store, id(1), 1, &pattern(100_000, 1));
    memory.set_capacity(0);
    store.disks()[0].look();
    quarantine(&store, &events, id(1), 1);
    assert_eq!(kept(&store), [(id(1), 1, 100_000)]);
    store.restore(id(1), version(1)).unwrap();
    check_whole(&store.find(id(1)).unwrap(), &pattern(100_000, 1));
}

#[test]
fn a_directory_without_room_for_the_second_name_gives_back_the_first() {
    let memory = MemoryDisk::new(u64::MAX);
    let stopping = stopping(&memory);
    let disk: Arc<dyn Disk> = stopping.clone();
    let (store, events) = open(&disk, Path::new(ROOT));
    let full = |end| *stopping.full_for.lock().unwrap() = end;
    fill(&store, id(0x2a), 3, b"bytes");
    for end in [".meta", ".data"] {
        full(Some(end));
        quarantine(&store, &events, id(0x2a), 3);
        let told = events.take_all();
        assert!(!told.values().any(|event| *event == CopyEvent::Lost), "it is not done: {told:?}");
        assert_eq!(get(&store.find(id(0x2a)).unwrap(), 0, 9).unwrap(), b"bytes");
        assert!(files(&*disk, "quarantine").is_empty());
    }
    put(&store.find(id(0x2a)).unwrap(), &token(id(0x2a), 3, 4, false), 0, b"BY").unwrap();
    full(None);
    quarantine(&store, &events, id(0x2a), 4);
    for end in [".data", ".meta"] {
        full(Some(end));
        assert!(matches!(store.restore(id(0x2a), version(4)), Err(StoreError::NoSpace { .. })));
        assert_eq!(kept(&store), [(id(0x2a), 4, 5)]);
        assert!(store.find(id(0x2a)).is_none() && files(&*disk, "2a").is_empty());
    }
    full(None);
    assert!(!store.disks()[0].failed());
    store.restore(id(0x2a), version(4)).unwrap();
    assert_eq!(get(&store.find(id(0x2a)).unwrap(), 0, 9).unwrap(), b"BYtes");
}

#[test]
fn a_copy_comes_back_in_place_of_an_older_one_which_goes_into_quarantine_and_of_no_other() {
    let (_, disk, store, events) = memory(u64::MAX);
    fill(&store, id(1), 5, b"five");
    quarantine(&store, &events, id(1), 5);
    for (at, bytes) in [(5, b"as new"), (6, b"newer!")] {
        fill(&store, id(1), at, bytes);
        let refused = store.restore(id(1), version(5));
        assert!(matches!(refused, Err(StoreError::NotOlder { have, .. }) if have == version(at)));
        assert_eq!(get(&store.find(id(1)).unwrap(), 0, 9).unwrap(), bytes);
        store.find(id(1)).unwrap().delete().unwrap();
        store.forget_if_gone(&store.find(id(1)).unwrap());
    }
    fill(&store, id(1), 4, b"four");
    events.take_all();
    store.restore(id(1), version(5)).unwrap();
    assert_eq!(events.take(9), ToTell::Some(vec![(id(1), here(5, false))]));
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 9).unwrap(), b"five");
    assert_eq!(kept(&store), [(id(1), 4, 4)]);
    assert_eq!(store.disks()[0].copies(), 1);
    drop(store);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert_eq!(get(&store.find(id(1)).unwrap(), 0, 9).unwrap(), b"five");
}

#[test]
fn a_broken_copy_stays_broken_under_the_order_and_gives_way_to_one_that_comes_back() {
    let (disk, store, events) = damaged(|disk, data, _| flip(disk, &data, 66_000));
    quarantine(&store, &events, id(0x2a), 1);
    store.restore(id(0x2a), version(1)).unwrap();
    assert!(get(&store.find(id(0x2a)).unwrap(), 66_000, 10).is_err(), "it went there damaged");
    events.take_all();
    quarantine(&store, &events, id(0x2a), 1);
    assert_eq!(events.take(9), ToTell::Some(vec![(id(0x2a), CopyEvent::Lost)]));
    let create = token(id(0x2a), 1, 1, true);
    let made = put(&store.find(id(0x2a)).unwrap(), &create, 0, b"x");
    assert!(matches!(made, Err(StoreError::Broken { .. })), "{made:?}");

    // A good copy of an earlier time lies in quarantine; one whose sidecar is damaged does not come back.
    let [data, meta] = ["data", "meta"]
        .map(|extension| Path::new(ROOT).join(format!("quarantine/000000000000002a.v0.{UNTIL}.{extension}")));
    drop(store);
    let (_, other, elsewhere, others_events) = memory(u64::MAX);
    fill(&elsewhere, id(0x2a), 0, b"good");
    quarantine(&elsewhere, &others_events, id(0x2a), 0);
    for path in [&data, &meta] {
        disk.write_whole(path, &other.read_whole(path).unwrap()).unwrap();
    }
    flip(&*disk, &meta, 24);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert!(matches!(store.restore(id(0x2a), version(0)), Err(StoreError::Broken { .. })));
    let made = put(&store.find(id(0x2a)).unwrap(), &create, 0, b"x");
    assert!(matches!(made, Err(StoreError::Broken { .. })), "{made:?}");
    flip(&*disk, &meta, 24);
    store.restore(id(0x2a), version(0)).unwrap();
    assert_eq!(get(&store.find(id(0x2a)).unwrap(), 0, 9).unwrap(), b"good");
    drop(store);
    let (store, _) = open(&disk, Path::new(ROOT));
    assert_eq!(get(&store.find(id(0x2a)).unwrap(), 0, 9).unwrap(), b"good");
}

#[test]
fn garbage_in_the_directory_is_left_alone_and_hinders_nobody() {
    let (_, disk, store, events) = memory(u64::MAX);
    fill(&store, id(1), 1, b"x");
    quarantine(&store, &events, id(1), 1);
    drop(store);
    let names = [
        "holiday.jpg",
        "0000000000000001.data",
        "0000000000000001.v1.data",
        "0000000000000001.p49.v1.5.data",
        "0000000000000002.v1.5.data",
    ];
    for name in names {
        disk.open(&Path::new(ROOT).join("quarantine").join(name), OpenMode::CreateNew).unwrap();
    }
    let (store, events) = open(&disk, Path::new(ROOT));
    assert_eq!(kept(&store), [(id(1), 1, 1)]);
    store.disks()[0].tidy_quarantine(u64::MAX);
    assert_eq!(files(&*disk, "quarantine").len(), names.len());
    // Two of one name stay one second apart.
    for _ in 0..2 {
        fill(&store, id(3), 1, b"y");
        quarantine(&store, &events, id(3), 1);
    }
    assert_eq!(kept(&store).len(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u32),
    Quarantine(u64, u32),
    Restore(u64, u32),
    Reopen,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    let (chunk, at) = (0u64..2, 1u32..5);
    prop_oneof![
        3 => (chunk.clone(), at.clone()).prop_map(|(chunk, at)| Step::Write(chunk, at)),
        3 => (chunk.clone(), at.clone()).prop_map(|(chunk, at)| Step::Quarantine(chunk, at)),
        3 => (chunk, at).prop_map(|(chunk, at)| Step::Restore(chunk, at)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn copies_move_between_their_place_and_quarantine_as_in_two_lists(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (power, disk, mut store, mut events) = memory(u64::MAX);
        // Versions in use, and in quarantine, by chunk; the content says the version.
        let mut used: BTreeMap<u64, u32> = BTreeMap::new();
        let mut away: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write(chunk, at) => {
                    if used.get(&chunk).is_some_and(|have| *have >= at) {
                        continue;
                    }
                    let place = store.find_or_place(id(chunk)).unwrap();
                    let lease = token(id(chunk), 0, at, true);
                    place.truncate(Duration::ZERO, &lease, 0).unwrap();
                    put(&place, &lease, 0, &[at as u8; 10]).unwrap();
                    place.clean_if_idle(Duration::from_secs(900), Duration::ZERO).unwrap();
                    used.insert(chunk, at);
                }
                Step::Quarantine(chunk, at) => {
                    quarantine(&store, &events, id(chunk), at);
                    if let Some(have) = used.get(&chunk).copied().filter(|have| *have <= at) {
                        used.remove(&chunk);
                        *away.entry((chunk, have)).or_default() += 1;
                    }
                }
                Step::Restore(chunk, at) => {
                    let there = away.get(&(chunk, at)).is_some_and(|count| *count > 0);
                    let comes = there && used.get(&chunk).is_none_or(|have| *have < at);
                    prop_assert_eq!(store.restore(id(chunk), version(at)).is_ok(), comes);
                    if comes {
                        *away.entry((chunk, at)).or_default() -= 1;
                        if let Some(older) = used.insert(chunk, at) {
                            *away.entry((chunk, older)).or_default() += 1;
                        }
                    }
                }
                Step::Reopen | Step::Cut => {
                    drop(store);
                    if matches!(step, Step::Cut) {
                        power.power_cut(|| false);
                    }
                    (store, events) = open(&disk, Path::new(ROOT));
                }
            }
            let there: BTreeMap<_, _> =
                store.list().iter().map(|copy| (copy.part.chunk().raw(), copy.version.raw())).collect();
            prop_assert_eq!(&there, &used);
            for (chunk, at) in &used {
                prop_assert_eq!(get(&store.find(id(*chunk)).unwrap(), 0, 99).unwrap(), vec![*at as u8; 10]);
            }
            let count = away.values().sum::<u32>();
            prop_assert_eq!(store.disks()[0].quarantine().totals().1, u64::from(count));
            prop_assert_eq!(store.disks()[0].copies(), used.len() as u64);
        }
    }
}
