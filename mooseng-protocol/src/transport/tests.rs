//! Both kinds of connection against a scripted peer on the loopback interface.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use mooseng_types::FsError;
use prost::Message as _;

use super::{FrameStream, Mux, NotWelcome, Socket, greet};
use crate::frame::{self, FLAG_ERROR, FLAG_PUSH, FLAG_REPLY, Header};
use crate::handshake::{Caller, HANDSHAKE_MAX, OPENING_MAX};
use crate::principal::{Keyring, Role};
use crate::rpc::Rpc;
use crate::status::CallError;
use crate::{PROTOCOL_VERSION, pb};

const SOON: Duration = Duration::from_secs(5);

fn hello() -> pb::Hello {
    let role = pb::Role::Client.into();
    pb::Hello {
        protocol_version: PROTOCOL_VERSION,
        role,
        cluster_id: vec![1; 16].into(),
        ..Default::default()
    }
}

fn keys() -> Keyring {
    Keyring::derive(&[7; 32])
}

fn caller() -> Caller {
    Caller::new(hello(), keys().of(Role::Client).clone(), || [1; 32])
}

/// Accepts one connection, answers its hello and hands it to `script`.
fn peer(script: impl FnOnce(FrameStream) + Send + 'static) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let mut stream = FrameStream::new(Socket::accepted(listener.accept().unwrap().0)).unwrap();
        let known = stream.welcome(&keys(), [2; 32], |_| Ok(pb::HelloReply::default())).unwrap();
        assert_eq!(known.role, Role::Client);
        script(stream);
    });
    (address, thread)
}

fn reply(stream: &mut FrameStream, to: Header, flags: u16, body: &impl prost::Message, payload: &[u8]) {
    let header = Header { flags: FLAG_REPLY | flags, ..to };
    stream.writer().send(header, body, &[IoSlice::new(payload)]).unwrap();
}

#[test]
fn a_call_gets_its_reply_with_payload_and_a_refusal_is_an_answer() {
    let (address, thread) = peer(|mut stream| {
        let frame = stream.reader().receive().unwrap();
        let mut payload = vec![0; frame.payload_length];
        stream.reader().read_payload(&mut payload).unwrap();
        payload.reverse();
        reply(
            &mut stream,
            frame.header,
            0,
            &pb::ReadChunkReply { version: 3, ..Default::default() },
            &payload,
        );
        let frame = stream.reader().receive().unwrap();
        let refusal = CallError::Refused(FsError::NoSpace).to_reply();
        reply(&mut stream, frame.header, FLAG_ERROR, &refusal, b"");
    });
    let (mut stream, _) = FrameStream::connect(&address, &caller(), SOON).unwrap();
    let sent: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    let answer = stream.call(&pb::ReadChunkRequest::default(), &[IoSlice::new(&sent)], SOON).unwrap();
    assert_eq!(answer.version, 3);
    let mut back = vec![0; stream.reader().payload_left()];
    stream.reader().read_payload(&mut back).unwrap();
    back.reverse();
    assert_eq!(back, sent);
    let error = stream.call(&pb::ReadChunkRequest::default(), &[], SOON).unwrap_err();
    assert!(matches!(error, CallError::Refused(FsError::NoSpace)), "{error}");
    thread.join().unwrap();
}

#[test]
fn answers_may_come_in_any_order_and_pushes_in_between() {
    let (address, thread) = peer(|mut stream| {
        let first = stream.reader().receive().unwrap();
        let second = stream.reader().receive().unwrap();
        let push = Header { kind: pb::LeaderChanged::KIND, flags: FLAG_PUSH, ..Header::default() };
        stream.writer().send(push, &pb::LeaderChanged { leader_address: "there".into() }, &[]).unwrap();
        for frame in [second, first] {
            let request = pb::GetAttrRequest::decode(frame.body).unwrap();
            let attr = pb::Attr { inode: request.inode, ..Default::default() };
            reply(&mut stream, frame.header, 0, &pb::AttrReply { attr: Some(attr) }, b"");
        }
    });
    let (pushed, pushes) = sync_channel(4);
    let on_push = move |kind, body| pushed.send((kind, body)).unwrap();
    let (mux, _) = Mux::connect(&address, &caller(), SOON, on_push).unwrap();
    let (answered, answers) = sync_channel(1);
    mux.start(&pb::GetAttrRequest { inode: 1 }, &[], move |reply| answered.send(reply).unwrap());
    let second = mux.call(&pb::GetAttrRequest { inode: 2 }, &[], SOON).unwrap();
    assert_eq!(second.attr.unwrap().inode, 2);
    assert_eq!(answers.recv_timeout(SOON).unwrap().unwrap().attr.unwrap().inode, 1);
    let (kind, body) = pushes.recv_timeout(SOON).unwrap();
    assert_eq!(kind, pb::LeaderChanged::KIND);
    assert_eq!(pb::LeaderChanged::decode(body).unwrap().leader_address, "there");
    thread.join().unwrap();
}

#[test]
fn a_connection_that_ends_answers_every_waiting_call() {
    let (address, thread) = peer(|mut stream| drop(stream.reader().receive()));
    let (mux, _) = Mux::connect(&address, &caller(), SOON, |_, _| {}).unwrap();
    let error = mux.call(&pb::GetAttrRequest { inode: 1 }, &[], SOON).unwrap_err();
    assert!(matches!(error, CallError::Transport(_)), "{error}");
    assert!(mux.call(&pb::GetAttrRequest { inode: 1 }, &[], SOON).unwrap_err().is_retryable());
    assert!(mux.is_closed());
    thread.join().unwrap();
}

#[test]
fn parts_of_two_clusters_do_not_mix() {
    let mine = pb::HelloReply { cluster_id: vec![1; 16].into(), ..Default::default() };
    assert!(greet(&hello(), &mine).is_ok());
    assert!(greet(&pb::Hello { cluster_id: vec![0; 16].into(), ..hello() }, &mine).is_ok());
    let other = pb::Hello { cluster_id: vec![2; 16].into(), name: "mount".into(), ..hello() };
    assert!(greet(&other, &mine).unwrap_err().to_string().contains("another cluster"));
}

#[test]
fn parts_without_a_common_level_do_not_mix_and_are_told_which_of_them_to_upgrade() {
    let mine = |levels: (u32, u32), level| pb::HelloReply {
        cluster_id: vec![1; 16].into(),
        name: "master-1".into(),
        level_lowest: levels.0,
        level_highest: levels.1,
        level,
        ..Default::default()
    };
    let theirs = |lowest, highest| pb::Hello {
        name: "mount".into(),
        level_lowest: lowest,
        level_highest: highest,
        ..hello()
    };
    let refused = |hello: &pb::Hello, mine: &pb::HelloReply| greet(hello, mine).unwrap_err().to_string();
    assert!(greet(&theirs(0, 0), &mine((0, 0), 0)).is_ok(), "two parts from before levels");
    assert!(greet(&theirs(0, 0), &mine((1, 2), 1)).is_ok());
    assert!(greet(&theirs(1, 2), &mine((2, 3), 2)).is_ok());
    assert!(refused(&theirs(0, 0), &mine((2, 3), 2)).ends_with("knows levels 2 to 3: upgrade mount"));
    assert!(refused(&theirs(4, 5), &mine((2, 3), 2)).ends_with("upgrade master-1"));
    assert!(
        refused(&theirs(1, 2), &mine((2, 3), 3))
            .contains("the cluster has level 3, and mount knows levels 1 to 2")
    );
    assert!(refused(&theirs(2, 2), &mine((1, 2), 1)).contains("raise the cluster first"));
    assert!(refused(&theirs(2, 1), &mine((1, 2), 1)).contains("no range"));
}

/// Somebody connects and does `strange`; what the called side makes of it, and what the stranger was sent.
fn stranger(strange: impl FnOnce(&mut TcpStream)) -> (NotWelcome, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut called = FrameStream::new(Socket::accepted(listener.accept().unwrap().0)).unwrap();
    strange(&mut socket);
    let begun = Instant::now();
    let greet = |_: &pb::Hello| -> Result<pb::HelloReply, CallError> { panic!("a stranger was greeted") };
    let refused = called.welcome(&keys(), [2; 32], greet).unwrap_err();
    assert!(begun.elapsed() < HANDSHAKE_MAX + SOON, "{:?}", begun.elapsed());
    drop(called);
    let mut sent = Vec::new();
    // What it had not read yet resets the connection; what was sent to it before counts.
    drop(socket.read_to_end(&mut sent));
    (refused, sent)
}

#[test]
fn a_stranger_gets_a_refusal_and_one_that_says_nothing_is_left() {
    let (silent, sent) = stranger(|_| {});
    assert!(matches!(silent, NotWelcome::Stranger(CallError::Transport(_))), "{silent:?}");
    assert_eq!(sent, b"");
    let (garbage, sent) = stranger(|socket| socket.write_all(&[b'x'; 100]).unwrap());
    assert!(garbage.to_string().contains("receive from"), "{garbage}");
    assert_eq!(sent, b"");
    let ask = |socket: &mut TcpStream| {
        let header = Header { kind: pb::GetAttrRequest::KIND, request: 5, ..Header::default() };
        let request = pb::GetAttrRequest { inode: 1 }.encode_to_vec();
        socket.write_all(&frame::encode(header, &request, 0).unwrap()).unwrap();
    };
    let (_, sent) = stranger(ask);
    let answer = frame::decode(&mut sent[..].into()).unwrap().unwrap();
    assert_eq!((answer.header.request, answer.header.flags), (5, FLAG_REPLY | FLAG_ERROR));
}

#[test]
fn a_stranger_cannot_make_the_called_side_keep_more_than_a_hello() {
    let header = Header { kind: pb::Hello::KIND, ..Header::default() };
    let long = frame::encode(header, &vec![0; OPENING_MAX + 1], 0).unwrap();
    let (refused, _) = stranger(|socket| socket.write_all(&long[..100]).unwrap());
    assert!(matches!(refused, NotWelcome::Stranger(_)), "the rest of it is not waited for");
}
