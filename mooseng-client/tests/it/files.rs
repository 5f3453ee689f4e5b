//! File content: small files, chunks, broken chains, damaged copies, errors in the background.

use std::sync::Arc;

use mooseng_client::{Client, ClientConfig, OpenFile};
use mooseng_protocol::pb;
use mooseng_protocol::recall::{Recall, Recalled};
use mooseng_types::{CHUNK_SIZE, ChunkIndex, FsError, InodeId, SessionId, SetAttr};

use crate::fake::{Fault, World};
use crate::{client, create, pattern, read_all};

const MIB: usize = 1 << 20;

#[test]
fn a_small_file_costs_two_requests_to_write_and_one_to_read() {
    let world = World::new(2);
    let writer = client(&world);
    let data = pattern(4096, 1);
    let (attr, file) = create(&writer, "small");
    writer.write(&file, 0, &data).unwrap();
    writer.flush(&file).unwrap();
    assert_eq!(world.take_log(), ["CreateRequest", "WriteInlineRequest"]);
    writer.fsync(&file).unwrap();
    assert!(world.take_log().is_empty(), "what is durable already needs no request");
    writer.release(&file);
    writer.close().unwrap();
    assert_eq!(world.take_log(), ["CloseSessionRequest"], "an end of session closes everything");
    let reader = client(&world);
    let file = reader.open(attr.inode).unwrap();
    assert_eq!(reader.read(&file, 0, 8192).unwrap(), data);
    assert_eq!(world.take_log(), ["OpenRequest"]);
}

#[test]
fn a_large_file_is_written_synced_and_committed_and_reads_back_elsewhere() {
    let world = World::new(3);
    let writer = client(&world);
    let data = pattern(5 * MIB + 777, 2);
    let (attr, file) = create(&writer, "large");
    for (i, part) in data.chunks(100_000).enumerate() {
        writer.write(&file, i as u64 * 100_000, part).unwrap();
    }
    writer.fsync(&file).unwrap();
    let log = world.take_log();
    let count = |of: &str| log.iter().filter(|name| **name == of).count();
    assert_eq!(count("GrantWriteRequest"), 1, "{log:?}");
    assert_eq!(count("WriteChunkRequest"), 6, "{log:?}");
    assert_eq!((count("SyncChunkRequest"), count("CommitWriteRequest")), (1, 1), "{log:?}");
    assert!(world.state().servers.values().all(|server| server.synced.len() == 1));
    assert_eq!(writer.getattr(attr.inode).unwrap().size, data.len() as u64);
    assert!(read_all(&client(&world), attr.inode) == data);
    assert!(read_all(&writer, attr.inode) == data);
}

#[test]
fn a_write_over_a_chunk_border_with_a_hole_before_it_reads_back() {
    let world = World::new(2);
    let writer = client(&world);
    let data = pattern(2 * MIB, 3);
    let at = CHUNK_SIZE - MIB as u64;
    let (attr, file) = create(&writer, "border");
    writer.write(&file, at, &data).unwrap();
    // Part of it from the buffer, part from the servers, zeros before.
    assert!(writer.read(&file, at - 10, 1_000_000).unwrap()[10..] == data[..999_990]);
    writer.flush(&file).unwrap();
    let reader = client(&world);
    let file = reader.open(attr.inode).unwrap();
    assert!(reader.read(&file, at, 2 << 20).unwrap() == data);
    assert!(reader.read(&file, 5000, MIB as u64).unwrap().iter().all(|byte| *byte == 0));
    assert!(reader.read(&file, at + 2 * MIB as u64, 10).unwrap().is_empty());
}

#[test]
fn a_broken_chain_goes_on_with_the_survivors_and_loses_nothing() {
    let world = World::new(3);
    let writer = client(&world);
    let (attr, file) = create(&writer, "chain");
    let data = pattern(4 * MIB, 4);
    writer.write(&file, 0, &data[..MIB]).unwrap();
    writer.flush(&file).unwrap();
    world.state().servers.get_mut(&2).unwrap().broken = true;
    writer.write(&file, MIB as u64, &data[MIB..]).unwrap();
    writer.fsync(&file).unwrap();
    assert_eq!(world.state().granted.last().unwrap(), &[2]);
    assert!(!world.take_log().contains(&"TruncateChunkRequest"), "confirmed bytes were cut off");
    assert!(read_all(&client(&world), attr.inode) == data);
}

#[test]
fn a_chain_that_breaks_at_the_sync_is_mended_before_fsync_returns() {
    let world = World::new(2);
    let writer = client(&world);
    let (attr, file) = create(&writer, "sync");
    let data = pattern(MIB, 5);
    writer.write(&file, 0, &data).unwrap();
    writer.flush(&file).unwrap();
    world.state().servers.get_mut(&1).unwrap().broken = true;
    writer.fsync(&file).unwrap();
    assert_eq!(world.state().servers[&2].synced.len(), 1);
    assert!(read_all(&client(&world), attr.inode) == data);
}

#[test]
fn a_damaged_copy_is_never_returned_while_another_is_whole() {
    let world = World::new(2);
    let writer = client(&world);
    let (attr, file) = create(&writer, "damaged");
    let data = pattern(2 * MIB, 6);
    writer.write(&file, 0, &data).unwrap();
    writer.fsync(&file).unwrap();
    for damaged in [1, 2] {
        for (id, server) in &mut world.state().servers {
            server.damaged = *id == damaged;
        }
        assert!(read_all(&client(&world), attr.inode) == data, "with server {damaged} damaged");
    }
}

#[test]
fn a_full_cluster_is_told_at_fsync_once_to_each_open_file() {
    let world = World::new(2);
    let writer = client(&world);
    let (attr, file) = create(&writer, "full");
    let other = writer.open(attr.inode).unwrap();
    for server in world.state().servers.values_mut() {
        server.full = true;
    }
    writer.write(&file, 0, &pattern(100_000, 7)).unwrap();
    assert_eq!(writer.fsync(&file).unwrap_err().errno(), FsError::NoSpace.errno());
    assert!(writer.fsync(&file).is_ok());
    assert_eq!(writer.flush(&other).unwrap_err().errno(), FsError::NoSpace.errno());
    assert!(writer.flush(&other).is_ok());
}

#[test]
fn a_small_file_that_grows_takes_its_content_along() {
    let world = World::new(2);
    let writer = client(&world);
    let (attr, file) = create(&writer, "grows");
    let data = pattern(10_000, 8);
    writer.write(&file, 0, &data[..3000]).unwrap();
    writer.flush(&file).unwrap();
    writer.write(&file, 3000, &data[3000..]).unwrap();
    writer.flush(&file).unwrap();
    assert!(world.state().nodes[&attr.inode.raw()].inline.is_none());
    assert!(read_all(&client(&world), attr.inode) == data);
}

#[test]
fn a_truncate_gives_the_leases_back_first_and_what_it_cut_stays_zero() {
    let world = World::new(2);
    let writer = client(&world);
    let (attr, file) = create(&writer, "cut");
    writer.write(&file, 0, &pattern(2 * MIB, 9)).unwrap();
    writer.flush(&file).unwrap();
    let cut = |size| writer.setattr(attr.inode, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
    assert_eq!(cut(1000).size, 1000);
    assert_eq!(cut(5000).size, 5000);
    writer.write(&file, 9000, b"end").unwrap();
    writer.fsync(&file).unwrap();
    let mut expected = pattern(2 * MIB, 9);
    expected.truncate(1000);
    expected.resize(9000, 0);
    expected.extend_from_slice(b"end");
    assert!(read_all(&client(&world), attr.inode) == expected);
    assert!(read_all(&writer, attr.inode) == expected);
}

/// A client that holds the lease of a file's first chunk, and another one that has written there and cannot send it.
fn held_by_another(world: &Arc<World>) -> (Arc<Client>, Arc<Client>, Arc<OpenFile>) {
    let first = client(world);
    let (attr, file) = create(&first, "shared");
    first.write(&file, 0, &pattern(MIB, 10)).unwrap();
    first.flush(&file).unwrap();
    let second = client(world);
    let other = second.open(attr.inode).unwrap();
    second.write(&other, 10, &[7; 100_000]).unwrap();
    (first, second, other)
}

fn holder(world: &World, inode: InodeId) -> Option<u64> {
    world.state().nodes[&inode.raw()].chunks[&0].lease
}

/// Recalls the lease of a file's first chunk until another session has it, or none. Nobody is the wiser for the session.
fn recall_until_given_back(world: &World, inode: InodeId) {
    let first = holder(world, inode);
    let what = Recalled::Chunk { inode, index: ChunkIndex::from_raw(0) };
    let recall = Recall { session: SessionId::from_raw(first.unwrap()), number: 1, what };
    while holder(world, inode) == first {
        world.push(&pb::Recall::from(recall));
        std::thread::yield_now();
    }
}

#[test]
fn a_recall_does_not_wait_behind_what_the_masters_leave_unanswered() {
    let world = World::new(2);
    let config = ClientConfig { retry_ms: 60_000, ..crate::config(vec![world.master()]) };
    let holder = Client::connect(config, crate::fake::key()).unwrap();
    let (_, closed) = create(&holder, "closed");
    let (attr, file) = create(&holder, "shared");
    holder.write(&file, 0, &pattern(MIB, 10)).unwrap();
    holder.flush(&file).unwrap();
    // The thread that keeps the session alive tells what is closed, and waits for a master that does not answer.
    (0..100).for_each(|_| world.fault("ReleaseRequest", Fault::Hang));
    holder.release(&closed);
    let told = || world.state().log.iter().filter(|name| **name == "ReleaseRequest").count();
    while told() == 0 {
        std::thread::yield_now();
    }
    recall_until_given_back(&world, attr.inode);
    assert_eq!(told(), 1, "that thread still waits for the first answer");
}

#[test]
fn a_recalled_lease_is_given_back_with_what_was_written_under_it() {
    let world = World::new(2);
    let (_first, second, other) = held_by_another(&world);
    // The control connection of the first client may still be on its way: the masters repeat themselves.
    let recalling = std::thread::spawn({
        let (world, inode) = (Arc::clone(&world), other.inode());
        move || recall_until_given_back(&world, inode)
    });
    second.fsync(&other).unwrap();
    recalling.join().unwrap();
    assert!(world.state().log.contains(&"AcknowledgeRecallRequest"));
    let mut expected = pattern(MIB, 10);
    expected[10..100_010].fill(7);
    assert!(read_all(&client(&world), other.inode()) == expected);
}

/// How often these threads (as `/proc/thread-self` names them) have given up the processor to wait.
fn waits_of(threads: &[std::path::PathBuf]) -> u64 {
    let waits = |thread: &std::path::PathBuf| {
        let status =
            std::fs::read_to_string(std::path::Path::new("/proc").join(thread).join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap()
    };
    threads.iter().map(waits).sum()
}

#[test]
fn threads_that_wait_for_the_same_file_do_not_keep_each_other_awake() {
    let world = World::new(2);
    let (_first, second, other) = held_by_another(&world);
    let asked = || world.state().log.iter().filter(|name| **name == "GrantWriteRequest").count();
    std::thread::scope(|scope| {
        // One asks for the lease again and again; the others wait for what comes of it.
        let (say, said) = std::sync::mpsc::sync_channel(4);
        for _ in 0..4 {
            let say = say.clone();
            let (second, other) = (&second, &other);
            scope.spawn(move || {
                say.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
                second.fsync(other).unwrap();
            });
        }
        let threads: Vec<_> = said.iter().take(4).collect();
        let begun = (asked(), waits_of(&threads));
        while asked() < begun.0 + 50 {
            std::thread::yield_now();
        }
        let waits = waits_of(&threads) - begun.1;
        world.state().nodes.get_mut(&other.inode().raw()).unwrap().chunks.get_mut(&0).unwrap().lease = None;
        assert!(waits < 5000, "{waits} waits while a lease was asked for 50 times");
    });
}

#[test]
fn data_written_under_a_lost_lease_is_reported_lost_and_the_file_goes_on() {
    let world = World::new(2);
    let writer = client(&world);
    let (_, file) = create(&writer, "lost");
    writer.write(&file, 0, &pattern(2 * MIB, 11)).unwrap();
    world.fault("CommitWriteRequest", Fault::Refuse(FsError::LeaseLost));
    assert!(writer.flush(&file).is_err());
    writer.write(&file, 0, b"again").unwrap();
    writer.fsync(&file).unwrap();
}

#[test]
fn a_session_that_expires_with_uncommitted_data_is_told_and_the_next_write_works() {
    let world = World::new(2);
    let writer = client(&world);
    let (attr, file) = create(&writer, "expired");
    let data = pattern(MIB, 13);
    writer.write(&file, 0, &data).unwrap();
    let session = world.state().metas[0].1.session;
    // The piece is on the servers before the session ends.
    while world.state().nodes[&attr.inode.raw()].chunks.is_empty()
        || world.state().servers[&2].copies.is_empty()
    {
        std::thread::yield_now();
    }
    world.state().expired.insert(session);
    world.state().nodes.get_mut(&attr.inode.raw()).unwrap().chunks.clear();
    assert!(writer.fsync(&file).is_err());
    writer.write(&file, 0, &data).unwrap();
    writer.fsync(&file).unwrap();
    assert!(read_all(&client(&world), attr.inode) == data);
}

#[test]
fn writers_wait_for_room_and_all_is_written() {
    let world = World::new(1);
    let masters = vec![world.master()];
    let config = ClientConfig { write_buffer_bytes: 4 << 20, ..crate::config(masters) };
    let writer = Client::connect(config, crate::fake::key()).unwrap();
    let data = pattern(20 * MIB, 12);
    let (attr, file) = create(&writer, "pressure");
    for (i, part) in data.chunks(300_000).enumerate() {
        writer.write(&file, i as u64 * 300_000, part).unwrap();
    }
    writer.flush(&file).unwrap();
    assert!(read_all(&client(&world), attr.inode) == data);
}
