//! The namespace's rows on disk: one fjall keyspace.
//!
//! One keyspace, and every batch one table in it: whole or not at all, and synced before the Raft log is purged behind
//! it. A disk that fails stops the process: a master without its rows must not answer.

mod incoming;
mod place;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::PartitioningPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable as _, Snapshot};
use mooseng_env::{Disk as _, FsDisk};
use mooseng_meta::{Batch, MetaStore, StoreView};

pub use incoming::{IncomingError, IncomingStore};
pub use place::StorePlace;

/// The engine's own memory for blocks; rows are cached above it.
const BLOCK_CACHE_BYTES: u64 = 8 << 20;
/// Bytes of a table. It is synced when it is whole, and whoever syncs the log on the same disk meanwhile waits for all of
/// it: with the engine's usual 64 MiB, creates stood still for up to 130 ms (`bench --suite million`).
const TABLE_BYTES: usize = 8 << 20;

/// The store of a master.
pub struct FjallStore {
    /// Runs the engine's compaction for as long as it is held.
    database: Database,
    rows: Keyspace,
}

impl std::fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FjallStore")
    }
}

/// Filters and indexes are read in pages. A whole filter of a large table has megabytes, and a block that is not in the
/// engine's memory is read and hashed whole: two such tables throw each other out of it at every create.
fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES as u64)))
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

impl FjallStore {
    /// Opens the store in `dir`, making it where there is none.
    pub fn open(dir: &Path) -> Result<Self, fjall::Error> {
        if dir.exists() {
            sync_names(dir)?;
        }
        let database = Database::builder(dir).cache_size(BLOCK_CACHE_BYTES).worker_threads(1).open()?;
        let rows = database.keyspace("rows", options)?;
        Ok(Self { database, rows })
    }

    /// The batch becomes a sorted table of its own, beside the engine's journal and write buffer: it is sorted already,
    /// and the Raft log holds it until this returns.
    fn try_write(&self, batch: &Batch) -> Result<(), fjall::Error> {
        let mut table = self.rows.start_ingestion()?;
        for (key, value) in &batch.rows {
            match value {
                Some(value) => table.write(key.as_slice(), &value[..])?,
                None => table.write_tombstone(key.as_slice())?,
            }
        }
        table.finish()
    }

    fn try_scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), fjall::Error> {
        for row in self.rows.range(from.max(prefix)..) {
            let (key, value) = row.into_inner()?;
            if !key.starts_with(prefix) || !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}

/// A process that was killed may have left names that the disk does not have yet. The engine deletes what they have
/// superseded, and the Raft log is purged behind what it reads: with the power, both would go.
fn sync_names(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_names(&entry.path())?;
        }
    }
    FsDisk.sync_dir(dir)
}

/// What a broken store means.
fn stop_on<T>(result: Result<T, fjall::Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            tracing::error!(%error, "the metadata store cannot be used; stopping. Check the disk; docs/operations.md says how to go on without this master");
            std::process::abort();
        }
    }
}

impl MetaStore for FjallStore {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        stop_on(self.rows.get(key)).map(|value| Bytes::copy_from_slice(&value))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        stop_on(self.try_scan(prefix, from, visit));
    }

    fn write(&self, batch: &Batch) {
        stop_on(self.try_write(batch));
    }

    fn view(&self) -> Box<dyn StoreView> {
        let snapshot = self.database.snapshot();
        Box::new(FjallView { snapshot, rows: self.rows.clone(), _database: self.database.clone() })
    }
}

/// The rows as of one of the engine's sequence numbers. While it lives, compaction keeps what it shows.
struct FjallView {
    snapshot: Snapshot,
    rows: Keyspace,
    /// The engine must not be closed under it.
    _database: Database,
}

impl FjallView {
    fn try_scan(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), fjall::Error> {
        for row in self.snapshot.range(&self.rows, from..) {
            let (key, value) = row.into_inner()?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}

impl StoreView for FjallView {
    fn scan(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        stop_on(self.try_scan(from, visit));
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        stop_on(self.snapshot.get(&self.rows, key)).map(|value| Bytes::copy_from_slice(&value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mooseng_meta::store::{CONTRACT, check_history, check_reopened};
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn rows(store: &FjallStore, prefix: &[u8]) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        store.scan(prefix, b"", &mut |key, _| {
            keys.push(key.to_vec());
            true
        });
        keys
    }

    #[test]
    fn rows_on_disk_are_a_store() {
        for check in CONTRACT {
            let dir = tempfile::tempdir().unwrap();
            check(&FjallStore::open(dir.path()).unwrap());
        }
    }

    #[test]
    fn rows_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        check_reopened(&|| Box::new(FjallStore::open(dir.path()).unwrap()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]

        #[test]
        fn rows_on_disk_are_those_of_a_map(
            history in vec(btree_map(vec(0u8..3, 1..4), option::of(vec(any::<u8>(), 0..6).prop_map(Bytes::from)), 0..12), 0..12),
        ) {
            let dir = tempfile::tempdir().unwrap();
            check_history(&FjallStore::open(dir.path()).unwrap(), history);
        }
    }

    /// The batch of a round: every row gets the round's value, but for some that go and some that come.
    fn round(number: u32) -> Batch {
        let value = |key: u32| {
            (!(key + number).is_multiple_of(5)).then(|| Bytes::from(number.to_be_bytes().repeat(64)))
        };
        let rows = (0..400u32).map(|key| (format!("k{key:04}").into_bytes(), value(key))).collect();
        Batch { applied_index: number.into(), rows }
    }

    fn of_round(number: u32) -> Vec<(Vec<u8>, Bytes)> {
        let rows = round(number).rows.into_iter();
        rows.filter_map(|(key, value)| value.map(|value| (key, value))).collect()
    }

    fn all(view: &dyn StoreView, mut between: impl FnMut(usize)) -> Vec<(Vec<u8>, Bytes)> {
        let mut rows = Vec::new();
        view.scan(b"", &mut |key, value| {
            rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
            between(rows.len());
            true
        });
        rows
    }

    #[test]
    fn a_view_shows_the_batches_before_it_and_none_after_however_many_come() {
        let dir = tempfile::tempdir().unwrap();
        let store = FjallStore::open(dir.path()).unwrap();
        assert_eq!(all(&*store.view(), |_| {}), []);
        store.write(&round(1));
        store.write(&round(2));
        let early = store.view();
        // Enough tables for the engine to merge them meanwhile.
        (3..40).for_each(|number| store.write(&round(number)));
        let late = store.view();
        (40..60).for_each(|number| store.write(&round(number)));
        store.rows.major_compact().unwrap();
        store.write(&round(60));
        for (view, number) in [(early, 2), (late, 39)] {
            assert!(all(&*view, |_| {}) == of_round(number), "the view of round {number}");
            for (key, value) in round(number).rows {
                assert_eq!(view.get(&key), value, "round {number}");
            }
        }
        assert!(all(&*store.view(), |_| {}) == of_round(60));
    }

    #[test]
    fn a_view_stands_still_while_its_rows_are_read_and_others_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = FjallStore::open(dir.path()).unwrap();
        (1..6).for_each(|number| store.write(&round(number)));
        let view = store.view();
        let mut number = 5;
        let seen = all(&*view, |count| {
            if count.is_multiple_of(16) {
                number += 1;
                store.write(&round(number));
            }
        });
        assert!(number > 20, "{number}");
        assert!(seen == of_round(5));
        // A second reading is another scan of the same view.
        assert!(all(&*view, |_| {}) == of_round(5));
        drop((store, view));
        assert!(all(&*FjallStore::open(dir.path()).unwrap().view(), |_| {}) == of_round(number));
    }

    #[test]
    fn the_newest_batch_counts_however_often_the_store_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let mut model = BTreeMap::new();
        for round in 0u32..30 {
            let store = FjallStore::open(dir.path()).unwrap();
            let rows: BTreeMap<Vec<u8>, Option<Bytes>> = (0..20u32)
                .map(|i| (i * 7 + round * 5) % 50)
                .map(|key| {
                    (
                        vec![b'k', key as u8],
                        (!(key + round).is_multiple_of(3)).then(|| Bytes::from(vec![round as u8; 9])),
                    )
                })
                .collect();
            store.write(&Batch { applied_index: round.into(), rows: rows.clone() });
            model.extend(rows);
            for (key, value) in &model {
                assert_eq!(store.get(key), *value, "round {round}, {key:?}");
            }
            let live: Vec<_> =
                model.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()).collect();
            assert_eq!(super::tests::rows(&store, b"k"), live, "round {round}");
        }
    }
}
