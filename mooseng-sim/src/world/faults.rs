//! What goes wrong: machines lose power or are killed, alone or all at once; the network loses, doubles, delays and
//! parts; disks stop in the midst of their work, fill up, become slow; clients die.

use std::time::Duration;

use mooseng_master::raft::Role;

use super::{Event, SERVERS, World};
use crate::net::Place;
use crate::plant::Plant;

impl World {
    /// One fault, drawn; and the next.
    pub(super) fn fault(&mut self) {
        if self.time >= self.faults_until {
            return;
        }
        let next = self.rng.ms(20, 500);
        self.after(next, Event::Fault);
        let power = self.rng.chance(600);
        let master = 1 + self.rng.below(self.shape.masters());
        let index = u32::try_from(self.rng.below(SERVERS.into())).unwrap_or(0);
        match self.rng.below(20) {
            0..=2 => self.crash_master(master, power),
            3 => (1..=self.shape.masters()).for_each(|id| self.crash_master(id, power)),
            4..=5 => self.crash_server(index, power),
            6 => (0..SERVERS).for_each(|index| self.crash_server(index, power)),
            7 => {
                (1..=self.shape.masters()).for_each(|id| self.crash_master(id, true));
                (0..SERVERS).for_each(|index| self.crash_server(index, true));
            }
            8..=9 => self.part_masters(),
            10 => self.isolate_leader(),
            11 => self.bad_weather(),
            12..=13 => self.arm_fuse(),
            14 => self.kill_client(),
            15 => {
                let peer = 1 + self.rng.below(self.shape.masters());
                self.after(Duration::ZERO, Event::PeerLost { master, peer });
            }
            16 => self.fill_disk(index),
            17 => self.part_servers(index),
            18 => {
                self.slowest_disk = self.rng.ms(5, 120);
                self.note(format!("disks take up to {:?}", self.slowest_disk));
                self.heal_later();
            }
            _ => self.with_core(master, |core, now| core.flush(now.mono)),
        }
    }

    fn heal_later(&mut self) {
        let until = self.rng.ms(50, 1500);
        self.after(until, Event::Heal);
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
        self.note(format!("master {id} {}", if power { "loses power" } else { "is killed" }));
        let down = self.rng.ms(20, 1200);
        self.after(down, Event::StartMaster { master: id });
        for peer in (1..=self.shape.masters()).filter(|peer| *peer != id) {
            if !power && self.rng.chance(700) {
                let delay = self.rng.ms(0, 5);
                self.after(delay, Event::PeerLost { master: peer, peer: id });
            }
        }
    }

    pub(super) fn start_master(&mut self, id: u64) {
        let arm = self.time < self.faults_until && self.rng.chance(100);
        let operations = self.rng.below(8);
        let Some(master) = self.masters.get_mut(&id) else { return };
        if master.running.is_some() {
            return;
        }
        if arm {
            master.disk.arm(operations);
        }
        match master.start(self.time) {
            Ok(true) => {
                let incarnation = master.incarnation;
                self.log_matching.restarted(id);
                self.note(format!("master {id} starts"));
                self.with_core(id, |_, _| {});
                self.after(Duration::ZERO, Event::Tick { master: id, incarnation });
            }
            Ok(false) => {
                let mut rng = master.rng.fork();
                master.disk.power_cut(&mut rng, 500);
                self.note(format!("master {id} loses power while it starts"));
                self.after(Duration::from_millis(50), Event::StartMaster { master: id });
            }
            Err(problem) => self.accuse(format!("acked_is_durable: {problem}")),
        }
    }

    pub(super) fn crash_server(&mut self, index: u32, power: bool) {
        let Some(server) = self.servers.get_mut(&index) else { return };
        if !server.stop() {
            return;
        }
        let links = std::mem::take(&mut server.links);
        if power {
            let survive = [0, 300, 900, 1000][usize::try_from(server.rng.below(4)).unwrap_or(0)];
            let mut rng = server.rng.fork();
            server.disk.power_cut(&mut rng, survive);
        }
        server.disk.mend();
        links.into_iter().for_each(|task| self.end_task(task));
        self.note(format!("server {index} {}", if power { "loses power" } else { "is killed" }));
        let down = self.rng.ms(20, 1500);
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
                self.note(format!("server {index} loses power while it starts"));
                self.after(Duration::from_millis(50), Event::StartServer { index });
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
            let index = u32::try_from(self.rng.below(SERVERS.into())).unwrap_or(0);
            self.servers.get(&index).map(|server| &server.disk)
        };
        if let Some(disk) = disk {
            disk.arm(operations);
        }
    }

    pub(super) fn kill_client(&mut self) {
        let number = usize::try_from(self.rng.below(self.shape.clients() as u64)).unwrap_or(0);
        let Some(task) = self.clients.remove(&number) else { return };
        self.end_task(task);
        self.note(format!("client {number} dies"));
        let delay = self.rng.ms(10, 300);
        self.after(delay, Event::StartClient { number });
    }

    fn part_masters(&mut self) {
        let count = self.shape.masters();
        let (a, b) = (1 + self.rng.below(count), 1 + self.rng.below(count));
        let both = self.rng.chance(600);
        let whole = self.rng.chance(500);
        for other in (1..=count).filter(|other| *other != a && (whole || *other == b)) {
            self.net.cut(Place::Master(a), Place::Master(other));
            if both {
                self.net.cut(Place::Master(other), Place::Master(a));
            }
        }
        self.note(format!("master {a} is cut off (both ways: {both}, from all: {whole})"));
        self.heal_later();
    }

    /// The leader goes on alone, reachable for clients, while one of those who follow it may crash.
    fn isolate_leader(&mut self) {
        let leads = |id: &u64| {
            let running = self.masters.get(id).and_then(|master| master.running.as_ref());
            running.is_some_and(|running| running.core.node().role() == Role::Leader)
        };
        let count = self.shape.masters();
        let Some(leader) = (1..=count).find(leads) else { return };
        if self.plant == Some(Plant::SlowClock)
            && let Some(master) = self.masters.get_mut(&leader)
        {
            master.clock.slow_down(self.time);
        }
        for other in (1..=count).filter(|other| *other != leader) {
            self.net.cut(Place::Master(leader), Place::Master(other));
            self.net.cut(Place::Master(other), Place::Master(leader));
        }
        self.note(format!("master {leader}, which leads, is cut off from the others"));
        if self.rng.chance(500) {
            let other = 1 + leader % count;
            self.crash_master(other, true);
        }
        self.heal_later();
    }

    fn bad_weather(&mut self) {
        self.net.loss = self.rng.below(300);
        self.net.doubling = self.rng.below(300);
        self.net.slowest = self.rng.ms(3, 150);
        self.note(format!("bad weather: {} lost, {} doubled", self.net.loss, self.net.doubling));
        self.heal_later();
    }

    fn fill_disk(&mut self, index: u32) {
        self.note(format!("the disk of server {index} is full"));
        self.after(Duration::ZERO, Event::DiskFull { index, full: true });
        let until = self.rng.ms(50, 800);
        self.after(until, Event::DiskFull { index, full: false });
    }

    fn part_servers(&mut self, index: u32) {
        let client = Place::Client(self.rng.below(self.shape.clients() as u64));
        let (from, to) = match self.rng.below(4) {
            0 => (Place::Server(index), Place::Server(1 - index.min(1))),
            1 => (client, Place::Server(index)),
            2 => (Place::Server(index), client),
            _ => (Place::Server(index), Place::Master(1)),
        };
        self.net.cut(from, to);
        self.note(format!("{from:?} does not reach {to:?}"));
        self.heal_later();
    }
}
