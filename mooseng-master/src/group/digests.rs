//! Do all replicas have the same state? Each master notes the rolling hash of its state at certain indexes; the leader
//! compares what the others have noted with its own, and says whose is wrong.
//!
//! Pure: who sends what to whom, and what happens to a replica that is wrong, is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use mooseng_types::MasterId;

/// A note is made at every index that is a multiple of this: often enough to hear of trouble within a second or so of
/// busy work, seldom enough that the notes below reach back past the slowest of the others.
pub(super) const NOTE_EVERY: u64 = 64;
/// Notes that are remembered of each master, the highest ones.
const NOTES_MAX: usize = 64;
/// Masters whose notes are remembered; groups are far smaller.
const PEERS_MAX: usize = 64;

/// A replica whose state is not that of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Differs {
    /// The index at which this is seen first; it happened after the noted one before.
    pub(super) at: u64,
    /// Who differs; the leader itself if it is among those who do.
    pub(super) member: MasterId,
    /// Its hash.
    pub(super) theirs: u64,
    /// The hash of the majority, or the leader's where there is none.
    pub(super) majority: u64,
}

/// Hashes by index, of one master.
#[derive(Clone, Debug, Default)]
struct Notes(BTreeMap<u64, u64>);

impl Notes {
    /// Whether that says anything new. A hash of 0 says that the master does not know it.
    fn add(&mut self, index: u64, digest: u64) -> bool {
        if digest == 0 || index == 0 || !index.is_multiple_of(NOTE_EVERY) {
            return false;
        }
        let before = self.0.insert(index, digest);
        if self.0.len() > NOTES_MAX {
            self.0.pop_first();
        }
        before != Some(digest)
    }
}

/// A verdict, and whom it is about.
#[derive(Clone, Debug)]
struct Judged {
    members: Vec<MasterId>,
    own: MasterId,
    verdict: Option<Differs>,
}

/// What this master has noted, and as leader what the others have.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests {
    own: Notes,
    others: BTreeMap<MasterId, Notes>,
    /// The last verdict, until something is noted that it does not know. It is asked for with every message, and one
    /// message in many says anything new.
    judged: Option<Judged>,
    #[cfg(test)]
    looked: usize,
}

impl Digests {
    /// Nothing noted yet.
    #[must_use]
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// To be called after every applied entry: notes the state's hash if it is time for it. A `digest` of 0 is not known
    /// and is not noted.
    pub(super) fn note(&mut self, index: u64, digest: u64) {
        if self.own.add(index, digest) {
            self.judged = None;
        }
    }

    /// Index and hash of this master's last note: what it tells the leader.
    #[must_use]
    pub(super) fn latest(&self) -> Option<(u64, u64)> {
        self.own.0.last_key_value().map(|(&index, &digest)| (index, digest))
    }

    /// What this master has noted at `index`, if it still knows.
    #[must_use]
    pub(super) fn noted(&self, index: u64) -> Option<u64> {
        self.own.0.get(&index).copied()
    }

    /// Another master says that it has noted this; saying it again is fine.
    pub(super) fn told(&mut self, peer: MasterId, index: u64, digest: u64) {
        let room = self.others.len() < PEERS_MAX || self.others.contains_key(&peer);
        if room && self.others.entry(peer).or_default().add(index, digest) {
            self.judged = None;
        }
    }

    /// Forgets what masters said that are not in the group any more.
    pub(super) fn retain(&mut self, members: &[MasterId]) {
        let before = self.others.len();
        self.others.retain(|peer, _| members.contains(peer));
        if self.others.len() < before {
            self.judged = None;
        }
    }

    /// Whose state is wrong, as far as can be told by now: for the lowest index where two notes differ, who is not with
    /// the strict majority of those known (at least two that are alike). One against one waits until all `members` (voters
    /// and learners) have been heard for that index; if that brings no majority, the leader's word counts and the peer is
    /// named. `own` is the leader, which asks. The answer stays the same until it is acted on.
    #[must_use]
    pub(super) fn verdict(&mut self, members: &[MasterId], own: MasterId) -> Option<Differs> {
        if let Some(judged) = &self.judged
            && judged.own == own
            && judged.members == members
        {
            return judged.verdict;
        }
        let verdict = self.look(members, own);
        self.judged = Some(Judged { members: members.to_vec(), own, verdict });
        #[cfg(test)]
        {
            self.looked += 1;
        }
        verdict
    }

    /// The verdict from all notes.
    fn look(&self, members: &[MasterId], own: MasterId) -> Option<Differs> {
        let members: BTreeSet<MasterId> = members.iter().copied().chain([own]).collect();
        let notes: BTreeMap<MasterId, &Notes> =
            members.iter().filter_map(|&member| Some((member, self.notes(member, own)?))).collect();
        let indexes: BTreeSet<u64> = notes.values().flat_map(|notes| notes.0.keys().copied()).collect();
        indexes.into_iter().find_map(|at| {
            let heard = notes.iter().filter_map(|(&member, notes)| Some((member, *notes.0.get(&at)?)));
            judge(at, &heard.collect(), members.len(), own)
        })
    }

    fn notes(&self, member: MasterId, own: MasterId) -> Option<&Notes> {
        if member == own { Some(&self.own) } else { self.others.get(&member) }
    }
}

/// The verdict on what has been heard for one index, of `members` masters.
fn judge(at: u64, heard: &BTreeMap<MasterId, u64>, members: usize, own: MasterId) -> Option<Differs> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for &digest in heard.values() {
        *counts.entry(digest).or_default() += 1;
    }
    if counts.len() < 2 {
        return None;
    }
    let majority = counts.iter().find(|&(_, &count)| count >= 2 && 2 * count > heard.len());
    let majority = match majority {
        Some((&digest, _)) => digest,
        None if heard.len() < members => return None,
        None => *heard.get(&own)?,
    };
    let wrong = |member: &MasterId| heard.get(member).copied().filter(|&theirs| theirs != majority);
    let member = [&own].into_iter().chain(heard.keys()).find(|member| wrong(member).is_some())?;
    Some(Differs { at, member: *member, theirs: wrong(member)?, majority })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const OWN: MasterId = MasterId::new(1, 0);

    fn members(count: u16) -> Vec<MasterId> {
        (1..=count).map(|number| MasterId::new(number, 0)).collect()
    }

    /// Notes of members 1 (the leader), 2, and so on, at one index; 0: not heard.
    fn at(index: u64, digests: &[u64]) -> Digests {
        let mut all = Digests::new();
        all.note(index, digests[0]);
        for (&digest, &peer) in digests.iter().zip(&members(9)).skip(1) {
            all.told(peer, index, digest);
        }
        all
    }

    fn named(digests: &[u64]) -> Option<(u64, u64, u64)> {
        let count = u16::try_from(digests.len()).unwrap();
        let verdict = at(256, digests).verdict(&members(count), OWN)?;
        assert_eq!(verdict.at, 256);
        Some((verdict.member.raw(), verdict.theirs, verdict.majority))
    }

    #[test]
    fn replicas_that_agree_are_left_alone() {
        assert_eq!(named(&[7, 7, 7]), None);
        assert_eq!(named(&[7, 0, 0]), None);
        assert_eq!(named(&[0, 7, 7]), None);
        assert_eq!(Digests::new().verdict(&members(3), OWN), None);
    }

    #[test]
    fn who_is_not_with_the_majority_is_named() {
        assert_eq!(named(&[7, 7, 8]), Some((3, 8, 7)));
        assert_eq!(named(&[7, 8, 7, 9, 7]), Some((2, 8, 7)));
        assert_eq!(named(&[7, 0, 7, 9, 0]), Some((4, 9, 7)));
    }

    #[test]
    fn a_leader_that_is_wrong_is_named_before_others_that_are() {
        assert_eq!(named(&[8, 7, 7]), Some((1, 8, 7)));
        assert_eq!(named(&[9, 8, 7, 7, 7]), Some((1, 9, 7)));
        assert_eq!(named(&[7, 7, 9, 8, 7]), Some((3, 9, 7)));
    }

    #[test]
    fn one_against_one_waits_for_the_others() {
        assert_eq!(named(&[7, 8, 0]), None);
        assert_eq!(named(&[0, 7, 8]), None);
        assert_eq!(named(&[7, 7, 8, 8, 0]), None);
    }

    #[test]
    fn where_all_are_heard_and_none_has_a_majority_the_peer_is_named() {
        assert_eq!(named(&[7, 8]), Some((2, 8, 7)));
        assert_eq!(named(&[7, 8, 9]), Some((2, 8, 7)));
        assert_eq!(named(&[7, 8, 8, 7]), Some((2, 8, 7)));
    }

    #[test]
    fn notes_are_made_at_some_indexes_only_and_not_of_what_is_unknown() {
        let mut all = Digests::new();
        (0..NOTE_EVERY).for_each(|index| all.note(index, 5));
        assert_eq!(all.latest(), None);
        all.note(NOTE_EVERY, 6);
        all.note(NOTE_EVERY + 1, 7);
        all.note(2 * NOTE_EVERY, 0);
        assert_eq!(all.latest(), Some((NOTE_EVERY, 6)));
        all.told(MasterId::new(2, 0), NOTE_EVERY - 1, 9);
        all.told(MasterId::new(2, 0), 0, 9);
        all.told(MasterId::new(2, 0), NOTE_EVERY, 0);
        assert_eq!(all.verdict(&members(2), OWN), None);
    }

    #[test]
    fn the_first_index_that_differs_is_told() {
        let mut all = at(256, &[7, 7, 7]);
        for (index, theirs) in [(512, 1), (768, 2)] {
            all.note(index, 9);
            all.told(MasterId::new(2, 0), index, 9);
            all.told(MasterId::new(3, 0), index, theirs);
        }
        let member = MasterId::new(3, 0);
        let differs = Differs { at: 512, member, theirs: 1, majority: 9 };
        assert_eq!(all.verdict(&members(3), OWN), Some(differs));
    }

    #[test]
    fn who_has_left_the_group_has_no_say() {
        let mut all = at(256, &[7, 8, 8]);
        assert_eq!(all.verdict(&members(1), OWN), None);
        assert_eq!(all.verdict(&members(3), OWN).map(|differs| differs.member), Some(OWN));
        all.retain(&members(1));
        assert_eq!(all.verdict(&members(3), OWN), None);
    }

    #[test]
    fn old_notes_and_too_many_masters_are_forgotten() {
        let mut all = Digests::new();
        for step in 1..=200 {
            all.note(step * NOTE_EVERY, step);
            all.told(MasterId::new(2, 0), step * NOTE_EVERY, step);
            all.told(MasterId::from_raw(100 + step), NOTE_EVERY, step);
        }
        assert_eq!(all.own.0.len(), NOTES_MAX);
        assert_eq!(all.others[&MasterId::new(2, 0)].0.len(), NOTES_MAX);
        assert_eq!(all.others.len(), PEERS_MAX);
        assert_eq!(all.latest(), Some((200 * NOTE_EVERY, 200)));
    }

    #[test]
    fn the_notes_are_looked_through_again_only_when_something_new_was_said() {
        let mut all = at(256, &[7, 7, 7]);
        let second = MasterId::new(2, 0);
        let ask = |all: &mut Digests, count: u16| (all.verdict(&members(count), OWN), all.looked).1;
        assert_eq!(ask(&mut all, 3), 1);
        for _ in 0..9 {
            all.note(256, 7);
            all.note(257, 9);
            all.told(second, 256, 7);
            all.told(second, 512, 0);
            all.retain(&members(3));
            assert_eq!(ask(&mut all, 3), 1);
        }
        all.note(512, 5);
        assert_eq!((ask(&mut all, 3), ask(&mut all, 3)), (2, 2));
        all.told(second, 512, 6);
        assert_eq!((ask(&mut all, 3), ask(&mut all, 3)), (3, 3));
        all.told(second, 512, 5);
        assert_eq!((ask(&mut all, 3), ask(&mut all, 3)), (4, 4));
        assert_eq!((ask(&mut all, 2), ask(&mut all, 2)), (5, 5));
        all.retain(&members(2));
        assert_eq!((ask(&mut all, 2), ask(&mut all, 2)), (6, 6));
        assert_eq!((all.verdict(&members(2), second), all.looked).1, 7);
    }

    /// Every note ever made, looked through from the start; the last word of each for an index counts.
    fn naive(notes: &[(u64, u64, u64)], count: u64) -> Option<(u64, u64, u64, u64)> {
        let word = |member, index| {
            let by = notes.iter().rev().find(|&&(m, i, _)| (m, i) == (member, index));
            by.map(|&(_, _, digest)| digest)
        };
        for index in (0..40).map(|step| step * NOTE_EVERY) {
            let heard: Vec<(u64, u64)> =
                (1..=count).filter_map(|member| Some((member, word(member, index)?))).collect();
            if heard.iter().all(|(_, digest)| *digest == heard[0].1) {
                continue;
            }
            let votes = |digest: u64| heard.iter().filter(|(_, other)| *other == digest).count();
            let winner = heard.iter().map(|(_, digest)| *digest).find(|&digest| {
                let votes = votes(digest);
                votes > 1 && votes > heard.len() - votes
            });
            let right = match winner {
                Some(digest) => digest,
                None if heard.len() as u64 == count => word(1, index).unwrap(),
                None => continue,
            };
            let (member, theirs) = heard.iter().copied().find(|(_, digest)| *digest != right).unwrap();
            return Some((index, member, theirs, right));
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn verdicts_are_those_of_looking_at_everything(
            count in 1u16..6,
            said in vec((1u64..6, 1u64..8, 1u64..4), 0..40),
        ) {
            let said: Vec<_> = said
                .into_iter()
                .filter(|&(member, ..)| member <= count.into())
                .map(|(member, step, digest)| (member, step * NOTE_EVERY, digest))
                .collect();
            let mut all = Digests::new();
            for (heard, &(member, index, digest)) in (1..).zip(&said) {
                if member == 1 {
                    all.note(index, digest);
                } else {
                    all.told(MasterId::from_raw(member), index, digest);
                }
                let verdict = all.verdict(&members(count), OWN);
                let verdict = verdict.map(|Differs { at, member, theirs, majority }| (at, member.raw(), theirs, majority));
                prop_assert_eq!(verdict, naive(&said[..heard], count.into()));
            }
        }
    }
}
