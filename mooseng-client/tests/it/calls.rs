//! Calls to the masters: retries, failover, sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mooseng_client::Client;
use mooseng_protocol::door::Requests;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_types::{FsError, InodeId};

use crate::fake::{Fault, World, key};
use crate::{client, config, create, file_node, name, pattern, read_all};

#[test]
fn a_request_whose_answer_is_lost_is_sent_again_under_its_number_and_done_once() {
    let world = World::new(0);
    let client = client(&world);
    world.fault("CreateRequest", Fault::DoAndReset);
    let (attr, _file) = create(&client, "once");
    let metas = world.state().metas.clone();
    let seqs: Vec<_> = metas.iter().filter(|(of, _)| *of == "CreateRequest").map(|(_, m)| m.seq).collect();
    assert_eq!(seqs.len(), 2);
    assert_eq!(seqs[0], seqs[1]);
    assert_eq!(client.lookup(InodeId::ROOT, &name("once")).unwrap().inode, attr.inode);
}

#[test]
fn a_client_follows_the_leader_and_keeps_the_number() {
    let world = World::new(0);
    let (old, new) = (world.master(), world.master());
    let client = Client::connect(config(vec![old, new.clone()]), key()).unwrap();
    world.fault("CreateRequest", Fault::NotLeader(new));
    world.fault("CreateRequest", Fault::Unavailable);
    create(&client, "followed");
    let metas = world.state().metas.clone();
    assert_eq!(metas.len(), 1, "refused before it was numbered, then done once: {metas:?}");
    assert!(client.lookup(InodeId::ROOT, &name("followed")).is_ok());
}

#[test]
fn a_frozen_leader_costs_no_time_out_once_another_has_announced_itself() {
    let world = World::new(0);
    let (old, new) = (world.master(), world.master());
    let client = Client::connect(config(vec![old, new.clone()]), key()).unwrap();
    world.fault("CreateRequest", Fault::Hang);
    let done = Arc::new(AtomicBool::new(false));
    let announcing = std::thread::spawn({
        let (world, done) = (Arc::clone(&world), Arc::clone(&done));
        move || {
            // The control connections may still be on their way.
            while !done.load(Ordering::Relaxed) {
                world.push(&pb::LeaderChanged { leader_address: new.clone() });
                std::thread::yield_now();
            }
        }
    });
    let start = std::time::Instant::now();
    create(&client, "thawed");
    done.store(true, Ordering::Relaxed);
    announcing.join().unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn any_master_that_answers_is_enough_to_begin() {
    let world = World::new(0);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    Client::connect(config(vec![nobody, world.master()]), key()).unwrap();
}

#[test]
fn acknowledgements_follow_the_answers() {
    let world = World::new(0);
    let client = client(&world);
    for i in 0..3 {
        create(&client, &format!("f{i}"));
    }
    let state = world.state();
    for (_, meta) in &state.metas {
        assert_eq!(meta.acked_below, meta.seq);
    }
}

#[test]
fn a_lease_held_by_another_client_is_waited_for_and_a_refusal_is_final() {
    let world = World::new(0);
    let client = client(&world);
    world.fault("CreateRequest", Fault::Refuse(FsError::LeaseHeld));
    create(&client, "a");
    let again = client.create(InodeId::ROOT, &name("a"), &file_node(), true).unwrap_err();
    assert!(again.is(FsError::Exists));
    assert!(client.create(InodeId::ROOT, &name("a"), &file_node(), false).is_ok());
}

#[test]
fn an_expired_session_is_replaced_and_the_request_done_under_the_new_one() {
    let world = World::new(0);
    let client = client(&world);
    create(&client, "before");
    let session = world.state().metas[0].1.session;
    world.state().expired.insert(session);
    create(&client, "after");
    let last = world.state().metas.last().unwrap().1;
    assert_ne!(last.session, session);
    assert_eq!(last.seq, 1);
}

#[test]
fn masters_that_never_answer_make_an_input_output_error_at_the_limit() {
    let world = World::new(0);
    let client =
        Client::connect(mooseng_client::ClientConfig { retry_ms: 50, ..config(vec![world.master()]) }, key())
            .unwrap();
    for _ in 0..1000 {
        world.fault("GetAttrRequest", Fault::Unavailable);
    }
    assert_eq!(client.getattr(InodeId::ROOT).unwrap_err().errno(), 5);
}

#[test]
fn closing_the_client_saves_what_was_written_and_ends_the_session() {
    let world = World::new(2);
    let client = client(&world);
    let (attr, file) = create(&client, "saved");
    client.write(&file, 0, b"content").unwrap();
    client.close().unwrap();
    assert_eq!(world.state().nodes[&attr.inode.raw()].inline.as_deref(), Some(&b"content"[..]));
    assert!(world.take_log().contains(&"CloseSessionRequest"));
    assert_eq!(Arc::strong_count(&client), 1);
}

/// Requests of a kind so far: sent, refused, failed, lost, not answered yet.
fn passed<R: Rpc>(client: &Client) -> [u64; 5] {
    let door = client.requests();
    let counts = |row: &Requests| [row.requests, row.refused, row.failed, row.lost, row.under_way()];
    door.of(R::KIND).map_or([0; 5], counts)
}

#[test]
fn each_request_that_goes_out_is_counted_once_with_what_came_back() {
    let world = World::new(2);
    let client = client(&world);
    let (attr, file) = create(&client, "f");
    assert_eq!(passed::<pb::CreateRequest>(&client), [1, 0, 0, 0, 0]);
    world.fault("CreateRequest", Fault::Unavailable);
    create(&client, "tried again");
    world.fault("CreateRequest", Fault::DoAndReset);
    create(&client, "lost once");
    assert_eq!(passed::<pb::CreateRequest>(&client), [5, 0, 1, 1, 0]);
    assert!(client.lookup(InodeId::ROOT, &name("none")).is_err());
    assert_eq!(passed::<pb::LookupRequest>(&client), [1, 1, 0, 0, 0]);

    let bytes = pattern(200_000, 1);
    client.write(&file, 0, &bytes).unwrap();
    client.flush(&file).unwrap();
    client.release(&file);
    assert_eq!(read_all(&client, attr.inode), bytes);
    let asked = |name: &str| world.state().log.iter().filter(|asked| **asked == name).count() as u64;
    for (name, passed) in [
        ("WriteChunkRequest", passed::<pb::WriteChunkRequest>(&client)),
        ("ReadChunkRequest", passed::<pb::ReadChunkRequest>(&client)),
    ] {
        assert!(passed[0] > 0 && passed[1..] == [0; 4], "{name}: {passed:?}");
        assert!(passed[0] >= asked(name), "{name}");
    }
    client.close().unwrap();
    assert_eq!(passed::<pb::CloseSessionRequest>(&client), [1, 0, 0, 0, 0]);
}
