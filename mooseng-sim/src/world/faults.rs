//! What goes wrong: machines lose power or are killed, alone or all at once; the network loses, doubles, delays and
//! parts; disks stop in the midst of their work, fill up, become slow; clients die.

use std::time::Duration;

use mooseng_types::CellId;

use super::{Event, Happening, Shape, World};
use crate::disk::FusedDisk;
use crate::invariants;
use crate::master::Started;
use crate::net::Place;
use crate::server;

impl World {
    /// One fault, drawn; and the next.
    pub(super) fn fault(&mut self) {
        if self.time >= self.faults_until {
            return;
        }
        let next = self.shape.until_next_fault(&mut self.rng);
        self.after(next, Event::Fault);
        if self.shape == Shape::Healing && self.rng.chance(200) {
            return self.lose_server();
        }
        let power = self.rng.chance(600);
        let master = 1 + self.rng.below(self.shape.masters());
        let index = u32::try_from(self.rng.below(self.shape.servers().into())).unwrap_or(0);
        match self.rng.below(41) {
            0..=2 => self.crash_master(master, power),
            3 => (1..=self.shape.masters()).for_each(|id| self.crash_master(id, power)),
            4..=5 => self.crash_server(index, power),
            6 => (0..self.shape.servers()).for_each(|index| self.crash_server(index, power)),
            7 => {
                (1..=self.shape.masters()).for_each(|id| self.crash_master(id, true));
                (0..self.shape.servers()).for_each(|index| self.crash_server(index, true));
            }
            8..=9 => self.part_masters(),
            10 => self.isolate_leader(),
            11 => self.bad_weather(),
            12..=13 => self.arm_fuse(),
            14 => self.kill_client(),
            15 => self.break_connection(master),
            16 => self.fill_disk(Place::Server(index)),
            17 => self.part_servers(index),
            18 => {
                self.slowest_disk = self.rng.ms(5, 120);
                self.note(format!("disks take up to {:?}", self.slowest_disk));
                self.heal_later();
            }
            19..=20 => self.freeze_somebody(master, index),
            21 => self.jump_clock(master),
            22 => self.fill_disk(Place::Master(master)),
            23 => self.stall_disk(master),
            24 => self.lose_leader(),
            25 => self.leave_leader_by_degrees(),
            26..=27 => self.wipe_master(master),
            28..=29 => self.replace_master(master),
            30..=31 => self.transfer_leader(master),
            32..=33 => self.part_minority(),
            36 => self.restart_servers_in_turn(),
            37 => self.busy_server(index),
            38 => self.put_server_ahead(index),
            39 => self.oversleep(),
            40 => self.cut_power_of_somebody_idle(),
            _ => self.with_core(master, |core, now| core.flush(now.mono)),
        }
    }

    pub(super) fn crash_master(&mut self, id: u64, power: bool) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        if !master.stop() {
            return;
        }
        if power {
            let survive = [0, 300, 900, 1000][usize::try_from(master.rng.below(4)).unwrap_or(0)];
            let mut rng = master.rng.fork();
            master.disk.power_cut(&mut rng, survive);
        }
        self.thaw(Place::Master(id), None);
        self.note(format!("master {id} {}", if power { "loses power" } else { "is killed" }));
        let down = self.rng.ms(20, 1200);
        self.after(down, Event::StartMaster { master: id });
        for peer in (1..=self.shape.masters()).filter(|peer| *peer != id) {
            if !power && self.rng.chance(700) {
                let delay = self.rng.ms(0, 5);
                self.after(delay, Event::PeerLost { master: peer, peer: id });
            }
            if !power {
                self.hang_up_on_peer(id, peer);
            }
        }
    }

    pub(super) fn start_master(&mut self, id: u64) {
        let arm = self.time < self.faults_until && self.rng.chance(100);
        let operations = self.rng.below(8);
        let levels = self.release(Place::Master(id));
        let Some(master) = self.masters.get_mut(&id) else { return };
        if master.running.is_some() {
            return;
        }
        if arm {
            master.disk.arm(operations);
        }
        match master.start(self.time, levels) {
            Ok(Started::Running) => {
                let incarnation = master.incarnation;
                self.promises.values_mut().for_each(|promises| promises.applied.restarted(id));
                self.note(format!("master {id} starts"));
                self.with_core(id, |_, _| {});
                self.after(Duration::ZERO, Event::Tick { master: id, incarnation });
            }
            Ok(Started::Dark) => {
                let mut rng = master.rng.fork();
                master.disk.power_cut(&mut rng, 500);
                self.note(format!("master {id} loses power while it starts"));
                self.after(Duration::from_millis(50), Event::StartMaster { master: id });
            }
            Ok(Started::NoRoom) => {
                self.note(format!("master {id} finds no room to start"));
                self.after(Duration::from_millis(100), Event::StartMaster { master: id });
            }
            Ok(Started::TooOld) => {
                self.counting.counts.add(Happening::Refusal, 1);
                self.note(format!(
                    "master {id} does not know the level of its directory, and does not start"
                ));
            }
            Err(problem) => self.accuse(format!("acked_is_durable: {problem}")),
        }
    }

    pub(super) fn crash_server(&mut self, index: u32, power: bool) {
        let down = |world: &mut Self| world.rng.ms(20, 1500);
        self.crash_server_until(index, power, down);
    }

    /// The same, and it is back after `down`.
    fn crash_server_for(&mut self, index: u32, power: bool, down: Duration) {
        self.crash_server_until(index, power, |_| down);
    }

    fn crash_server_until(&mut self, index: u32, power: bool, down: impl FnOnce(&mut Self) -> Duration) {
        let Some(server) = self.servers.get_mut(&index) else { return };
        if !server.stop() {
            return;
        }
        let links = std::mem::take(&mut server.links);
        if power {
            let survive = [0, 300, 900, 1000][usize::try_from(server.rng.below(4)).unwrap_or(0)];
            let mut rng = server.rng.fork();
            server.disk.power_cut(&mut rng, survive);
            self.tell_oracles(|oracle, time| oracle.power_was_lost(time));
        }
        if let Some(server) = self.servers.get_mut(&index) {
            server.disk.mend();
        }
        links.into_iter().for_each(|task| self.end_task(task));
        self.touch(Place::Server(index));
        self.tell_oracles(|oracle, _| {
            oracle.rot_may_pass |= oracle.damaged.as_ref() == Some(&server::address(index));
        });
        self.thaw(Place::Server(index), None);
        self.note(format!("server {index} {}", if power { "loses power" } else { "is killed" }));
        let down = down(self);
        self.after(down, Event::StartServer { index });
    }

    pub(super) fn start_server(&mut self, index: u32) {
        let arm = self.time < self.faults_until && self.rng.chance(150);
        let operations = self.rng.below(20);
        let Some(server) = self.servers.get_mut(&index) else { return };
        if server.engine.is_some() {
            return;
        }
        if arm {
            server.disk.arm(operations);
        }
        match server.start() {
            Ok(true) => {
                server.disk.mend();
                self.note(format!("server {index} starts"));
                self.start_links(index);
            }
            Ok(false) => {
                let mut rng = server.rng.fork();
                server.disk.power_cut(&mut rng, 500);
                self.tell_oracles(|oracle, time| oracle.power_was_lost(time));
                self.note(format!("server {index} loses power while it starts"));
                self.after(Duration::from_millis(50), Event::StartServer { index });
            }
            // An empty disk is marked first.
            Err(_) if server.disk.is_full() => {
                self.note(format!("server {index} finds no room to start"));
                self.after(Duration::from_millis(100), Event::StartServer { index });
            }
            Err(problem) => self.accuse(format!("heals: {problem}")),
        }
    }

    pub(super) fn end_task(&mut self, task: u64) {
        let Some(slot) = self.tasks.remove(&task) else { return };
        for master in 1..=self.shape.masters() {
            self.hang_up(task, slot.place, master);
        }
    }

    fn arm_fuse(&mut self) {
        let operations = self.rng.below(30);
        let disk = if self.rng.chance(500) {
            let id = 1 + self.rng.below(self.shape.masters());
            self.masters.get(&id).map(|master| &master.disk)
        } else {
            let index = u32::try_from(self.rng.below(self.shape.servers().into())).unwrap_or(0);
            self.touch(Place::Server(index));
            self.servers.get(&index).map(|server| &server.disk)
        };
        if let Some(disk) = disk {
            disk.arm(operations);
        }
    }

    pub(super) fn kill_client(&mut self) {
        let number = self.rng.below(self.shape.clients() as u64);
        let back = self.rng.ms(10, 300);
        self.restart_client(number, back);
    }

    /// A client dies, if it lives, and another takes its place.
    pub(super) fn restart_client(&mut self, client: u64, back: Duration) {
        let number = usize::try_from(client).unwrap_or(0);
        let Some(task) = self.clients.remove(&number) else { return };
        self.end_task(task);
        self.thaw(Place::Client(client), None);
        self.note(format!("client {number} dies"));
        self.after(back, Event::StartClient { number });
    }

    pub(super) fn disk(&self, place: Place) -> Option<&FusedDisk> {
        match place {
            Place::Master(id) => self.masters.get(&id).map(|master| &master.disk),
            Place::Server(index) => self.servers.get(&index).map(|server| &server.disk),
            Place::Client(_) => None,
        }
    }

    fn fill_disk(&mut self, place: Place) {
        self.touch(place);
        self.note(format!("the disk of {place:?} is full"));
        self.after(Duration::ZERO, Event::DiskFull { place, full: true });
        let until = self.rng.ms(50, 800);
        self.after(until, Event::DiskFull { place, full: false });
    }

    /// The next writes of a master's log take long, and end well.
    fn stall_disk(&mut self, id: u64) {
        let span = self.rng.ms(200, 2000);
        let until = self.time + span;
        if let Some(master) = self.masters.get_mut(&id) {
            master.stalled_until = until;
            self.note(format!("the disk of master {id} stalls until {until:?}"));
        }
    }

    fn freeze_somebody(&mut self, master: u64, index: u32) {
        let client = self.rng.below(self.shape.clients() as u64);
        let leader = self.leader().unwrap_or(master);
        let place = match self.rng.below(10) {
            0..=2 => Place::Master(leader),
            3..=4 => Place::Master(master),
            5..=7 => Place::Client(client),
            _ => Place::Server(index),
        };
        // A server may sleep for longer than a client waits.
        let longest = if matches!(place, Place::Server(_)) { 5000 } else { 3000 };
        let span = self.rng.ms(50, longest);
        self.touch(place);
        self.freeze(place, span);
    }

    /// A client sleeps for longer than its session lives: one that has something to lose by it, if there is one.
    fn oversleep(&mut self) {
        let any = self.rng.below(self.shape.clients() as u64);
        let idler = self.oracles.values().find_map(|oracle| oracle.borrow().idlers.first().copied());
        let client = idler.map_or(any, |number| number as u64);
        let span = self.rng.ms(2600, 4500);
        self.freeze(Place::Client(client), span);
    }

    /// All servers lose power while a client has something to lose, if one has.
    fn cut_power_of_somebody_idle(&mut self) {
        let some_are_idle = self.oracles.values().any(|oracle| !oracle.borrow().idlers.is_empty());
        if some_are_idle {
            (0..self.shape.servers()).for_each(|index| self.crash_server(index, true));
        } else {
            self.oversleep();
        }
    }

    /// A fault concerns this place: whoever wants to do without it may have a reason.
    pub(super) fn touch(&self, place: Place) {
        if let Place::Server(index) = place {
            self.tell_oracles(|oracle, _| {
                oracle.touched.insert(server::address(index));
            });
        }
    }

    /// As an operator does who brings in a new release: each server is stopped and is back before the next one goes.
    fn restart_servers_in_turn(&mut self) {
        let mut at = self.time;
        for index in 0..self.shape.servers() {
            self.at(at, Event::RestartServer { index });
            at += self.rng.ms(300, 900);
        }
    }

    /// A server has its hands full for a while and says so to whoever asks.
    fn busy_server(&mut self, index: u32) {
        let span = self.rng.ms(100, 2500);
        let until = self.time + span;
        if let Some(server) = self.servers.get_mut(&index) {
            server.busy_until = until;
            self.touch(Place::Server(index));
            self.note(format!("server {index} is busy until {until:.3?}"));
        }
    }

    /// A server's clock is so far ahead for a while that every token has expired by it.
    fn put_server_ahead(&mut self, index: u32) {
        const MS: i64 = 26 * 3600 * 1000;
        if let Some(server) = self.servers.get_mut(&index).filter(|server| !server.clock.borrow().is_set()) {
            server.clock.borrow_mut().jump(MS);
            self.touch(Place::Server(index));
            self.note(format!("the clock of server {index} is a day ahead"));
            let back = self.rng.ms(100, 2500);
            self.after(back, Event::SetClockRight { index });
        }
    }

    /// Whether every chunk that a server has is on another as well.
    fn can_do_without(&self, index: u32) -> bool {
        self.state_of(CellId::ROOT).is_some_and(|state| {
            let on_disk = self.copies_on_disk();
            let row = state.servers().into_iter().find(|row| row.address == server::address(index));
            row.is_some_and(|row| invariants::can_do_without(state, &on_disk, row.server))
        })
    }

    /// A server is away for longer than anybody waits for it, or has lost its disk when it is back.
    fn lose_server(&mut self) {
        let index = u32::try_from(self.rng.below(self.shape.servers().into())).unwrap_or(0);
        let (wipe, down) = (self.rng.chance(500), self.rng.ms(500, 4000));
        if self.servers.get(&index).is_none_or(|server| server.engine.is_none()) {
            return;
        }
        // What nobody else has would be lost, and rightly so.
        let wipe = wipe && self.can_do_without(index);
        self.crash_server_for(index, wipe, down);
        if wipe && let Some(server) = self.servers.get_mut(&index) {
            server.lose_disk();
            self.counting.counts.add(Happening::LostDisk, 1);
            self.tell_oracles(|oracle, _| oracle.copies_may_be_missing = true);
            self.note(format!("server {index} has lost its disk"));
        }
    }

    /// Bits rot on one server's disk, in copies that nobody writes at the time, and the server starts again. Late: of the two
    /// copies there are, only one may be lost.
    pub(super) fn rot(&mut self) {
        let index = u32::try_from(self.rng.below(self.shape.servers().into())).unwrap_or(0);
        let count = 1 + self.rng.below(3);
        if self.shape == Shape::Healing && !self.can_do_without(index) {
            return;
        }
        let Some(server) = self.servers.get(&index) else { return };
        let rotten: Vec<_> = (0..count).filter_map(|_| server.disk.rot(&mut self.rng)).collect();
        if rotten.is_empty() {
            return;
        }
        rotten.into_iter().for_each(|what| self.note(format!("bits rot on server {index}: {what}")));
        self.crash_server(index, false);
        self.tell_oracles(|oracle, _| oracle.damaged = Some(server::address(index)));
    }

    /// Somebody sets a master's clock, or a leap of its time source does.
    fn jump_clock(&mut self, id: u64) {
        let ms = i64::try_from(self.rng.below(600_000)).unwrap_or(0) - 300_000;
        if let Some(master) = self.masters.get_mut(&id) {
            master.clock.jump(ms);
            self.note(format!("the wall clock of master {id} jumps by {ms} ms"));
        }
    }
}
