//! A master's store: rows in memory that survive everything, and have only what was written to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mooseng_master::raft::Recovered;
use mooseng_meta::{Batch, Entry, FormatError, Membership, MemoryStore, MetaState, MetaStore, StoreView};
use mooseng_types::{CellId, MasterId};

/// Keys as `docs/formats/metadata-rows.md` draws them: the applied index, the masters' group, and what rows about the
/// store and answers begin with.
const APPLIED: &[u8] = b"ma";
const GROUP: &[u8] = b"mm";
const ABOUT: &[u8] = b"m";
const ANSWERS: &[u8] = b"r";
/// Of so many masters, two of the first three and the last two with one more are majorities without a common master.
const LARGE: usize = 5;

/// The store.
#[derive(Debug)]
pub(crate) struct Rows {
    cell: CellId,
    store: Arc<MemoryStore>,
    /// The row of the applied index, as each batch had it.
    marks: BTreeMap<u64, Bytes>,
    /// All rows as they were once, where a planted bug needs them.
    older: Option<MemoryStore>,
}

impl Rows {
    pub(crate) fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The namespace in it.
    pub(crate) fn open(&self) -> Result<MetaState, FormatError> {
        let store: Arc<dyn MetaStore> = Arc::<MemoryStore>::clone(&self.store);
        MetaState::open(store, self.cell)
    }

    /// An empty store of a cell.
    pub(crate) fn new(cell: CellId) -> Self {
        Self::of(cell, Arc::default())
    }

    /// The rows of a snapshot.
    pub(crate) fn of(cell: CellId, store: Arc<MemoryStore>) -> Self {
        Self { cell, store, marks: BTreeMap::new(), older: None }
    }

    /// Writes to `store`, which is this one, or the one that is about to take its place.
    pub(crate) fn write(&mut self, store: &dyn MetaStore, batch: &Batch) {
        store.write(batch);
        if let Some(Some(mark)) = batch.rows.get(APPLIED) {
            self.marks.insert(batch.applied_index, mark.clone());
        }
    }

    /// Planted: what is in the store now may later be sent for what is in it then.
    pub(crate) fn keep_older(&mut self) {
        self.older = Some(copy(&*self.store.view(), |_| true));
    }

    /// Planted: rows of before under the index, the hash and the group of `view`.
    pub(crate) fn older(&self, view: &dyn StoreView) -> Option<MemoryStore> {
        let older = copy(&*self.older.as_ref()?.view(), |key| !key.starts_with(ABOUT));
        add(&older, view, |key| key.starts_with(ABOUT));
        Some(older)
    }

    /// Planted: the rows of `view` without the answers.
    pub(crate) fn without_answers(view: &dyn StoreView) -> MemoryStore {
        copy(view, |key| !key.starts_with(ANSWERS))
    }

    /// Planted: for the process that opens it, the last two of a large group are out at once, unless it is one of them.
    /// The rows stay as they are.
    pub(crate) fn open_replaced(&self, own: MasterId) -> Result<MetaState, FormatError> {
        let mut group = self.open()?.membership().clone();
        let row = self.store.get(GROUP);
        let mut voters = group.voters();
        voters.sort_unstable_by_key(|id: &MasterId| id.number());
        let last = voters.split_off((LARGE - 2).min(voters.len()));
        if last.len() < 2 || last.contains(&own) {
            return self.open();
        }
        last.into_iter().for_each(|id| group.remove(id));
        self.put_group(group_row(self.cell, group));
        let state = self.open();
        self.put_group(row);
        state
    }

    fn put_group(&self, row: Option<Bytes>) {
        self.store.write(&Batch { applied_index: 0, rows: BTreeMap::from([(GROUP.to_vec(), row)]) });
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

/// The row of a group, as a store of its own has it.
fn group_row(cell: CellId, group: Membership) -> Option<Bytes> {
    let mut state = MetaState::open(Arc::new(MemoryStore::new()), cell).ok()?;
    state.found(1, 1, group);
    state.freeze()?.rows.get(GROUP).cloned().flatten()
}

fn copy(view: &dyn StoreView, keep: impl Fn(&[u8]) -> bool) -> MemoryStore {
    let store = MemoryStore::new();
    add(&store, view, keep);
    store
}

fn add(store: &MemoryStore, view: &dyn StoreView, keep: impl Fn(&[u8]) -> bool) {
    let mut rows = BTreeMap::new();
    view.scan(&[], &mut |key, value| {
        if keep(key) {
            rows.insert(key.to_vec(), Some(Bytes::copy_from_slice(value)));
        }
        true
    });
    store.write(&Batch { applied_index: 0, rows });
}
