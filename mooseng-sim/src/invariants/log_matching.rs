//! *If two logs hold an entry with the same index and term, they are identical up to it* (Ongaro, figure 3.2, Log
//! Matching). Looked at as entries come to the disks: index and term name the content of an entry and the term of the one
//! before it, and so, step by step, everything before it.

use std::collections::BTreeMap;

/// An entry that has come to a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Appended {
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// Of the entry before it; `None` if that is purged.
    pub(crate) before: Option<u64>,
    pub(crate) checksum: u32,
}

/// Everything that was ever appended anywhere, by index and term.
#[derive(Debug, Default)]
pub(crate) struct LogMatching(BTreeMap<(u64, u64), Appended>);

impl LogMatching {
    /// `master` appends an entry.
    pub(crate) fn observe(&mut self, master: u64, entry: Appended) -> Option<String> {
        let Appended { index, term, before, checksum } = entry;
        let known = self.0.entry((index, term)).or_insert(entry);
        let other_before = known.before.zip(before).is_some_and(|(known, before)| known != before);
        known.before = known.before.or(before);
        (other_before || known.checksum != checksum).then(|| {
            format!(
                "log_matching: master {master} appends another entry {index} of term {term} than is known"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_index_and_term_have_one_content_and_one_past() {
        let mut matching = LogMatching::default();
        let entry = Appended { index: 7, term: 3, before: None, checksum: 1 };
        assert!(matching.observe(1, entry).is_none());
        assert!(matching.observe(2, Appended { before: Some(2), ..entry }).is_none());
        assert!(matching.observe(3, Appended { term: 4, checksum: 2, ..entry }).is_none());
        assert!(matching.observe(1, Appended { before: Some(1), ..entry }).is_some(), "another past");
        assert!(matching.observe(1, Appended { checksum: 2, ..entry }).is_some(), "another content");
    }
}
