//! A master's store: rows in memory that survive everything, and have only what was written to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mooseng_master::raft::Recovered;
use mooseng_meta::{Batch, Entry, FormatError, MemoryStore, MetaState, MetaStore};

/// Keys as `docs/formats/metadata-rows.md` draws them: the applied index, and what answers begin with.
const APPLIED: &[u8] = b"ma";
const ANSWERS: &[u8] = b"r";

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    store: Arc<MemoryStore>,
    /// The row of the applied index, as each batch had it.
    marks: BTreeMap<u64, Bytes>,
}

impl Rows {
    pub(crate) fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The namespace in it.
    pub(crate) fn open(&self) -> Result<MetaState, FormatError> {
        let store: Arc<dyn MetaStore> = Arc::<MemoryStore>::clone(&self.store);
        MetaState::open(store)
    }

    /// The rows of a snapshot.
    pub(crate) fn of(store: Arc<MemoryStore>) -> Self {
        Self { store, marks: BTreeMap::new() }
    }

    /// Writes to `store`, which is this one, or the one that is about to take its place.
    pub(crate) fn write(&mut self, store: &dyn MetaStore, batch: &Batch) {
        store.write(batch);
        if let Some(Some(mark)) = batch.rows.get(APPLIED) {
            self.marks.insert(batch.applied_index, mark.clone());
        }
    }

    /// Planted: the answers to requests are not there any more.
    pub(crate) fn forget_answers(&self) {
        let mut rows = BTreeMap::new();
        self.store.scan(ANSWERS, &[], &mut |key, _| {
            rows.insert(key.to_vec(), None);
            true
        });
        self.store.write(&Batch { applied_index: 0, rows });
    }

    /// Planted: the store says that it has less than it has, as far as the log reaches back, and the log has lost the
    /// requests' numbers of what will be applied again.
    pub(crate) fn go_back(&self, recovered: &mut Recovered) {
        let applied = self.open().map_or(0, |state| state.applied_index());
        let Some((&back, mark)) = self.marks.range(recovered.purged.0..applied).next_back() else { return };
        let rows = BTreeMap::from([(APPLIED.to_vec(), Some(mark.clone()))]);
        self.store.write(&Batch { applied_index: back, rows });
        for logged in
            recovered.entries.iter_mut().filter(|entry| entry.index > back && entry.index <= applied)
        {
            if let Ok(entry) = Entry::decode(&logged.data) {
                logged.data = Entry { request: None, ..entry }.encode().into();
            }
        }
    }
}
