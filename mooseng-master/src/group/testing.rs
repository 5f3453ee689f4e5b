//! Groups for the tests beside their parts.

use std::sync::Arc;
use std::time::Duration;

use mooseng_env::SystemEntropy;
use mooseng_meta::{Member, Membership, MemoryStore, MetaState, MetaStore};
use mooseng_types::level::SUPPORTED;
use mooseng_types::{CellId, MasterId, TimeNs};

use super::{Group, GroupConfig, News, Now, Peer};
use crate::raft::{Message, Recovered, SnapshotOf};

pub(crate) const NOW: Now = Now { mono: Duration::ZERO, wall: TimeNs::from_raw(0) };

/// Master 1 of so many.
pub(crate) fn config(masters: u64) -> GroupConfig {
    let peer = |id| Peer { id, name: format!("m{id}"), address: format!("m{id}:1") };
    GroupConfig {
        id: MasterId::from_raw(1),
        name: "m1".into(),
        address: "m1:1".into(),
        peers: (1..=masters).map(peer).collect(),
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(250),
        log_keep_bytes: 1 << 20,
        levels: SUPPORTED,
        lost_group: false,
    }
}

/// Master `number` as a voter of its first life.
pub(crate) fn voter(number: u16) -> Member {
    Member {
        id: MasterId::new(number, 0),
        name: format!("m{number}"),
        address: format!("m{number}:1"),
        voter: true,
        wants_vote: true,
    }
}

/// One with an empty store.
pub(crate) fn group(config: GroupConfig, recovered: Recovered) -> Group {
    let state = MetaState::open(Arc::new(MemoryStore::new()), CellId::ROOT).unwrap();
    Group::new(config, state, recovered, NOW.mono, Arc::new(SystemEntropy))
}

/// Lets everything happen that needs no disk; the news.
pub(crate) fn advance(group: &mut Group, now: Now) -> Vec<News> {
    let mut news = Vec::new();
    while group.advance(now) {
        news.extend(group.take_news());
    }
    news
}

fn members() -> Membership {
    Membership { epoch: 1, members: (1..=2).map(voter).collect() }
}

/// What a master of `term` sends: its message, and a store as of `index`.
pub(crate) fn snapshot(index: u64, term: u64) -> (Message, Arc<dyn MetaStore>) {
    let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let mut state = MetaState::open(Arc::clone(&store), CellId::ROOT).unwrap();
    state.found(index, 1, members());
    store.write(&state.freeze().unwrap());
    let snapshot = SnapshotOf { index, term: 1, voters: vec![1, 2], learners: vec![] };
    let message = Message { kind: 7, to: 1, from: 2, term, snapshot: Some(snapshot), ..Default::default() };
    (message, store)
}
