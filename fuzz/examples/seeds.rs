//! Writes the seed corpus: a few valid inputs for each target, from which the fuzzer goes on. Run by
//! `cargo xtask fuzz --write-seeds`, when a format or a target's way to read its input has changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mooseng_chunkserver::sidecar;
use mooseng_env::{Disk, MemoryDisk};
use mooseng_master::raft::log::{LogOptions, Segments};
use mooseng_master::raft::{HardState, LogEntry, Persist};
use mooseng_meta::{Command, ContentCommand, Entry, Grant, NameCommand, Request, Response};
use mooseng_protocol::recall::{Recall, Recalled};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::token::{Token, TokenKey};
use mooseng_protocol::{frame, pb};
use mooseng_types::{
    Attr, CellId, ChunkId, ChunkIndex, ChunkVersion, ClusterId, FileKind, FileName, FsError, InodeId,
    MasterId, Part, RequestId, ServerId, SessionId, SetAttr, SetTime, TimeNs,
};
use prost::Message;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    write(&corpus, "frame", frames())?;
    write(&corpus, "messages", messages())?;
    write(&corpus, "token", tokens())?;
    write(&corpus, "raft_message", raft_messages())?;
    write(&corpus, "peers", peers())?;
    write(&corpus, "snapshot", snapshots())?;
    write(&corpus, "log_entry", log_entries())?;
    write(&corpus, "log_segment", log_segments()?)?;
    write(&corpus, "chunk_sidecar", sidecars())?;
    write(&corpus, "config", configs())
}

fn write(corpus: &Path, target: &str, seeds: Vec<(&str, Vec<u8>)>) -> io::Result<()> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    for (name, bytes) in seeds {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

/// The bytes of a target's selectors, then those of a format.
fn input(selectors: &[u8], bytes: &[u8]) -> Vec<u8> {
    [selectors, bytes].concat()
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let header = frame::Header { kind: 0x0105, flags: 0, request: 7, deadline_ms: 1000 };
    let one = frame::encode(header, b"body", 0).unwrap();
    let payload = [frame::encode(header, b"", 3).unwrap(), b"pay".to_vec(), one.clone()].concat();
    vec![
        ("one", input(&[5, 3, 0], &one)),
        ("payload_between", input(&[40, 0, 0], &payload)),
        ("repaired", input(&[33, 7, 1], &one)),
    ]
}

fn kind_and<R: Rpc>(request: &R) -> Vec<u8> {
    input(&R::KIND.to_le_bytes(), &request.encode_to_vec())
}

fn attr() -> Attr {
    let time = TimeNs::from_raw(1_700_000_000_000_000_000);
    Attr {
        inode: InodeId::from_raw(5),
        generation: 1,
        kind: FileKind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        rdev: 0,
        size: 70_000,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        content_version: 4,
    }
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let meta = pb::RequestMeta { session: 3, seq: 9, acked_below: 8 };
    let change = SetAttr { mode: Some(0o600), atime: Some(SetTime::Now), ..SetAttr::default() };
    let set_attr = pb::SetAttrRequest::new(meta, InodeId::from_raw(5), change);
    let hello = pb::Hello {
        cluster_id: vec![1; 16].into(),
        protocol_version: 1,
        name: "mount".into(),
        ..Default::default()
    };
    let create = pb::CreateRequest {
        meta: Some(meta),
        parent: 1,
        name: "a".into(),
        kind: 8,
        mode: 0o644,
        ..Default::default()
    };
    let what = Recalled::Chunk { inode: InodeId::from_raw(5), index: ChunkIndex::from_raw(1) };
    let recall = pb::Recall::from(Recall { session: SessionId::from_raw(3), number: 1 << 32, what });
    let condemned = pb::CondemnedCopy { chunk: 7, index: 3, version: 4 };
    let quarantine = pb::QuarantineChunks { copies: vec![condemned], keep_s: 86_400 };
    let raft = pb::RaftMessages { messages: vec![append(2, 1, 1)], all_have: 4, ..Default::default() };
    let raft = pb::RaftFrame { groups: vec![raft] };
    vec![
        ("hello", kind_and(&hello)),
        ("create", kind_and(&create)),
        ("set_attr", kind_and(&set_attr)),
        ("raft", kind_and(&raft)),
        ("recall", kind_and(&recall)),
        ("quarantine", kind_and(&quarantine)),
        ("convert_recall", input(&[0, 0], &recall.encode_to_vec())),
        ("convert_attr", input(&[0, 0], &pb::Attr::from(attr()).encode_to_vec())),
        ("convert_set_attr", input(&[0, 0], &set_attr.encode_to_vec())),
        ("convert_meta", input(&[0, 0], &meta.encode_to_vec())),
    ]
}

fn tokens() -> Vec<(&'static str, Vec<u8>)> {
    let token = Token {
        part: Part::whole(ChunkId::from_raw(7)),
        base_version: ChunkVersion::from_raw(3),
        version: ChunkVersion::from_raw(4),
        read: true,
        write: true,
        create: false,
        session: SessionId::from_raw(11),
        expiry_unix_s: 1000,
    };
    let key = TokenKey::new(&[1; 32]);
    let bytes = key.sign(&token);
    let part = Part::new(token.part.chunk(), 5).expect("a stripe has that many");
    let of_part = key.sign(&Token { part, ..token });
    vec![
        ("part", input(&999u64.to_le_bytes(), &of_part)),
        ("valid", input(&999u64.to_le_bytes(), &bytes)),
        ("expired", input(&1001u64.to_le_bytes(), &bytes)),
        ("short", input(&0u64.to_le_bytes(), &bytes[..40])),
    ]
}

fn append(term: u64, index: u64, entries: u64) -> pb::RaftMessage {
    let entry = |index| pb::RaftEntry { term, index, data: "command".into(), ..Default::default() };
    let entries = (index..index + entries).map(entry).collect();
    let log_term = if index == 1 { 0 } else { term };
    let (kind, to, from, index) = (3, 1, 2, index - 1);
    pb::RaftMessage { kind, to, from, term, log_term, index, entries, commit: index, ..Default::default() }
}

/// A step of the raft target: a message.
fn said(message: &pb::RaftMessage) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    input(&[11, u8::try_from(bytes.len()).unwrap_or(u8::MAX)], &bytes)
}

fn raft_messages() -> Vec<(&'static str, Vec<u8>)> {
    let reply = |kind, term| pb::RaftMessage { kind, to: 1, from: 2, term, ..Default::default() };
    let vote = |kind| pb::RaftMessage { log_term: 1, index: 1, ..reply(kind, 2) };
    let priority = pb::RaftMessage { priority: -1, ..reply(17, 1) };
    // Kind, from, term, log term, index, commit, entries, their term, flags, hint, priority, request.
    let small = [0, 5, 3, 2, 1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 6, 3, 2, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0, 0];
    let elected =
        [0, 2, 5, 18, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 6, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0];
    let heartbeat = pb::RaftMessage { commit: 2, context: vec![0; 16].into(), ..reply(8, 2) };
    let matched = pb::RaftMessage { index: 1, ..reply(4, 1) };
    // Actions: 0 persist, 2 stand for election, 3 propose, 4 purge, 241 let much time pass.
    let follower =
        [vec![0], said(&append(2, 1, 2)), vec![0], said(&append(2, 3, 1)), vec![0], said(&heartbeat)]
            .concat();
    let voter = [vec![0], said(&vote(17)), said(&vote(5)), vec![0, 241]].concat();
    let leader = [
        vec![0, 2],
        said(&reply(18, 1)),
        vec![0],
        said(&reply(6, 1)),
        vec![0],
        said(&matched),
        vec![3, 0, 241, 4],
    ]
    .concat();
    let changed = [5, 3, 2, 3, 3, 9, 10, 1, 3, 4, 1, 3, 0];
    vec![
        ("follower", follower),
        ("voter", voter),
        ("priority", [vec![0], said(&priority)].concat()),
        ("small_numbers", small.to_vec()),
        ("small_numbers_elected", elected.to_vec()),
        ("leader", leader),
        // A snapshot, a change of the group behind it, and purging.
        ("installs", [&[0, 10, 7, 2, 3, 3, 9, 0, 0, 0, 130, 3, 0, 4, 0][..], &changed, &[0, 4, 9]].concat()),
        ("alone", vec![1, 2, 0, 3, 0, 241, 3, 0, 4]),
    ]
}

/// Steps of a whole master, as its target reads them: 0 log durable, 1 time, 2 and 3 the store, 5 a message of small
/// numbers, 7 a wish to be let in, 8 a view of the group, 9 a hash, 10 a snapshot, 11 an administrator, 14 quick disks.
fn peers() -> Vec<(&'static str, Vec<u8>)> {
    let (outside, three, alone) = (0, 1, 2);
    // Kind, from, term, log term, index, commit, entries, their term, flags, hint, who, request.
    let append = |index: u8, commit: u8, flags: u8, change: u8, who: u8| {
        [5, 3, 2, 2, if index == 1 { 1 } else { 2 }, index, commit, 1, 2, flags, change, who, 0]
    };
    let reply =
        |kind: u8, from: u8, term: u8, index: u8| [5, kind, from, term, 0, index, 0, 0, 0, 2, 0, 0, 0];
    let snapshot = |index: u8, term: u8| [10, 7, 2, term, term, index, 0, 0, 0, 2, 0b11, 0, 0b100];
    let follower = [&[three][..], &append(1, 2, 0, 0, 3), &[0], &append(2, 3, 4, 1, 3), &[0, 14]].concat();
    let installs = [&[three][..], &[1, 12], &snapshot(40, 3), &[0, 14], &append(40, 41, 4, 1, 3), &[14]];
    let joins =
        [&[outside][..], &[1, 2, 7, 2, 0, 7, 3, 0, 1, 3, 2, 14, 1, 20, 14, 7, 2, 0, 7, 3, 0, 1, 5, 14]];
    let told = [&[outside][..], &[1, 2, 8, 1, 9, 0b110, 0, 1, 3], &snapshot(9, 2), &[14, 1, 3]];
    let elected = [
        &[three][..],
        &[1, 20, 1, 20],
        &reply(18, 2, 2, 0),
        &[0],
        &reply(6, 2, 2, 0),
        &[0],
        &reply(4, 2, 2, 2),
        &[14, 9, 2, 2, 7, 0, 11, 13, 14],
        &reply(4, 2, 2, 4),
        &[14, 7, 9, 0, 1, 2, 11, 10, 1, 20, 14],
    ];
    let grows = [&[alone][..], &[14, 7, 2, 0, 11, 8, 14, 1, 3, 14], &reply(4, 2, 2, 9), &[14, 12, 14, 1, 9]];
    let mut late = snapshot(57, 2);
    (late[0], late[3]) = (10 | 128, 2);
    let mut early = snapshot(41, 3);
    early[0] = 10 | 128;
    let two = [&[three][..], &early, &late, &[14]];
    let wire = pb::RaftMessages {
        messages: vec![pb::RaftMessage { to: 1, ..self::append(2, 2, 1) }],
        all_have: 1,
        digest_index: 64,
        digest: 5,
        ..Default::default()
    };
    let wire = wire.encode_to_vec();
    let spoken = [&[three, 13, u8::try_from(wire.len()).unwrap_or(u8::MAX)][..], &wire, &[14]];
    vec![
        ("follower", follower),
        ("installs", installs.concat()),
        ("joins", joins.concat()),
        ("told_of_a_group", told.concat()),
        ("elected", elected.concat()),
        ("grows", grows.concat()),
        ("wire", spoken.concat()),
        ("two_snapshots_at_once", two.concat()),
        ("told_to_leave", vec![three, 9, 2, 2, 7, 3, 14]),
    ]
}

/// A frame of the snapshot target.
fn framed(kind: u8, message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let [low, high] = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
    input(&[kind, low, high], &bytes)
}

fn snapshots() -> Vec<(&'static str, Vec<u8>)> {
    let snapshot = pb::RaftSnapshot { index: 70, term: 3, voters: vec![1, 2], learners: vec![] };
    let message = Some(pb::RaftMessage { kind: 7, snapshot: Some(snapshot), ..Default::default() });
    let row =
        |key: &'static [u8], value: &'static [u8]| pb::SnapshotRow { key: key.into(), value: value.into() };
    // Applied index 70, format 1, no members.
    let rows = vec![row(b"ma", &[1, 70]), row(b"mf", &[1, 1]), row(b"mm", &[1, 1, 0]), row(b"x", b"value")];
    let end = pb::SnapshotEnd { rows: rows.len() as u64, hash: 0 };
    let whole = [
        vec![0],
        framed(0, &pb::SnapshotBegin { message, cell: 0 }),
        framed(1, &pb::SnapshotRows { rows }),
        framed(2, &end),
    ];
    // Kind of the change, row, place, byte; then rows.
    let with = |edit: [u8; 4]| input(&[[5].as_slice(), &edit].concat(), b"\x03\x05keyvalue\x01\x00k");
    vec![
        ("frames", whole.concat()),
        ("dropped", with([0, 3, 0, 0])),
        ("doubled", with([1, 3, 4, 0])),
        ("swapped", with([2, 3, 4, 0])),
        ("altered", with([4, 3, 1, 9])),
    ]
}

fn log_entries() -> Vec<(&'static str, Vec<u8>)> {
    let name = |text: &str| FileName::parse(text.as_bytes()).expect("a name");
    let id = RequestId { session: SessionId::from_raw(3), seq: 9 };
    let entry = |command: Command| {
        let request = Some(Request { id, acked_below: 8 });
        input(&[0], &Entry { stamp: TimeNs::from_raw(1_700_000_000), request, command }.encode())
    };
    let create = NameCommand::Create {
        parent: InodeId::from_raw(1),
        name: name("a"),
        kind: FileKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Bytes::new(),
    }
    .into();
    let grant = ContentCommand::GrantWrite {
        session: id.session,
        inode: InodeId::from_raw(5),
        index: ChunkIndex::from_raw(0),
        candidates: vec![ServerId::from_raw(1), ServerId::from_raw(2)],
        failed: vec![],
        up: vec![ServerId::from_raw(1)],
        nothing_written: true,
        renew: false,
    }
    .into();
    let inline = ContentCommand::WriteInline {
        inode: InodeId::from_raw(5),
        offset: 0,
        append: true,
        data: "text".into(),
    }
    .into();
    let granted = Grant {
        chunk: ChunkId::from_raw(7),
        base_version: ChunkVersion::from_raw(1),
        version: ChunkVersion::from_raw(2),
        servers: vec![ServerId::from_raw(1)],
        valid_length: 100,
        inline: Some("text".into()),
        fresh: true,
        attr: attr(),
    };
    let answer = |response: Response| input(&[1], &response.encode());
    vec![
        ("create", entry(create)),
        ("grant", entry(grant)),
        ("inline", entry(inline)),
        ("answer_attr", answer(Response::Attr(attr()))),
        ("answer_grant", answer(Response::Grant(granted))),
        ("answer_refused", answer(Response::Refused(FsError::Io))),
    ]
}

/// What the log itself writes: two segments, taken off the disk.
fn log_segments() -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let disk = MemoryDisk::new(1 << 24);
    let dir = PathBuf::from("/log");
    disk.create_dir_all(&dir)?;
    let cluster = ClusterId::from_bytes([1; 16]);
    let options = LogOptions { dir: dir.clone(), segment_bytes: 512, cluster, master: MasterId::from_raw(1) };
    let (mut log, _) = Segments::open(Arc::new(disk.clone()), options).map_err(io::Error::other)?;
    for number in 1..=6 {
        let entries =
            vec![LogEntry { term: 1, index: number, kind: 0, data: Bytes::from_static(b"command") }];
        let batch = Persist {
            number,
            snapshot: None,
            entries,
            hard_state: HardState { term: 1, vote: 1, commit: number - 1 },
        };
        log.append(&[(CellId::ROOT, batch)])?;
    }
    let first = disk.read_whole(&dir.join("0000000000000001.log"))?;
    let second = disk.read_whole(&dir.join("0000000000000002.log"))?;
    let both = [&first[64..], &second[64..]].concat();
    let border = u8::try_from((first.len() - 64) / 8).map_err(io::Error::other)?;
    Ok(vec![
        ("whole", input(&[0, 0], &first)),
        ("records", input(&[1, 0], &first[64..])),
        ("sealed", input(&[2, 0], &first[64..])),
        ("two_segments", input(&[0x82, border], &both)),
    ])
}

fn sidecars() -> Vec<(&'static str, Vec<u8>)> {
    let header = sidecar::Header {
        part: Part::whole(ChunkId::from_raw(7)),
        version: ChunkVersion::from_raw(9),
        cluster: ClusterId::from_bytes([1; 16]),
        dirty: false,
        interrupted: false,
        in_doubt: false,
        length: 65_537,
        table_crc: 0x1122_3344,
    };
    let part = Part::new(header.part.chunk(), 5).expect("a stripe has that many");
    let of_part = sidecar::Header { part, ..header };
    vec![
        ("valid", input(&[0], &header.encode())),
        ("sealed", input(&[1], &header.encode())),
        ("part", input(&[0], &of_part.encode())),
    ]
}

fn configs() -> Vec<(&'static str, Vec<u8>)> {
    let master = include_str!("../../examples/mooseng-master.toml");
    let chunkserver = include_str!("../../examples/mooseng-chunkserver.toml");
    let mount = "name = \"mount\"\nmasters = [\"127.0.0.1:9421\"]\nfsync = \"memory\"\nthreads = 4\nread_only = true\n";
    vec![
        ("master", input(&[0], master.as_bytes())),
        ("chunkserver", input(&[1], chunkserver.as_bytes())),
        ("mount", input(&[2], mount.as_bytes())),
    ]
}
