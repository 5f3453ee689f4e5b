//! The ordered store under the namespace, and the one in memory that tests and the simulator use.
//!
//! Infallible by contract: an implementation that cannot read or write its disk stops the process, because a replica
//! that goes on without its rows would answer differently from the others.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::codec::v1::row::Number;
use crate::key;
use crate::tables::decode;

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
    use super::*;

    #[test]
    fn a_scan_keeps_to_its_prefix_and_its_start() {
        let store = MemoryStore::new();
        let rows = [b"a1", b"b1", b"b2", b"b3", b"c1"];
        let rows = rows.iter().map(|key| (key.to_vec(), Some(Bytes::new()))).collect();
        store.write(&Batch { applied_index: 1, rows });
        let list = |prefix: &[u8], from: &[u8], max: usize| {
            let mut seen = Vec::new();
            store.scan(prefix, from, &mut |key, _| {
                seen.push(String::from_utf8(key.to_vec()).unwrap());
                seen.len() < max
            });
            seen
        };
        assert_eq!(list(b"b", b"", 9), ["b1", "b2", "b3"]);
        assert_eq!(list(b"b", b"b2", 9), ["b2", "b3"]);
        assert_eq!(list(b"b", b"b1", 2), ["b1", "b2"]);
        assert_eq!(list(b"", b"", 9).len(), 5);
    }

    #[test]
    fn a_view_shows_what_was_there_when_it_was_made() {
        let store = MemoryStore::new();
        assert_eq!(applied_index_of(&*store.view()), 0);
        let write = |key: &[u8], value: Option<&[u8]>| {
            let rows = [(key.to_vec(), value.map(Bytes::copy_from_slice))].into();
            store.write(&Batch { applied_index: 1, rows });
        };
        write(b"a", Some(b"1"));
        write(b"c", Some(b"2"));
        write(b"ma", Some(&Number(300).encode()));
        let view = store.view();
        write(b"a", None);
        write(b"b", Some(b"3"));
        write(b"c", Some(b"4"));
        let mut seen = Vec::new();
        view.scan(b"", &mut |key, value| {
            seen.push((key.to_vec(), value.to_vec()));
            seen.len() < 2
        });
        assert_eq!(seen, [(b"a".to_vec(), b"1".to_vec()), (b"c".to_vec(), b"2".to_vec())]);
        assert_eq!((view.get(b"b"), view.get(b"c").as_deref()), (None, Some(&b"2"[..])));
        assert_eq!(applied_index_of(&*view), 300);
    }
}
