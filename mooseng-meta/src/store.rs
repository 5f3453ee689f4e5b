//! The ordered store under the namespace, and the one in memory that tests and the simulator use.
//!
//! Infallible by contract: an implementation that cannot read or write its disk stops the process, because a replica
//! that goes on without its rows would answer differently from the others.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

/// One ordered key space.
pub trait MetaStore: Send + Sync + std::fmt::Debug + 'static {
    /// The value of a row.
    fn get(&self, key: &[u8]) -> Option<Bytes>;

    /// Rows with this prefix and a key not below `from`, ascending, until `visit` says false.
    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool);

    /// Writes all rows of the batch at once, durable on return.
    fn write(&self, batch: &Batch);
}

/// Rows that changed between two freezes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The last entry whose changes are in it; also a row of the batch.
    pub applied_index: u64,
    /// The rows by key; `None` deletes.
    pub rows: BTreeMap<Vec<u8>, Option<Bytes>>,
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
}
