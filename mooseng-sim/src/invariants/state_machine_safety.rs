//! *Equal logs make equal rows*: all masters, having applied the same, hold the same bytes (DESIGN §3: deterministic).

use std::collections::BTreeMap;

use bytes::Bytes;
use mooseng_meta::{MemoryStore, MetaStore};

fn rows(store: &MemoryStore) -> BTreeMap<Vec<u8>, Bytes> {
    let mut rows = BTreeMap::new();
    store.scan(&[], &[], &mut |key, value| {
        rows.insert(key.to_vec(), Bytes::copy_from_slice(value));
        true
    });
    rows
}

/// The first row in which stores differ.
pub(crate) fn same_rows(stores: &[(u64, &MemoryStore)]) -> Option<String> {
    let ((first, store), others) = stores.split_first()?;
    let expected = rows(store);
    for (other, store) in others {
        let found = rows(store);
        let differs = |key: &&Vec<u8>| expected.get(*key) != found.get(*key);
        if let Some(key) = expected.keys().chain(found.keys()).find(differs) {
            let key = key.escape_ascii();
            return Some(format!("state_machine_safety: masters {first} and {other} differ in row {key}"));
        }
    }
    None
}
