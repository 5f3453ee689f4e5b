//! What passes a master's door, as its status tells of it.

use std::time::{Duration, Instant};

use mooseng_protocol::door::{Requests, Snapshot};
use mooseng_protocol::frame::Header;
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::{FileKind, FsError};

use crate::failover::{mkdir, open_session};
use crate::world::{Client, World, hello, saying};

const SOON: Duration = Duration::from_secs(20);

fn door(status: pb::ClusterStatusReply) -> Snapshot {
    status.door.unwrap().into()
}

fn passed<R: Rpc>(client: &mut Client) -> Requests {
    let door = door(client.call(&pb::ClusterStatusRequest {}).unwrap());
    door.of(R::KIND).cloned().unwrap_or_default()
}

/// A connection of this client.
fn connect(world: &World, id: u8) -> FrameStream {
    let hello = pb::Hello { client_id: vec![id; 16].into(), ..hello(Role::Client) };
    FrameStream::connect(&world.address(1), &saying(hello), SOON).unwrap().0
}

/// Of a kind: come, refused, failed, lost, not answered yet.
fn counts(row: &Requests) -> [u64; 5] {
    [row.requests, row.refused, row.failed, row.lost, row.under_way()]
}

#[test]
fn each_request_is_counted_once_with_how_it_ended_and_strangers_are_too() {
    let world = World::new(1);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    for seq in [1, 1, 2] {
        // The same request again has the same answer; another one of the name is refused.
        drop(client.call(&mkdir(session, seq, "a")));
    }
    let row = passed::<pb::CreateRequest>(&mut client);
    assert_eq!(counts(&row), [3, 1, 0, 0, 0]);
    assert!(row.total_us >= row.max_us && row.max_us >= row.percentile_us(99) && row.percentile_us(50) > 0);
    // The status that tells is not answered yet itself.
    let row = passed::<pb::ClusterStatusRequest>(&mut client);
    assert_eq!(counts(&row), [2, 0, 0, 0, 1]);

    let mut raw = connect(&world, 1);
    raw.writer().send(Header { kind: 0x01ff, request: 1, ..Header::default() }, &pb::Empty {}, &[]).unwrap();
    assert!(raw.reader().receive().is_ok());
    let keys = Keyring::derive(&[9; 32]);
    let stranger = Caller::new(hello(Role::Client), keys.of(Role::Client).clone(), mooseng_env::nonce);
    let refused = FrameStream::connect(&world.address(1), &stranger, SOON).unwrap_err();
    assert!(matches!(refused, CallError::Rejected { .. }), "{refused}");
    let door = door(client.call(&pb::ClusterStatusRequest {}).unwrap());
    assert_eq!(counts(door.of(0).unwrap()), [1, 1, 0, 0, 0], "a kind that nobody knows");
    assert_eq!((door.strangers, door.of(pb::Proof::KIND).unwrap().refused), (1, 1));
    // The kind that nobody knows is one that no role may send.
    assert_eq!(door.forbidden, 1);
}

#[test]
fn a_request_that_waits_is_timed_to_its_answer_and_is_lost_with_its_connection() {
    let world = World::new(1);
    let mut client = world.client();
    let server = pb::RegisterServerRequest {
        uuid: vec![1; 16].into(),
        name: "s".into(),
        address: "127.0.0.1:1".into(),
        disks: vec![pb::DiskStatus { total_bytes: 1 << 40, free_bytes: 1 << 40, ..Default::default() }],
        ..Default::default()
    };
    client.call(&server).unwrap();
    let (holder, other) = (open_session(&mut client, 1), open_session(&mut client, 2));
    client.become_client(1);
    let file = pb::CreateRequest { kind: FileKind::File.raw().into(), ..mkdir(holder, 1, "f") };
    let inode = client.call(&file).unwrap().attr.unwrap().inode;
    let meta = |session, seq| Some(pb::RequestMeta { session, seq, acked_below: 1 });
    let lease =
        |session, seq| pb::GrantWriteRequest { meta: meta(session, seq), inode, ..Default::default() };
    client.call(&lease(holder, 2)).unwrap();

    // It waits for the lease of the other session.
    let mut waiting = connect(&world, 2);
    let number = waiting.send(&lease(other, 1), &[], SOON).unwrap();
    client.wait_for("it waits", |status| {
        let door = door(status.clone());
        door.of(pb::GrantWriteRequest::KIND).is_some_and(|row| counts(row) == [2, 0, 0, 0, 1])
    });
    let seen = Instant::now();
    let mut gone = connect(&world, 2);
    gone.send(&lease(other, 2), &[], SOON).unwrap();
    client.wait_for("one more waits", |status| {
        let door = door(status.clone());
        door.of(pb::GrantWriteRequest::KIND).is_some_and(|row| counts(row) == [3, 0, 0, 0, 2])
    });
    drop(gone);
    client.wait_for("it is lost with its connection", |status| {
        let door = door(status.clone());
        door.of(pb::GrantWriteRequest::KIND).is_some_and(|row| counts(row) == [3, 0, 0, 1, 1])
    });
    let waited = seen.elapsed();
    let release = pb::ReleaseLeaseRequest { meta: meta(holder, 3), inode, indexes: vec![0] };
    client.call(&release).unwrap();
    match waiting.receive_reply::<pb::GrantWriteRequest>(number, SOON) {
        // Where the machine was slow, it has waited for too long.
        Ok(_) | Err(CallError::Refused(FsError::LeaseHeld)) => {}
        Err(error) => panic!("{error}"),
    }
    let row = passed::<pb::GrantWriteRequest>(&mut client);
    assert_eq!((row.requests, row.lost, row.under_way()), (3, 1, 0));
    assert!(row.refused == 1 || u128::from(row.max_us) >= waited.as_micros(), "{row:?} {waited:?}");
}
