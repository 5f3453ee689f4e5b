//! A cluster is upgraded while it runs, as an operator does it: all parts know the first level only, are started anew one
//! by one with a release that knows the next, and the operator asks for the next level until it is taken. A client of the
//! old release comes at the worst moment; later, masters and chunkservers of the old release are started by mistake.

use std::time::Duration;

use bytes::BytesMut;
use mooseng_master::core::ConnId;
use mooseng_protocol::frame::{self, FLAG_ERROR};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_protocol::status::CallError;
use mooseng_types::level::SUPPORTED;
use mooseng_types::{Level, Levels};
use prost::Message as _;

use super::{Event, Happening, World};
use crate::invariants::can_go_along;
use crate::net::Place;
use crate::server;

/// What the operator does next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Upgrades one more part.
    Part,
    /// Asks whether the level can rise.
    Ask,
    /// Has it raised.
    Raise,
    /// Takes back the old release that a part was started with.
    Renew(Place),
}

/// How far the upgrade is.
#[derive(Debug, Default)]
pub(super) struct Rolling {
    /// Parts that still have the old release.
    left: Vec<Place>,
    /// The leader says that all can go along.
    ready: bool,
}

/// The release from before: it knows the first level only.
fn old() -> Levels {
    Levels::new(Level::FIRST, Level::FIRST).unwrap_or(SUPPORTED)
}

impl World {
    /// All parts have the old release, and will not keep it.
    pub(super) fn begin_rolling(&mut self) {
        let masters = (1..=self.shape.masters()).map(Place::Master);
        let servers = (0..self.shape.servers()).map(Place::Server);
        let clients = (0..self.shape.clients() as u64).map(Place::Client);
        let mut left: Vec<Place> = masters.chain(servers).chain(clients).collect();
        self.releases = left.iter().map(|place| (*place, old())).collect();
        for at in (1..left.len()).rev() {
            let other = usize::try_from(self.rng.below(at as u64 + 1)).unwrap_or(0);
            left.swap(at, other);
        }
        self.rolling = Rolling { left, ready: false };
        let first = self.rng.ms(800, 2500);
        self.after(first, Event::Rolling(Step::Part));
        self.after(Duration::from_secs(1), Event::Rolling(Step::Ask));
    }

    pub(super) fn roll(&mut self, step: Step) {
        match step {
            Step::Part => {
                if let Some(place) = self.rolling.left.pop() {
                    self.install(place, SUPPORTED);
                    let next = self.rng.ms(50, 1500);
                    self.after(next, Event::Rolling(Step::Part));
                }
            }
            Step::Ask => self.ask_for_level(),
            Step::Raise => self.admin(&pb::UpgradeRequest { dry_run: false }),
            // At the end of the faults it may have been renewed with all others. Bits may have rotted since then, and a server
            // that dies with a dirty copy takes them for its content.
            Step::Renew(place) if self.release(place) == SUPPORTED => {}
            Step::Renew(place) => self.install(place, SUPPORTED),
        }
    }

    /// A part is stopped and started with another release.
    fn install(&mut self, place: Place, levels: Levels) {
        self.note(format!("{place:?} is started anew by a release that knows {levels}"));
        self.releases.insert(place, levels);
        let soon = self.rng.ms(1, 300);
        match place {
            Place::Master(master) => {
                self.crash_master(master, false);
                // One that has refused its directory does not run.
                self.after(soon, Event::StartMaster { master });
            }
            Place::Server(index) => self.crash_server(index, false),
            Place::Client(number) => self.restart_client(number, soon),
        }
    }

    /// A client that is in none of the operator's lists.
    fn straggler(&self) -> Place {
        Place::Client(self.shape.clients() as u64 + 1)
    }

    fn ask_for_level(&mut self) {
        if !self.has_risen() {
            self.rolling.ready = false;
            self.admin(&pb::UpgradeRequest { dry_run: true });
            if self.rolling.ready {
                if self.time < self.faults_until && self.rng.chance(600) {
                    let straggler = self.straggler();
                    self.install(straggler, old());
                    self.start_client(self.shape.clients() + 1);
                    let renewed = self.rng.ms(200, 1500);
                    self.after(renewed, Event::Rolling(Step::Renew(straggler)));
                }
                let now = self.rng.ms(0, 4);
                self.after(now, Event::Rolling(Step::Raise));
            }
        } else if self.time < self.faults_until {
            self.make_a_mistake();
        }
        let again = self.rng.ms(50, 250);
        self.after(again, Event::Rolling(Step::Ask));
    }

    /// A part that was upgraded is started with the old release for a while: nobody may take it in.
    fn make_a_mistake(&mut self) {
        if self.rng.chance(700) {
            return;
        }
        let masters = self.shape.masters();
        let place = match self.rng.below(masters + u64::from(self.shape.servers())) {
            number if number < masters => Place::Master(number + 1),
            number => Place::Server(u32::try_from(number - masters).unwrap_or(0)),
        };
        if self.release(place) == SUPPORTED {
            self.install(place, old());
            let renewed = self.rng.ms(300, 2000);
            self.after(renewed, Event::Rolling(Step::Renew(place)));
        }
    }

    /// The end of the faults: whatever has the old release gets the new one.
    pub(super) fn roll_to_the_end(&mut self) {
        self.rolling.left.clear();
        let behind: Vec<Place> = self
            .releases
            .iter()
            .filter(|(_, levels)| **levels != SUPPORTED)
            .map(|(place, _)| *place)
            .collect();
        behind.into_iter().for_each(|place| self.install(place, SUPPORTED));
    }

    /// Whether all masters have the highest level.
    pub(super) fn has_risen(&self) -> bool {
        let level = |running: &crate::master::Running| running.core.state().level();
        self.masters.values().all(|master| {
            master.running.as_ref().is_some_and(|running| level(running) == SUPPORTED.highest())
        })
    }

    /// What the leader has answered to the operator.
    pub(super) fn told_operator(&mut self, bytes: &[u8]) {
        let Ok(Some(frame)) = frame::decode(&mut BytesMut::from(bytes)) else { return };
        if frame.header.kind != pb::UpgradeRequest::KIND {
            return;
        }
        if frame.header.flags & FLAG_ERROR == 0 {
            self.rolling.ready = true;
        } else if self.detail
            && let Ok(reply) = pb::ErrorReply::decode(frame.body)
        {
            self.note(format!("the operator is told: {}", CallError::from_reply(reply)));
        }
    }

    /// Looks whether a master is the first of its level, and then whether all can go along.
    pub(super) fn observe_level(&mut self, id: u64) -> Vec<String> {
        let Some(running) = self.masters.get(&id).and_then(|master| master.running.as_ref()) else {
            return Vec::new();
        };
        let level = running.core.state().level();
        if !self.level.rises_to(level) {
            return Vec::new();
        }
        let state = running.core.state();
        // A machine that is being replaced may be let in between the survey and the entry; it is cut off.
        let voters = state.membership().members.iter().filter(|member| member.voter);
        let voters = voters.map(|member| member.id.number()).filter(|id| !self.replacing.contains_key(id));
        let servers = state.servers().into_iter().filter_map(|row| server::index_of(&row.address));
        let parts: Vec<Place> = voters.map(Place::Master).chain(servers.map(Place::Server)).collect();
        if self.time < self.faults_until {
            self.counting.counts.add(Happening::Rise, 1);
        }
        self.note(format!("master {id} has level {level}"));
        let behind = |place: Place| can_go_along(&format!("{place:?}"), self.release(place), level);
        parts.into_iter().filter_map(behind).collect()
    }

    /// A connection that a master cuts off.
    pub(super) fn cut_off(&mut self, master: u64, conn: ConnId) {
        self.counting.counts.add(Happening::Cut, 1);
        if self.plant != Some(crate::plant::Plant::LeaveConnected) {
            let ConnId::Framed(conn) = conn else { return };
            self.cut(master, conn as u64);
        }
    }
}
