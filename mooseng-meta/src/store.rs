//! The ordered store under the namespace, and the one in memory that tests and the simulator use.
//!
//! Infallible by contract: an implementation that cannot read or write its disk stops the process, because a replica
//! that goes on without its rows would answer differently from the others. What else it must do, `contract` checks for every implementation.

mod contract;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::codec::v1::row::Number;
use crate::key;
use crate::tables::decode;

#[doc(hidden)]
pub use contract::{CONTRACT, check_history, check_reopened};

/// One ordered key space.
pub trait MetaStore: Send + Sync + std::fmt::Debug + 'static {
    /// The value of a row.
    fn get(&self, key: &[u8]) -> Option<Bytes>;

    /// Rows with this prefix and a key not below `from`, ascending, until `visit` says false.
    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool);

    /// Writes all rows of the batch at once, durable on return.
    fn write(&self, batch: &Batch);

    /// All rows as they stand now, whatever is written later.
    fn view(&self) -> Box<dyn StoreView>;
}

/// The rows of a store as they stood at one time: whole batches, from the first to one of them. A store may keep what it
/// would else throw away for as long as a view of it lives.
pub trait StoreView: Send + Sync {
    /// Rows with a key not below `from`, ascending, until `visit` says false.
    fn scan(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool);

    /// The value of a row.
    fn get(&self, key: &[u8]) -> Option<Bytes>;
}

/// The last entry whose changes are in the view; 0 for an empty one.
#[must_use]
pub fn applied_index_of(view: &dyn StoreView) -> u64 {
    view.get(&key::APPLIED).map_or(0, |value| decode::<Number>(&key::APPLIED, &value).0)
}

/// Rows that changed between two freezes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The last entry whose changes are in it; also a row of the batch.
    pub applied_index: u64,
    /// The rows by key; `None` deletes.
    pub rows: BTreeMap<Vec<u8>, Option<Bytes>>,
}

/// A view as a store that nobody writes to.
pub(crate) struct Viewed(pub(crate) Arc<dyn StoreView>);

impl std::fmt::Debug for Viewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Viewed").finish_non_exhaustive()
    }
}

impl MetaStore for Viewed {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.0.scan(from.max(prefix), &mut |key, value| key.starts_with(prefix) && visit(key, value));
    }

    fn write(&self, batch: &Batch) {
        panic!("entry {} is not written to a view", batch.applied_index);
    }

    fn view(&self) -> Box<dyn StoreView> {
        Box::new(Viewed(Arc::clone(&self.0)))
    }
}

impl StoreView for Viewed {
    fn scan(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.0.scan(from, visit);
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key)
    }
}

/// Rows in memory; gone with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: RwLock<BTreeMap<Vec<u8>, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl MetaStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let start = from.max(prefix);
        for (key, value) in rows.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)) {
            if !key.starts_with(prefix) || !visit(key, value) {
                return;
            }
        }
    }

    fn write(&self, batch: &Batch) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in &batch.rows {
            match value {
                Some(value) => drop(rows.insert(key.clone(), value.clone())),
                None => drop(rows.remove(key)),
            }
        }
    }

    fn view(&self) -> Box<dyn StoreView> {
        Box::new(MemoryView(self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

/// A copy of all rows: what is in memory anyway is small.
#[derive(Debug)]
struct MemoryView(BTreeMap<Vec<u8>, Bytes>);

impl StoreView for MemoryView {
    fn scan(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        for (key, value) in self.0.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if !visit(key, value) {
                return;
            }
        }
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_in_memory_are_a_store() {
        CONTRACT.iter().for_each(|check| check(&MemoryStore::new()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn rows_in_memory_are_those_of_a_map(
            history in vec(btree_map(vec(0u8..3, 0..4), option::of(vec(any::<u8>(), 0..6).prop_map(Bytes::from)), 0..12), 0..12),
        ) {
            check_history(&MemoryStore::new(), history);
        }
    }
}
