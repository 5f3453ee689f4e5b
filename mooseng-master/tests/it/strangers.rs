//! Those who do not belong to the cluster, and those who do and ask for more than is theirs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mooseng_protocol::frame::{self, FLAG_ERROR, FLAG_REPLY, Header};
use mooseng_protocol::handshake::{Caller, HANDSHAKE_MAX};
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;

use crate::failover::{mkdir, names, open_session};
use crate::world::{World, caller, hello, saying};

const SECOND: Duration = Duration::from_secs(1);
/// What a busy machine may take beyond a limit.
const SLACK: Duration = Duration::from_secs(4);

/// Sends bytes to a master that it does not expect; what comes back until it closes, and when that was.
fn send(world: &World, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let mut socket = TcpStream::connect(world.address(1)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let begun = Instant::now();
    socket.write_all(bytes).unwrap();
    let mut back = Vec::new();
    if let Err(error) = socket.read_to_end(&mut back) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    (back, begun.elapsed())
}

fn request<R: Rpc>(request: &R) -> Vec<u8> {
    let header = Header { kind: R::KIND, request: 5, ..Header::default() };
    frame::encode(header, &request.encode_to_vec(), 0).unwrap()
}

fn refused(world: &World) -> (u64, u64) {
    let mut stream = FrameStream::connect(&world.address(1), &caller(Role::Admin), SECOND).unwrap().0;
    let status = stream.call(&pb::ClusterStatusRequest {}, &[], SECOND).unwrap();
    let door = status.door.unwrap();
    (door.strangers, door.forbidden)
}

#[test]
fn a_stranger_is_refused_counted_and_told_nothing_else() {
    let world = World::new(1);
    let keys = Keyring::derive(&[8; 32]);
    for role in Role::ALL {
        let stranger = Caller::new(hello(role), keys.of(role).clone(), mooseng_env::nonce);
        let begun = Instant::now();
        let error = FrameStream::connect(&world.address(1), &stranger, SLACK).unwrap_err();
        assert!(matches!(&error, CallError::Rejected { message } if message.contains("key_file")), "{error}");
        assert!(!error.to_string().contains("master-1"), "{error}");
        assert!(begun.elapsed() < HANDSHAKE_MAX + SLACK);
    }
    assert_eq!(refused(&world), (4, 0));
    let (answer, _) =
        send(&world, &[request(&pb::StatFsRequest {}), request(&pb::ClusterStatusRequest {})].concat());
    let mut answer = BytesMut::from(&answer[..]);
    let frame = frame::decode(&mut answer).unwrap().unwrap();
    assert_eq!((frame.header.request, frame.header.flags), (5, FLAG_REPLY | FLAG_ERROR));
    assert!(answer.is_empty(), "one refusal, and nothing for the second request");
    assert_eq!(send(&world, &[b'x'; 4096]).0, b"", "garbage is not answered");
    assert_eq!(refused(&world), (6, 0));
}

#[test]
fn one_that_says_nothing_or_half_a_hello_has_a_second() {
    let world = World::new(1);
    let hello = request(&hello(Role::Client));
    for said in [&b""[..], &hello[..40]] {
        let (answer, took) = send(&world, said);
        assert_eq!(answer, b"");
        assert!(took < HANDSHAKE_MAX + SLACK, "{took:?}");
    }
    assert_eq!(refused(&world), (2, 0));
}

#[test]
fn the_key_of_a_chunkserver_does_not_make_a_master() {
    let world = World::new(1);
    let keys = Keyring::derive(&[7; 32]);
    for (claimed, had) in [(Role::Master, Role::Chunkserver), (Role::Admin, Role::Client)] {
        let pretender = Caller::new(hello(claimed), keys.of(had).clone(), mooseng_env::nonce);
        let error = FrameStream::connect(&world.address(1), &pretender, SECOND).unwrap_err();
        assert!(error.to_string().contains("not proved"), "{error}");
    }
    // Under its own role it is let in, and says nothing in the name of a master.
    let chunkserver = caller(Role::Chunkserver);
    let mut stream = FrameStream::connect(&world.address(1), &chunkserver, SECOND).unwrap().0;
    let forbidden = |error: CallError| matches!(error, CallError::Forbidden { role: Role::Chunkserver, .. });
    assert!(forbidden(stream.call(&pb::RaftFrame::default(), &[], SECOND).unwrap_err()));
    assert!(forbidden(stream.call(&pb::SnapshotBegin::default(), &[], SECOND).unwrap_err()));
    assert_eq!(refused(&world), (2, 2));
}

#[test]
fn a_client_cannot_remove_a_master_nor_speak_as_a_chunkserver() {
    let mut world = World::new(1);
    let other = world.start_another();
    let mut stream = FrameStream::connect(&world.address(1), &caller(Role::Client), SECOND).unwrap().0;
    let remove = pb::RemoveMasterRequest { master: other.to_string(), dry_run: false };
    let error = stream.call(&remove, &[], SECOND).unwrap_err();
    assert_eq!(error.to_string(), "a client must not send RemoveMasterRequest (0x504)");
    let add = pb::AddMasterRequest { master: other.to_string(), ..Default::default() };
    assert!(matches!(
        stream.call(&add, &[], SECOND),
        Err(CallError::Forbidden { role: Role::Client, kind: 0x503 })
    ));
    let register = pb::RegisterServerRequest { uuid: vec![1; 16].into(), ..Default::default() };
    assert!(matches!(stream.call(&register, &[], SECOND), Err(CallError::Forbidden { .. })));
    // The connection goes on.
    let status = stream.call(&pb::ClusterStatusRequest {}, &[], SECOND).unwrap();
    assert_eq!(status.door.unwrap().forbidden, 3);
}

#[test]
fn strangers_without_end_keep_nobody_from_connecting() {
    let world = World::new(1);
    let crowd: Vec<_> = (0..1300).map(|_| TcpStream::connect(world.address(1)).unwrap()).collect();
    let (strangers, _) = refused(&world);
    assert!(strangers >= 276, "{strangers} of {} lost their place", crowd.len());
}

#[test]
fn a_session_is_of_no_use_to_another_client_that_knows_its_number() {
    let world = World::new(1);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    client.call(&mkdir(session, 1, "mine")).unwrap();
    let other = saying(pb::Hello { client_id: vec![2; 16].into(), ..hello(Role::Client) });
    let mut stream = FrameStream::connect(&world.address(1), &other, SECOND).unwrap().0;
    fn refused<R: Rpc>(stream: &mut FrameStream, request: &R) {
        let error = stream.call(request, &[], SECOND).map(drop).unwrap_err();
        assert!(
            matches!(&error, CallError::Rejected { message } if message.contains("another client's")),
            "{error}"
        );
    }
    refused(&mut stream, &mkdir(session, 2, "theirs"));
    refused(&mut stream, &pb::CloseSessionRequest { meta: mkdir(session, 3, "").meta });
    refused(&mut stream, &pb::ResumeSessionRequest { session, list_follows: true, ..Default::default() });
    refused(&mut stream, &pb::OpenRequest { session, inode: 1, ..Default::default() });
    refused(&mut stream, &pb::ReleaseRequest { session, inodes: vec![1], number: 9 });
    refused(&mut stream, &pb::LocateRequest { session, inode: 1, ..Default::default() });
    let open = pb::OpenSessionRequest { client_id: vec![1; 16].into(), ..Default::default() };
    let error = stream.call(&open, &[], SECOND).unwrap_err();
    assert!(error.to_string().contains("the id of its hello"), "{error}");
    // Its owner goes on, over another connection too, and after the master was started again.
    client = world.client();
    client.call(&mkdir(session, 2, "mine too")).unwrap();
    let mut world = world;
    world.stop(1);
    world.start(1);
    client.call(&mkdir(session, 3, "still mine")).unwrap();
    let mut stream = FrameStream::connect(&world.address(1), &other, SECOND).unwrap().0;
    refused(&mut stream, &mkdir(session, 4, "theirs"));
    assert_eq!(names(&mut client), ["mine", "mine too", "still mine"]);
}
