//! Changed rows above the store: those changed since the last freeze (active), above those being written (frozen).
//!
//! A change is first in the masters' log, so rows reach the store only in large batches. Reads look into the active
//! rows, then the frozen ones, then the store; a scan merges the three.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::digest::Rolling;
use crate::store::{Batch, MetaStore};

/// Changed rows; `None` says the row is gone.
type Rows = BTreeMap<Vec<u8>, Option<Bytes>>;

/// What a changed row takes in memory besides its key and value, in bytes, about.
const ROW_OVERHEAD: usize = 64;

#[derive(Debug)]
pub(crate) struct Overlay {
    store: Arc<dyn MetaStore>,
    frozen: Option<Arc<Batch>>,
    active: Rows,
    active_bytes: usize,
    /// Over every change that entries make.
    pub(crate) digest: Rolling,
}

fn size(key: &[u8], value: Option<&Bytes>) -> usize {
    ROW_OVERHEAD + key.len() + value.map_or(0, Bytes::len)
}

impl Overlay {
    pub(crate) fn new(store: Arc<dyn MetaStore>) -> Self {
        Self { store, frozen: None, active: Rows::new(), active_bytes: 0, digest: Rolling::UNKNOWN }
    }

    pub(crate) fn store(&self) -> &Arc<dyn MetaStore> {
        &self.store
    }

    /// Bytes that the rows changed since the last freeze take, about.
    pub(crate) fn active_bytes(&self) -> usize {
        self.active_bytes
    }

    fn changed(&self, key: &[u8]) -> Option<Option<&Bytes>> {
        self.active
            .get(key)
            .or_else(|| self.frozen.as_ref().and_then(|batch| batch.rows.get(key)))
            .map(Option::as_ref)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.changed(key) {
            Some(value) => value.cloned(),
            None => self.store.get(key),
        }
    }

    /// Lets `f` see a row where it lies.
    pub(crate) fn read<R>(&self, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match self.changed(key) {
            Some(value) => value.map(|value| f(value)),
            None => self.store.get(key).map(|value| f(&value)),
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.read(key, |_| ()).is_some()
    }

    /// Sets a row that says where this replica stands: not part of what replicas must have alike.
    pub(crate) fn put_own(&mut self, key: &[u8], value: Bytes) {
        self.set(key, Some(value));
    }

    fn set(&mut self, key: &[u8], value: Option<Bytes>) {
        self.active_bytes += size(key, value.as_ref());
        if let Some(old) = self.active.insert(key.to_vec(), value) {
            self.active_bytes -= size(key, old.as_ref());
        }
    }

    pub(crate) fn put(&mut self, key: &[u8], value: Bytes) {
        self.digest.change(key, Some(&value));
        self.set(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.digest.change(key, None);
        self.set(key, None);
    }

    /// Deletes a row of a kind that is written once in its life and never again after its deletion: if it is among
    /// the active rows it is nowhere below, and leaves no trace. Which of the two depends on when this replica flushed,
    /// so the digest takes it for a deletion either way.
    pub(crate) fn delete_written_once(&mut self, key: &[u8]) {
        self.digest.change(key, None);
        match self.active.get(key) {
            Some(Some(value)) => {
                self.active_bytes -= size(key, Some(value));
                self.active.remove(key);
            }
            Some(None) => {}
            None => self.set(key, None),
        }
    }

    /// Rows with this prefix and a key not below `from`, ascending, until `visit` says false.
    pub(crate) fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let mut changes = ChangedRows::new(self, prefix, from.max(prefix));
        let mut stopped = false;
        self.store.scan(prefix, from, &mut |key, value| {
            let mut replaced = false;
            while let Some((changed, new)) = changes.next_up_to(key) {
                replaced = changed == key;
                if new.is_some_and(|new| !visit(changed, new)) {
                    stopped = true;
                    return false;
                }
            }
            stopped = !replaced && !visit(key, value);
            !stopped
        });
        while !stopped {
            match changes.next() {
                Some((key, Some(value))) => stopped = !visit(key, value),
                Some((_, None)) => {}
                None => return,
            }
        }
    }

    /// Rows with this prefix, at most `limit` of them, as `read` makes of key and value.
    pub(crate) fn collect<T>(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> T,
    ) -> Vec<T> {
        let mut rows = Vec::new();
        if limit > 0 {
            self.scan(prefix, from, &mut |key, value| {
                rows.push(read(key, value));
                rows.len() < limit
            });
        }
        rows
    }

    /// Takes the active rows away to be written; they stay readable until [`Overlay::flushed`].
    pub(crate) fn freeze(&mut self, applied_index: u64) -> Option<Arc<Batch>> {
        if self.frozen.is_some() {
            return None;
        }
        self.active_bytes = 0;
        let batch = Arc::new(Batch { applied_index, rows: std::mem::take(&mut self.active) });
        self.frozen = Some(Arc::clone(&batch));
        Some(batch)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The frozen rows are in the store.
    pub(crate) fn flushed(&mut self) {
        self.frozen = None;
    }
}

type Range<'a> = Peekable<btree_map::Range<'a, Vec<u8>, Option<Bytes>>>;

/// Active and frozen rows of a prefix in one order.
struct ChangedRows<'a> {
    prefix: &'a [u8],
    active: Range<'a>,
    frozen: Option<Range<'a>>,
}

impl<'a> ChangedRows<'a> {
    fn new(overlay: &'a Overlay, prefix: &'a [u8], from: &[u8]) -> Self {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        Self {
            prefix,
            active: overlay.active.range::<[u8], _>(bounds).peekable(),
            frozen: overlay.frozen.as_ref().map(|batch| batch.rows.range::<[u8], _>(bounds).peekable()),
        }
    }

    fn peek(range: Option<&mut Range<'a>>, prefix: &[u8]) -> Option<&'a [u8]> {
        range?.peek().map(|(key, _)| key.as_slice()).filter(|key| key.starts_with(prefix))
    }

    fn next(&mut self) -> Option<(&'a [u8], Option<&'a Bytes>)> {
        let active = Self::peek(Some(&mut self.active), self.prefix);
        let frozen = Self::peek(self.frozen.as_mut(), self.prefix);
        let source = match (active, frozen) {
            (None, None) => return None,
            (Some(active), Some(frozen)) if active > frozen => self.frozen.as_mut()?,
            (Some(active), frozen) => {
                if frozen == Some(active) {
                    self.frozen.as_mut()?.next();
                }
                &mut self.active
            }
            (None, Some(_)) => self.frozen.as_mut()?,
        };
        source.next().map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    /// The next row whose key is not above `key`.
    fn next_up_to(&mut self, key: &[u8]) -> Option<(&'a [u8], Option<&'a Bytes>)> {
        let active = Self::peek(Some(&mut self.active), self.prefix);
        let frozen = Self::peek(self.frozen.as_mut(), self.prefix);
        let due = [active, frozen].into_iter().flatten().any(|next| next <= key);
        if due { self.next() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::store::MemoryStore;

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<u8>, u8),
        Delete(Vec<u8>),
        Freeze,
        Flushed,
        Scan(Vec<u8>, Vec<u8>, usize),
    }

    fn steps() -> impl Strategy<Value = Step> {
        let key = || vec(0u8..3, 0..4);
        prop_oneof![
            4 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
            2 => key().prop_map(Step::Delete),
            1 => Just(Step::Freeze),
            1 => Just(Step::Flushed),
            3 => (vec(0u8..3, 0..2), key(), 0usize..9).prop_map(|(prefix, from, max)| Step::Scan(prefix, from, max)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        #[test]
        fn three_layers_read_as_one_map(steps in vec(steps(), 0..60)) {
            let store = Arc::new(MemoryStore::new());
            let mut overlay = Overlay::new(Arc::clone(&store) as Arc<dyn MetaStore>);
            let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let mut out = None;
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        overlay.put(&key, Bytes::copy_from_slice(&[value]));
                        map.insert(key, vec![value]);
                    }
                    Step::Delete(key) => {
                        overlay.delete(&key);
                        map.remove(&key);
                    }
                    Step::Freeze => out = overlay.freeze(1).or(out.take()),
                    Step::Flushed => if let Some(batch) = out.take() {
                        store.write(&batch);
                        overlay.flushed();
                    },
                    Step::Scan(prefix, from, max) => {
                        let row = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
                        let seen = overlay.collect(&prefix, &from, max, row);
                        let rows = map.iter().filter(|(key, _)| key.starts_with(&prefix) && **key >= from);
                        let wanted: Vec<_> = rows.take(max).map(|(key, value)| (key.clone(), value.clone())).collect();
                        prop_assert_eq!(seen, wanted);
                    }
                }
            }
            let size: usize = overlay.active.iter().map(|(key, value)| size(key, value.as_ref())).sum();
            prop_assert_eq!(overlay.active_bytes(), size);
            for (key, value) in &map {
                prop_assert_eq!(overlay.get(key), Some(Bytes::copy_from_slice(value)));
            }
        }
    }
}
