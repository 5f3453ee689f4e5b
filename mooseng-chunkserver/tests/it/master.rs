//! A chunkserver and a scripted master.

use std::net::TcpListener;

use mooseng_protocol::door::Snapshot;
use mooseng_protocol::frame::{FLAG_ERROR, FLAG_PUSH, FLAG_REPLY, Frame, Header};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::{FrameStream, Socket};
use prost::Message;

use crate::support::{
    CLUSTER, SOON, cluster, hello, keys, pattern, read, start, token, write, write_request,
};

/// A master that is asked one thing at a time.
pub(crate) struct Master {
    listener: TcpListener,
    stream: Option<FrameStream>,
    want_full_report: bool,
}

impl Master {
    pub(crate) fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), stream: None, want_full_report: true }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// Accepts a connection and answers its hello.
    pub(crate) fn accept(&mut self) {
        let mut stream = FrameStream::new(Socket::accepted(self.listener.accept().unwrap().0)).unwrap();
        let greet = |hello: &pb::Hello| {
            assert_eq!(hello.cluster_id, cluster());
            Ok(pb::HelloReply { cluster_id: cluster().into(), ..Default::default() })
        };
        let principal = stream.welcome(&keys(), mooseng_env::nonce(), greet).unwrap();
        assert_eq!(principal.role, Role::Chunkserver);
        stream.reader().set_timeout(Some(SOON)).unwrap();
        self.stream = Some(stream);
    }

    fn next(&mut self) -> Frame {
        self.stream.as_mut().unwrap().reader().receive().unwrap()
    }

    fn reply(&mut self, to: Header, flags: u16, body: &impl Message) {
        reply_to(self.stream.as_mut().unwrap(), to, flags, body);
    }

    pub(crate) fn push<R: Rpc>(&mut self, order: &R) {
        let header = Header { kind: R::KIND, flags: FLAG_PUSH, ..Header::default() };
        self.stream.as_mut().unwrap().writer().send(header, order, &[]).unwrap();
    }

    /// Answers everything as a follower would, until a heartbeat tells what has passed the server's door.
    fn next_door(&mut self) -> Snapshot {
        loop {
            let frame = self.next();
            match frame.header.kind {
                pb::RegisterServerRequest::KIND => {
                    self.reply(frame.header, 0, &pb::RegisterServerReply { server: 3 });
                }
                pb::HeartbeatRequest::KIND => {
                    self.reply(frame.header, 0, &pb::HeartbeatReply::default());
                    if let Some(door) = pb::HeartbeatRequest::decode(frame.body).unwrap().door {
                        return door.into();
                    }
                }
                kind => panic!("a chunkserver sent {kind:#x} to a follower"),
            }
        }
    }

    /// Answers everything as a leader would, until a report comes.
    pub(crate) fn next_report(&mut self, server: u32) -> pb::ChunkReportRequest {
        loop {
            let frame = self.next();
            match frame.header.kind {
                pb::RegisterServerRequest::KIND => {
                    let request = pb::RegisterServerRequest::decode(frame.body).unwrap();
                    assert_eq!((request.uuid.len(), request.disks.len()), (16, 2));
                    self.reply(frame.header, 0, &pb::RegisterServerReply { server });
                }
                pb::HeartbeatRequest::KIND => {
                    let beat = pb::HeartbeatRequest::decode(frame.body).unwrap();
                    assert_eq!(beat.server, server);
                    assert!(beat.disks[0].total_bytes > 0 && !beat.disks[0].failed);
                    let want_full_report = std::mem::take(&mut self.want_full_report);
                    self.reply(
                        frame.header,
                        0,
                        &pb::HeartbeatReply { leader: true, want_full_report, ..Default::default() },
                    );
                }
                pb::ChunkReportRequest::KIND => {
                    self.reply(frame.header, 0, &pb::ChunkReportReply {});
                    return pb::ChunkReportRequest::decode(frame.body).unwrap();
                }
                kind => panic!("a chunkserver sent {kind:#x} to a master"),
            }
        }
    }
}

fn reply_to(stream: &mut FrameStream, to: Header, flags: u16, body: &impl Message) {
    stream.writer().send(Header { flags: FLAG_REPLY | flags, ..to }, body, &[]).unwrap();
}

#[test]
fn a_server_registers_reports_and_does_what_the_leader_orders() {
    let mut master = Master::new();
    let source = start(vec![]);
    let bytes = pattern(2_345_678, 3);
    for (i, piece) in bytes.chunks(1 << 20).enumerate() {
        let request = write_request(&token(70, 4, 4, true), 70, (i << 20) as u32, piece, &[]);
        write(&mut source.connect(), &request, piece).unwrap();
    }

    let server = start(vec![master.address()]);
    master.accept();
    // Not the leader yet: it is asked again.
    let frame = master.next();
    assert_eq!(frame.header.kind, pb::RegisterServerRequest::KIND);
    let refusal = CallError::NotLeader { leader: None }.to_reply();
    master.reply(frame.header, FLAG_ERROR, &refusal);
    let full = master.next_report(3);
    assert!(full.full && full.last && full.chunks.is_empty());

    master.push(&pb::CopyChunk {
        chunk: 70,
        version: 4,
        source: source.address(),
        token: token(70, 4, 4, false),
        replace: false,
        part: 0,
    });
    let report = master.next_report(3);
    assert!(!report.full);
    assert_eq!(
        report.chunks,
        [pb::CopyStatus { chunk: 70, version: 4, in_doubt: false, part: 0, verified: true }]
    );
    let mut client = server.connect();
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        got.extend(read(&mut client, 70, 4, got.len() as u32, 1 << 20).unwrap().1);
    }
    assert!(got == bytes);

    // A copy that is asked for with another version than the source has is not made.
    master.push(&pb::CopyChunk {
        chunk: 70,
        version: 5,
        source: source.address(),
        token: token(70, 4, 4, false),
        replace: false,
        part: 0,
    });
    master.push(&pb::DeleteChunks { chunks: vec![70, 71], parts: vec![] });
    let mut lost = Vec::new();
    while lost.len() < 2 {
        let report = master.next_report(3);
        assert!(report.chunks.is_empty(), "{report:?}");
        lost.extend(report.lost);
    }
    lost.sort_unstable();
    assert_eq!(lost, [70, 71]);
    assert!(read(&mut client, 70, 4, 0, 1).is_err());

    // A new connection, a new leader: everything again, under the same identity.
    drop(client);
    let request = write_request(&token(72, 1, 1, true), 72, 0, b"x", &[]);
    write(&mut server.connect(), &request, b"x").unwrap();
    master.stream = None;
    master.want_full_report = true;
    master.accept();
    let full = master.next_report(3);
    assert_eq!(
        full.chunks,
        [pb::CopyStatus { chunk: 72, version: 1, in_doubt: false, part: 0, verified: false }]
    );
    assert_eq!(CLUSTER.len(), 32);
    drop(master);
    server.server.stop();
}

#[test]
fn masters_are_told_how_often_each_request_came_and_how_it_ended() {
    let mut master = Master::new();
    let server = start(vec![master.address()]);
    master.accept();
    assert_eq!(master.next_door(), Snapshot::default(), "nothing has come yet");
    let mut client = server.connect();
    for _ in 0..3 {
        write(&mut client, &write_request(&token(5, 1, 1, true), 5, 0, b"bytes", &[]), b"bytes").unwrap();
    }
    // Of a chunk that is not there: done nowhere, here or behind.
    assert!(read(&mut client, 6, 1, 0, 1).is_err());
    assert!(read(&mut client, 5, 1, 0, 5).is_ok());
    let delete = pb::DeleteChunks { chunks: vec![5], parts: vec![] };
    assert!(matches!(client.call(&delete, &[], SOON), Err(CallError::Forbidden { .. })));
    let keys = Keyring::derive(&[9; 32]);
    let stranger = Caller::new(hello(Role::Client), keys.of(Role::Client).clone(), mooseng_env::nonce);
    assert!(FrameStream::connect(&server.address(), &stranger, SOON).is_err());
    // What the client has heard of has left the door; the next heartbeat with counts knows it.
    let door = std::iter::repeat_with(|| master.next_door()).find(|door| door.strangers > 0).unwrap();
    let counts = |kind| {
        let row = door.of(kind).unwrap();
        assert!(row.max_us > 0 && row.percentile_us(99) > 0, "{row:?}");
        [row.requests, row.refused, row.failed, row.lost, row.under_way()]
    };
    assert_eq!(counts(pb::WriteChunkRequest::KIND), [3, 0, 0, 0, 0]);
    assert_eq!(counts(pb::ReadChunkRequest::KIND), [2, 0, 1, 0, 0]);
    assert_eq!(counts(pb::DeleteChunks::KIND), [1, 1, 0, 0, 0]);
    assert_eq!((door.strangers, door.forbidden), (1, 1));
    drop((client, master));
    server.server.stop();
}
