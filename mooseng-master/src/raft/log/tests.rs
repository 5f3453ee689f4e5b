//! The log on a disk that loses what it may lose.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, MemoryDisk};
use mooseng_types::{CellId, ClusterId, MasterId};
use proptest::prelude::*;

use super::record::{self, Content, Place};
use super::{LogOpenError, LogOptions, Segments};
use crate::raft::{HardState, LogEntry, Persist, Recovered};

fn options() -> LogOptions {
    LogOptions {
        dir: PathBuf::from("/log"),
        segment_bytes: 4096,
        cluster: ClusterId::from_bytes([1; 16]),
        master: MasterId::from_raw(1),
    }
}

fn disk() -> MemoryDisk {
    let disk = MemoryDisk::new(1 << 24);
    disk.create_dir_all(Path::new("/log")).unwrap();
    disk
}

const ROOT: CellId = CellId::ROOT;

/// The log, and what it holds of the first group.
fn open_with(disk: &MemoryDisk, options: LogOptions) -> Result<(Segments, Recovered), LogOpenError> {
    let (segments, mut recovered) = Segments::open(Arc::new(disk.clone()), options)?;
    Ok((segments, recovered.remove(&ROOT).unwrap_or_default()))
}

fn open(disk: &MemoryDisk) -> Result<(Segments, Recovered), LogOpenError> {
    open_with(disk, options())
}

fn entry(index: u64, term: u64, size: usize) -> LogEntry {
    LogEntry { term, index, kind: 0, data: Bytes::from(vec![index as u8; size]) }
}

fn persist(number: u64, entries: Vec<LogEntry>) -> Persist {
    let hard_state = HardState { term: 5, vote: 1, commit: 0 };
    Persist { number, snapshot: None, entries, hard_state }
}

fn batch(number: u64, entries: Vec<LogEntry>) -> (CellId, Persist) {
    (ROOT, persist(number, entries))
}

#[test]
fn the_log_reads_back_over_segment_borders_and_purges() {
    let disk = disk();
    let (mut log, empty) = open(&disk).unwrap();
    assert_eq!(empty, Recovered::default());
    for index in 1..=100 {
        log.append(&[batch(index, vec![entry(index, 5, 200)])]).unwrap();
    }
    log.purge(ROOT, 70, 5).unwrap();
    drop(log);
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.purged, (70, 5));
    assert_eq!(recovered.entries, (71..=100).map(|index| entry(index, 5, 200)).collect::<Vec<_>>());
    assert_eq!(recovered.hard_state, HardState { term: 5, vote: 1, commit: 0 });
    for index in 101..=200 {
        log.append(&[batch(index, vec![entry(index, 5, 200)])]).unwrap();
        log.purge(ROOT, index - 10, 5).unwrap();
    }
    assert!(disk.list(Path::new("/log")).unwrap().len() < 8, "purged segments are used again or removed");
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.last(), Some(&entry(200, 5, 200)));
    assert!(recovered.purged.0 <= 190 && recovered.entries[0].index == recovered.purged.0 + 1);
}

#[test]
fn a_segment_whose_name_a_killed_process_did_not_sync_is_there_after_a_power_cut() {
    let disk = disk();
    let (mut log, _) = open(&disk).unwrap();
    (1..=30).for_each(|index| log.append(&[batch(index, vec![entry(index, 5, 200)])]).unwrap());
    let newest =
        disk.list(Path::new("/log")).unwrap().into_iter().rfind(|it| it.extension().unwrap() == "log");
    let (newest, beside) = (newest.unwrap(), Path::new("/log/next.tmp"));
    disk.rename(&newest, beside).unwrap();
    disk.sync_dir(Path::new("/log")).unwrap();
    disk.rename(beside, &newest).unwrap();
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.len(), 30);
    log.append(&[batch(31, vec![entry(31, 5, 200)])]).unwrap();
    disk.power_cut(|| false);
    assert_eq!(open(&disk).unwrap().1.entries.len(), 31);
}

#[test]
fn an_entry_replaces_what_stood_from_its_index_on() {
    let disk = disk();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[batch(1, (1..=5).map(|i| entry(i, 1, 10)).collect())]).unwrap();
    log.append(&[batch(2, vec![entry(3, 2, 20)])]).unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, 10), entry(2, 1, 10), entry(3, 2, 20)]);
}

#[test]
fn a_snapshot_takes_the_place_of_all_that_the_log_held() {
    for (restart, written) in [(500, 100), (40, 100), (2, 3)] {
        let disk = disk();
        let (mut log, _) = open(&disk).unwrap();
        (1..=written).for_each(|i| log.append(&[batch(i, vec![entry(i, 5, 200)])]).unwrap());
        let snapshot =
            Persist { snapshot: Some((restart, 6)), ..persist(101, vec![entry(restart + 1, 7, 9)]) };
        log.append(&[batch(written + 1, vec![entry(written + 1, 5, 9)]), (ROOT, snapshot)]).unwrap();
        for _ in 0..2 {
            let (_, recovered) = open(&disk).unwrap();
            assert_eq!(recovered.purged, (restart, 6));
            assert_eq!(recovered.entries, [entry(restart + 1, 7, 9)]);
        }
        for index in restart + 2..restart + 60 {
            log.append(&[batch(index, vec![entry(index, 7, 200)])]).unwrap();
            log.purge(ROOT, index - 1, 7).unwrap();
        }
        assert!(disk.list(Path::new("/log")).unwrap().len() < 6, "the segments before it are used again");
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.entries.last(), Some(&entry(restart + 59, 7, 200)));
    }
}

#[test]
fn a_log_that_its_store_has_overtaken_begins_behind_it_and_keeps_what_its_voter_promised() {
    let disk = disk();
    let (mut log, mut recovered) = open(&disk).unwrap();
    log.append(&[batch(1, (1..=9).map(|index| entry(index, 5, 9)).collect())]).unwrap();
    log.begin_behind(ROOT, (77, 5), &mut recovered).unwrap();
    let (mut log, mut recovered) = open(&disk).unwrap();
    assert_eq!(recovered.hard_state, HardState { term: 5, vote: 1, commit: 77 });
    assert_eq!((recovered.purged, recovered.entries.len()), ((77, 5), 0));
    log.append(&[batch(2, vec![entry(78, 5, 9)])]).unwrap();
    let before = open(&disk).unwrap().1;
    recovered = before.clone();
    log.begin_behind(ROOT, (78, 5), &mut recovered).unwrap();
    log.begin_behind(ROOT, (77, 5), &mut recovered).unwrap();
    assert_eq!(open(&disk).unwrap().1, before, "the log leads on from there");
    log.begin_behind(ROOT, (78, 9), &mut recovered).unwrap();
    assert_eq!(open(&disk).unwrap().1, recovered);
    assert_eq!(recovered.hard_state, HardState { term: 9, vote: 0, commit: 78 });
}

#[test]
fn damage_to_what_was_durable_is_refused() {
    let disk = disk();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=10 {
        log.append(&[batch(index, vec![entry(index, 1, 100)])]).unwrap();
    }
    let path = Path::new("/log/0000000000000001.log");
    let whole = disk.read_whole(path).unwrap();
    let file = disk.open(path, OpenMode::Write).unwrap();
    // A byte of an early record's data.
    file.write_all_at(&[whole[300] ^ 1], 300).unwrap();
    assert!(matches!(open(&disk), Err(LogOpenError::Damaged { .. })));
    file.write_all_at(&[whole[300]], 300).unwrap();
    open(&disk).unwrap();
}

#[test]
fn a_file_cut_off_within_the_padding_of_its_last_record_reads_back() {
    let disk = disk();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[batch(1, vec![entry(1, 1, 6)])]).unwrap();
    let path = Path::new("/log/0000000000000001.log");
    let file = disk.open(path, OpenMode::Write).unwrap();
    // Header; the entry's record, of 47 bytes and one of padding; the state's, of 48. Without the state the batch is not
    // whole, so the entry is made its last record by hand.
    let mut record = Vec::new();
    let place = Place { cell: ROOT, segment: 1, batch: 1, last: true };
    record::encode(&mut record, &Content::Entry(entry(1, 1, 6)), place, &mut 0);
    file.write_all_at(&record, 64).unwrap();
    file.set_len(64 + 47).unwrap();
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, 6)]);
    log.append(&[batch(2, vec![entry(2, 1, 6)])]).unwrap();
    assert_eq!(open(&disk).unwrap().1.entries, [entry(1, 1, 6), entry(2, 1, 6)]);
}

#[test]
fn a_batch_number_that_leaves_no_next_one_is_not_believed() {
    let encoded = |number| {
        let mut record = Vec::new();
        let place = Place { cell: ROOT, segment: 1, batch: number, last: true };
        record::encode(&mut record, &Content::Mark { index: 1, term: 1 }, place, &mut 0);
        record
    };
    assert!(record::decode(&encoded(record::BATCH_MAX), 1).is_some());
    assert_eq!(record::decode(&encoded(u64::MAX), 1), None);
}

#[test]
fn another_masters_log_is_refused() {
    let disk = disk();
    drop(open(&disk).unwrap());
    let other = LogOptions { master: MasterId::from_raw(2), ..options() };
    let error = Segments::open(Arc::new(disk), other).unwrap_err();
    assert!(matches!(error, LogOpenError::Format { .. }), "{error}");
}

#[test]
fn the_next_segment_is_filled_in_small_steps_while_the_first_is_written() {
    let disk = disk();
    let options = LogOptions { segment_bytes: 1 << 20, ..options() };
    let open = || open_with(&disk, options.clone()).unwrap();
    let spares = || {
        let files = disk.list(Path::new("/log")).unwrap().into_iter();
        let spares = files.filter(|path| path.extension().is_some_and(|it| it == "spare"));
        spares.map(|path| disk.read_whole(&path).unwrap().len()).collect::<Vec<_>>()
    };
    let (mut log, _) = open();
    log.prepare().unwrap();
    assert_eq!(spares(), [0; 0], "not at once");
    // What is begun and not finished is begun anew.
    drop(log);
    let (mut log, _) = open();
    for _ in 0..4 {
        log.prepare().unwrap();
    }
    assert_eq!(spares(), [1 << 20]);
    for index in 1..=3 {
        log.append(&[batch(index, vec![entry(index, 1, 500 << 10)])]).unwrap();
    }
    assert_eq!(spares(), [0; 0], "it is in use");
    assert_eq!(open().1.entries.len(), 3);
}

#[test]
fn a_disk_without_room_for_the_next_segment_is_no_error_before_it_is_needed() {
    let disk = MemoryDisk::new(6000);
    disk.create_dir_all(Path::new("/log")).unwrap();
    let (mut log, _) = open(&disk).unwrap();
    log.prepare().unwrap();
    assert_eq!(disk.list(Path::new("/log")).unwrap().len(), 1, "what does not fit is taken away");
    log.append(&[batch(1, vec![entry(1, 1, 100)])]).unwrap();
    assert_eq!(open(&disk).unwrap().1.entries.len(), 1);
}

/// What a recycled segment is full of is given by whoever wrote before: as a length, each of its words here means a record
/// of a megabyte, whose checksum must not be computed at every place.
#[test]
fn leftovers_that_look_like_many_long_records_are_no_work() {
    let disk = MemoryDisk::new(1 << 26);
    disk.create_dir_all(Path::new("/log")).unwrap();
    let long = LogOptions { segment_bytes: 16 << 20, ..options() };
    let (mut log, _) = open_with(&disk, long.clone()).unwrap();
    log.append(&[batch(1, vec![entry(1, 1, 100)])]).unwrap();
    let path = Path::new("/log/0000000000000001.log");
    let file = disk.open(path, OpenMode::Write).unwrap();
    // Behind the header, the entry's record of 144 bytes, and the state's of 48.
    file.write_all_at(&(1u32 << 20).to_le_bytes().repeat((4 << 20) - 64), 256).unwrap();
    let (_, recovered) = open_with(&disk, long).unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, 100)]);
}

#[test]
fn a_group_that_needs_the_oldest_segment_is_named_when_too_much_is_kept_and_the_segment_goes_when_it_lets_go()
{
    let disk = disk();
    let (mut log, _) = open(&disk).unwrap();
    let idle = CellId::from_raw(7);
    log.append(&[(idle, persist(1, vec![entry(1, 5, 200)]))]).unwrap();
    for index in 1..=100 {
        log.append(&[batch(index, vec![entry(index, 5, 200)])]).unwrap();
        log.purge(ROOT, index, 5).unwrap();
    }
    let files = || disk.list(Path::new("/log")).unwrap().len();
    assert!(files() > 5, "{} segments", files());
    assert_eq!((log.holders(100), log.holders(3)), (vec![], vec![(idle, 1)]));
    log.purge(idle, 1, 5).unwrap();
    assert_eq!(log.holders(0), []);
    assert!(files() < 5, "{} segments", files());
    let (_, recovered) = Segments::open(Arc::new(disk), options()).unwrap();
    assert_eq!((recovered[&idle].purged, recovered[&ROOT].purged), ((1, 5), (100, 5)));
}

/// What happens to one of the groups.
#[derive(Clone, Debug)]
enum Step {
    Append(usize, usize),
    /// From so many entries back on, in a later term.
    Replace(u64),
    /// All but so many.
    Purge(u64),
    /// A snapshot so many entries ahead.
    Restart(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..4, 0usize..900).prop_map(|(count, size)| Step::Append(count, size)),
        1 => (0u64..3).prop_map(Step::Replace),
        3 => (0u64..9).prop_map(Step::Purge),
        1 => (0u64..50).prop_map(Step::Restart),
        1 => Just(Step::Reopen),
    ]
}

/// What one group's log holds.
#[derive(Clone, Debug, Default)]
struct Model {
    purged: u64,
    /// Purged, though the log may have forgotten that: nothing up to here is written again.
    floor: u64,
    entries: Vec<LogEntry>,
    term: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.purged, |entry| entry.index)
    }
}

proptest! {
    /// Groups share the log, and each has its own.
    #[test]
    fn each_group_reads_back_what_it_has_written_whatever_the_others_do(
        steps in prop::collection::vec((0u16..4, step()), 1..120),
    ) {
        let disk = disk();
        let (mut log, _) = open(&disk).unwrap();
        let mut models = [(); 4].map(|()| Model { term: 1, ..Model::default() });
        for (number, (cell, step)) in steps.iter().chain([&(0, Step::Reopen)]).enumerate() {
            let model = &mut models[usize::from(*cell)];
            let cell = CellId::from_raw(cell * 77);
            let mut entries = Vec::new();
            let mut snapshot = None;
            match *step {
                Step::Append(count, size) => {
                    let last = model.last();
                    entries.extend((last + 1..=last + count as u64).map(|i| entry(i, model.term, size)));
                }
                Step::Replace(back) => {
                    model.term += 1;
                    let first = model.last().saturating_sub(back).max(model.floor + 1);
                    entries.push(entry(first, model.term, 9));
                }
                Step::Purge(keep) => {
                    let index = model.last().saturating_sub(keep);
                    log.purge(cell, index, 1).unwrap();
                    model.floor = index.max(model.floor);
                    // A purge may be forgotten with the power; the log then begins a little earlier.
                    continue;
                }
                Step::Restart(ahead) => {
                    let index = model.last() + ahead + 1;
                    snapshot = Some((index, model.term));
                    *model = Model { purged: index, floor: index, entries: Vec::new(), ..*model };
                }
                Step::Reopen => {
                    let (reopened, recovered) = Segments::open(Arc::new(disk.clone()), options()).unwrap();
                    log = reopened;
                    for (index, model) in models.iter_mut().enumerate() {
                        let found = recovered.get(&CellId::from_raw(index as u16 * 77)).cloned();
                        let found = found.unwrap_or_default();
                        prop_assert!(found.purged.0 >= model.purged);
                        model.entries.retain(|entry| entry.index > found.purged.0);
                        model.purged = found.purged.0;
                        prop_assert!(found.entries == model.entries);
                    }
                    continue;
                }
            }
            if let Some(first) = entries.first() {
                model.entries.retain(|entry| entry.index < first.index);
                model.entries.extend(entries.iter().cloned());
            }
            let hard_state = HardState { term: model.term, vote: 1, commit: 0 };
            log.append(&[(cell, Persist { number: number as u64, snapshot, entries, hard_state })]).unwrap();
        }
    }

    /// Batches of all sizes go into segments that were in use before, and are read back at any moment.
    #[test]
    fn what_a_recycled_segment_held_before_is_not_taken_for_anything(
        steps in prop::collection::vec((1u64..4, 0usize..900, 0u64..40, prop::bool::weighted(0.1)), 1..120),
    ) {
        let disk = disk();
        let (mut log, _) = open(&disk).unwrap();
        let (mut next, mut written) = (1, Vec::new());
        for (number, &(count, size, behind, again)) in steps.iter().enumerate() {
            let entries: Vec<_> = (next..next + count).map(|i| entry(i, 1, size)).collect();
            next += count;
            log.append(&[batch(number as u64, entries.clone())]).unwrap();
            written.extend(entries);
            log.purge(ROOT, next.saturating_sub(behind + 1), 1).unwrap();
            if again || number + 1 == steps.len() {
                let (reopened, recovered) = open(&disk).unwrap();
                log = reopened;
                let purged = usize::try_from(recovered.purged.0).unwrap();
                prop_assert!(recovered.entries == written[purged..]);
            }
        }
    }

    /// Batches are appended, the last one only in the page cache when the power goes: whatever sectors of it survive,
    /// all that was synced is there, and the torn batch is there whole or not at all.
    #[test]
    fn a_power_cut_takes_nothing_that_was_synced(
        sizes in prop::collection::vec((1usize..4, 0usize..900), 1..40),
        survivors in prop::collection::vec(any::<bool>(), 64),
    ) {
        let disk = disk();
        let (mut log, _) = open(&disk).unwrap();
        let mut next = 1;
        let mut synced = Vec::new();
        let (torn, kept) = sizes.split_last().unwrap();
        for (number, &(count, size)) in kept.iter().enumerate() {
            let entries: Vec<_> = (next..next + count as u64).map(|i| entry(i, 1, size)).collect();
            next += count as u64;
            log.append(&[batch(number as u64, entries.clone())]).unwrap();
            synced.extend(entries);
        }
        let last: Vec<_> = (next..next + torn.0 as u64).map(|i| entry(i, 1, torn.1)).collect();
        disk.fail_syncs(true);
        prop_assert!(log.append(&[batch(99, last.clone())]).is_err());
        disk.fail_syncs(false);
        let mut turn = survivors.iter().cycle();
        disk.power_cut(|| *turn.next().unwrap());
        let (mut log, recovered) = open(&disk).unwrap();
        let whole: Vec<_> = synced.iter().chain(&last).cloned().collect();
        prop_assert!(recovered.entries == synced || recovered.entries == whole);
        let follow = entry(recovered.entries.len() as u64 + 1, 7, 50);
        log.append(&[batch(100, vec![follow.clone()])]).unwrap();
        let (_, again) = open(&disk).unwrap();
        prop_assert_eq!(again.entries.last(), Some(&follow));
        prop_assert_eq!(again.entries.len(), recovered.entries.len() + 1);
    }
}
