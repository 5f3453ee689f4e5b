//! Stores for the tests of snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mooseng_meta::{Batch, Member, Membership, MemoryStore, MetaState, MetaStore, StoreView};
use mooseng_types::{CellId, MasterId};

use crate::raft::{Message, SnapshotOf};

pub(crate) type Rows = BTreeMap<Vec<u8>, Bytes>;

pub(crate) fn group() -> Membership {
    let id = MasterId::new(1, 9);
    let member = Member { id, name: "m1".into(), address: "h:1".into(), voter: true, wants_vote: true };
    Membership { epoch: 4, members: vec![member] }
}

/// A store as of entry 70, with these rows besides.
pub(crate) fn store(rows: &Rows) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let mut state = MetaState::open(Arc::<MemoryStore>::clone(&store), CellId::ROOT).unwrap();
    state.found(69, 1, group());
    state.skip(70);
    let mut batch = Batch::clone(&state.freeze().unwrap());
    batch.rows.extend(rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
    store.write(&batch);
    store
}

pub(crate) fn message(index: u64) -> Message {
    let snapshot = SnapshotOf { index, term: 3, ..Default::default() };
    Message { kind: 7, from: 1, to: 2, term: 3, snapshot: Some(snapshot), ..Default::default() }
}

pub(crate) fn all_rows(view: &dyn StoreView) -> Rows {
    let mut rows = Rows::new();
    view.scan(&[], &mut |key, value| {
        rows.insert(key.to_vec(), Bytes::copy_from_slice(value));
        true
    });
    rows
}
