//! What the leader does by itself, with chunkservers that tell of their copies.

use std::time::Duration;

use bytes::Bytes;
use mooseng_meta::{Batch, ClusterCommand, INDEX_MAX};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::principal::Role;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::level::SUPPORTED;
use mooseng_types::{ChunkId, FsError, Level, Levels, Part, ServerId};
use prost::Message as _;

use crate::core::MasterCore;
use crate::core::testing::{Leader, framed, number, principal};
use crate::group::{Proposal, Ticket};

const SERVERS: [u8; 2] = [1, 2];

/// A leader with two chunkservers, and a file of one committed chunk on both, whose lease is given back.
fn with_a_chunk() -> (Leader, u64, pb::GrantWriteReply) {
    with_a_chunk_of(Leader::new())
}

/// The same of this leader.
fn with_a_chunk_of(mut leader: Leader) -> (Leader, u64, pb::GrantWriteReply) {
    assert_eq!(SERVERS.map(|number| leader.serve_chunks(number)), [1, 2]);
    let session = leader.open(1);
    let meta = |seq| Some(pb::RequestMeta { session, seq, acked_below: seq });
    let create =
        pb::CreateRequest { meta: meta(1), parent: 1, name: "f".into(), kind: 8, ..Default::default() };
    let inode = leader.ask(1, &create).unwrap().attr.unwrap().inode;
    let grant = leader.ask(1, &pb::GrantWriteRequest { meta: meta(2), inode, ..Default::default() }).unwrap();
    assert!(grant.fresh && grant.servers.len() == 2 && grant.attr.is_some_and(|attr| attr.inode == inode));
    let chunk = pb::CommittedChunk { index: 0, chunk: grant.chunk, version: grant.version, release: true };
    let commit = pb::CommitWriteRequest {
        meta: meta(3),
        inode,
        size_at_least: 10,
        chunks: vec![chunk],
        mtime_ns: None,
    };
    assert_eq!(leader.ask(1, &commit).unwrap().attr.unwrap().content_version, 1);
    (leader, inode, grant)
}

fn report(leader: &mut Leader, server: u8, chunk: u64, in_doubt: bool) {
    let chunks = vec![pb::CopyStatus { chunk, version: 1, in_doubt, ..Default::default() }];
    let server = server.into();
    let report = pb::ChunkReportRequest { server, full: true, last: true, chunks, ..Default::default() };
    leader.ask(100 + u64::from(server), &report).unwrap();
}

fn orders(leader: &mut Leader) -> Vec<(u64, pb::CopyChunk)> {
    let pushed = std::mem::take(&mut leader.pushed).into_iter();
    let orders = pushed.filter(|(_, frame)| frame.header.kind == pb::CopyChunk::KIND);
    orders.map(|(conn, frame)| (number(conn), pb::CopyChunk::decode(frame.body).unwrap())).collect()
}

/// Keeps both servers up.
fn pass(leader: &mut Leader, time: Duration) {
    pass_with(leader, &SERVERS, time);
}

/// Keeps these servers up.
fn pass_with(leader: &mut Leader, servers: &[u8], time: Duration) {
    let until = leader.now.mono + time;
    while leader.now.mono < until {
        for server in servers.iter().copied().map(u32::from) {
            let disk = pb::DiskStatus { total_bytes: 1 << 40, free_bytes: 1 << 40, ..Default::default() };
            let beat = pb::HeartbeatRequest { server, disks: vec![disk], ..Default::default() };
            leader.ask(100 + u64::from(server), &beat).unwrap();
        }
        leader.pass(Duration::from_millis(500));
    }
}

#[test]
fn a_copy_in_doubt_is_named_last_and_fetched_anew_from_a_whole_one_until_it_is_reported() {
    let (mut leader, inode, grant) = with_a_chunk();
    let locate = pb::LocateRequest { session: 1, inode, first_index: 0, count: 1 };
    let first = |leader: &mut Leader| leader.ask(1, &locate).unwrap().chunks[0].servers[0].server;
    let doubtful = u8::try_from(first(&mut leader)).unwrap();
    let whole = 3 - doubtful;
    report(&mut leader, doubtful, grant.chunk, true);
    pass(&mut leader, Duration::from_secs(1));
    assert_eq!(orders(&mut leader), [], "of no copy is it known that it is whole");
    report(&mut leader, whole, grant.chunk, false);
    assert_eq!(first(&mut leader), u32::from(whole));
    pass(&mut leader, Duration::from_secs(1));
    let given = orders(&mut leader);
    let [(conn, order)] = &given[..] else { panic!("{given:?}") };
    assert_eq!((*conn, order.chunk, order.version), (100 + u64::from(doubtful), grant.chunk, 1));
    assert!(order.replace && order.source == format!("s{whole}:1"), "{order:?}");
    pass(&mut leader, Duration::from_secs(61));
    assert_eq!(orders(&mut leader).len(), 1, "it is given again");
    report(&mut leader, doubtful, grant.chunk, false);
    pass(&mut leader, Duration::from_secs(61));
    assert_eq!(orders(&mut leader), []);
    assert_eq!(first(&mut leader), u32::from(doubtful), "the order of the row");
}

#[test]
fn copies_and_parts_of_a_dead_chunk_are_ordered_gone_and_it_is_forgotten_once_both_are() {
    let (mut leader, ..) = with_a_chunk();
    let chunk = ChunkId::from_raw(99);
    // Server 1 has part 3, server 2 a whole copy: as docs/formats/metadata-rows.md draws it.
    let key = [&b"g"[..], &chunk.raw().to_be_bytes()].concat();
    let rows = [(key, Some(Bytes::from_static(&[2, 2, 1, 3, 2, 0])))].into();
    leader.core.state().store().write(&Batch { applied_index: 0, rows });
    pass(&mut leader, Duration::from_secs(1));
    let pushed = std::mem::take(&mut leader.pushed).into_iter();
    let orders = pushed.filter(|(_, frame)| frame.header.kind == pb::DeleteChunks::KIND);
    let given: Vec<_> =
        orders.map(|(conn, frame)| (number(conn), pb::DeleteChunks::decode(frame.body).unwrap())).collect();
    let part = pb::PartRef { chunk: 99, index: 3 };
    let of_part = pb::DeleteChunks { chunks: Vec::new(), parts: vec![part] };
    let of_copy = pb::DeleteChunks { chunks: vec![99], parts: Vec::new() };
    assert_eq!(given, [(101, of_part), (102, of_copy)]);
    let gone = |leader: &mut Leader, server, lost, lost_parts| {
        let report = pb::ChunkReportRequest { server, lost, lost_parts, ..Default::default() };
        leader.ask(100 + u64::from(server), &report).unwrap();
        pass(leader, Duration::from_secs(1));
        leader.core.state().dead_chunks(chunk, 9).len()
    };
    assert_eq!(gone(&mut leader, 1, vec![99], Vec::new()), 1, "that was not the part");
    assert_eq!(gone(&mut leader, 2, vec![99], Vec::new()), 1);
    assert_eq!(gone(&mut leader, 1, Vec::new(), vec![part]), 0);
}

#[test]
fn after_an_upgrade_the_leader_completes_the_table_from_servers_to_chunks_by_itself() {
    let old = Levels::new(Level::FIRST, Level::FIRST).unwrap();
    let (mut leader, _, grant) = with_a_chunk_of(Leader::founded_by(old));
    leader.core.groups.root_mut().upgrade(SUPPORTED);
    // One more chunk than a round enters lies in the store from before.
    let row = |chunk: u64| {
        let value = Bytes::from_static(&[1, 77, 0, 1, 1, 0, 1, 2, 10, 0]);
        ([&b"c"[..], &chunk.to_be_bytes()].concat(), Some(value))
    };
    let rows = (1000..1000 + u64::from(INDEX_MAX)).map(row).collect();
    leader.core.state().store().write(&Batch { applied_index: 0, rows });
    pass(&mut leader, Duration::from_secs(1));
    assert_eq!(leader.core.state().next_to_index(), None, "not at this level");
    let command = ClusterCommand::RaiseLevel { level: Level::IDENTITY }.into();
    let proposal = Proposal { request: None, command, ticket: Ticket(u64::MAX) };
    leader.core.groups.root_mut().gather(proposal);
    pass(&mut leader, Duration::from_secs(1));
    let state = leader.core.state();
    assert!(state.is_indexed());
    let held = |server| state.held_by(ServerId::from_raw(server), None, usize::MAX).unwrap();
    assert_eq!(held(1), [Part::whole(ChunkId::from_raw(grant.chunk))]);
    assert_eq!(held(2).len(), 1 + INDEX_MAX as usize);
    let index = state.applied_index();
    pass(&mut leader, Duration::from_secs(1));
    assert_eq!(leader.core.state().applied_index(), index, "there is nothing left to do");
}

#[test]
fn a_chunk_in_parts_is_found_and_granted_by_nobody_yet() {
    let (mut leader, inode, _) = with_a_chunk();
    // Chunk 99 is the second of the file, two data parts and one of parity: as docs/formats/metadata-rows.md draws it.
    let file = [&b"f"[..], &inode.to_be_bytes(), &1u32.to_be_bytes()].concat();
    let chunk = [&b"c"[..], &99u64.to_be_bytes()].concat();
    let row = [2, u8::try_from(inode).unwrap(), 1, 1, 1, 0, 1, 2, 1, 3, 1, 2, 1, 10, 0];
    let rows = [(file, Bytes::from_static(&[1, 99])), (chunk, Bytes::copy_from_slice(&row))];
    let rows = rows.map(|(key, value)| (key, Some(value))).into();
    leader.core.state().store().write(&Batch { applied_index: 0, rows });
    let locate = |count| pb::LocateRequest { session: 1, inode, first_index: 0, count };
    assert_eq!(leader.ask(1, &locate(1)).unwrap().chunks.len(), 1);
    let refused = |error| matches!(error, CallError::Refused(FsError::NotSupported));
    assert!(refused(leader.ask(1, &locate(2)).unwrap_err()));
    let meta = Some(pb::RequestMeta { session: 1, seq: 4, acked_below: 4 });
    let grant = pb::GrantWriteRequest { meta, inode, index: 1, ..Default::default() };
    assert!(refused(leader.ask(1, &grant).unwrap_err()));
}

#[test]
fn a_grant_drops_no_server_while_only_those_that_are_down_would_stay() {
    let (mut leader, inode, first) = with_a_chunk();
    for server in SERVERS {
        report(&mut leader, server, first.chunk, false);
    }
    let (session, mut seq) = (1, 10);
    let mut grant = |leader: &mut Leader, failed: u32| {
        seq += 1;
        let meta = Some(pb::RequestMeta { session, seq, acked_below: seq });
        let failed_servers = vec![failed];
        leader.ask(1, &pb::GrantWriteRequest { meta, inode, failed_servers, ..Default::default() }).unwrap()
    };
    let lease = pb::RequestMeta { session, seq: 10, acked_below: 10 };
    leader.ask(1, &pb::GrantWriteRequest { meta: Some(lease), inode, ..Default::default() }).unwrap();
    leader.core.closed(leader.now, framed(102));
    let kept = grant(&mut leader, 1);
    assert_eq!((kept.chunk, kept.version, kept.servers.len()), (first.chunk, 3, 2));
    assert_eq!(kept.servers[0].server, 1, "who is up is named first");
    let dropped = grant(&mut leader, 2);
    assert_eq!((dropped.version, dropped.servers.len(), dropped.fresh), (4, 1, false));
    let last = grant(&mut leader, 1);
    assert_eq!((last.version, last.servers.len()), (5, 1));
}

#[test]
fn workers_that_have_found_nothing_to_do_look_around_rarely_until_something_changes() {
    let (mut leader, ..) = with_a_chunk();
    let turns = |leader: &mut Leader, time: Duration| {
        let before = leader.core.desk.turns_of_workers();
        leader.pass(time);
        leader.core.desk.turns_of_workers() - before
    };
    leader.pass(Duration::from_secs(9));
    assert_eq!(turns(&mut leader, Duration::from_secs(2)), 4);
    leader.open(7);
    assert_eq!(turns(&mut leader, Duration::from_millis(60)), 1, "a session has come");
}

/// Frames of one kind that were pushed, with the number of the server that got each.
fn pushed<R: Rpc>(leader: &mut Leader) -> Vec<(u64, R)> {
    let (of_kind, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut leader.pushed).into_iter().partition(|(_, frame)| frame.header.kind == R::KIND);
    leader.pushed = others;
    of_kind.into_iter().map(|(conn, frame)| (number(conn) - 100, R::decode(frame.body).unwrap())).collect()
}

/// A server has fetched or verified its copy.
fn verified(leader: &mut Leader, server: u8, chunk: u64) {
    let chunks = vec![pb::CopyStatus { chunk, version: 1, verified: true, ..Default::default() }];
    let report = pb::ChunkReportRequest { server: server.into(), chunks, ..Default::default() };
    leader.ask(100 + u64::from(server), &report).unwrap();
}

fn health(leader: &mut Leader) -> (Vec<(u32, u32, u64)>, Vec<u64>) {
    let reply = leader.ask(1, &pb::ChunkHealthRequest {}).unwrap();
    let matrix = reply.matrix.iter().map(|count| (count.wanted, count.live, count.chunks)).collect();
    (matrix, reply.conditions.iter().map(|count| count.chunks).collect())
}

#[test]
fn a_lost_copy_is_made_again_on_another_server_and_the_one_that_comes_back_goes_by_the_rule() {
    let (mut leader, _, grant) = with_a_chunk();
    let chunk = grant.chunk;
    assert_eq!(leader.serve_chunks(3), 3);
    for server in [1, 2] {
        report(&mut leader, server, chunk, false);
    }
    let nothing = pb::ChunkReportRequest { server: 3, full: true, last: true, ..Default::default() };
    leader.ask(103, &nothing).unwrap();
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(4));
    assert_eq!(health(&mut leader), (vec![(2, 2, 1)], vec![0; 6]));
    let servers = |leader: &Leader| -> Vec<u32> {
        let row = leader.core.state().chunk(ChunkId::from_raw(chunk)).unwrap();
        row.layout.copies().unwrap().iter().map(|server| server.raw()).collect()
    };

    // Server 2 falls silent. Nothing is done while it may only be away for a moment.
    pass_with(&mut leader, &[1, 3], Duration::from_secs(7));
    assert_eq!(health(&mut leader), (vec![(2, 1, 1)], vec![0, 1, 0, 0, 0, 0]));
    assert_eq!(pushed::<pb::CopyChunk>(&mut leader), []);
    pass_with(&mut leader, &[1, 3], Duration::from_secs(5));
    let given = pushed::<pb::CopyChunk>(&mut leader);
    let [(3, order)] = &given[..] else { panic!("{given:?}") };
    assert!(order.source == "s1:1" && order.chunk == chunk && !order.replace, "{order:?}");

    // A copy counts when it is verified, and the silent server's is struck off when it has been given up.
    verified(&mut leader, 3, chunk);
    pass_with(&mut leader, &[1, 3], Duration::from_secs(1));
    assert!(servers(&leader).contains(&3));
    pass_with(&mut leader, &[1, 3], Duration::from_secs(30));
    assert_eq!((servers(&leader), health(&mut leader)), (vec![1, 3], (vec![(2, 2, 1)], vec![0; 6])));

    // It comes back: its copy goes only when both others are verified.
    report(&mut leader, 2, chunk, false);
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(1));
    assert_eq!(pushed::<pb::QuarantineChunks>(&mut leader), []);
    let asked = pushed::<pb::VerifyChunks>(&mut leader);
    let whole = pb::PartRef { chunk, index: 0 };
    assert_eq!(
        asked,
        [(1, pb::VerifyChunks { parts: vec![whole] })],
        "that of server 3 was verified as it came"
    );
    verified(&mut leader, 1, chunk);
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(1));
    let copies = vec![pb::CondemnedCopy { chunk, index: 0, version: 1 }];
    let order = pb::QuarantineChunks { copies, keep_s: 24 * 3600 };
    assert_eq!(pushed::<pb::QuarantineChunks>(&mut leader), [(2, order)]);
    let lost = pb::ChunkReportRequest { server: 2, lost: vec![chunk], ..Default::default() };
    leader.ask(102, &lost).unwrap();
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(61));
    assert_eq!(health(&mut leader), (vec![(2, 2, 1)], vec![0; 6]));
    assert_eq!(pushed::<pb::QuarantineChunks>(&mut leader), []);
}

#[test]
fn chunks_that_no_file_has_wait_in_quarantine_for_a_week_and_those_of_a_later_state_are_left_alone() {
    let (mut leader, _, grant) = with_a_chunk();
    let (known, later) = (grant.chunk, grant.chunk + 1000);
    let unknown = grant.chunk - 1;
    assert!(leader.core.state().chunk(ChunkId::from_raw(unknown)).is_none() || unknown == 0);
    let status = |chunk| pb::CopyStatus { chunk, version: 1, ..Default::default() };
    for server in SERVERS {
        let chunks = vec![status(unknown), status(known), status(later)];
        let report = pb::ChunkReportRequest {
            server: server.into(),
            full: true,
            last: true,
            chunks,
            ..Default::default()
        };
        leader.ask(100 + u64::from(server), &report).unwrap();
    }
    pass(&mut leader, Duration::from_secs(5));
    let orders = pushed::<pb::QuarantineChunks>(&mut leader);
    let condemned = |(_, order): &(u64, pb::QuarantineChunks)| (order.copies[0].chunk, order.keep_s);
    assert_eq!(orders.iter().map(condemned).collect::<Vec<_>>(), [(unknown, 7 * 24 * 3600); 2]);
    let listed = pb::ListChunksRequest { only: known, ..Default::default() };
    let shown = leader.ask(1, &listed).unwrap().chunks;
    assert_eq!((shown[0].inode, shown[0].live, shown[0].copies.len()), (grant.attr.unwrap().inode, 2, 2));
}

/// Server `server` tells that its copy has this version.
fn tell(leader: &mut Leader, server: u8, chunk: u64, version: u32, verified: bool) {
    let chunks = vec![pb::CopyStatus { chunk, version, verified, ..Default::default() }];
    let report = pb::ChunkReportRequest { server: server.into(), chunks, ..Default::default() };
    leader.ask(100 + u64::from(server), &report).unwrap();
}

/// A chunk whose writer has died, and the server whose copy readers take first.
fn with_a_dead_writer() -> (Leader, u64, pb::GrantWriteReply, u8) {
    let (mut leader, inode, grant) = with_a_chunk();
    for server in SERVERS {
        report(&mut leader, server, grant.chunk, false);
    }
    let lease = pb::RequestMeta { session: 1, seq: 4, acked_below: 4 };
    leader.ask(1, &pb::GrantWriteRequest { meta: Some(lease), inode, ..Default::default() }).unwrap();
    close(&mut leader, 1, 5);
    let row = leader.core.state().chunk(ChunkId::from_raw(grant.chunk)).unwrap();
    assert!(row.differs && row.granted.raw() == 2 && row.committed.raw() == 1);
    let first = u8::try_from(row.layout.copies().unwrap()[0].raw()).unwrap();
    (leader, inode, grant, first)
}

fn close(leader: &mut Leader, session: u64, seq: u64) {
    let meta = Some(pb::RequestMeta { session, seq, acked_below: seq });
    leader.ask(1, &pb::CloseSessionRequest { meta }).unwrap();
}

#[test]
fn copies_that_a_dead_writer_left_are_made_like_the_first_good_one_once_that_is_verified() {
    let (mut leader, _, grant, first) = with_a_dead_writer();
    let (chunk, other) = (grant.chunk, 3 - first);
    pass(&mut leader, Duration::from_secs(4));
    let whole = pb::PartRef { chunk, index: 0 };
    let asked = pushed::<pb::VerifyChunks>(&mut leader);
    assert_eq!(asked, [(first.into(), pb::VerifyChunks { parts: vec![whole] })]);
    tell(&mut leader, first, chunk, 1, true);
    pass(&mut leader, Duration::from_secs(4));
    let settled = pushed::<pb::SettleChunk>(&mut leader);
    assert_eq!(settled, [(first.into(), pb::SettleChunk { chunk, index: 0, version: 3 })]);
    tell(&mut leader, first, chunk, 3, false);
    pass(&mut leader, Duration::from_secs(1));
    let fetched = pushed::<pb::CopyChunk>(&mut leader);
    let [(to, order)] = &fetched[..] else { panic!("{fetched:?}") };
    assert_eq!((*to, order.version, &order.source), (other.into(), 3, &format!("s{first}:1")));
    tell(&mut leader, other, chunk, 3, true);
    pass(&mut leader, Duration::from_secs(4));
    let row = leader.core.state().chunk(ChunkId::from_raw(chunk)).unwrap();
    assert!(!row.differs && row.committed.raw() == 3 && row.granted.raw() == 3);
    assert_eq!(health(&mut leader), (vec![(2, 2, 1)], vec![0; 6]));
}

/// The version would be the writer's, whose copies may differ as well.
#[test]
fn a_version_that_a_writer_has_taken_meanwhile_settles_nothing() {
    let (mut leader, inode, grant, first) = with_a_dead_writer();
    let chunk = grant.chunk;
    pass(&mut leader, Duration::from_secs(4));
    let session = leader.open(2);
    tell(&mut leader, first, chunk, 1, true);

    // The leader plans to give out version 3, while a grant that has it is on its way into the log.
    let meta = Some(pb::RequestMeta { session, seq: 1, acked_below: 1 });
    let request = pb::GrantWriteRequest { meta, inode, ..Default::default() };
    let header = Header { kind: pb::GrantWriteRequest::KIND, request: 1, ..Header::default() };
    leader.core.request(
        leader.now,
        &principal(Role::Client),
        framed(2),
        header,
        request.encode_to_vec().into(),
    );
    for _ in 0..60 {
        leader.now.mono += MasterCore::next_tick();
        leader.core.tick(leader.now);
    }
    assert_eq!(leader.pass(Duration::from_millis(100)).len(), 1, "the grant is answered");
    let row = |leader: &Leader| leader.core.state().chunk(ChunkId::from_raw(chunk)).unwrap();
    assert!(row(&leader).lease.is_some() && row(&leader).granted.raw() == 3, "{:?}", row(&leader));
    let refused = leader.ask(1, &pb::ClusterStatusRequest {}).unwrap().workers;
    assert!(refused.iter().any(|worker| worker.name == "heal" && worker.refused == 1), "{refused:?}");

    // The writer writes to one copy and dies.
    for server in SERVERS {
        tell(&mut leader, server, chunk, 3, false);
    }
    close(&mut leader, session, 2);
    pass(&mut leader, Duration::from_secs(4));
    assert!(row(&leader).differs && row(&leader).committed.raw() == 1, "{:?}", row(&leader));
    tell(&mut leader, first, chunk, 3, true);
    pass(&mut leader, Duration::from_secs(4));
    assert_eq!(pushed::<pb::SettleChunk>(&mut leader).last().map(|(_, order)| order.version), Some(4));
}

#[test]
fn a_copy_that_a_server_has_no_more_when_it_tells_of_all_is_not_waited_for() {
    let (mut leader, ..) = with_a_chunk();
    // With the number of no file, as a lost entry would leave it.
    let unknown = pb::CopyStatus { chunk: 0, version: 1, ..Default::default() };
    let full =
        |chunks| pb::ChunkReportRequest { server: 1, full: true, last: true, chunks, ..Default::default() };
    leader.ask(101, &full(vec![unknown])).unwrap();
    pass(&mut leader, Duration::from_secs(1));
    let ask = |leader: &mut Leader| leader.ask(1, &pb::ChunkHealthRequest {}).unwrap();
    assert_eq!((ask(&mut leader).unknown, pushed::<pb::QuarantineChunks>(&mut leader).len()), (1, 1));
    leader.ask(101, &full(Vec::new())).unwrap();
    pass(&mut leader, Duration::from_secs(62));
    assert_eq!((ask(&mut leader).unknown, pushed::<pb::QuarantineChunks>(&mut leader).len()), (0, 0));
}

/// Three servers, and one chunk that the first two have.
fn with_three_servers() -> (Leader, u64) {
    let (mut leader, _, grant) = with_a_chunk();
    assert_eq!(leader.serve_chunks(3), 3);
    for server in [1, 2] {
        report(&mut leader, server, grant.chunk, false);
    }
    let nothing = pb::ChunkReportRequest { server: 3, full: true, last: true, ..Default::default() };
    leader.ask(103, &nothing).unwrap();
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(4));
    (leader, grant.chunk)
}

fn set_mode(leader: &mut Leader, server: u32, mode: pb::ServerMode, maintenance_s: u64) {
    let mode = mode.into();
    let request = pb::SetServerModeRequest { server, mode, maintenance_s, ..Default::default() };
    leader.ask(1, &request).unwrap();
}

/// Mode of server 2, and whether no chunk counts a copy of its.
fn second(leader: &mut Leader) -> (pb::ServerMode, Option<bool>) {
    let status = leader.ask(1, &pb::ClusterStatusRequest {}).unwrap();
    let second = status.servers.iter().find(|it| it.id == 2).unwrap();
    (second.mode(), second.empty)
}

#[test]
fn a_server_that_is_drained_keeps_its_copy_until_another_has_it_verified_and_gets_no_new_one() {
    let (mut leader, chunk) = with_three_servers();
    assert_eq!(second(&mut leader), (pb::ServerMode::Normal, Some(false)));
    set_mode(&mut leader, 2, pb::ServerMode::Draining, 0);
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(1));
    assert_eq!(second(&mut leader), (pb::ServerMode::Draining, Some(false)));
    assert_eq!(health(&mut leader), (vec![(2, 2, 1)], vec![0, 0, 0, 0, 0, 1]));
    let given = pushed::<pb::CopyChunk>(&mut leader);
    assert_eq!(given.iter().map(|(server, order)| (*server, order.chunk)).collect::<Vec<_>>(), [(3, chunk)]);
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(2));
    assert_eq!(second(&mut leader).1, Some(false), "the other copy is not there yet");

    // Copies that stay are verified before one goes.
    verified(&mut leader, 3, chunk);
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(5));
    assert_eq!(second(&mut leader).1, Some(false));
    let asked: Vec<u64> = pushed::<pb::VerifyChunks>(&mut leader).iter().map(|(server, _)| *server).collect();
    assert_eq!(asked, [1]);
    verified(&mut leader, 1, chunk);
    pass_with(&mut leader, &[1, 2, 3], Duration::from_secs(5));
    assert_eq!(second(&mut leader), (pb::ServerMode::Draining, Some(true)));
    let gone = pushed::<pb::QuarantineChunks>(&mut leader);
    assert_eq!(gone.iter().map(|(server, _)| *server).collect::<Vec<_>>(), [2]);

    // It can be forgotten when it is down.
    let forget = pb::ForgetServerRequest { server: 2 };
    let refused = leader.ask(1, &forget).unwrap_err().to_string();
    assert!(refused.contains("is up: stop it first"), "{refused}");
    pass_with(&mut leader, &[1, 3], Duration::from_secs(5));
    leader.ask(1, &forget).unwrap();
    let status = leader.ask(1, &pb::ClusterStatusRequest {}).unwrap();
    assert_eq!(status.servers.iter().map(|it| it.id).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_server_is_not_drained_without_force_where_its_copies_have_nowhere_to_go() {
    let (mut leader, _, grant) = with_a_chunk();
    let mut request =
        pb::SetServerModeRequest { server: 2, mode: pb::ServerMode::Draining.into(), ..Default::default() };
    let early = leader.ask(1, &request);
    assert!(matches!(early, Err(CallError::Unavailable { .. })), "nobody knows what it has: {early:?}");
    report(&mut leader, 2, grant.chunk, false);
    let refused = leader.ask(1, &request).unwrap_err().to_string();
    assert!(refused.contains("class default (2) needs it"), "{refused}");
    request.dry_run = true;
    assert_eq!(leader.ask(1, &request).unwrap().warnings.len(), 1, "nothing is of class 2CP");
    (request.dry_run, request.force) = (false, true);
    leader.ask(1, &request).unwrap();
    assert_eq!(second(&mut leader).0, pb::ServerMode::Draining);
    let no_such = pb::SetServerModeRequest { server: 9, ..request };
    assert!(leader.ask(1, &no_such).unwrap_err().to_string().contains("there is no chunkserver 9"));
    let forget = leader.ask(1, &pb::ForgetServerRequest { server: 9 });
    assert!(forget.unwrap_err().to_string().contains("there is no chunkserver 9"));
}

#[test]
fn copies_on_a_server_in_maintenance_are_not_made_again_until_its_time_is_up() {
    let (mut leader, chunk) = with_three_servers();
    let mut request = pb::SetServerModeRequest {
        server: 2,
        mode: pb::ServerMode::Maintenance.into(),
        maintenance_s: 0,
        ..Default::default()
    };
    assert!(leader.ask(1, &request).is_err(), "without an end");
    request.maintenance_s = 120;
    leader.ask(1, &request).unwrap();
    pass_with(&mut leader, &[1, 3], Duration::from_secs(110));
    assert_eq!(second(&mut leader), (pb::ServerMode::Maintenance, Some(false)));
    assert_eq!(pushed::<pb::CopyChunk>(&mut leader), []);
    let forget = leader.ask(1, &pb::ForgetServerRequest { server: 2 }).unwrap_err().to_string();
    assert!(forget.contains("chunks count copies"), "{forget}");
    pass_with(&mut leader, &[1, 3], Duration::from_secs(15));
    assert_eq!(second(&mut leader).0, pb::ServerMode::Normal);
    let given = pushed::<pb::CopyChunk>(&mut leader);
    assert_eq!(given.iter().map(|(server, order)| (*server, order.chunk)).collect::<Vec<_>>(), [(3, chunk)]);
}
