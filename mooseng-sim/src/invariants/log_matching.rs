//! *What one master has applied at an index, no other applies differently, and none goes back* (Ongaro, figure 3.2,
//! Log Matching and State Machine Safety): index and term name an entry, so comparing terms is enough.

use std::collections::BTreeMap;

/// The terms of everything applied so far.
#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    terms: BTreeMap<u64, u64>,
    applied: BTreeMap<u64, u64>,
}

impl LogMatching {
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
            return Some(format!("log_matching: master {master} went from {before} back to {applied}"));
        }
        // Of what a start found in the store, some may be purged from the log.
        for index in before + 1..=applied {
            let Some(term) = term_of(index).filter(|term| *term > 0) else { continue };
            let known = *self.terms.entry(index).or_insert(term);
            if known != term {
                return Some(format!(
                    "log_matching: master {master} applied an entry of term {term} at {index}, another one of {known}"
                ));
            }
        }
        None
    }
}
