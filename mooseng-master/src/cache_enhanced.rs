//! The cache of metadata rows: inodes, entries and chunks as they stand in the store, absent ones too.
//!
//! A lookup in the store costs some microseconds even when all of it is in memory; here it costs a hash. Bounded in
//! bytes, and scan-resistant (S3-FIFO), so that one walk over the tree does not push out what is used all day. It sits
//! below the namespace's own table of changed rows, so a row being flushed is never asked for here until the store has
//! it; [`CachedStore::write`] brings the cache up to date before it returns.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mooseng_meta::{Batch, MetaStore, StoreView};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::cache_config::CacheConfig;

#[derive(Clone, Debug)]
struct RowWeight {
    overhead: u64,
}

impl Weighter<Box<[u8]>, Option<Bytes>> for RowWeight {
    fn weight(&self, key: &Box<[u8]>, value: &Option<Bytes>) -> u64 {
        self.overhead + key.len() as u64 + value.as_ref().map_or(0, |value| value.len() as u64)
    }
}

/// How the cache has done since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheCounts {
    /// Rows found in it.
    pub hits: u64,
    /// Rows fetched from the store.
    pub misses: u64,
    /// Bytes it holds.
    pub bytes: u64,
}

/// A store behind a cache.
#[derive(Debug)]
pub struct CachedStore<S> {
    store: S,
    rows: Cache<Box<[u8]>, Option<Bytes>, RowWeight>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<S: MetaStore> CachedStore<S> {
    /// Puts a cache before `store`.
    #[must_use]
    pub fn new(store: S, config: CacheConfig) -> Self {
        let weight = RowWeight { overhead: config.row_overhead_bytes };
        let rows = Cache::with_weighter(config.expected_rows(), config.capacity_bytes, weight);
        Self { store, rows, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// How the cache has done.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.rows.weight(),
        }
    }
}

impl<S: MetaStore> MetaStore for CachedStore<S> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        if let Some(row) = self.rows.get(key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return row;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let row = self.store.get(key);
        self.rows.insert(key.into(), row.clone());
        row
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.store.scan(prefix, from, visit);
    }

    fn write(&self, batch: &Batch) {
        self.store.write(batch);
        // What was just changed is likely to be wanted, but only what was wanted before is worth its place.
        for (key, value) in &batch.rows {
            if self.rows.remove(&key[..]).is_some() {
                self.rows.insert(key.as_slice().into(), value.clone());
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
        fn a_cached_store_answers_like_the_store_alone(
            steps in prop::collection::vec((0u8..3, 0u8..40, 0usize..200), 1..300),
        ) {
            let plain = MemoryStore::new();
            let cached = CachedStore::new(MemoryStore::new(), CacheConfig { capacity_bytes: 2000, row_overhead_bytes: 10 });
            for (kind, key, size) in steps {
                let key = vec![key];
                if kind == 0 {
                    prop_assert_eq!(plain.get(&key), cached.get(&key));
                } else {
                    let value = (kind == 1).then(|| Bytes::from(vec![size as u8; size]));
                    let batch = Batch { applied_index: 1, rows: BTreeMap::from([(key, value)]) };
                    plain.write(&batch);
                    cached.write(&batch);
                }
            }
            prop_assert!(cached.counts().bytes <= 2000);
        }
    }

    #[test]
    fn a_row_is_fetched_once_and_an_absent_one_too() {
        let cached = CachedStore::new(MemoryStore::new(), CacheConfig::new(1 << 20));
        assert_eq!((cached.get(b"k"), cached.get(b"k")), (None, None));
        assert_eq!((cached.counts().misses, cached.counts().hits), (1, 1));
    }
}
