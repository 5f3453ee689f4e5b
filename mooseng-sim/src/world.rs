//! The world: one queue of events in the order of their time, and everything that they happen to. First comes a time
//! of faults, in which nothing that was promised may break; then a time without, in which everything must go on.

mod counts;
mod deliver;
mod drains;
mod faults;
mod finish;
mod freeze;
mod group;
mod hello;
mod network;
mod observe;
mod rolling;
mod shape;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_chunkserver::{BytesRead, fault};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{CellId, ChunkCause, Levels, MasterId};
use prost::Message as _;

use crate::client;
use crate::entropy::Rng;
use crate::invariants::{Applied, Elections, LeaderCompleteness, LevelIsKnown, LogMatching};
use crate::master::Master;
use crate::net::{Net, Place};
use crate::oracle::Oracle;
use crate::plant::Plant;
use crate::server::{Asker, Link, Server};
use crate::task::{ChunkRequest, Port, Task};
use counts::Counting;
use freeze::Frozen;

pub use counts::{Counts, Happening};
pub use shape::Shape;

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Promises broken; empty if all is well.
    pub violations: Vec<String>,
    /// A hash over every event: equal seeds give equal ones.
    pub trace: u64,
    /// Time that passed in the world.
    pub simulated: Duration,
    /// Operations of clients that were answered.
    pub answered: u64,
    /// What happened, beside faults.
    pub counts: Counts,
    /// The faults, and what they hit.
    pub log: Vec<String>,
}

const TICK: Duration = Duration::from_millis(10);
const CLEAN_ROUND: Duration = Duration::from_millis(250);
/// The longest a disk takes where nothing is wrong with it.
const DISK: Duration = Duration::from_millis(4);

#[derive(Debug)]
enum Event {
    Tick { master: u64, incarnation: u64 },
    Written { master: u64, incarnation: u64 },
    Flushed { master: u64, incarnation: u64, cell: CellId },
    Flush { master: u64 },
    Raft { to: u64, conn: u64, frame: pb::RaftFrame },
    Hello(hello::Hello),
    Rolling(rolling::Step),
    Drain,
    PeerLost { master: u64, peer: u64 },
    Request { conn: u64, header: Header, body: Bytes },
    Frame { conn: u64, bytes: Bytes },
    Closed { conn: u64, master: u64, incarnation: u64 },
    Poll { task: u64 },
    Refused { task: u64, call: u64, why: CallError },
    ToServer { index: u32, asker: Asker, request: ChunkRequest },
    FromServer { asker: Asker, result: Result<Option<BytesRead>, CallError> },
    ForwardTimeout { index: u32, incarnation: u64, call: u64 },
    CleanIdle { index: u32 },
    StartMaster { master: u64 },
    StartServer { index: u32 },
    RestartServer { index: u32 },
    SetClockRight { index: u32 },
    StartClient { number: usize },
    Fault,
    Heal,
    DiskFull { place: Place, full: bool },
    Thaw { place: Place, number: u64 },
    Snapshot(Box<group::Transfer>),
    SnapshotSent { cell: CellId, from: u64, from_incarnation: u64, peer: MasterId, arrived: bool },
    Replace { master: u64 },
    Leave { leader: u64, last: bool },
}

/// A connection of a task to a master.
#[derive(Clone, Copy, Debug)]
struct Conn {
    task: u64,
    master: u64,
    /// Of the master, as of the first frame that arrived.
    incarnation: Option<u64>,
    place: Place,
    /// Of the process at the other end, which says them first.
    levels: Levels,
    /// It has, and was let in.
    greeted: bool,
    broken: bool,
}

/// What the masters of a cell's group must keep.
#[derive(Debug, Default)]
struct Promises {
    elections: Elections,
    log_matching: LogMatching,
    leader_completeness: LeaderCompleteness,
    applied: Applied,
}

#[derive(Debug)]
struct Slot {
    task: Task,
    place: Place,
    /// Of the release that its process runs.
    levels: Levels,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    shape: Shape,
    plant: Option<Plant>,
    time: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    next_event: u64,
    rng: Rng,
    net: Net,
    masters: BTreeMap<u64, Master>,
    /// Masters that are taken out of the group, in the life that leaves it, and let in again.
    replacing: BTreeMap<u64, MasterId>,
    servers: BTreeMap<u32, Server>,
    tasks: BTreeMap<u64, Slot>,
    /// The task of each client that lives.
    clients: BTreeMap<usize, u64>,
    next_task: u64,
    conns: BTreeMap<u64, Conn>,
    links: BTreeMap<(u64, u64), u64>,
    next_conn: u64,
    peers: hello::Peers,
    /// The levels of the release that each machine has; a process has those of its start.
    releases: BTreeMap<Place, Levels>,
    rolling: rolling::Rolling,
    /// Processes that are stopped and not dead, and what waits for them.
    frozen: BTreeMap<Place, Frozen>,
    /// What the clients of each cell were answered.
    oracles: BTreeMap<CellId, Rc<RefCell<Oracle>>>,
    /// What each cell's group has promised.
    promises: BTreeMap<CellId, Promises>,
    level: LevelIsKnown,
    counting: Counting,
    faults_until: Duration,
    /// Until then nobody mends the network.
    parted_until: Duration,
    /// The longest a disk takes.
    slowest_disk: Duration,
    trace: u64,
    log: Vec<String>,
    /// Also what is nobody's fault goes into the log.
    detail: bool,
}

/// Runs the world of a seed to its end, or to the first broken promise.
#[must_use]
pub fn run(seed: u64, shape: Shape, plant: Option<Plant>) -> Outcome {
    World::new(seed, shape, plant).run()
}

/// As [`run`], with every request of a chunkserver in the log.
#[must_use]
pub fn run_in_detail(seed: u64, shape: Shape, plant: Option<Plant>) -> Outcome {
    let mut world = World::new(seed, shape, plant);
    world.detail = true;
    world.run()
}

impl World {
    fn run(mut self) -> Outcome {
        let world = &mut self;
        let ran = catch_unwind(AssertUnwindSafe(|| world.live()));
        if let Err(panic) = ran {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            world.log.push(format!("{:?} panic", world.time));
            if let Some(Ok(mut oracle)) = world.oracles.values().next().map(|it| it.try_borrow_mut()) {
                oracle.accuse(format!("a core panicked: {}", text.unwrap_or_default()));
            }
        }
        let (mut violations, mut answered) = (Vec::new(), 0);
        for oracle in world.oracles.values() {
            match oracle.try_borrow() {
                Ok(oracle) => {
                    violations.extend(oracle.violations.iter().cloned());
                    answered += oracle.answered;
                }
                Err(_) => violations.push("a client panicked".into()),
            }
        }
        let mut counts = self.counting.counts;
        let mended = self.masters.values().map(|master| master.cuts_mended).sum();
        counts.add(Happening::SnapshotCut, mended);
        Outcome { violations, trace: self.trace, simulated: self.time, answered, counts, log: self.log }
    }

    fn new(seed: u64, shape: Shape, plant: Option<Plant>) -> Self {
        let mut rng = Rng::new(seed);
        let net = Net::new(rng.fork());
        let (count, cells) = (shape.masters(), shape.cells());
        let founded = rng.chance(850);
        let masters =
            (1..=count).map(|id| (id, Master::new(id, count, &cells, founded, &mut rng, plant))).collect();
        let servers =
            (0..shape.servers()).map(|index| (index, Server::new(index, &mut rng, plant))).collect();
        let faults_until = shape.faults(&mut rng);
        let mut world = Self {
            shape,
            plant,
            time: Duration::ZERO,
            queue: BTreeMap::new(),
            next_event: 0,
            rng,
            net,
            masters,
            replacing: BTreeMap::new(),
            servers,
            tasks: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_task: 0,
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            next_conn: 0,
            peers: hello::Peers::default(),
            releases: BTreeMap::new(),
            rolling: rolling::Rolling::default(),
            frozen: BTreeMap::new(),
            oracles: cells.iter().map(|cell| (*cell, Rc::new(RefCell::new(Oracle::new())))).collect(),
            promises: cells.iter().map(|cell| (*cell, Promises::default())).collect(),
            level: LevelIsKnown::default(),
            counting: Counting::default(),
            faults_until,
            parted_until: Duration::ZERO,
            slowest_disk: DISK,
            trace: 0xcbf2_9ce4_8422_2325,
            log: Vec::new(),
            detail: false,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        if self.shape == Shape::Mixed {
            self.begin_rolling();
        }
        if self.shape == Shape::Healing {
            self.after(Duration::from_secs(1), Event::Drain);
        }
        for master in 1..=self.shape.masters() {
            self.after(Duration::ZERO, Event::StartMaster { master });
            let first = self.rng.ms(100, 1500);
            self.after(first, Event::Flush { master });
        }
        for index in 0..self.shape.servers() {
            self.after(Duration::ZERO, Event::StartServer { index });
            self.after(CLEAN_ROUND, Event::CleanIdle { index });
        }
        for number in 0..self.shape.clients() {
            self.after(Duration::from_millis(400), Event::StartClient { number });
        }
        self.after(Duration::from_millis(600), Event::Fault);
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.next_event += 1;
        self.queue.insert((time.max(self.time), self.next_event), event);
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.time + delay, event);
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{:>10.3?} {what}", self.time));
    }

    fn broken(&self) -> bool {
        self.oracles.values().any(|oracle| !oracle.borrow().violations.is_empty())
    }

    fn accuse(&self, what: String) {
        if let Some(oracle) = self.oracles.values().next() {
            oracle.borrow_mut().accuse(what);
        }
    }

    /// Lets time pass until `until`, a broken promise, or until `enough` says so.
    fn pass(&mut self, until: Duration, mut enough: impl FnMut(&Self) -> bool) {
        while !self.broken() {
            let Some(((time, number), event)) = self.queue.pop_first() else { return };
            if time > until {
                self.queue.insert((time, number), event);
                self.time = until;
                return;
            }
            self.time = time;
            self.hash(&event);
            self.happen(event);
            if enough(self) {
                return;
            }
        }
    }

    fn live(&mut self) {
        self.pass(self.faults_until, |_| false);
        self.finish();
    }

    fn happen(&mut self, event: Event) {
        let Some(event) = self.unless_frozen(event) else { return };
        match event {
            Event::Tick { master, incarnation } => self.tick(master, incarnation),
            Event::Written { master, incarnation } => self.written(master, incarnation),
            Event::Flushed { master, incarnation, cell } => self.flushed(master, incarnation, cell),
            Event::Flush { master } => self.flush(master),
            Event::Raft { to, conn, frame } => self.hear(to, conn, frame),
            Event::Rolling(step) => self.roll(step),
            Event::Drain => self.drain(),
            Event::Hello(hello) => self.peer_says_hello(hello),
            Event::PeerLost { master, peer } => {
                self.hang_up_on_peer(master, peer);
                if let Some(peer) = self.masters.get(&peer).map(Master::id) {
                    self.with_core(master, |core, now| core.peer_lost(now, peer));
                }
            }
            Event::Request { conn, header, body } => self.request(conn, header, body),
            Event::Frame { conn, bytes } => self.frame(conn, &bytes),
            Event::Closed { conn, master, incarnation } => {
                self.conns.remove(&conn);
                if self.masters.get(&master).is_some_and(|m| m.incarnation == incarnation) {
                    self.with_core(master, |core, now| core.closed(now, deliver::framed(conn)));
                }
            }
            Event::Poll { task } => self.poll(task),
            Event::Refused { task, call, why } => self.answer(task, call, Err(why)),
            Event::ToServer { index, asker, request } => self.serve(index, asker, request),
            Event::FromServer { asker, result } => self.served(asker, result),
            Event::ForwardTimeout { index, incarnation, call } => {
                let silent = fault(ChunkCause::Silent, "no answer");
                self.served(Asker::Server { index, incarnation, call }, Err(silent));
            }
            Event::CleanIdle { index } => self.clean_idle(index),
            Event::StartMaster { master } => self.start_master(master),
            Event::StartServer { index } => self.start_server(index),
            Event::RestartServer { index } => self.crash_server(index, false),
            Event::SetClockRight { index } => {
                if let Some(server) = self.servers.get_mut(&index) {
                    server.clock.borrow_mut().set_right();
                }
            }
            Event::StartClient { number } => self.start_client(number),
            Event::Fault => self.fault(),
            Event::Heal => self.heal(),
            Event::DiskFull { place, full } => {
                if let Some(disk) = self.disk(place) {
                    disk.set_full(full);
                }
            }
            Event::Thaw { place, number } => self.thaw(place, Some(number)),
            Event::Snapshot(transfer) => self.snapshot(*transfer),
            Event::SnapshotSent { cell, from, from_incarnation, peer, arrived } => {
                self.snapshot_sent(cell, from, from_incarnation, peer, arrived);
            }
            Event::Replace { master } => self.replace(master),
            Event::Leave { leader, last } => self.leave(leader, last),
        }
    }

    fn spawn(&mut self, place: Place, body: impl FnOnce(Port) -> Task) -> u64 {
        self.next_task += 1;
        let task = self.next_task;
        let port = Port::new(self.rng.fork(), self.detail);
        let levels = self.release(place);
        self.tasks.insert(task, Slot { task: body(port), place, levels });
        self.after(Duration::ZERO, Event::Poll { task });
        task
    }

    fn start_client(&mut self, number: usize) {
        if self.clients.contains_key(&number) {
            return;
        }
        let cell = self.shape.cell_of(number);
        let Some(oracle) = self.oracles.get(&cell).map(Rc::clone) else { return };
        let (masters, plant) = (self.shape.masters(), self.plant);
        let task = self.spawn(Place::Client(number as u64), |port| {
            Task::new(port.clone(), client::run(port, oracle, number, cell, masters, plant))
        });
        self.clients.insert(number, task);
    }

    fn start_links(&mut self, index: u32) {
        let Some(server) = self.servers.get(&index) else { return };
        let (clock, Some(engine)) = (Rc::clone(&server.clock), server.engine.clone()) else { return };
        for master in 1..=self.shape.masters() {
            let (engine, clock) = (Rc::clone(&engine), Rc::clone(&clock));
            let task = self.spawn(Place::Server(index), |port| {
                let link = Link { port: port.clone(), engine, clock, master };
                Task::new(port, link.run())
            });
            if let Some(server) = self.servers.get_mut(&index) {
                server.links.push(task);
            }
        }
    }

    /// Something that the clients of all cells have to reckon with.
    fn tell_oracles(&self, tell: impl Fn(&mut Oracle, Duration)) {
        for oracle in self.oracles.values() {
            tell(&mut oracle.borrow_mut(), self.time);
        }
    }

    /// Adds an event to the hash of the run.
    fn hash(&mut self, event: &Event) {
        let (tag, a, b) = match event {
            Event::Tick { master, incarnation } => (1, *master, *incarnation),
            Event::Written { master, incarnation } => (2, *master, *incarnation),
            Event::Flushed { master, incarnation, cell } => {
                (3, *master, *incarnation ^ u64::from(cell.raw()) << 48)
            }
            Event::Flush { master } => (4, *master, 0),
            Event::Raft { to, frame, .. } => (5, *to, u64::from(crc32c::crc32c(&frame.encode_to_vec()))),
            Event::PeerLost { master, peer } => (6, *master, *peer),
            Event::Request { conn, body, .. } => (7, *conn, u64::from(crc32c::crc32c(body))),
            Event::Frame { conn, bytes } => (8, *conn, u64::from(crc32c::crc32c(bytes))),
            Event::Closed { conn, master, .. } => (9, *conn, *master),
            Event::Poll { task } => (10, *task, 0),
            Event::Refused { task, call, .. } => (11, *task, *call),
            Event::ToServer { index, .. } => (12, u64::from(*index), 0),
            Event::FromServer { result, .. } => (13, u64::from(result.is_ok()), 0),
            Event::ForwardTimeout { index, call, .. } => (14, u64::from(*index), *call),
            Event::CleanIdle { index } => (15, u64::from(*index), 0),
            Event::StartMaster { master } => (16, *master, 0),
            Event::StartServer { index } => (17, u64::from(*index), 0),
            Event::StartClient { number } => (18, *number as u64, 0),
            Event::Fault => (19, 0, 0),
            Event::Heal => (20, 0, 0),
            Event::DiskFull { place, full } => (21, place.number(), u64::from(*full)),
            Event::Thaw { place, number } => (22, place.number(), *number),
            Event::Snapshot(_) => (23, 0, 0),
            Event::Replace { master } => (24, *master, 0),
            Event::SnapshotSent { from, peer, arrived, .. } => {
                (25, *from, peer.raw() << 1 | u64::from(*arrived))
            }
            Event::Leave { leader, last } => (26, *leader, u64::from(*last)),
            Event::RestartServer { index } => (27, u64::from(*index), 0),
            Event::SetClockRight { index } => (28, u64::from(*index), 0),
            Event::Rolling(_) => (30, 0, 0),
            Event::Drain => (31, 0, 0),
            Event::Hello(hello) => (29, hello.from, hello.to),
        };
        let micros = u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX);
        for number in [micros, tag, a, b] {
            self.trace = (self.trace ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
    }
}
