//! What is looked at after every step of a master, whatever the step was.

use mooseng_master::raft::Role;

use super::World;
use crate::invariants::{Appended, lease_is_exclusive};
use crate::net::Place;

impl World {
    /// Election safety, leader completeness, state machine safety, exclusive leases.
    pub(super) fn observe(&mut self, id: u64) {
        let Some(running) = self.masters.get(&id).and_then(|master| master.running.as_ref()) else { return };
        let node = running.core.node();
        let (term, commit) = (node.term(), node.commit_index());
        let term_of = |index| node.term_of(index);
        let mut problems = Vec::new();
        let latest = self.elections.latest();
        self.leader_completeness.committed(term, commit, term_of);
        if node.role() == Role::Leader {
            problems.extend(self.elections.observe(term, id));
            problems.extend(self.leader_completeness.leads(id, term, commit, term_of));
        }
        self.counting.observe(id, node, running.core.state().membership());
        let applied = running.core.state().applied_index();
        problems.extend(self.applied.observe(id, applied, term_of));
        problems.extend(self.lease(id));
        if self.elections.latest() > latest {
            // A new leader: nobody else may still answer.
            let others = (1..=self.shape.masters()).filter(|other| *other != id);
            problems.extend(others.filter_map(|other| self.lease(other)));
        }
        problems.into_iter().for_each(|problem| self.accuse(problem));
    }

    /// What is wrong with the lease of a master. One that is stopped answers nothing until it has looked at its clock.
    fn lease(&self, id: u64) -> Option<String> {
        let master = self.masters.get(&id)?;
        let node = master.running.as_ref()?.core.node();
        if self.is_frozen(Place::Master(id)) || !node.may_serve_reads(master.now(self.time).mono) {
            return None;
        }
        lease_is_exclusive(id, node.term(), self.elections.latest())
    }

    /// Log matching, as a master's entries come to its disk.
    pub(super) fn appended(&mut self, id: u64, entries: &[Appended]) {
        for entry in entries {
            let problem = self.log_matching.observe(id, *entry);
            problem.into_iter().for_each(|problem| self.accuse(problem));
        }
    }
}
