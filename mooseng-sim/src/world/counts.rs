//! How often a world did what promises are easily broken by. That none was broken means little where none was in danger.

use std::collections::{BTreeMap, BTreeSet};

use mooseng_master::raft::{Node, Role};
use mooseng_meta::Membership;
use mooseng_types::MasterId;

/// What happened in a world, beside faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happening {
    /// A master took a snapshot in the place of its rows and its log.
    Snapshot,
    /// One did while another was down or stopped, or the network was cut.
    SnapshotAmidFaults,
    /// A process ended when the rows of a snapshot were in place and the log did not begin behind it yet; the next start
    /// mended that.
    SnapshotCut,
    /// The administrator has taken a master out of the group and let it in again.
    Replacement,
    /// A learner has become a voter.
    Promotion,
    /// Whom a leader asked to take over leads.
    HandOver,
    /// Nobody took over in time.
    HandOverInVain,
    /// A term had a leader.
    Election,
    /// The cluster's level has risen, while there were faults.
    Rise,
    /// A master has cut off a part that did not know its level.
    Cut,
    /// A part that did not know the cluster's level was refused, or has refused what it found on its disk.
    Refusal,
    /// A server came back with an empty disk.
    LostDisk,
    /// An operator had a server drained.
    Drain,
}

impl Happening {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Snapshot,
        Self::SnapshotAmidFaults,
        Self::SnapshotCut,
        Self::Replacement,
        Self::Promotion,
        Self::HandOver,
        Self::HandOverInVain,
        Self::Election,
        Self::Rise,
        Self::Cut,
        Self::Refusal,
        Self::LostDisk,
        Self::Drain,
    ];
    /// What happens only where servers are away for long and lose their disks.
    pub const OF_HEALING: [Self; 2] = [Self::LostDisk, Self::Drain];
    /// What happens only where not all parts are of one release.
    pub const OF_RELEASES: [Self; 3] = [Self::Rise, Self::Cut, Self::Refusal];

    /// Its name in a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshots installed",
            Self::SnapshotAmidFaults => "snapshots installed amid faults",
            Self::SnapshotCut => "installs cut off and mended",
            Self::Replacement => "replacements completed",
            Self::Promotion => "learners promoted",
            Self::HandOver => "hand-overs taken",
            Self::HandOverInVain => "hand-overs in vain",
            Self::Election => "elections won",
            Self::Rise => "levels raised amid faults",
            Self::Cut => "parts cut off",
            Self::Refusal => "parts refused",
            Self::LostDisk => "disks lost",
            Self::Drain => "servers drained",
        }
    }
}

/// How often each has happened.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts([u64; Happening::ALL.len()]);

impl Counts {
    /// How often this has happened.
    #[must_use]
    pub fn of(&self, what: Happening) -> u64 {
        self.0[what as usize]
    }

    pub(super) fn add(&mut self, what: Happening, times: u64) {
        self.0[what as usize] += times;
    }
}

/// Sees from what masters are that something has happened.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) counts: Counts,
    latest: u64,
    /// Masters that hand over, and in which term.
    handing: BTreeMap<u64, u64>,
    learners: BTreeSet<MasterId>,
}

impl Counting {
    pub(super) fn observe(&mut self, id: u64, node: &Node, group: &Membership) {
        let (term, leads) = (node.term(), node.role() == Role::Leader);
        if node.is_handing_over() {
            self.handing.insert(id, term);
        } else if !leads && self.handing.get(&id) == Some(&term) {
            self.handing.remove(&id);
            self.counts.add(Happening::HandOverInVain, 1);
        }
        if !leads {
            return;
        }
        if term > self.latest {
            self.latest = term;
            self.counts.add(Happening::Election, 1);
            let taken = self.handing.iter().any(|(from, handed)| *from != id && handed + 1 == term);
            self.counts.add(Happening::HandOver, u64::from(taken));
            self.handing.retain(|_, handed| *handed >= term);
        }
        for member in &group.members {
            if !member.voter {
                self.learners.insert(member.id);
            } else if self.learners.remove(&member.id) {
                self.counts.add(Happening::Promotion, 1);
            }
        }
    }
}
