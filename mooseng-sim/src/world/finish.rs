//! The end: faults stop, everything must go on within a time, and then everything is looked at.

use std::rc::Rc;
use std::time::Duration;

use mooseng_master::core::Group;
use mooseng_meta::MetaState;
use mooseng_types::{CellId, ChunkId, ChunkVersion, Part};

use super::{DISK, Event, Shape, World};
use crate::client;
use crate::invariants::{self, CopiesOnDisk};
use crate::net::Place;
use crate::server;
use crate::task::Task;

/// Without faults, the world makes progress within this time.
const HEALS_WITHIN: Duration = Duration::from_secs(20);
/// The same where bits have rotted: each writer of a chunk whose only copy is damaged waits for another for a while.
const HEALS_WITH_DAMAGE: Duration = Duration::from_secs(30);
/// Operations of each client that count as progress.
const PROGRESS: u64 = 5;
/// The longest that something on its way takes without faults.
const DRAIN: Duration = Duration::from_millis(300);
/// The sessions of the clients have ended, what they have left is settled, and every chunk is at its goal.
const HEALS_CHUNKS_WITHIN: Duration = Duration::from_secs(60);
const AUDIT_WITHIN: Duration = Duration::from_secs(60);

impl World {
    pub(super) fn finish(&mut self) {
        if self.broken() {
            return;
        }
        self.stop_faults();
        let clients = self.shape.clients();
        let before: Vec<u64> = (0..clients).map(|number| self.progress(number)).collect();
        let healed = move |world: &Self| {
            (0..clients)
                .all(|number| world.progress(number) >= before.get(number).copied().unwrap_or(0) + PROGRESS)
        };
        let damaged = self.oracles.values().any(|oracle| oracle.borrow().damaged.is_some());
        let within = if damaged { HEALS_WITH_DAMAGE } else { HEALS_WITHIN };
        self.pass(self.time + within, &healed);
        if self.broken() {
            return;
        }
        if !healed(self) {
            self.describe();
            return self.accuse(format!("heals: no progress within {within:?} after the faults"));
        }
        if self.shape == Shape::Mixed {
            self.pass(self.time + HEALS_WITHIN, Self::has_risen);
            if self.broken() {
                return;
            }
            if !self.has_risen() {
                self.describe();
                return self.accuse("heals: the level does not rise though all parts can go along".into());
            }
        }
        while let Some((_, task)) = self.clients.pop_first() {
            self.end_task(task);
        }
        self.queue.retain(|_, event| !matches!(event, Event::StartClient { .. }));
        // What they asked for last comes about before anybody looks, or never.
        self.pass(self.time + DRAIN, |_| false);
        self.bring_to_goal();
        if self.broken() {
            return;
        }
        self.audit();
        if self.broken() {
            self.describe();
        } else {
            self.compare_masters();
        }
    }

    /// Operations of a client that were answered.
    fn progress(&self, client: usize) -> u64 {
        let oracle = self.oracles.get(&self.shape.cell_of(client));
        oracle.and_then(|oracle| oracle.borrow().progress.get(client).copied()).unwrap_or(0)
    }

    /// Writes down what everybody is doing.
    fn describe(&mut self) {
        let mut lines = Vec::new();
        for (id, master) in &self.masters {
            for cell in self.shape.cells() {
                let group = master.running.as_ref().and_then(|running| running.core.groups().get(cell));
                let state = group.map(|group| {
                    let (node, applied) = (group.node(), group.state().applied_index());
                    (node.role(), node.term(), node.commit_index(), applied)
                });
                let healing = master.running.as_ref().and_then(|running| running.core.healing(cell));
                let stored = master.store_index(cell);
                lines.push(format!(
                    "master {id}, {cell}: role, term, committed, applied {state:?}, stored {stored}, {healing:?}"
                ));
            }
        }
        for (index, server) in &self.servers {
            lines.push(format!("server {index}: up {}", server.engine.is_some()));
        }
        let on_disk = self.copies_on_disk();
        for state in self.shape.cells().into_iter().filter_map(|cell| self.state_of(cell)) {
            for (chunk, row) in state.chunks(ChunkId::from_raw(0), usize::MAX) {
                let of_chunk = |copies: &[(Part, ChunkVersion, bool)]| {
                    copies.iter().filter(|(part, ..)| part.chunk() == chunk).copied().collect::<Vec<_>>()
                };
                let copies: Vec<_> =
                    on_disk.iter().map(|(server, copies)| (*server, of_chunk(copies))).collect();
                lines.push(format!("{chunk}: {row:?}, on disk {copies:?}"));
            }
        }
        for (server, copies) in &on_disk {
            let has_row = |part: &Part| {
                let state = self.state_of(part.chunk().cell());
                state.is_some_and(|state| state.chunk(part.chunk()).is_some())
            };
            let strays: Vec<_> = copies.iter().filter(|(part, ..)| !has_row(part)).collect();
            lines.push(format!("{server} has copies without a row: {strays:?}"));
        }
        for life in self.oracles.values().flat_map(|oracle| oracle.borrow().private.clone()) {
            lines.push(format!("{}: {:?}", life.name, life.pending));
        }
        for (number, task) in &self.clients {
            if let Some(slot) = self.tasks.get(task) {
                lines.push(format!("client {number}: {}", slot.task.port.last_failure()));
            }
        }
        lines.into_iter().for_each(|line| self.note(line));
    }

    fn stop_faults(&mut self) {
        self.note("no more faults".into());
        self.faults_until = self.time;
        self.parted_until = self.time;
        self.net.heal();
        self.slowest_disk = DISK;
        self.thaw_all();
        for master in 1..=self.shape.masters() {
            if let Some(master) = self.masters.get_mut(&master) {
                master.disk.mend();
                master.disk.set_full(false);
                master.stalled_until = Duration::ZERO;
            }
            self.after(Duration::ZERO, Event::StartMaster { master });
        }
        for index in 0..self.shape.servers() {
            // The power may have gone in the midst of a deletion, which nobody waits for.
            if self.servers.get(&index).is_some_and(|server| server.disk.blown()) {
                self.crash_server(index, true);
            }
            if let Some(server) = self.servers.get(&index) {
                server.disk.mend();
                server.disk.set_full(false);
            }
            if let Some(server) = self.servers.get_mut(&index) {
                server.busy_until = Duration::ZERO;
                server.clock.borrow_mut().set_right();
            }
            self.after(Duration::ZERO, Event::StartServer { index });
        }
        self.roll_to_the_end();
        if self.rng.chance(300) {
            self.rot();
        }
    }

    /// Every chunk comes to its goal, and nothing is left over. What servers have done lately the leader hears a little later.
    fn bring_to_goal(&mut self) {
        let until = self.time + HEALS_CHUNKS_WITHIN;
        loop {
            self.pass(until, Self::has_healed);
            if self.broken() {
                return;
            }
            let problems = self.unhealed();
            if problems.is_empty() {
                let states = self.shape.cells().into_iter().filter_map(|cell| self.state_of(cell));
                let whole =
                    states.into_iter().all(|state| invariants::all_are_there(state, &self.copies_on_disk()));
                return self.tell_oracles(|oracle, _| oracle.copies_may_be_missing &= !whole);
            }
            if self.time >= until {
                self.describe();
                return problems.into_iter().for_each(|problem| self.accuse(problem));
            }
            self.pass(self.time + DRAIN, |_| false);
        }
    }

    /// What is still to be done about chunks.
    fn unhealed(&self) -> Vec<String> {
        if !self.has_healed() {
            return vec!["heals: something is still to be done about chunks".into()];
        }
        let on_disk = self.copies_on_disk();
        let cells = self.shape.cells().into_iter().filter_map(|cell| self.state_of(cell));
        let problems = |state| {
            [invariants::heals(state, &on_disk), invariants::no_orphan_chunk(state, &on_disk)].concat()
        };
        cells.flat_map(problems).collect()
    }

    fn has_healed(&self) -> bool {
        let told = |cell: CellId| {
            let leaders = self.masters.values().filter_map(|master| master.running.as_ref());
            let mut told = leaders.filter_map(|running| running.core.healing(cell));
            told.any(|healing| !healing.busy && healing.todo == 0 && healing.away == 0)
        };
        self.shape.cells().into_iter().all(told)
    }

    /// The rows of a cell's group, as far as any master has applied them.
    pub(super) fn state_of(&self, cell: CellId) -> Option<&MetaState> {
        let running = self.masters.values().filter_map(|master| master.running.as_ref());
        let groups = running.filter_map(|running| running.core.groups().get(cell));
        groups.map(Group::state).max_by_key(|state| state.applied_index())
    }

    /// What the servers that run have.
    pub(super) fn copies_on_disk(&self) -> CopiesOnDisk {
        // The root's group makes servers known.
        let servers = self.state_of(CellId::ROOT).map(MetaState::servers).unwrap_or_default();
        let known = servers.into_iter().filter_map(|row| {
            let server = self.servers.get(&server::index_of(&row.address)?)?;
            Some((row.server, server.engine.as_ref()?.copies()))
        });
        known.collect()
    }

    fn audit(&mut self) {
        let masters = self.shape.masters();
        for (at, (cell, oracle)) in self.oracles.clone().into_iter().enumerate() {
            let place = Place::Client((self.shape.clients() + at) as u64);
            let looked_at = Rc::clone(&oracle);
            let task = self
                .spawn(place, |port| Task::new(port.clone(), client::audit(port, looked_at, cell, masters)));
            self.pass(self.time + AUDIT_WITHIN, |world| !world.tasks.contains_key(&task));
            if self.broken() {
                return;
            }
            if self.tasks.contains_key(&task) {
                self.accuse(format!("heals: the look at everything of {cell} came to no end"));
            }
            let problems = oracle.borrow().histories();
            problems.into_iter().for_each(|problem| self.accuse(problem));
        }
    }

    /// Waits until all masters have applied the same, and compares their rows.
    fn compare_masters(&mut self) {
        const ROUNDS: u32 = 40;
        for _ in 0..ROUNDS {
            for id in 1..=self.shape.masters() {
                self.with_core(id, |core, now| core.flush(now.mono));
            }
            self.pass(self.time + Duration::from_millis(300), |_| false);
            if self.shape.cells().into_iter().all(|cell| self.is_settled(cell)) {
                return self.compare_rows();
            }
            if self.broken() {
                return;
            }
        }
        self.describe();
        self.accuse("heals: the masters do not come to the same index".into());
    }

    /// Whether a group has one leader, and all masters have applied and stored the same.
    fn is_settled(&self, cell: CellId) -> bool {
        let running = self.masters.values().filter_map(|master| master.running.as_ref());
        let groups: Vec<_> = running.filter_map(|running| running.core.groups().get(cell)).collect();
        let stored: Vec<_> = self.masters.values().map(|master| master.store_index(cell)).collect();
        let current = groups.iter().map(|group| group.state().applied_index());
        groups.iter().filter(|group| group.leads()).count() == 1
            && groups.len() == self.masters.len()
            && current.zip(&stored).all(|(current, stored)| current == *stored)
            && stored.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn compare_rows(&mut self) {
        let mut problems = Vec::new();
        for master in self.masters.values() {
            let Some(running) = &master.running else { continue };
            for group in running.core.groups().iter() {
                problems.extend(invariants::consistent(master.number, group.state()));
            }
            let level = running.core.state().level();
            if level != self.level.level() {
                problems.push(format!("level_is_known: master {} ends with level {level}", master.number));
            }
        }
        for cell in self.shape.cells() {
            let rows = self.masters.values().map(|master| (master.number, master.rows.get(&cell)));
            let stores: Vec<_> = rows.filter_map(|(number, rows)| Some((number, rows?.store()))).collect();
            problems.extend(invariants::same_rows(&stores));
        }
        problems.into_iter().for_each(|problem| self.accuse(problem));
    }
}
