//! What the desk makes of what the group does.

use std::time::Duration;

use mooseng_meta::{ClusterCommand, Entry};
use mooseng_protocol::pb;
use mooseng_types::{ChunkId, InodeId, ServerId, TimeNs};

use crate::core::testing::{Leader, core};
use crate::group::testing::NOW;
use crate::raft::{HardState, LogEntry, Recovered};

#[test]
fn a_server_that_another_master_made_known_has_an_address_here_before_it_speaks() {
    let (uuid, name, address) = ([1; 16], "s".to_owned(), "s:1".to_owned());
    let command = ClusterCommand::RegisterServer { uuid, name, address }.into();
    let entry = Entry { stamp: TimeNs::from_raw(0), request: None, command };
    let logged = LogEntry { term: 1, index: 1, kind: 0, data: entry.encode().into() };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    let recovered = Recovered { hard_state, purged: (0, 0), entries: vec![logged] };
    let mut core = core(3, recovered);
    core.settle(NOW);
    assert_eq!(core.state().applied_index(), 1);
    let server = core.state().servers()[0].server;
    assert_eq!(server, ServerId::from_raw(1));
    let known = core.desk.registry.addresses(ChunkId::from_raw(1), &[server], Duration::ZERO);
    assert_eq!(known, [(server, "s:1".to_owned())]);
}

#[test]
fn a_session_that_an_earlier_leader_opened_last_has_its_files_kept_by_the_next_one() {
    let command = ClusterCommand::OpenSession { client: [1; 16], name: "mount".to_owned() }.into();
    let entry = Entry { stamp: TimeNs::from_raw(0), request: None, command };
    let logged = LogEntry { term: 1, index: 1, kind: 0, data: entry.encode().into() };
    // Not known to be committed: it is applied when this master leads already.
    let hard_state = HardState { term: 1, vote: 0, commit: 0 };
    let recovered = Recovered { hard_state, purged: (0, 0), entries: vec![logged] };
    let mut leader = Leader::with(core(1, recovered));
    let session = 1;
    let meta = Some(pb::RequestMeta { session, seq: 1, acked_below: 1 });
    let create = pb::CreateRequest { meta, parent: 1, name: "f".into(), kind: 8, ..Default::default() };
    let file = leader.ask(1, &create).unwrap().attr.unwrap().inode;
    leader.ask(1, &pb::OpenRequest { session, inode: file, number: 1 }).unwrap();
    assert!(leader.core.desk.sessions.is_open(InodeId::from_raw(file)));
    assert!(!leader.core.desk.sessions.all_confirmed(), "it may have more open than this master knows");
}

#[test]
fn a_leader_that_the_group_goes_on_without_tells_no_chunkserver_that_it_leads() {
    let mut leader = Leader::new();
    let server = leader.serve_chunks(1);
    let heartbeat = pb::HeartbeatRequest { server, ..Default::default() };
    assert!(leader.ask(101, &heartbeat).unwrap().leader);
    leader.core.group.leave_for_good(9);
    let reply = leader.ask(101, &heartbeat).unwrap();
    assert!(!reply.leader && !reply.want_full_report && reply.masters.is_empty(), "{reply:?}");
}
