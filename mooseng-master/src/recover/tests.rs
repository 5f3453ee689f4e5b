//! What is in the directory before and after, and after a crash in between.

use std::time::Duration;

use bytes::Bytes;
use mooseng_env::secret::Secret;
use mooseng_meta::{ClusterCommand, Command};
use mooseng_protocol::group_entry::ChangeEntry;
use mooseng_types::CellId;

use super::*;
use crate::config::Peer;
use crate::raft::{HardState, Persist};

const ROOT: CellId = CellId::ROOT;

fn config(data: &std::path::Path) -> Config {
    let peer = |id: u64| Peer { id, name: format!("m{id}"), address: format!("127.0.0.1:{id}") };
    Config {
        name: "m2".into(),
        number: 2,
        data: data.to_owned(),
        listen: "127.0.0.1:2".into(),
        grpc_listen: None,
        cluster: ClusterId::from_bytes([9; 16]),
        secret: Secret::take(&mut [1; 32]),
        peers: (1..=3).map(peer).collect(),
        copies: 2,
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(250),
        session_timeout: Duration::from_secs(10),
        repair: crate::desk::Limits::default(),
        cache_bytes: 1 << 20,
        log_keep_bytes: 1 << 20,
        levels: mooseng_types::level::SUPPORTED,
        cells: 1,
        json_logs: false,
    }
}

fn member(id: MasterId) -> Member {
    let name = format!("m{}", id.number());
    Member { id, address: format!("127.0.0.1:{}", id.number()), name, voter: true, wants_vote: true }
}

fn command(index: u64, stamp: i64, command: Command) -> LogEntry {
    let data = Entry { stamp: TimeNs::from_raw(stamp), request: None, command }.encode();
    LogEntry { term: 3, index, kind: COMMAND, data: data.into() }
}

/// A voter of three: founded at entry 1, entries 2 to 5 in the log, of which it knows 3 to be committed.
fn make(config: &Config) -> MasterId {
    let Opened { id, root: (mut state, _), mut segments, .. } =
        open_undamaged(config, &SystemEntropy).unwrap();
    let others = [1, 3].map(|number| MasterId::new(number, 7));
    let mut group = Membership { epoch: 1, members: vec![] };
    [others[0], id, others[1]].into_iter().for_each(|id| group.put(member(id)));
    state.found(1, 1, group);
    let batch = state.freeze().unwrap();
    state.store().write(&batch);
    state.flushed();
    let open = |number: u8| ClusterCommand::OpenSession { client: [number; 16], name: String::new() }.into();
    let entries = vec![
        LogEntry { term: 3, index: 2, kind: COMMAND, data: Bytes::new() },
        command(3, 1000, ClusterCommand::Bootstrap { cluster: config.cluster, copies: 2 }.into()),
        command(4, 2000, open(1)),
        command(5, 3000, open(2)),
    ];
    let begin = HardState { term: 1, vote: 0, commit: 1 };
    let state = HardState { term: 4, vote: others[0].raw(), commit: 3 };
    segments
        .append(&[
            (ROOT, Persist { number: 1, snapshot: Some((1, 1)), entries: vec![], hard_state: begin }),
            (ROOT, Persist { number: 2, snapshot: None, entries, hard_state: state }),
        ])
        .unwrap();
    id
}

/// The directory is that of a group of one master in epoch 2, which has all that the log had.
fn check_recovered(config: &Config, id: MasterId) {
    let Opened { id: now, root: (state, recovered), .. } = open_undamaged(config, &SystemEntropy).unwrap();
    assert_eq!(now, id);
    assert_eq!(state.membership(), &Membership { epoch: 2, members: vec![member(id)] });
    assert_eq!(state.sessions().len(), 2, "entries that were not known to be committed count too");
    assert_eq!((state.applied_index(), state.base()), (6, (6, 1 << 32)));
    let hard_state = HardState { term: 1 << 32, vote: 0, commit: 6 };
    assert_eq!(recovered, Recovered { hard_state, purged: (6, 1 << 32), entries: vec![] });
}

#[test]
fn a_plan_tells_what_there_is_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let id = make(&config);
    let found = plan(&config).unwrap();
    assert_eq!((found.id, found.last, found.applied, found.committed), (id, (5, 3), 1, 3));
    assert_eq!(found.stamp, Some(TimeNs::from_raw(3000)));
    assert_eq!(found.left_out.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["m1", "m3"]);
    assert!(!found.is_alone() && found.next_epoch() == 2);
    assert_eq!(plan(&config).unwrap(), found);
}

#[test]
fn everything_in_the_log_is_in_the_group_made_anew_and_its_terms_are_above_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let id = make(&config);
    recover(&config, &plan(&config).unwrap()).unwrap();
    check_recovered(&config, id);
    let again = plan(&config).unwrap();
    assert!(again.is_alone());
    let refused = recover(&config, &again).unwrap_err().to_string();
    assert!(refused.contains("nothing to make anew"), "{refused}");
}

#[test]
fn a_crash_between_store_and_log_is_completed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let id = make(&config);
    let plan = plan(&config).unwrap();
    let Opened { root: (mut state, recovered), .. } = open_undamaged(&config, &SystemEntropy).unwrap();
    begin_anew(&config, &plan, &mut state, &recovered).unwrap();
    drop(state);
    check_recovered(&config, id);
    check_recovered(&config, id);
    assert!(super::plan(&config).unwrap().is_alone());
}

#[test]
fn a_change_of_the_group_that_is_only_in_the_log_counts_for_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    make(&config);
    let node = MasterId::new(3, 7).raw();
    let change = ChangeEntry { kind: 1, node, context: MemberNote::default().encode().into() };
    let entry = LogEntry { term: 4, index: 6, kind: 1, data: change.encode().into() };
    let opened = open_undamaged(&config, &SystemEntropy).unwrap();
    let Opened { mut segments, root: (state, recovered), .. } = opened;
    let hard_state = recovered.hard_state;
    segments
        .append(&[(ROOT, Persist { number: 1, snapshot: None, entries: vec![entry], hard_state })])
        .unwrap();
    drop((segments, state));
    let found = plan(&config).unwrap();
    assert_eq!(found.left_out.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["m1"]);
    assert_eq!((found.last, found.stamp), ((6, 4), Some(TimeNs::from_raw(3000))));
}

#[test]
fn what_is_no_stopped_master_with_a_group_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let refused = |config: &Config| format!("{:#}", plan(config).unwrap_err());
    assert!(refused(&config).contains("no data directory of a master"), "{}", refused(&config));
    drop(open_undamaged(&config, &SystemEntropy).unwrap());
    assert!(refused(&config).contains("was never let in"), "{}", refused(&config));
    make(&config);
    let lock = claim(dir.path()).unwrap();
    assert!(refused(&config).contains("in use by another process"), "{}", refused(&config));
    drop(lock);
    let found = plan(&config).unwrap();
    let other = Plan { last: (4, 3), ..found };
    assert!(recover(&config, &other).unwrap_err().to_string().contains("changed meanwhile"));
    std::fs::write(dir.path().join("out-of-service"), "its state differs").unwrap();
    assert!(refused(&config).contains("its state differs"), "{}", refused(&config));
}
