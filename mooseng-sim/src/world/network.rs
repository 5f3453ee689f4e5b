//! What goes wrong on the way between machines: cuts, in both directions or in one; weather; connections that break
//! while both ends live.

use std::time::Duration;

use super::{DISK, Event, World};
use crate::net::Place;
use crate::plant::Plant;

impl World {
    /// Cuts masters off from each other: two of them, one from all, one half from the other, or here and there.
    pub(super) fn part_masters(&mut self) {
        let count = self.shape.masters();
        let (a, b) = (1 + self.rng.below(count), 1 + self.rng.below(count));
        let both = self.rng.chance(600);
        let kind = self.rng.below(6);
        let mut half = |_: u64| self.rng.chance(500);
        let side: Vec<bool> = (0..=count).map(&mut half).collect();
        let of = |id: u64| usize::try_from(id).ok().and_then(|id| side.get(id).copied()).unwrap_or(false);
        let apart = |from: u64, to: u64| match kind {
            0..=1 => from == a && to == b,
            2..=3 => from == a,
            _ => of(from) && !of(to),
        };
        let pairs = |count: u64| (1..=count).flat_map(move |from| (1..=count).map(move |to| (from, to)));
        for (from, to) in pairs(count).filter(|(from, to)| from != to) {
            let here_and_there = kind == 5 && self.rng.chance(300);
            if here_and_there || (kind < 5 && (apart(from, to) || (both && apart(to, from)))) {
                self.net.cut(Place::Master(from), Place::Master(to));
            }
        }
        let what = match kind {
            0..=1 => format!("master {a} from {b}"),
            2..=3 => format!("master {a} from all"),
            4 => format!("masters, by halves {:?}", side.get(1..).unwrap_or_default()),
            _ => "masters here and there".to_owned(),
        };
        self.note(format!("cut off: {what}, both ways: {both}"));
        self.heal_later();
    }

    /// As many masters as can be spared are killed, come back, and are cut off from the others together, for so long that
    /// both sides look for a leader.
    pub(super) fn part_minority(&mut self) {
        let count = self.shape.masters();
        let first = self.rng.below(count);
        let few: Vec<u64> = (0..count / 2).map(|step| 1 + (first + step) % count).collect();
        for id in &few {
            self.crash_master(*id, false);
            let back = self.rng.ms(1, 60);
            self.after(back, Event::StartMaster { master: *id });
            for other in (1..=count).filter(|other| !few.contains(other)) {
                self.net.cut(Place::Master(*id), Place::Master(other));
                self.net.cut(Place::Master(other), Place::Master(*id));
            }
        }
        self.note(format!("masters {few:?} start anew and are cut off from the others"));
        let span = self.rng.ms(800, 2000);
        self.parted_until = self.time + span;
        self.after(span, Event::Heal);
    }

    /// The network is mended, unless it is to stay apart for longer.
    pub(super) fn heal(&mut self) {
        if self.time < self.parted_until {
            return self.at(self.parted_until, Event::Heal);
        }
        self.net.heal();
        self.slowest_disk = DISK;
    }

    pub(super) fn leader(&self) -> Option<u64> {
        (1..=self.shape.masters()).find(|id| self.leads(*id))
    }

    fn leads(&self, id: u64) -> bool {
        let running = self.masters.get(&id).and_then(|master| master.running.as_ref());
        running.is_some_and(|running| running.core.leads())
    }

    /// The leader goes on alone, reachable for clients. One of those who follow it may crash and come back at once, and
    /// the others may notice that they lost it.
    pub(super) fn isolate_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        let count = self.shape.masters();
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
            if self.rng.chance(500) {
                let soon = self.rng.ms(1, 60);
                self.after(soon, Event::StartMaster { master: other });
            }
        }
        if self.rng.chance(300) {
            let last = if leader == 1 { count } else { leader - 1 };
            let delay = self.rng.ms(0, 200);
            self.after(delay, Event::PeerLost { master: last, peer: leader });
        }
        self.heal_later();
    }

    /// The leader is left by degrees: first by as many as are not needed for its lease. When what they have promised it is
    /// over, one of those who keep it in office dies, is back at once, and is cut off from it too: its silence is all
    /// that is left. Clients ask for nothing meanwhile, or those who stand would lack what was written, and not be
    /// elected for that reason.
    pub(super) fn leave_leader_by_degrees(&mut self) {
        let Some(leader) = self.leader() else { return };
        for number in 0..self.shape.clients() {
            self.freeze(Place::Client(number as u64), Duration::from_millis(700));
        }
        self.note(format!("master {leader}, which leads, is left by one after the other"));
        self.after(Duration::from_millis(60), Event::Leave { leader, last: false });
        let then = self.rng.ms(320, 400);
        self.after(then, Event::Leave { leader, last: true });
        self.after(then + Duration::from_secs(1), Event::Heal);
    }

    /// Those who leave first, or the others.
    pub(super) fn leave(&mut self, leader: u64, last: bool) {
        if self.time >= self.faults_until {
            return;
        }
        let count = self.shape.masters();
        let others: Vec<_> = (1..count).map(|step| 1 + (leader - 1 + step) % count).collect();
        let (stay, go) = others.split_at(others.len() / 2);
        for other in if last { stay } else { go } {
            self.net.cut(Place::Master(leader), Place::Master(*other));
            self.net.cut(Place::Master(*other), Place::Master(leader));
        }
        if last && let Some(voter) = stay.first() {
            self.crash_master(*voter, true);
            let back = self.rng.ms(1, 30);
            self.after(back, Event::StartMaster { master: *voter });
            for master in go {
                self.after(
                    back + Duration::from_millis(5),
                    Event::PeerLost { master: *master, peer: leader },
                );
            }
        }
    }

    /// The leader's connections to several others break at about the same time. It may be dead, cut off, or as well as
    /// before.
    pub(super) fn lose_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        let others: Vec<u64> = (1..=self.shape.masters()).filter(|other| *other != leader).collect();
        let fate = self.rng.below(3);
        match fate {
            0 => self.crash_master(leader, true),
            1 => {
                for other in &others {
                    self.net.cut(Place::Master(leader), Place::Master(*other));
                    self.net.cut(Place::Master(*other), Place::Master(leader));
                }
                self.heal_later();
            }
            _ => {}
        }
        let fate = ["dead", "cut off", "alive"][usize::try_from(fate).unwrap_or(0)];
        self.note(format!("the connections to master {leader} break; it is {fate}"));
        for master in others {
            if self.rng.chance(800) {
                let delay = self.rng.ms(0, 15);
                self.after(delay, Event::PeerLost { master, peer: leader });
            }
        }
    }

    pub(super) fn bad_weather(&mut self) {
        self.net.loss = self.rng.below(300);
        self.net.doubling = self.rng.below(300);
        self.net.straying = self.rng.below(150);
        self.net.slowest = self.rng.ms(3, 150);
        (0..self.shape.servers()).for_each(|index| self.touch(Place::Server(index)));
        let (lost, doubled, astray) = (self.net.loss, self.net.doubling, self.net.straying);
        self.note(format!("bad weather: {lost} lost, {doubled} doubled, {astray} astray for long"));
        self.heal_later();
    }

    pub(super) fn part_servers(&mut self, index: u32) {
        let client = Place::Client(self.rng.below(self.shape.clients() as u64));
        let (from, to) = match self.rng.below(4) {
            0 => (Place::Server(index), Place::Server(1 - index.min(1))),
            1 => (client, Place::Server(index)),
            2 => (Place::Server(index), client),
            _ => (Place::Server(index), Place::Master(1)),
        };
        self.net.cut(from, to);
        [from, to].into_iter().for_each(|place| self.touch(place));
        self.note(format!("{from:?} does not reach {to:?}"));
        self.heal_later();
    }

    pub(super) fn heal_later(&mut self) {
        let until = self.rng.ms(50, 1500);
        self.after(until, Event::Heal);
    }

    /// A connection between masters breaks at one end.
    pub(super) fn break_connection(&mut self, master: u64) {
        let peer = 1 + self.rng.below(self.shape.masters());
        self.after(Duration::ZERO, Event::PeerLost { master, peer });
    }
}
