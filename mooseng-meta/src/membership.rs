//! Who the masters are: part of the replicated state, changed by entries of the log only.

use mooseng_types::MasterId;

/// A master of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its number, and which of its lives this is.
    pub id: MasterId,
    /// For people.
    pub name: String,
    /// Where its peers reach it.
    pub address: String,
    /// Counts for majorities; otherwise it is a learner, which only follows.
    pub voter: bool,
    /// A learner that shall become a voter once it has caught up; also true for a voter.
    pub wants_vote: bool,
}

/// The group of masters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// From 1; rises when a majority was lost for good and the group was made anew. 0: not founded.
    pub epoch: u64,
    /// Its members by rising id, each once.
    pub members: Vec<Member>,
}

impl Membership {
    fn ids(&self, voter: bool) -> Vec<MasterId> {
        self.members.iter().filter(|member| member.voter == voter).map(|member| member.id).collect()
    }

    /// Those that count for majorities.
    #[must_use]
    pub fn voters(&self) -> Vec<MasterId> {
        self.ids(true)
    }

    /// Those that only follow.
    #[must_use]
    pub fn learners(&self) -> Vec<MasterId> {
        self.ids(false)
    }

    /// The member with this id.
    #[must_use]
    pub fn get(&self, id: MasterId) -> Option<&Member> {
        let at = self.position(id).ok()?;
        self.members.get(at)
    }

    /// The member with this configured [number](MasterId::number), in whichever of its lives; while a life is being
    /// replaced there may be two, and this is the one with the lower id.
    #[must_use]
    pub fn by_number(&self, number: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id.number() == number)
    }

    /// Adds a member, or replaces the one with its id.
    pub fn put(&mut self, member: Member) {
        match self.position(member.id) {
            Ok(at) => self.members[at] = member,
            Err(at) => self.members.insert(at, member),
        }
    }

    /// Takes a member out; one that is not there is fine.
    pub fn remove(&mut self, id: MasterId) {
        if let Ok(at) = self.position(id) {
            self.members.remove(at);
        }
    }

    fn position(&self, id: MasterId) -> Result<usize, usize> {
        self.members.binary_search_by_key(&id, |member| member.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u16, life: u32, voter: bool) -> Member {
        Member {
            id: MasterId::new(number, life),
            name: format!("m{number}"),
            address: format!("host{number}:9421"),
            voter,
            wants_vote: true,
        }
    }

    #[test]
    fn members_stay_in_order_and_each_is_there_once() {
        let mut group = Membership::default();
        for (number, life, voter) in [(3, 1, true), (1, 1, false), (2, 0, true), (1, 1, true), (1, 2, false)]
        {
            group.put(member(number, life, voter));
        }
        assert!(group.members.is_sorted_by_key(|member| member.id));
        assert_eq!(group.members.len(), 4);
        assert_eq!(group.voters(), [MasterId::new(2, 0), MasterId::new(1, 1), MasterId::new(3, 1)]);
        assert_eq!(group.learners(), [MasterId::new(1, 2)]);
        assert_eq!(group.by_number(3), Some(&member(3, 1, true)));
        assert_eq!(group.by_number(4), None);
        group.remove(MasterId::new(1, 1));
        group.remove(MasterId::new(1, 1));
        assert_eq!(group.get(MasterId::new(1, 1)), None);
        assert_eq!(group.get(MasterId::new(1, 2)), Some(&member(1, 2, false)));
        assert_eq!(group.members.len(), 3);
    }
}
