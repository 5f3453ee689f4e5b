//! *What one master has applied at an index, no other applies differently, and none goes back* (Ongaro, figure 3.2,
//! State Machine Safety): index and term name an entry, so comparing terms is enough. And *equal logs make equal rows*:
//! all masters, having applied the same, hold the same bytes (DESIGN §3: deterministic).

use std::collections::BTreeMap;

use bytes::Bytes;
use mooseng_meta::{BASE, MemoryStore, MetaStore};

/// The terms of everything applied so far.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    terms: BTreeMap<u64, u64>,
    applied: BTreeMap<u64, u64>,
}

impl Applied {
    /// A new process begins where its store left off.
    pub(crate) fn restarted(&mut self, master: u64) {
        self.applied.remove(&master);
    }

    /// `master` has applied everything up to `applied`.
    pub(crate) fn observe(
        &mut self,
        master: u64,
        applied: u64,
        term_of: impl Fn(u64) -> Option<u64>,
    ) -> Option<String> {
        let before = self.applied.insert(master, applied).unwrap_or(0);
        if applied < before {
            return Some(format!(
                "state_machine_safety: master {master} went from {before} back to {applied}"
            ));
        }
        // Of what a start found in the store, some may be purged from the log.
        for index in before + 1..=applied {
            let Some(term) = term_of(index).filter(|term| *term > 0) else { continue };
            let known = *self.terms.entry(index).or_insert(term);
            if known != term {
                return Some(format!(
                    "state_machine_safety: master {master} applied an entry of term {term} at {index}, another one of {known}"
                ));
            }
        }
        None
    }
}

fn rows(store: &MemoryStore) -> BTreeMap<Vec<u8>, Bytes> {
    let mut rows = BTreeMap::new();
    store.scan(&[], &[], &mut |key, value| {
        // With what a store began is its own affair.
        if key == BASE {
            return true;
        }
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
