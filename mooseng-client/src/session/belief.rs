//! Who leads, as far as is known. Pure: the time is an argument.
//!
//! Two kinds of word count differently. A *claim* is a master's own: it announces that it leads, or answers as only a
//! leader does. A *hint* is another's, and may be old: it counts only if the one that was believed to lead gives it, in
//! answer to a question asked under that belief, and if it does not name a master that was silent a moment ago.

use std::sync::Arc;
use std::time::Duration;

/// For how long a master that was not reached is passed over. A dead leader is named by the others until they have
/// elected another one.
const DISTRUST: Duration = Duration::from_millis(300);
/// Masters that a leader tells of, at most.
const MASTERS_MAX: usize = 16;
/// Silent masters that are remembered; the oldest goes first.
const SILENT_MAX: usize = 16;

/// The belief, and a number for each state of it.
#[derive(Debug)]
pub struct Belief {
    configured: Vec<Arc<str>>,
    /// Those of the configuration, and those that a leader has told of.
    masters: Vec<Arc<str>>,
    /// The highest of the masters' group that was ever heard of.
    epoch: u64,
    silent: Vec<(Arc<str>, Duration)>,
    leader: Arc<str>,
    /// Somebody has said so, and it was not just the next one to try.
    told: bool,
    term: u64,
    news: u64,
}

/// What is believed at one moment.
#[derive(Debug, Clone)]
pub struct Believed {
    /// The address of who is believed to lead.
    pub leader: Arc<str>,
    /// Rises with each change, so that waiting callers notice.
    pub term: u64,
    /// Rises with each change that came by a master's word, and not by trying the next one.
    pub news: u64,
}

impl Belief {
    /// The first of `masters`, for want of anything better.
    #[must_use]
    pub fn new(masters: &[String]) -> Self {
        let masters: Vec<Arc<str>> = masters.iter().map(|master| master.as_str().into()).collect();
        let leader = masters.first().cloned().unwrap_or_else(|| "".into());
        Self {
            configured: masters.clone(),
            masters,
            epoch: 0,
            silent: Vec::new(),
            leader,
            told: false,
            term: 1,
            news: 1,
        }
    }

    /// The leader says where all masters are.
    pub fn told_masters(&mut self, told: &[String]) {
        let new = |address: &&String| !self.configured.iter().any(|known| **known == ***address);
        let new: Vec<Arc<str>> =
            told.iter().filter(new).take(MASTERS_MAX).map(|address| address.as_str().into()).collect();
        self.masters = self.configured.iter().cloned().chain(new).collect();
    }

    /// All masters, as far as is known.
    #[must_use]
    pub fn masters(&self) -> &[Arc<str>] {
        &self.masters
    }

    /// The highest epoch of the masters' group that was ever heard of.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether to listen to a master that says this epoch: a lower one than was heard before is of a group that was made
    /// anew without it. 0 is said by a master that is in no group yet.
    pub fn is_current(&mut self, epoch: u64) -> bool {
        self.epoch = self.epoch.max(epoch);
        epoch == 0 || epoch == self.epoch
    }

    /// What is believed now.
    #[must_use]
    pub fn now(&self) -> Believed {
        Believed { leader: Arc::clone(&self.leader), term: self.term, news: self.news }
    }

    /// Rises with each change of the belief.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Rises with each change that came by a master's word.
    #[must_use]
    pub fn news(&self) -> u64 {
        self.news
    }

    /// `address` says itself that it leads. Tells whether that is new.
    pub fn claimed(&mut self, address: &str) -> bool {
        self.silent.retain(|(silent, _)| **silent != *address);
        self.learn(address)
    }

    /// The one that was asked as the leader of `term` names another. Tells whether it is believed.
    pub fn hinted(&mut self, term: u64, address: &str, now: Duration) -> bool {
        term == self.term && !self.is_silent(address, now) && self.learn(address)
    }

    /// The leader of `term` was not reached.
    pub fn silent(&mut self, term: u64, address: &str, now: Duration) {
        self.silent.retain(|(silent, _)| **silent != *address);
        if self.silent.len() >= SILENT_MAX {
            self.silent.remove(0);
        }
        self.silent.push((address.into(), now));
        self.pass(term, now);
    }

    /// The leader of `term` leads nobody: the next master is tried, if there is one that was not silent just now.
    pub fn pass(&mut self, term: u64, now: Duration) {
        if term != self.term {
            return;
        }
        let at = self.masters.iter().position(|master| *master == self.leader);
        let first = at.map_or(0, |at| at + 1);
        let mut in_turn = self.masters.iter().cycle().skip(first).take(self.masters.len());
        let next = in_turn.clone().find(|master| !self.is_silent(master, now)).or_else(|| in_turn.next());
        if let Some(next) = next {
            self.leader = Arc::clone(next);
            self.told = false;
            self.term += 1;
        }
    }

    fn learn(&mut self, address: &str) -> bool {
        if address.is_empty() || (self.told && *self.leader == *address) {
            return false;
        }
        if *self.leader != *address {
            self.leader = address.into();
            self.term += 1;
        }
        self.told = true;
        self.news += 1;
        true
    }

    fn is_silent(&self, address: &str, now: Duration) -> bool {
        self.silent
            .iter()
            .any(|(silent, since)| **silent == *address && now.saturating_sub(*since) < DISTRUST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn three() -> Belief {
        Belief::new(&["a".to_owned(), "b".to_owned(), "c".to_owned()])
    }

    fn leader(belief: &Belief) -> String {
        belief.now().leader.to_string()
    }

    #[test]
    fn a_dead_leader_is_not_gone_back_to_because_others_have_yet_to_notice() {
        let mut belief = three();
        belief.silent(1, "a", NOW);
        assert_eq!(leader(&belief), "b");
        assert!(!belief.hinted(belief.term(), "a", NOW), "an old hint");
        belief.pass(belief.term(), NOW);
        assert_eq!(leader(&belief), "c");
        belief.pass(belief.term(), NOW);
        assert_eq!(leader(&belief), "b", "the dead one is passed over");
        assert!(belief.hinted(belief.term(), "a", NOW + DISTRUST), "later it may be back");
    }

    #[test]
    fn a_claim_counts_even_of_one_that_was_silent() {
        let mut belief = three();
        belief.silent(1, "a", NOW);
        assert!(belief.claimed("a"));
        assert_eq!(leader(&belief), "a");
        assert!(!belief.claimed("a"), "no news");
    }

    #[test]
    fn what_was_asked_under_an_older_belief_changes_nothing() {
        let mut belief = three();
        let asked_under = belief.term();
        assert!(belief.claimed("b"));
        assert!(!belief.hinted(asked_under, "c", NOW));
        belief.pass(asked_under, NOW);
        belief.silent(asked_under, "a", NOW);
        assert_eq!(leader(&belief), "b");
    }

    #[test]
    fn when_all_are_silent_they_are_tried_in_turn() {
        let mut belief = three();
        let mut tried = Vec::new();
        for _ in 0..6 {
            let now = belief.now();
            tried.push(now.leader.to_string());
            belief.silent(now.term, &now.leader, NOW);
        }
        assert_eq!(tried, ["a", "b", "c", "a", "b", "c"]);
    }

    #[test]
    fn callers_who_fail_together_move_on_once() {
        let mut belief = three();
        let now = belief.now();
        (0..8).for_each(|_| belief.silent(now.term, &now.leader, NOW));
        assert_eq!(leader(&belief), "b");
    }

    #[test]
    fn a_leader_that_is_not_among_the_configured_is_followed_and_left_again() {
        let mut belief = three();
        assert!(belief.hinted(1, "x", NOW));
        assert_eq!(leader(&belief), "x");
        belief.silent(belief.term(), "x", NOW);
        assert_eq!(leader(&belief), "a");
        assert!(!belief.claimed(""), "nobody is nobody");
    }

    #[test]
    fn trying_the_next_one_is_no_news() {
        let mut belief = three();
        let news = belief.news();
        belief.pass(belief.term(), NOW);
        assert_eq!(belief.news(), news);
        let term = belief.term();
        assert!(belief.claimed("b"), "but that it leads indeed is news to those who wait");
        assert_ne!(belief.news(), news);
        assert_eq!(belief.term(), term, "and to nobody who has asked it already");
    }

    #[test]
    fn the_memory_of_silence_is_bounded() {
        let mut belief = three();
        (0..100).for_each(|number| belief.silent(0, &number.to_string(), NOW));
        assert_eq!(belief.silent.len(), SILENT_MAX);
    }

    #[test]
    fn masters_that_joined_later_are_tried_and_those_that_left_are_not() {
        let mut belief = Belief::new(&["a".to_owned(), "b".to_owned()]);
        belief.told_masters(&["b".to_owned(), "c".to_owned()]);
        let mut tried = Vec::new();
        for _ in 0..3 {
            belief.pass(belief.term(), NOW);
            tried.push(belief.now().leader.to_string());
        }
        assert_eq!(tried, ["b", "c", "a"]);
        belief.told_masters(&["b".to_owned()]);
        assert_eq!(belief.masters().len(), 2);
    }

    #[test]
    fn a_group_that_was_left_behind_is_not_listened_to() {
        let mut belief = Belief::new(&["a".to_owned()]);
        assert!(belief.is_current(1) && belief.is_current(0));
        assert!(
            belief.is_current(2) && !belief.is_current(1) && belief.is_current(2) && belief.is_current(0)
        );
    }
}
