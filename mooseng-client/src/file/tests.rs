//! The core against a cluster of plain values: each of these once lost, hid or doubled data.

mod cluster;

use mooseng_types::{CHUNK_SIZE, ChunkIndex, FsError, SetAttr, TimeNs};

use super::*;
use crate::Loss;
use cluster::{Cluster, file};

const MIB: usize = 1 << 20;

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) | 1).collect()
}

fn fsync(cluster: &mut Cluster, client: u32, file: &mut File) -> crate::Result<()> {
    let flush = Flush::new(file, true, cluster.now);
    cluster.run(client, file, flush)
}

fn close(cluster: &mut Cluster, client: u32, file: &mut File) -> crate::Result<()> {
    let flush = Flush::new(file, false, cluster.now);
    cluster.run(client, file, flush)
}

fn give_back(cluster: &mut Cluster, client: u32, file: &mut File) -> crate::Result<()> {
    let give_back = GiveBack::new(file, None, cluster.now);
    cluster.run(client, file, give_back)
}

/// The error that a sync tells of, if any.
fn told(file: &mut File, mark: &mut Told) -> Option<ClientError> {
    file.tell(mark, Occasion::Sync).err()
}

fn resize(cluster: &mut Cluster, client: u32, file: &mut File, size: u64) {
    let change = SetAttr { size: Some(size), ..SetAttr::default() };
    let truncate = Truncate::new(file, change, cluster.now);
    cluster.run(client, file, truncate).unwrap();
}

#[test]
fn a_small_file_with_a_chunk_beyond_the_first_reads_back_whole() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, b"small");
    close(&mut cluster, 1, &mut a).unwrap();
    assert_eq!(cluster.log, ["inline"]);
    let data = pattern(1000, 3);
    cluster.write(&mut a, CHUNK_SIZE + 10, &data);
    assert_eq!(cluster.read(1, &mut a, 0, 5).unwrap(), b"small", "while the other chunk is written");
    fsync(&mut cluster, 1, &mut a).unwrap();
    assert_eq!(cluster.read(1, &mut a, 0, 5).unwrap(), b"small", "while the lease is held");
    give_back(&mut cluster, 1, &mut a).unwrap();
    let mut b = file();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, CHUNK_SIZE + 10, 1000).unwrap(), data);
    assert_eq!(cluster.read(2, &mut b, 0, 8).unwrap(), b"small\0\0\0");
}

#[test]
fn only_a_version_that_the_copies_have_is_committed() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    let data = pattern(4 * MIB, 1);
    cluster.write(&mut a, 0, &data);
    fsync(&mut cluster, 1, &mut a).unwrap();
    cluster.write(&mut a, 4 * MIB as u64, &pattern(MIB, 2));
    cluster.servers.values_mut().for_each(|server| server.down = true);
    let error = close(&mut cluster, 1, &mut a).err().or(told(&mut a, &mut mark));
    assert!(error.is_some(), "nobody could write it");
    cluster.servers.values_mut().for_each(|server| server.down = false);
    cluster.write(&mut a, 5 * MIB as u64, b"later");
    fsync(&mut cluster, 1, &mut a).unwrap();
    give_back(&mut cluster, 1, &mut a).unwrap();
    let mut b = file();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, 0, data.len() as u64).unwrap(), data);
    assert_eq!(cluster.read(2, &mut b, 5 * MIB as u64, 5).unwrap(), b"later");
}

#[test]
fn the_loss_of_what_was_confirmed_and_not_synced_is_told_by_the_next_fsync() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    cluster.write(&mut a, 0, &pattern(2 * MIB, 1));
    close(&mut cluster, 1, &mut a).unwrap();
    assert!(told(&mut a, &mut mark).is_none());
    cluster.power_cut(1);
    cluster.power_cut(2);
    let outcome = fsync(&mut cluster, 1, &mut a);
    let error = told(&mut a, &mut mark).or(outcome.err());
    assert!(matches!(error, Some(ClientError::Lost(Loss::Interrupted))), "{error:?}");
    let data = pattern(MIB, 2);
    cluster.write(&mut a, 0, &data);
    fsync(&mut cluster, 1, &mut a).unwrap();
    assert!(told(&mut a, &mut mark).is_none(), "the file goes on");
    assert_eq!(cluster.read(1, &mut a, 0, MIB as u64).unwrap(), data);
}

#[test]
fn a_server_that_lost_unsynced_bytes_leaves_the_chain_and_the_others_keep_them() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    let data = pattern(2 * MIB, 1);
    cluster.write(&mut a, 0, &data);
    close(&mut cluster, 1, &mut a).unwrap();
    cluster.power_cut(1);
    // A read by the writer must not meet the copy that has lost them.
    assert_eq!(cluster.read(1, &mut a, 0, data.len() as u64).unwrap(), data);
    fsync(&mut cluster, 1, &mut a).unwrap();
    assert!(told(&mut a, &mut mark).is_none());
    assert_eq!(cluster.rows[&ChunkIndex::from_raw(0)].servers, [2]);
    assert_eq!(cluster.read(1, &mut a, 0, data.len() as u64).unwrap(), data);
}

#[test]
fn a_close_tells_the_loss_of_what_the_power_took_before_it() {
    for cut in [&[1][..], &[2], &[1, 2]] {
        let mut cluster = Cluster::new(2);
        let mut a = file();
        cluster.open(&mut a);
        let mut mark = a.begin_told();
        let data = pattern(2 * MIB, 1);
        cluster.write(&mut a, 0, &data);
        let send = Flush::only_send(&a, cluster.now);
        cluster.run(1, &mut a, send).unwrap();
        cut.iter().for_each(|server| cluster.power_cut(*server));
        cluster.now += Duration::from_millis(1);
        let outcome = close(&mut cluster, 1, &mut a);
        let error = told(&mut a, &mut mark).or(outcome.err());
        if cut.len() == 2 {
            assert!(matches!(error, Some(ClientError::Lost(Loss::Interrupted))), "{error:?}");
        } else {
            assert!(error.is_none(), "{error:?}");
            assert_eq!(cluster.read(1, &mut a, 0, data.len() as u64).unwrap(), data);
        }
    }
}

#[test]
fn a_close_answers_for_what_the_background_has_committed_since() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    cluster.write(&mut a, 0, &pattern(2 * MIB, 1));
    close(&mut cluster, 1, &mut a).unwrap();
    assert!(a.is_clean() && a.owes_flush(true), "it is on no disk yet");
    assert!(!a.owes_flush(false), "who has not written has nothing to answer for");
    cluster.power_cut(1);
    cluster.power_cut(2);
    cluster.now += Duration::from_millis(1);
    let outcome = close(&mut cluster, 1, &mut a);
    let error = told(&mut a, &mut mark).or(outcome.err());
    assert!(matches!(error, Some(ClientError::Lost(Loss::Interrupted))), "{error:?}");
    assert!(!a.owes_flush(true));
}

#[test]
fn a_close_that_sends_something_of_a_chunk_asks_its_copies_nothing_more() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(2 * MIB, 1));
    let send = Flush::only_send(&a, cluster.now);
    cluster.run(1, &mut a, send).unwrap();
    cluster.now += Duration::from_millis(1);
    cluster.write(&mut a, 2 * MIB as u64, b"end");
    close(&mut cluster, 1, &mut a).unwrap();
    assert_eq!(cluster.log, ["grant", "write", "write", "write", "commit"]);
}

#[test]
fn a_power_cut_after_a_sync_costs_no_copy() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(MIB, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    // Dirty when the power went, though everything was synced.
    let chunk = cluster.rows[&ChunkIndex::from_raw(0)].chunk;
    cluster.servers.get_mut(&2).unwrap().copies.get_mut(&chunk).unwrap().interrupted = true;
    cluster.write(&mut a, 100, b"more");
    fsync(&mut cluster, 1, &mut a).unwrap();
    assert_eq!(cluster.rows[&ChunkIndex::from_raw(0)].servers, [1, 2]);
    assert!(cluster.servers.values().all(|server| &server.copies[&chunk].bytes[100..104] == b"more"));
}

#[test]
fn a_dead_writers_void_bytes_do_not_come_back() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(MIB, 1));
    let send = Flush::only_send(&a, cluster.now);
    cluster.run(1, &mut a, send).unwrap();
    // It dies; nothing was committed.
    cluster.end_lease(1, ChunkIndex::from_raw(0));
    let mut b = file();
    cluster.open(&mut b);
    cluster.write(&mut b, 10, b"x");
    cluster.write(&mut b, 8000, b"y");
    fsync(&mut cluster, 2, &mut b).unwrap();
    give_back(&mut cluster, 2, &mut b).unwrap();
    let mut c = file();
    cluster.open(&mut c);
    let seen = cluster.read(3, &mut c, 0, 8001).unwrap();
    let written: Vec<_> = seen.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
    assert_eq!(written, [10, 8000]);
}

#[test]
fn what_another_client_wrote_to_another_chunk_is_seen_after_an_own_commit() {
    let mut cluster = Cluster::new(2);
    let (mut a, mut b) = (file(), file());
    cluster.size = 2 * CHUNK_SIZE;
    cluster.open(&mut a);
    cluster.open(&mut b);
    let data = pattern(1000, 5);
    assert_eq!(cluster.read(2, &mut b, CHUNK_SIZE, 1000).unwrap(), [0; 1000], "a hole so far");
    cluster.write(&mut a, CHUNK_SIZE, &data);
    fsync(&mut cluster, 1, &mut a).unwrap();
    give_back(&mut cluster, 1, &mut a).unwrap();
    cluster.write(&mut b, 0, b"mine");
    close(&mut cluster, 2, &mut b).unwrap();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, CHUNK_SIZE, 1000).unwrap(), data);
    assert!(b.take_foreign_change());
}

#[test]
fn attributes_told_while_an_own_commit_is_answered_are_no_foreign_change() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(MIB, 1));
    let mut flush = Flush::new(&a, false, cluster.now);
    loop {
        match flush.next(&mut a, cluster.now) {
            Step::Do(action) => {
                let event = cluster.carry_out(1, action);
                // A `stat` that is answered between the commit and the answer to it.
                a.learn(cluster.attr(), 50, 51);
                a.happened(event, At { now: cluster.now, asked: 49, told: 52 }).unwrap();
            }
            Step::Wait(until) => cluster.now = until.unwrap(),
            Step::Done(result) => break result.unwrap(),
        }
    }
    assert!(!a.take_foreign_change());
    assert_eq!(a.seen().unwrap().content_version, cluster.content_version);
    cluster.content_version += 1;
    a.learn(cluster.attr(), 60, 61);
    assert!(a.take_foreign_change());
}

#[test]
fn a_file_with_thousands_of_dirty_chunks_is_committed_in_parts() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    for index in 0..1500u64 {
        cluster.write(&mut a, index * CHUNK_SIZE, &[index as u8 | 1]);
    }
    fsync(&mut cluster, 1, &mut a).unwrap();
    assert_eq!(cluster.log.iter().filter(|name| **name == "commit").count(), 2);
    assert_eq!(cluster.size, 1499 * CHUNK_SIZE + 1);
    let mut b = file();
    cluster.open(&mut b);
    for index in [0u64, 1023, 1024, 1499] {
        assert_eq!(cluster.read(2, &mut b, index * CHUNK_SIZE, 1).unwrap(), [index as u8 | 1]);
    }
}

#[test]
fn one_lost_lease_takes_only_its_own_chunk_along() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    for index in 0..3u64 {
        cluster.write(&mut a, index * CHUNK_SIZE, b"data");
    }
    let send = Flush::only_send(&a, cluster.now);
    cluster.run(1, &mut a, send).unwrap();
    cluster.end_lease(1, ChunkIndex::from_raw(1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    let error = told(&mut a, &mut mark);
    assert!(matches!(error, Some(ClientError::Lost(Loss::LeaseTaken))), "{error:?}");
    let committed = |index| cluster.rows[&ChunkIndex::from_raw(index)].committed > 0;
    assert!(committed(0) && !committed(1) && committed(2));
}

#[test]
fn a_full_server_is_told_and_its_copy_stays() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    cluster.write(&mut a, 0, &pattern(MIB, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    cluster.servers.get_mut(&2).unwrap().full = true;
    cluster.write(&mut a, MIB as u64, &pattern(MIB, 2));
    let outcome = fsync(&mut cluster, 1, &mut a);
    let error = told(&mut a, &mut mark).or(outcome.err()).unwrap();
    assert_eq!(error.errno(), FsError::NoSpace.errno());
    assert_eq!(cluster.rows[&ChunkIndex::from_raw(0)].servers, [1, 2]);
    cluster.servers.get_mut(&2).unwrap().full = false;
    cluster.write(&mut a, MIB as u64, &pattern(MIB, 3));
    fsync(&mut cluster, 1, &mut a).unwrap();
    assert!(told(&mut a, &mut mark).is_none());
}

#[test]
fn a_server_that_is_away_for_a_moment_keeps_its_copy() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(MIB, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    cluster.servers.get_mut(&2).unwrap().down = true;
    cluster.write(&mut a, 0, &pattern(MIB, 2));
    let mut flush = Flush::new(&a, true, cluster.now);
    let away_until = cluster.now + Duration::from_secs(2);
    loop {
        cluster.servers.get_mut(&2).unwrap().down = cluster.now < away_until;
        match flush.next(&mut a, cluster.now) {
            Step::Do(action) => {
                let event = cluster.carry_out(1, action);
                let at = At { now: cluster.now, asked: 1, told: 2 };
                a.happened(event, at).unwrap();
            }
            Step::Wait(until) => cluster.now = until.unwrap(),
            Step::Done(result) => break result.unwrap(),
        }
    }
    assert_eq!(cluster.rows[&ChunkIndex::from_raw(0)].servers, [1, 2]);
}

#[test]
fn bytes_older_than_the_session_are_lost_and_told() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    cluster.write(&mut a, 0, b"old");
    a.session_lost(1);
    let data = pattern(10_000, 4);
    let mut b = file();
    cluster.open(&mut b);
    cluster.write(&mut b, 0, &data);
    fsync(&mut cluster, 2, &mut b).unwrap();
    give_back(&mut cluster, 2, &mut b).unwrap();
    fsync(&mut cluster, 1, &mut a).unwrap();
    let error = told(&mut a, &mut mark);
    assert!(matches!(error, Some(ClientError::Lost(Loss::SessionExpired))), "{error:?}");
    cluster.open(&mut a);
    assert_eq!(cluster.read(1, &mut a, 0, 10_000).unwrap(), data, "the newer data was overwritten");
}

#[test]
fn appends_of_two_clients_never_overwrite_each_other() {
    let mut cluster = Cluster::new(2);
    let mut files = [file(), file()];
    files.iter_mut().for_each(|file| cluster.open(file));
    let mut expected = Vec::new();
    for round in 0..60u8 {
        let client = usize::from(round % 3 == 0);
        let record = [round + 1; 200];
        expected.extend_from_slice(&record);
        let other = 1 - client;
        // The masters recall the lease of whoever has it.
        give_back(&mut cluster, other as u32 + 1, &mut files[other]).unwrap();
        let data = Bytes::copy_from_slice(&record);
        let append = Append::new(&files[client], data, TimeNs::from_raw(3), cluster.now);
        let appended = cluster.run(client as u32 + 1, &mut files[client], append).unwrap();
        assert_eq!(appended.offset, u64::from(round) * 200);
    }
    for (client, file) in files.iter_mut().enumerate() {
        close(&mut cluster, client as u32 + 1, file).unwrap();
    }
    let mut reader = file();
    cluster.open(&mut reader);
    assert_eq!(cluster.read(9, &mut reader, 0, 12_000).unwrap(), expected);
}

#[test]
fn an_append_over_a_chunk_border_is_whole() {
    let mut cluster = Cluster::new(2);
    cluster.size = CHUNK_SIZE - 100;
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    let data = pattern(8192, 7);
    let append = Append::new(&a, data.clone().into(), TimeNs::from_raw(3), cluster.now);
    cluster.run(1, &mut a, append).unwrap();
    fsync(&mut cluster, 1, &mut a).unwrap();
    assert!(told(&mut a, &mut mark).is_none());
    assert_eq!(cluster.read(1, &mut a, CHUNK_SIZE - 100, 8192).unwrap(), data);
}

#[test]
fn a_small_file_that_moves_to_a_chunk_is_on_the_disks_before_the_metadata_lets_it_go() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, b"precious");
    fsync(&mut cluster, 1, &mut a).unwrap();
    cluster.write(&mut a, 5000, b"more");
    close(&mut cluster, 1, &mut a).unwrap();
    assert!(cluster.inline.is_none());
    cluster.power_cut(1);
    cluster.power_cut(2);
    let mut b = file();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, 0, 8).unwrap(), b"precious");
}

#[test]
fn a_truncation_cuts_what_was_written_and_what_lies_behind_stays_zero() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(2 * MIB, 1));
    close(&mut cluster, 1, &mut a).unwrap();
    for size in [1000, 5000] {
        resize(&mut cluster, 1, &mut a, size);
        assert_eq!(a.size(), size);
    }
    cluster.write(&mut a, 9000, b"end");
    fsync(&mut cluster, 1, &mut a).unwrap();
    give_back(&mut cluster, 1, &mut a).unwrap();
    let mut expected = pattern(1000, 1);
    expected.resize(9000, 0);
    expected.extend_from_slice(b"end");
    let mut b = file();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, 0, 10_000).unwrap(), expected);
}

/// A file whose copies have old bytes behind its end, with a write far behind it under way: the power of both servers
/// goes when `action` is about to be carried out. What the file holds in the end.
fn cut_then_power_cut(action: &str) -> Vec<u8> {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(60_000, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    resize(&mut cluster, 1, &mut a, 1000);
    cluster.write(&mut a, 40_000, b"x");
    let mut flush = Flush::new(&a, true, cluster.now);
    let mut cut = false;
    loop {
        match flush.next(&mut a, cluster.now) {
            Step::Do(next) => {
                if !cut && format!("{next:?}").starts_with(action) {
                    cluster.power_cut(1);
                    cluster.power_cut(2);
                    cut = true;
                }
                let event = cluster.carry_out(1, next);
                a.happened(event, At { now: cluster.now, asked: 50, told: 51 }).unwrap();
            }
            Step::Wait(until) => cluster.now = until.unwrap(),
            Step::Done(_) => break,
        }
    }
    assert!(cut, "there was no {action}");
    cluster.write(&mut a, 50_000, b"y");
    fsync(&mut cluster, 1, &mut a).unwrap();
    give_back(&mut cluster, 1, &mut a).unwrap();
    let mut b = file();
    cluster.open(&mut b);
    cluster.read(2, &mut b, 0, 60_000).unwrap()
}

#[test]
fn a_cut_that_a_power_cut_undid_is_made_again() {
    let mut expected = pattern(1000, 1);
    expected.resize(50_001, 0);
    expected[50_000] = b'y';
    // Nothing was confirmed upon the cut: the write comes again, and nothing is lost.
    let seen = cut_then_power_cut("Write");
    expected[40_000] = b'x';
    assert!(seen == expected, "before the write: old bytes are back, or new ones gone");
    // The write was confirmed and not synced: it is lost, and told; what lay behind the file's end stays away.
    let seen = cut_then_power_cut("Sync");
    expected[40_000] = 0;
    assert!(seen == expected, "before the sync: old bytes are back");
}

#[test]
fn who_has_unsent_bytes_still_sees_what_others_wrote_to_a_small_file() {
    let mut cluster = Cluster::new(2);
    let (mut a, mut b) = (file(), file());
    cluster.open(&mut a);
    cluster.write(&mut a, 2000, b"mine");
    cluster.open(&mut b);
    cluster.write(&mut b, 0, b"small");
    close(&mut cluster, 2, &mut b).unwrap();
    cluster.open(&mut a);
    assert_eq!(cluster.read(1, &mut a, 0, 5).unwrap(), b"small");
    fsync(&mut cluster, 1, &mut a).unwrap();
    let mut c = file();
    cluster.open(&mut c);
    assert_eq!(cluster.read(3, &mut c, 0, 5).unwrap(), b"small");
    assert_eq!(cluster.read(3, &mut c, 2000, 4).unwrap(), b"mine");
}

#[test]
fn a_flush_that_loses_one_chunk_leaves_nothing_of_the_others_behind() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    cluster.no_room_for = Some(ChunkIndex::from_raw(0));
    cluster.write(&mut a, 0, &pattern(MIB, 1));
    cluster.write(&mut a, CHUNK_SIZE, b"other");
    let outcome = fsync(&mut cluster, 1, &mut a);
    let error = told(&mut a, &mut mark).or(outcome.err()).unwrap();
    assert_eq!(error.errno(), FsError::NoSpace.errno());
    // Sent later, they would take the place of what others have written meanwhile.
    assert!(a.is_clean(), "something is still to be sent");
    let mut b = file();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, CHUNK_SIZE, 5).unwrap(), b"other");
}

#[test]
fn a_write_to_a_chunk_whose_only_copy_is_damaged_fails_soon_and_the_file_goes_on() {
    let mut cluster = Cluster::new(1);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    cluster.write(&mut a, 0, &pattern(MIB, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    let chunk = cluster.rows[&ChunkIndex::from_raw(0)].chunk;
    cluster.servers.get_mut(&1).unwrap().copies.get_mut(&chunk).unwrap().damaged = true;
    cluster.write(&mut a, 100, b"more");
    cluster.write(&mut a, CHUNK_SIZE, b"other");
    let begun = cluster.now;
    fsync(&mut cluster, 1, &mut a).unwrap();
    let error = told(&mut a, &mut mark);
    assert!(matches!(error, Some(ClientError::Lost(Loss::Unwritable(_)))), "{error:?}");
    assert!(cluster.now - begun < Duration::from_secs(10), "{:?}", cluster.now - begun);
    assert!(a.is_clean());
    assert!(told(&mut a, &mut mark).is_none());
    assert_eq!(cluster.read(1, &mut a, CHUNK_SIZE, 5).unwrap(), b"other");

    cluster.write(&mut a, 100, b"again");
    let begun = cluster.now;
    fsync(&mut cluster, 1, &mut a).unwrap();
    assert!(matches!(told(&mut a, &mut mark), Some(ClientError::Lost(Loss::Unwritable(_)))));
    assert!(cluster.now - begun < Duration::from_secs(1), "it has waited in vain for another copy already");
}

#[test]
fn a_write_into_the_metadata_and_a_lease_of_the_first_chunk_do_not_wait_for_each_other() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, b"small");
    let mut first = Flush::new(&a, true, cluster.now);
    let Step::Do(inline) = first.next(&mut a, cluster.now) else { panic!("nothing to do") };
    // Until the masters have answered, the file grows, and another thread begins to send it.
    cluster.write(&mut a, 5000, b"more");
    let mut second = Flush::new(&a, true, cluster.now);
    let step = second.next(&mut a, cluster.now);
    assert!(matches!(step, Step::Wait(_)), "the masters refuse one of both: {step:?}");
    let event = cluster.carry_out(1, inline);
    a.happened(event, At { now: cluster.now, asked: 50, told: 51 }).unwrap();
    cluster.run(1, &mut a, second).unwrap();
    cluster.run(1, &mut a, first).unwrap();
    let mut b = file();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, 0, 5).unwrap(), b"small");
    assert_eq!(cluster.read(2, &mut b, 5000, 4).unwrap(), b"more");
}

#[test]
fn a_first_server_that_was_silent_for_a_while_keeps_the_copy_that_the_other_has_lost() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    let mut mark = a.begin_told();
    let data = pattern(MIB, 1);
    cluster.write(&mut a, 0, &data);
    close(&mut cluster, 1, &mut a).unwrap();
    cluster.power_cut(2);
    let mut flush = Flush::new(&a, true, cluster.now);
    // Until the client's own time-out is over; then it answers again.
    cluster.servers.get_mut(&1).unwrap().silent = true;
    loop {
        match flush.next(&mut a, cluster.now) {
            Step::Do(action) => {
                let event = cluster.carry_out(1, action);
                cluster.servers.get_mut(&1).unwrap().silent = false;
                a.happened(event, At { now: cluster.now, asked: 50, told: 51 }).unwrap();
            }
            Step::Wait(until) => cluster.now = until.unwrap(),
            Step::Done(result) => break result.unwrap(),
        }
    }
    assert!(told(&mut a, &mut mark).is_none(), "nothing was lost");
    assert_eq!(cluster.rows[&ChunkIndex::from_raw(0)].servers, [1]);
    assert_eq!(cluster.read(1, &mut a, 0, MIB as u64).unwrap(), data);
}

#[test]
fn servers_that_were_only_killed_keep_what_was_closed() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(10_000, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    give_back(&mut cluster, 1, &mut a).unwrap();
    let data = pattern(5000, 2);
    cluster.write(&mut a, 10_000, &data);
    close(&mut cluster, 1, &mut a).unwrap();
    // Killed and started again, one after the other: no byte is gone, but nobody knows that.
    let chunk = cluster.rows[&ChunkIndex::from_raw(0)].chunk;
    for server in cluster.servers.values_mut() {
        server.copies.get_mut(&chunk).unwrap().interrupted = true;
    }
    drop(fsync(&mut cluster, 1, &mut a));
    give_back(&mut cluster, 1, &mut a).unwrap();
    let mut b = file();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, 10_000, 5000).unwrap(), data);
}

#[test]
fn who_writes_through_a_handle_from_before_a_truncation_elsewhere_sees_the_new_length_at_the_next_open() {
    let mut cluster = Cluster::new(2);
    let (mut a, mut b) = (file(), file());
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(68_000, 1));
    close(&mut cluster, 1, &mut a).unwrap();
    cluster.open(&mut b);
    resize(&mut cluster, 1, &mut a, 6000);
    cluster.write(&mut b, 2000, &pattern(20_000, 2));
    cluster.open(&mut b);
    assert_eq!(b.size(), 22_000, "before it is sent");
    let mut send = Flush::only_send(&b, cluster.now);
    loop {
        match send.next(&mut b, cluster.now) {
            Step::Do(action) => {
                cluster.open(&mut b);
                assert_eq!(b.size(), 22_000, "while {action:?} is under way");
                let event = cluster.carry_out(2, action);
                b.happened(event, At { now: cluster.now, asked: 500, told: 501 }).unwrap();
            }
            Step::Wait(until) => cluster.now = until.unwrap(),
            Step::Done(result) => break result.unwrap(),
        }
    }
    cluster.open(&mut b);
    assert_eq!(b.size(), 22_000, "before it is committed");
    close(&mut cluster, 2, &mut b).unwrap();
    assert_eq!((b.size(), cluster.size), (22_000, 22_000));
}

#[test]
fn a_truncation_of_a_small_file_cuts_what_others_have_made_of_it_and_not_what_was_known() {
    let mut cluster = Cluster::new(2);
    let (mut a, mut b) = (file(), file());
    cluster.open(&mut a);
    cluster.write(&mut a, 0, b"old content");
    close(&mut cluster, 1, &mut a).unwrap();
    cluster.open(&mut b);
    assert_eq!(cluster.read(2, &mut b, 0, 11).unwrap(), b"old content");
    cluster.write(&mut a, 0, b"NEW");
    close(&mut cluster, 1, &mut a).unwrap();
    resize(&mut cluster, 2, &mut b, 5);
    assert_eq!(cluster.read(2, &mut b, 0, 11).unwrap(), b"NEW c");
}

#[test]
fn the_answer_to_a_small_write_says_nothing_of_a_file_that_others_have_emptied_since() {
    let mut cluster = Cluster::new(2);
    let (mut a, mut b) = (file(), file());
    cluster.open(&mut a);
    cluster.write(&mut a, 0, b"old");
    close(&mut cluster, 1, &mut a).unwrap();
    cluster.open(&mut a);
    cluster.open(&mut b);
    cluster.write(&mut a, 0, b"new");
    let Step::Do(write) = Flush::only_send(&a, cluster.now).next(&mut a, cluster.now) else {
        panic!("nothing to do")
    };
    let answer = cluster.carry_out(1, write);
    resize(&mut cluster, 2, &mut b, 0);
    cluster.open(&mut a);
    a.happened(answer, At { now: cluster.now, asked: 500, told: 501 }).unwrap();
    resize(&mut cluster, 1, &mut a, 3);
    assert_eq!(cluster.read(1, &mut a, 0, 3).unwrap(), [0; 3]);
}

#[test]
fn an_append_under_a_lease_that_is_held_goes_to_where_others_have_moved_the_end() {
    let mut cluster = Cluster::new(2);
    let (mut a, mut b) = (file(), file());
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(10_000, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    cluster.open(&mut b);
    cluster.write(&mut b, CHUNK_SIZE, b"far behind");
    close(&mut cluster, 2, &mut b).unwrap();
    give_back(&mut cluster, 2, &mut b).unwrap();
    let append = Append::new(&a, Bytes::from_static(b"record"), TimeNs::from_raw(3), cluster.now);
    assert_eq!(cluster.run(1, &mut a, append).unwrap().offset, CHUNK_SIZE + 10);
}

#[test]
fn an_append_waits_for_the_answer_to_a_change_of_ours_before_it_believes_where_the_end_is() {
    let mut cluster = Cluster::new(2);
    let (mut a, mut b) = (file(), file());
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(10_000, 1));
    let mut flush = Flush::new(&a, false, cluster.now);
    let commit = loop {
        match flush.next(&mut a, cluster.now) {
            Step::Do(Action::Commit(job)) => break Action::Commit(job),
            Step::Do(action) => cluster.step(1, &mut a, action).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    cluster.open(&mut b);
    cluster.write(&mut b, CHUNK_SIZE, b"far behind");
    close(&mut cluster, 2, &mut b).unwrap();
    give_back(&mut cluster, 2, &mut b).unwrap();
    let mut append = Append::new(&a, Bytes::from_static(b"record"), TimeNs::from_raw(3), cluster.now);
    let Step::Do(look @ Action::Locate(_)) = append.next(&mut a, cluster.now) else { panic!("no look") };
    cluster.step(1, &mut a, look).unwrap();
    let held = append.next(&mut a, cluster.now);
    assert!(matches!(held, Step::Wait(Some(_))), "{held:?}");
    cluster.step(1, &mut a, commit).unwrap();
    assert_eq!(cluster.run(1, &mut a, append).unwrap().offset, CHUNK_SIZE + 10);
}

#[test]
fn a_lease_that_is_being_asked_for_is_not_given_back_before_anybody_has_used_it() {
    let mut cluster = Cluster::new(2);
    let (mut a, chunk) = (file(), ChunkIndex::from_raw(0));
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(10_000, 1));
    close(&mut cluster, 1, &mut a).unwrap();
    give_back(&mut cluster, 1, &mut a).unwrap();
    let mut append = Append::new(&a, Bytes::from_static(b"record"), TimeNs::from_raw(3), cluster.now);
    let Step::Do(grant @ Action::Grant(..)) = append.next(&mut a, cluster.now) else { panic!("no grant") };
    // Another client wants the lease that was given back a moment ago, or the one that is on its way.
    assert!(GiveBack::recalled(&mut a, chunk, cluster.now).is_none());
    cluster.step(1, &mut a, grant).unwrap();
    assert_eq!(cluster.run(1, &mut a, append).unwrap().offset, 10_000);
    let recalled = GiveBack::recalled(&mut a, chunk, cluster.now).unwrap();
    cluster.run(1, &mut a, recalled).unwrap();
    assert!(a.has_no_lease(chunk) && a.is_clean());
    assert_eq!(cluster.size, 10_006);
}

#[test]
fn a_lease_that_is_idle_is_given_back_while_another_one_is_waited_for() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, CHUNK_SIZE, &pattern(10_000, 1));
    close(&mut cluster, 1, &mut a).unwrap();
    cluster.write(&mut a, 0, &pattern(10_000, 2));
    let mut flush = Flush::new(&a, true, cluster.now);
    let Step::Do(grant @ Action::Grant(..)) = flush.next(&mut a, cluster.now) else { panic!("no grant") };
    // The client that holds it may wait for the one that is held here.
    give_back(&mut cluster, 1, &mut a).unwrap();
    assert!(a.has_no_lease(ChunkIndex::from_raw(1)));
    cluster.step(1, &mut a, grant).unwrap();
    cluster.run(1, &mut a, flush).unwrap();
    assert_eq!(cluster.read(1, &mut a, 0, 10_000).unwrap(), pattern(10_000, 2));
}

#[test]
fn a_lease_that_is_finished_is_given_back_before_another_one_is_synced() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    for offset in [0, CHUNK_SIZE] {
        cluster.write(&mut a, offset, &pattern(10_000, 1));
    }
    fsync(&mut cluster, 1, &mut a).unwrap();
    cluster.write(&mut a, 0, b"on no disk yet");
    close(&mut cluster, 1, &mut a).unwrap();
    let mut all = GiveBack::new(&mut a, None, cluster.now);
    let first = all.next(&mut a, cluster.now);
    let Step::Do(release @ Action::ReleaseLeases(_)) = first else { panic!("{first:?}") };
    cluster.step(1, &mut a, release).unwrap();
    assert!(a.has_no_lease(ChunkIndex::from_raw(1)) && !a.has_no_lease(ChunkIndex::from_raw(0)));
    cluster.run(1, &mut a, all).unwrap();
    assert!(a.has_no_lease(ChunkIndex::from_raw(0)));
    cluster.power_cut(1);
    cluster.power_cut(2);
    assert_eq!(cluster.read(2, &mut a, 0, 14).unwrap(), b"on no disk yet");
}

#[test]
fn a_lease_that_only_the_masters_know_of_is_given_back_and_not_asked_for_meanwhile() {
    let mut cluster = Cluster::new(2);
    let (mut a, chunk) = (file(), ChunkIndex::from_raw(0));
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(10_000, 1));
    let mut recalled = GiveBack::recalled(&mut a, chunk, cluster.now).unwrap();
    let Step::Do(release @ Action::ReleaseLeases(_)) = recalled.next(&mut a, cluster.now) else {
        panic!("the masters are not told, or are asked for another one first");
    };
    // A grant that passed the release would be undone by it.
    let mut flush = Flush::new(&a, true, cluster.now);
    let step = flush.next(&mut a, cluster.now);
    assert!(matches!(step, Step::Wait(_)), "{step:?}");
    cluster.step(1, &mut a, release).unwrap();
    cluster.run(1, &mut a, flush).unwrap();
    cluster.run(1, &mut a, recalled).unwrap();
    assert!(!a.has_no_lease(chunk), "the lease that came after is another one");
}

#[test]
fn a_lease_that_only_the_masters_know_of_is_given_back_while_a_small_write_waits_for_it() {
    let mut cluster = Cluster::new(2);
    let (mut before, index) = (file(), ChunkIndex::from_raw(0));
    cluster.open(&mut before);
    cluster.write(&mut before, 0, &pattern(10_000, 1));
    let mut flush = Flush::new(&before, true, cluster.now);
    let Step::Do(grant @ Action::Grant(..)) = flush.next(&mut before, cluster.now) else {
        panic!("no grant")
    };
    cluster.step(1, &mut before, grant).unwrap();
    // Nothing was ever sent under the lease, and this client has forgotten the file with it.
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, b"small");
    let mut flush = Flush::new(&a, true, cluster.now);
    let Step::Do(inline @ Action::WriteInline(_)) = flush.next(&mut a, cluster.now) else {
        panic!("no write")
    };
    // The masters refuse it, ask for the lease, and are asked again.
    let recalled = GiveBack::recalled(&mut a, index, cluster.now).unwrap();
    cluster.run(1, &mut a, recalled).unwrap();
    cluster.step(1, &mut a, inline).unwrap();
    cluster.run(1, &mut a, flush).unwrap();
    assert_eq!(cluster.read(2, &mut a, 0, 5).unwrap(), b"small");
}

#[test]
fn an_append_to_a_chunk_whose_only_copy_is_damaged_fails_soon_though_another_client_wants_the_lease_too() {
    let mut cluster = Cluster::new(1);
    let (mut a, index) = (file(), ChunkIndex::from_raw(0));
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(10_000, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    give_back(&mut cluster, 1, &mut a).unwrap();
    let chunk = cluster.rows[&index].chunk;
    cluster.servers.get_mut(&1).unwrap().copies.get_mut(&chunk).unwrap().damaged = true;
    let mut append = Append::new(&a, Bytes::from_static(b"record"), TimeNs::from_raw(3), cluster.now);
    let begun = cluster.now;
    let error = loop {
        match append.next(&mut a, cluster.now) {
            Step::Done(result) => break result.unwrap_err(),
            Step::Do(action) => cluster.step(1, &mut a, action).unwrap(),
            Step::Wait(until) => {
                for _ in 0..2 {
                    let recalled = GiveBack::recalled(&mut a, index, cluster.now).unwrap();
                    cluster.run(1, &mut a, recalled).unwrap();
                    // The second one meets a lease that has not been asked for yet.
                    assert!(matches!(append.next(&mut a, cluster.now), Step::Wait(_)));
                }
                cluster.now = until.unwrap().max(cluster.now);
            }
        }
        assert!(cluster.now - begun < Duration::from_secs(10), "{:?}", cluster.now - begun);
    };
    assert!(matches!(error, ClientError::Lost(Loss::Unwritable(_))), "{error}");
}

#[test]
fn a_hole_that_was_looked_up_before_it_was_written_is_no_hole_when_the_lease_is_over() {
    let mut cluster = Cluster::new(1);
    let (mut a, index) = (file(), ChunkIndex::from_raw(0));
    cluster.open(&mut a);
    resize(&mut cluster, 1, &mut a, 20_000);
    assert_eq!(cluster.read(1, &mut a, 0, 4).unwrap(), [0; 4], "a hole");
    cluster.write(&mut a, 0, &pattern(10_000, 1));
    fsync(&mut cluster, 1, &mut a).unwrap();
    let chunk = cluster.rows[&index].chunk;
    cluster.servers.get_mut(&1).unwrap().copies.get_mut(&chunk).unwrap().damaged = true;
    // The lease ends because the only copy takes nothing any more.
    cluster.write(&mut a, 0, b"more");
    drop(fsync(&mut cluster, 1, &mut a));
    assert_eq!(cluster.read(1, &mut a, 0, 4).unwrap(), pattern(4, 1));
}

#[test]
fn a_step_that_only_waits_is_no_news_to_others_who_wait() {
    let mut cluster = Cluster::new(2);
    let mut a = file();
    cluster.open(&mut a);
    cluster.write(&mut a, 0, &pattern(10_000, 1));
    let mut first = Flush::new(&a, true, cluster.now);
    let Step::Do(grant) = first.next(&mut a, cluster.now) else { panic!("nothing to do") };
    a.take_news();
    let mut second = Flush::new(&a, true, cluster.now);
    assert!(matches!(second.next(&mut a, cluster.now), Step::Wait(_)));
    assert!(!a.take_news(), "those who wait would wake each other for ever");
    cluster.step(1, &mut a, grant).unwrap();
    assert!(a.take_news());
    cluster.run(1, &mut a, first).unwrap();
    cluster.run(1, &mut a, second).unwrap();
}
