//! *An entry that is committed is in the log of every leader of a later term* (Ongaro, figure 3.2, Leader
//! Completeness). Known to be committed is what some master says so of; it was committed in that master's term or
//! before, so every leader of that term or a later one must have it.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Committed {
    index: u64,
    term: u64,
    /// The term in which it was known first.
    known_in: u64,
}

/// What is known to be committed, and how far each leader was compared with it.
#[derive(Debug, Default)]
pub(crate) struct LeaderCompleteness {
    /// In the order in which it became known.
    committed: Vec<Committed>,
    highest: u64,
    /// By term and leader: so many of the list were found in its log.
    compared: BTreeMap<(u64, u64), usize>,
}

impl LeaderCompleteness {
    /// In `term`, some master knows that everything up to `commit` is committed. Its log has a term for each index
    /// behind what is purged, and 0 or `None` for what it does not have.
    pub(crate) fn committed(&mut self, term: u64, commit: u64, term_of: impl Fn(u64) -> Option<u64>) {
        for index in self.highest + 1..=commit {
            let Some(of_entry) = term_of(index).filter(|term| *term > 0) else { continue };
            self.committed.push(Committed { index, term: of_entry, known_in: term });
        }
        self.highest = self.highest.max(commit);
    }

    /// `master` leads in `term`, and has committed everything up to `commit`.
    pub(crate) fn leads(
        &mut self,
        master: u64,
        term: u64,
        commit: u64,
        term_of: impl Fn(u64) -> Option<u64>,
    ) -> Option<String> {
        let compared = self.compared.entry((term, master)).or_default();
        for entry in &self.committed[*compared..] {
            let found = term_of(entry.index).unwrap_or(0);
            let purged = found == 0 && entry.index <= commit;
            if entry.known_in <= term && found != entry.term && !purged {
                let (index, of_entry) = (entry.index, entry.term);
                return Some(format!(
                    "leader_completeness: master {master} leads in term {term} without the committed entry {index} of term {of_entry}; it has {found}"
                ));
            }
        }
        *compared = self.committed.len();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_leader_has_what_was_committed_and_an_older_one_need_not() {
        let mut known = LeaderCompleteness::default();
        let log = |terms: &'static [u64]| {
            move |index: u64| {
                let at = usize::try_from(index).ok()?;
                at.checked_sub(1).and_then(|at| terms.get(at).copied())
            }
        };
        known.committed(2, 3, log(&[1, 1, 2]));
        assert!(known.leads(1, 3, 1, log(&[1, 1, 2, 3])).is_none());
        assert!(known.leads(2, 1, 1, log(&[1, 1])).is_none(), "a leader of before");
        assert!(known.leads(3, 4, 1, log(&[1, 1])).is_some(), "it lacks the last one");
        assert!(known.leads(3, 5, 1, log(&[1, 1, 1])).is_some(), "it has another one");
        assert!(known.leads(3, 6, 3, log(&[0, 0, 2])).is_none(), "the first ones are purged");
    }
}
