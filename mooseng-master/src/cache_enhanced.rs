//! The cache of metadata rows: inodes, entries and chunks as they stand in the store, absent ones too.
//!
//! A lookup in the store costs some microseconds even when all of it is in memory; here it costs a hash. Bounded in
//! bytes, and scan-resistant (S3-FIFO), so that one walk over the tree does not push out what is used all day. It sits
//! below the namespace's own table of changed rows, so a row being flushed is never asked for here until the store has
//! it; [`CachedStore::write`] brings the cache up to date before it returns.
//!
//! All stores of a process share one [`RowCache`]: a busy cell may use what an idle one does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mooseng_meta::{Batch, MetaStore, StoreView};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use crate::cache_config::CacheConfig;

/// Which store a row is of, and its key there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct RowKey {
    store: u64,
    key: Box<[u8]>,
}

/// A [`RowKey`] to look for. It has the same hash, because the fields are hashed in order and a box as what is in it.
#[derive(Hash)]
struct Wanted<'a> {
    store: u64,
    key: &'a [u8],
}

impl Equivalent<RowKey> for Wanted<'_> {
    fn equivalent(&self, other: &RowKey) -> bool {
        (self.store, self.key) == (other.store, &other.key[..])
    }
}

#[derive(Clone, Debug)]
struct RowWeight {
    overhead: u64,
}

impl Weighter<RowKey, Option<Bytes>> for RowWeight {
    fn weight(&self, key: &RowKey, value: &Option<Bytes>) -> u64 {
        self.overhead + key.key.len() as u64 + value.as_ref().map_or(0, |value| value.len() as u64)
    }
}

/// How a cache has done since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheCounts {
    /// Rows found in it.
    pub hits: u64,
    /// Rows fetched from the stores.
    pub misses: u64,
    /// Bytes it holds.
    pub bytes: u64,
}

/// The cache of all stores of a process.
#[derive(Clone, Debug)]
pub struct RowCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rows: Cache<RowKey, Option<Bytes>, RowWeight>,
    /// Stores so far. No number is used again, so what a store that was replaced has left behind is found by nobody.
    stores: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl RowCache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: CacheConfig) -> Self {
        let weight = RowWeight { overhead: config.row_overhead_bytes };
        let rows = Cache::with_weighter(config.expected_rows(), config.capacity_bytes, weight);
        let zero = || AtomicU64::new(0);
        Self(Arc::new(Shared { rows, stores: zero(), hits: zero(), misses: zero() }))
    }

    /// Puts the cache before `store`.
    #[must_use]
    pub fn before<S: MetaStore>(&self, store: S) -> CachedStore<S> {
        let number = self.0.stores.fetch_add(1, Ordering::Relaxed);
        CachedStore { store, number, cache: self.clone() }
    }

    /// How the cache has done.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.0.hits.load(Ordering::Relaxed),
            misses: self.0.misses.load(Ordering::Relaxed),
            bytes: self.0.rows.weight(),
        }
    }
}

/// A store behind a cache.
#[derive(Debug)]
pub struct CachedStore<S> {
    store: S,
    number: u64,
    cache: RowCache,
}

impl<S> CachedStore<S> {
    fn wanted<'a>(&self, key: &'a [u8]) -> Wanted<'a> {
        Wanted { store: self.number, key }
    }

    fn keep(&self, key: &[u8], row: Option<Bytes>) {
        self.cache.0.rows.insert(RowKey { store: self.number, key: key.into() }, row);
    }
}

impl<S: MetaStore> MetaStore for CachedStore<S> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        let Shared { rows, hits, misses, .. } = &*self.cache.0;
        if let Some(row) = rows.get(&self.wanted(key)) {
            hits.fetch_add(1, Ordering::Relaxed);
            return row;
        }
        misses.fetch_add(1, Ordering::Relaxed);
        let row = self.store.get(key);
        self.keep(key, row.clone());
        row
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.store.scan(prefix, from, visit);
    }

    fn write(&self, batch: &Batch) {
        self.store.write(batch);
        // What was just changed is likely to be wanted, but only what was wanted before is worth its place.
        for (key, value) in &batch.rows {
            if self.cache.0.rows.remove(&self.wanted(key)).is_some() {
                self.keep(key, value.clone());
            }
        }
    }

    /// Past the cache: who wants a view reads every row once.
    fn view(&self) -> Box<dyn StoreView> {
        self.store.view()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mooseng_meta::MemoryStore;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stores_that_share_a_cache_answer_like_stores_without_one(
            steps in prop::collection::vec((0usize..2, 0u8..3, 0u8..40, 0usize..200), 1..300),
        ) {
            let cache = RowCache::new(CacheConfig { capacity_bytes: 2000, row_overhead_bytes: 10 });
            let plain = [MemoryStore::new(), MemoryStore::new()];
            let cached = [MemoryStore::new(), MemoryStore::new()].map(|store| cache.before(store));
            for (store, kind, key, size) in steps {
                let (plain, cached, key) = (&plain[store], &cached[store], vec![key]);
                if kind == 0 {
                    prop_assert_eq!(plain.get(&key), cached.get(&key));
                } else {
                    let value = (kind == 1).then(|| Bytes::from(vec![size as u8; size]));
                    let batch = Batch { applied_index: 1, rows: BTreeMap::from([(key, value)]) };
                    plain.write(&batch);
                    cached.write(&batch);
                }
            }
            prop_assert!(cache.counts().bytes <= 2000);
        }
    }

    #[test]
    fn a_row_is_fetched_once_and_an_absent_one_too() {
        let cache = RowCache::new(CacheConfig::new(1 << 20));
        let cached = cache.before(MemoryStore::new());
        assert_eq!((cached.get(b"k"), cached.get(b"k")), (None, None));
        assert_eq!((cache.counts().misses, cache.counts().hits), (1, 1));
    }
}
