//! *At most one leader in a term* (Ongaro, "Consensus: Bridging Theory and Practice", figure 3.2, Election Safety).

use std::collections::BTreeMap;

/// Who has led in which term.
#[derive(Debug, Default)]
pub(crate) struct Elections(BTreeMap<u64, u64>);

impl Elections {
    /// The highest term in which anybody has led.
    pub(crate) fn latest(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(term, _)| *term)
    }

    /// `master` leads in `term`.
    pub(crate) fn observe(&mut self, term: u64, master: u64) -> Option<String> {
        let known = *self.0.entry(term).or_insert(master);
        (known != master).then(|| format!("election_safety: {known} and {master} both lead in term {term}"))
    }
}
