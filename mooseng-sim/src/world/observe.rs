//! What is looked at after every step of a master, whatever the step was.

use mooseng_master::raft::Role;
use mooseng_types::CellId;

use super::World;
use crate::invariants::{Appended, is_served, lease_is_exclusive};
use crate::net::Place;

impl World {
    /// Election safety, leader completeness, state machine safety, exclusive leases, levels; for every group.
    pub(super) fn observe(&mut self, id: u64) {
        let Some(running) = self.masters.get(&id).and_then(|master| master.running.as_ref()) else { return };
        let mut problems = Vec::new();
        let mut elected = Vec::new();
        for group in running.core.groups().iter() {
            let Some(promises) = self.promises.get_mut(&group.cell()) else { continue };
            let node = group.node();
            let (term, commit) = (node.term(), node.commit_index());
            let term_of = |index| node.term_of(index);
            let latest = promises.elections.latest();
            promises.leader_completeness.committed(term, commit, term_of);
            if node.role() == Role::Leader {
                problems.extend(promises.elections.observe(term, id));
                problems.extend(promises.leader_completeness.leads(id, term, commit, term_of));
            }
            problems.extend(promises.applied.observe(id, group.state().applied_index(), term_of));
            if promises.elections.latest() > latest {
                elected.push(group.cell());
            }
        }
        self.counting.observe(id, running.core.node(), running.core.state().membership());
        problems.extend(self.observe_level(id));
        problems.extend(self.shape.cells().into_iter().filter_map(|cell| self.lease(id, cell)));
        for cell in elected {
            // A new leader: nobody else may still answer.
            let others = (1..=self.shape.masters()).filter(|other| *other != id);
            problems.extend(others.filter_map(|other| self.lease(other, cell)));
        }
        problems.into_iter().for_each(|problem| self.accuse(problem));
    }

    /// What is wrong with the lease of a master. One that is stopped answers nothing until it has looked at its clock.
    fn lease(&self, id: u64, cell: CellId) -> Option<String> {
        let master = self.masters.get(&id)?;
        let node = master.running.as_ref()?.core.groups().get(cell)?.node();
        if self.is_frozen(Place::Master(id)) || !node.may_serve_reads(master.now(self.time).mono) {
            return None;
        }
        let latest = self.promises.get(&cell)?.elections.latest();
        let exclusive = lease_is_exclusive(id, node.term(), latest);
        exclusive.or_else(|| self.level.serves(id, master.levels))
    }

    /// A request over this connection is about to be served.
    pub(super) fn observe_served(&mut self, conn: u64) {
        let Some(known) = self.conns.get(&conn) else { return };
        let Some(running) = self.masters.get(&known.master).and_then(|master| master.running.as_ref()) else {
            return;
        };
        let level = running.core.state().level();
        let problem = is_served(&format!("{:?}", known.place), known.levels, level);
        problem.into_iter().for_each(|problem| self.accuse(problem));
    }

    /// Log matching, as a master's entries come to its disk.
    pub(super) fn appended(&mut self, id: u64, entries: &[(CellId, Appended)]) {
        for (cell, entry) in entries {
            let promises = self.promises.get_mut(cell);
            let problem = promises.and_then(|promises| promises.log_matching.observe(id, *entry));
            problem.into_iter().for_each(|problem| self.accuse(problem));
        }
    }
}
