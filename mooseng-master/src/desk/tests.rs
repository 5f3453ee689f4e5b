//! What the desk makes of what the group does.

mod classes;
pub(super) mod leases;
mod limits;

use std::sync::Arc;
use std::time::Duration;

use mooseng_meta::{BATCH_MAX, ClusterCommand, Entry, MetaState};
use mooseng_protocol::pb;
use mooseng_protocol::pb::batch_change::Change as Item;
use mooseng_protocol::status::CallError;
use mooseng_types::level::SUPPORTED;
use mooseng_types::{CellId, ChunkId, FsError, InodeId, Level, Levels, ServerId, TimeNs};

use crate::core::Effect;
use crate::core::testing::{Leader, core, framed};
use crate::desk;
use crate::group::testing::{NOW, config, snapshot};
use crate::raft::{HardState, LogEntry, Recovered};
use crate::registry::Registry;

#[test]
fn a_server_that_another_master_made_known_has_an_address_here_before_it_speaks() {
    let (uuid, name, address) = ([1; 16], "s".to_owned(), "s:1".to_owned());
    let command = ClusterCommand::RegisterServer { uuid, name, address, place: None }.into();
    let entry = Entry { stamp: TimeNs::from_raw(0), request: None, command };
    let logged = LogEntry { term: 1, index: 1, kind: 0, data: entry.encode().into() };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    let recovered = Recovered { hard_state, purged: (0, 0), entries: vec![logged] };
    let mut core = core(config(3), recovered);
    core.settle(NOW);
    assert_eq!(core.state().applied_index(), 1);
    let server = core.state().servers()[0].server;
    assert_eq!(server, ServerId::from_raw(1));
    let known = core.desk.registry.addresses(ChunkId::from_raw(1), &[server], Duration::ZERO);
    assert_eq!(known, [(server, "s:1".to_owned())]);
}

#[test]
fn a_chunk_is_not_taken_for_lost_because_its_servers_are_not_known_yet() {
    let (mut leader, inode, chunk) = leases::held();
    let committed =
        pb::CommittedChunk { index: 0, chunk: chunk.chunk, version: chunk.version, release: true };
    let commit = pb::CommitWriteRequest {
        meta: leases::meta(1, 3),
        inode,
        size_at_least: 10,
        chunks: vec![committed],
        mtime_ns: None,
    };
    leader.ask(1, &commit).unwrap();
    let locate = pb::LocateRequest { session: 2, inode, first_index: 0, count: 1 };
    assert_eq!(leader.ask(2, &locate).unwrap().chunks[0].servers.len(), 1);
    // As where this master leads another cell's group, and has nothing of the root's yet.
    leader.core.desk.registry = Registry::of(&[]);
    let waits = |answer: Result<(), CallError>| matches!(answer, Err(CallError::Unavailable { .. }));
    assert!(waits(leader.ask(2, &locate).map(drop)));
    assert!(waits(leader.ask(2, &leases::grant(2, 1, inode)).map(drop)));
}

#[test]
fn a_session_that_an_earlier_leader_opened_last_has_its_files_kept_by_the_next_one() {
    let command = ClusterCommand::OpenSession { client: [1; 16], name: "mount".to_owned() }.into();
    let entry = Entry { stamp: TimeNs::from_raw(0), request: None, command };
    let logged = LogEntry { term: 1, index: 1, kind: 0, data: entry.encode().into() };
    // Not known to be committed: it is applied when this master leads already.
    let hard_state = HardState { term: 1, vote: 0, commit: 0 };
    let recovered = Recovered { hard_state, purged: (0, 0), entries: vec![logged] };
    let mut leader = Leader::with(core(config(1), recovered));
    let session = 1;
    let meta = Some(pb::RequestMeta { session, seq: 1, acked_below: 1 });
    let create = pb::CreateRequest { meta, parent: 1, name: "f".into(), kind: 8, ..Default::default() };
    let file = leader.ask(1, &create).unwrap().attr.unwrap().inode;
    leader.ask(1, &pb::OpenRequest { session, inode: file, number: 1 }).unwrap();
    assert!(leader.core.desk.cell(CellId::ROOT).sessions.is_open(InodeId::from_raw(file)));
    assert!(
        !leader.core.desk.cell(CellId::ROOT).sessions.all_confirmed(),
        "it may have more open than this master knows"
    );
}

#[test]
fn a_leader_that_the_group_goes_on_without_tells_no_chunkserver_that_it_leads() {
    let mut leader = Leader::new();
    let server = leader.serve_chunks(1);
    let heartbeat = pb::HeartbeatRequest { server, ..Default::default() };
    assert!(leader.ask(101, &heartbeat).unwrap().leader);
    leader.core.groups.root_mut().leave_for_good(9);
    let reply = leader.ask(101, &heartbeat).unwrap();
    assert!(!reply.leader && !reply.want_full_report && reply.masters.is_empty(), "{reply:?}");
}

#[test]
fn a_part_that_does_not_know_the_level_of_an_installed_snapshot_is_cut_off() {
    let mut core = core(config(1), Recovered::default());
    let old = Levels::new(Level::FIRST, Level::FIRST).unwrap();
    core.welcome(framed(5), &pb::Hello::new(pb::Role::Client, "old", None, old)).unwrap();
    core.welcome(framed(6), &pb::Hello::new(pb::Role::Client, "new", None, SUPPORTED)).unwrap();
    let (_, store) = snapshot(41, 3);
    let (message, _) = snapshot(42, 3);
    let mut state = MetaState::open(Arc::clone(&store), CellId::ROOT).unwrap();
    let command = ClusterCommand::RaiseLevel { level: Level::IDENTITY }.into();
    state.apply(42, &Entry { stamp: NOW.wall, request: None, command });
    store.write(&state.freeze().unwrap());
    core.snapshot_received(NOW, CellId::ROOT, message, store);
    core.settle(NOW);
    assert_eq!(core.state().level(), Level::IDENTITY);
    let cut = |effect| match effect {
        Effect::Desk(desk::Effect::Cut(conn)) => Some(conn),
        _ => None,
    };
    let cut: Vec<_> = core.take_effects().into_iter().filter_map(cut).collect();
    assert_eq!(cut, [framed(5)]);
}

/// A batch of creations of files with these names, and then the removal of one.
fn batch(session: u64, seq: u64, create: &[&'static str], unlink: &'static str) -> pb::BatchRequest {
    let change = |change| pb::BatchChange { change: Some(change) };
    let created = |name: &&'static str| {
        let open = *name == "open";
        let it = pb::CreateRequest {
            parent: 1,
            name: (*name).into(),
            kind: 8,
            open,
            open_number: 1,
            ..Default::default()
        };
        change(Item::Create(it))
    };
    let removed = pb::UnlinkRequest { parent: 1, name: unlink.into(), ..Default::default() };
    let changes = create.iter().map(created).chain([change(Item::Unlink(removed))]).collect();
    pb::BatchRequest { meta: Some(pb::RequestMeta { session, seq, acked_below: 1 }), changes }
}

#[test]
fn a_batch_is_one_entry_answered_one_by_one_and_stops_at_the_first_refusal() {
    let mut leader = Leader::new();
    let session = leader.open(1);
    let before = leader.core.state().applied_index();
    let done = leader.ask(1, &batch(session, 1, &["a", "open"], "a")).unwrap().answers;
    assert_eq!(leader.core.state().applied_index(), before + 1);
    let refusals = |answers: &[pb::BatchAnswer]| answers.iter().map(|it| it.refusal).collect::<Vec<_>>();
    assert_eq!((refusals(&done), done[2].attr.is_none()), (vec![0, 0, 0], true));
    let open = InodeId::from_raw(done[1].attr.unwrap().inode);
    assert!(leader.core.desk.cell(CellId::ROOT).sessions.is_open(open));
    let again = leader.ask(1, &batch(session, 1, &["a", "open"], "a")).unwrap().answers;
    assert_eq!(again, done, "the same request, sent again");
    let stopped = leader.ask(1, &batch(session, 2, &["b", "open", "c"], "b")).unwrap().answers;
    assert_eq!(refusals(&stopped), [0, FsError::Exists.code()]);
    let lookup = |name: &'static str| pb::LookupRequest { parent: 1, name: name.into() };
    assert!(leader.ask(1, &lookup("b")).is_ok() && leader.ask(1, &lookup("c")).is_err());
}

#[test]
fn a_batch_that_no_master_should_see_is_refused_before_it_is_proposed() {
    let mut leader = Leader::new();
    let session = leader.open(1);
    let before = leader.core.state().applied_index();
    let mut empty = batch(session, 1, &[], "a");
    empty.changes.clear();
    assert!(leader.ask(1, &empty).is_err());
    empty.changes.push(pb::BatchChange { change: None });
    assert!(leader.ask(1, &empty).is_err());
    assert!(leader.ask(1, &batch(session, 1, &["a"; BATCH_MAX], "a")).is_err());
    assert_eq!(leader.core.state().applied_index(), before);
    let old = Levels::new(Level::FIRST, Level::FIRST).unwrap();
    let mut leader = Leader::founded_by(old);
    let session = leader.open(1);
    let before = leader.core.state().applied_index();
    let refused = leader.ask(1, &batch(session, 1, &["a"], "b")).unwrap_err();
    assert!(matches!(refused, CallError::Refused(FsError::NotSupported)), "{refused}");
    assert_eq!(leader.core.state().applied_index(), before);
}
