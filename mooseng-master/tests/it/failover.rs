//! What a client sees when masters go away.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use mooseng_protocol::pb;
use mooseng_protocol::principal::Role;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::{FrameStream, Mux};
use mooseng_types::{FileKind, FsError};

use crate::world::{Client, World, caller, hello, saying};

pub(crate) fn open_session(client: &mut Client, id: u8) -> u64 {
    client.become_client(id);
    let request = pb::OpenSessionRequest {
        client_id: vec![id; 16].into(),
        name: "test".into(),
        replaces: false,
        cell: 0,
    };
    client.call(&request).unwrap().session
}

fn meta(session: u64, seq: u64) -> Option<pb::RequestMeta> {
    Some(pb::RequestMeta { session, seq, acked_below: 1 })
}

pub(crate) fn mkdir(session: u64, seq: u64, name: &str) -> pb::CreateRequest {
    pb::CreateRequest {
        meta: meta(session, seq),
        parent: 1,
        name: name.as_bytes().to_vec().into(),
        kind: FileKind::Directory.raw().into(),
        mode: 0o755,
        ..Default::default()
    }
}

pub(crate) fn names(client: &mut Client) -> Vec<String> {
    let request = pb::ReaddirRequest { inode: 1, entries_max: 1000, ..Default::default() };
    let reply = client.call(&request).unwrap();
    assert!(reply.end);
    let mut names: Vec<_> =
        reply.entries.iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_lone_master_keeps_everything_over_a_restart() {
    let mut world = World::new(1);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    client.call(&mkdir(session, 1, "a")).unwrap();
    world.stop(1);
    world.start(1);
    let mut client = world.client();
    assert_eq!(names(&mut client), ["a"]);
    let refused = client.call(&mkdir(session, 2, "a")).unwrap_err();
    assert!(matches!(refused, CallError::Refused(FsError::Exists)), "{refused}");
}

#[test]
fn a_request_sent_again_to_the_next_leader_is_done_once() {
    let mut world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    for seq in 1..=50 {
        client.call(&mkdir(session, seq, &format!("d{seq}"))).unwrap();
    }
    let first = client.call(&mkdir(session, 51, "again")).unwrap();
    let leader = client.leader();
    world.stop(leader);
    let second = client.call(&mkdir(session, 51, "again")).unwrap();
    assert_eq!(first, second, "the answer is the stored one, not EEXIST");
    assert_ne!(client.leader(), leader);
    assert_eq!(names(&mut client).len(), 51);
    // The old leader comes back and catches up; then another one goes, so that it is needed for a majority.
    world.start(leader);
    let next = client.leader();
    world.stop(next);
    client.call(&mkdir(session, 52, "later")).unwrap();
    assert_eq!(names(&mut client).len(), 52);
    let check = client.call(&pb::CheckRequest {}).unwrap();
    assert_eq!(check.violations, [""; 0]);
}

#[test]
fn without_a_majority_nothing_is_acknowledged() {
    let mut world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    let leader = client.leader();
    for id in (1..=3).filter(|id| *id != leader) {
        world.stop(id);
    }
    let second = Duration::from_secs(1);
    let (mut stream, _) =
        FrameStream::connect(&world.address(leader), &caller(Role::Client), second).unwrap();
    let error = stream.call(&mkdir(session, 1, "lost?"), &[], second).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    for id in (1..=3).filter(|id| *id != leader) {
        world.start(id);
    }
    client.call(&mkdir(session, 1, "lost?")).unwrap();
    assert_eq!(names(&mut client), ["lost?"]);
}

#[test]
fn another_clusters_client_is_turned_away() {
    let world = World::new(1);
    let foreign = saying(pb::Hello { cluster_id: vec![9; 16].into(), ..hello(Role::Client) });
    let error = FrameStream::connect(&world.address(1), &foreign, Duration::from_secs(5)).unwrap_err();
    assert!(error.to_string().contains("another cluster"), "{error}");
}

#[test]
fn a_listening_session_hears_of_the_new_leader() {
    let mut world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    let leader = client.leader();
    let (heard, news) = sync_channel(16);
    let second = Duration::from_secs(1);
    let listen = |id: u64| {
        let heard = heard.clone();
        let listener = saying(pb::Hello { node_id: session, ..hello(Role::Client) });
        let on_push = move |kind, body| drop(heard.try_send((id, kind, body)));
        Mux::connect(&world.address(id), &listener, second, on_push).unwrap().0
    };
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let connections: Vec<_> = others.iter().map(|id| listen(*id)).collect();
    world.stop(leader);
    let (from, kind, body) = news.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(kind, pb::LeaderChanged::KIND);
    let told = <pb::LeaderChanged as prost::Message>::decode(body).unwrap();
    assert_eq!(told.leader_address, world.address(from));
    drop(connections);
}

#[test]
fn a_mount_that_is_back_ends_the_session_it_left_behind() {
    let world = World::new(1);
    let mut client = world.client();
    let open = |id: u8, replaces| pb::OpenSessionRequest {
        client_id: vec![id; 16].into(),
        name: "host:/mnt".into(),
        replaces,
        cell: 0,
    };
    let first = client.call(&open(1, true)).unwrap().session;
    client.call(&mkdir(first, 1, "a")).unwrap();
    // The connection of the first session goes as with the process.
    client = world.client();
    client.become_client(2);
    let stranger = client.call(&open(2, false)).unwrap().session;
    client.become_client(1);
    client.call(&mkdir(first, 2, "b")).unwrap();
    client = world.client();
    client.become_client(3);
    client.call(&open(3, true)).unwrap();
    // A live mount of the same name would have time to say so.
    client.wait_for("they end", |status| status.sessions == 1);
    for (session, seq) in [(first, 3), (stranger, 1)] {
        let error = client.call(&mkdir(session, seq, "c")).unwrap_err();
        assert!(matches!(error, CallError::Refused(FsError::SessionExpired)), "{error}");
    }
}

#[test]
fn open_unlinked_files_and_write_leases_outlive_the_leader() {
    let mut world = World::new(3);
    let (mut client, mut other_client) = (world.client(), world.client());
    let server = pb::RegisterServerRequest {
        uuid: vec![1; 16].into(),
        name: "s".into(),
        address: "127.0.0.1:1".into(),
        disks: vec![pb::DiskStatus { total_bytes: 1 << 40, free_bytes: 1 << 40, ..Default::default() }],
        ..Default::default()
    };
    let server_id = client.call(&server).unwrap().server;
    let (writer, other) = (open_session(&mut client, 1), open_session(&mut other_client, 2));
    let file =
        |seq, name: &str| pb::CreateRequest { kind: FileKind::File.raw().into(), ..mkdir(writer, seq, name) };
    let create = pb::CreateRequest { open: true, open_number: 1, ..file(1, "unlinked") };
    let unlinked = client.call(&create).unwrap().attr.unwrap().inode;
    let written = client.call(&file(2, "written")).unwrap().attr.unwrap().inode;
    let unlink = pb::UnlinkRequest { meta: meta(writer, 3), parent: 1, name: "unlinked".into() };
    client.call(&unlink).unwrap();
    let lease = |session, seq| pb::GrantWriteRequest {
        meta: meta(session, seq),
        inode: written,
        index: 0,
        ..Default::default()
    };
    client.call(&lease(writer, 4)).unwrap();
    let leader = client.leader();
    world.stop(leader);
    let resume = |session, open_inodes| pb::ResumeSessionRequest {
        session,
        open_inodes,
        list_follows: true,
        as_of: 9,
    };
    client.call(&resume(writer, vec![unlinked, written])).unwrap();
    other_client.call(&resume(other, vec![])).unwrap();
    let heartbeat =
        pb::HeartbeatRequest { server: server_id, disks: server.disks, address: server.address, door: None };
    client.call(&heartbeat).unwrap();
    // With every session heard, what nobody has open is reaped: a round of it passes before this is answered.
    client.call(&mkdir(writer, 5, "later")).unwrap();
    client.wait_for("the leader looks after what is unlinked", |status| status.orphans == 1);
    client.call(&pb::GetAttrRequest { inode: unlinked }).unwrap();
    let held = other_client.call(&lease(other, 1)).unwrap_err();
    assert!(matches!(held, CallError::Refused(FsError::LeaseHeld)), "{held}");
    client.call(&pb::ReleaseRequest { session: writer, inodes: vec![unlinked], number: 10 }).unwrap();
    client.wait_for("the file is gone", |status| status.orphans == 0);
    let gone = client.call(&pb::GetAttrRequest { inode: unlinked }).unwrap_err();
    assert!(matches!(gone, CallError::Refused(FsError::NotFound)), "{gone}");
}

#[test]
fn a_request_above_a_turns_share_is_read_to_its_end_though_nothing_follows_it() {
    let world = World::new(1);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    let mut stream =
        FrameStream::connect(&world.address(1), &caller(Role::Client), Duration::from_secs(5)).unwrap().0;
    let endless = "x".repeat(6 << 20);
    for seq in 1..=20 {
        // How much of it there is at a time is the kernel's affair: one of a few is more than a turn reads.
        let refused = stream.call(&mkdir(session, seq, &endless), &[], Duration::from_secs(5)).unwrap_err();
        assert!(matches!(refused, CallError::Refused(FsError::NameTooLong)), "{refused}");
    }
}
