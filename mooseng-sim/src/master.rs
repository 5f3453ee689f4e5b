//! A machine that runs a master: the real core on its real log, over a disk that can lose power and a store that has
//! only what was written to it.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::Entropy;
use mooseng_master::core::{CoreConfig, DeskConfig, Effect, GroupConfig, Limits, MasterCore, Now};
use mooseng_master::group::{self, Peer, level_needed};
use mooseng_master::raft::log::{LogOpenError, LogOptions, Segments};
use mooseng_master::raft::{HardState, LogEntry, Persist};
use mooseng_meta::{Batch, Member, Membership, MemoryStore, MetaStore};
use mooseng_protocol::token::TokenKey;
use mooseng_types::level::SUPPORTED;
use mooseng_types::{CellId, ClusterId, Levels, MasterId};

use crate::clock::MachineClock;
use crate::disk::FusedDisk;
use crate::entropy::{Rng, SeededEntropy};
use crate::invariants::Appended;
use crate::plant::Plant;
use crate::rows::Rows;

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);
pub(crate) const SECRET: [u8; 32] = [7; 32];
/// Small, so that a run turns over many segments.
const SEGMENT_BYTES: u64 = 4 << 10;
const LOG_DIR: &str = "/log";
/// Impatient, so that servers which are away for a moment are given up now and then.
const REPAIR: Limits = Limits {
    patience: Duration::from_millis(1200),
    patience_in_danger: Duration::from_millis(400),
    report_lag: Duration::from_millis(600),
    job_timeout: Duration::from_secs(3),
    fetches: 4,
    fetch_bytes: 64 << 20,
    verifications: 4,
    removals: 4,
    quarantine_s: 2,
    quarantine_unknown_s: 60,
};
const ELECTION: Duration = Duration::from_millis(250);

/// Work of the log's writer for a group, in order.
#[derive(Debug)]
enum Work {
    Append(Persist),
    /// A snapshot's store takes the place of the one before, then the log begins anew behind it.
    Install(Arc<MemoryStore>, Persist),
    Purge {
        index: u64,
        term: u64,
    },
}

/// Full segments beyond which the oldest is to be let go of.
const FULL_MAX: usize = 6;
/// The stores of a machine, by cell.
pub(crate) type Stores = BTreeMap<CellId, Rows>;

/// The process.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) core: MasterCore,
    segments: Segments,
    waiting: VecDeque<(CellId, Work)>,
    writing: Vec<(CellId, Work)>,
    /// What batches that are not durable yet bring, by their number.
    appended: BTreeMap<CellId, VecDeque<(u64, Vec<Appended>)>>,
    flushing: BTreeMap<CellId, (Arc<dyn MetaStore>, Arc<Batch>)>,
    /// The stores of snapshots that have come.
    pub(crate) incoming: BTreeMap<CellId, Arc<MemoryStore>>,
    /// The rows are those of a snapshot, and the log does not begin behind it yet.
    switched: bool,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) number: u64,
    /// Of how many disks this is the last.
    life: u32,
    pub(crate) clock: MachineClock,
    pub(crate) disk: FusedDisk,
    pub(crate) rows: Stores,
    /// Rises with every start, so that what was meant for a former process is told from what is meant for this one.
    pub(crate) incarnation: u64,
    pub(crate) running: Option<Running>,
    pub(crate) rng: Rng,
    /// Of the release that the process runs; the next one has its own.
    pub(crate) levels: Levels,
    /// Until then, each write of the log that begins takes long.
    pub(crate) stalled_until: Duration,
    /// The process before ended between the rows of a snapshot and its log.
    cut: bool,
    /// So often has a start mended that.
    pub(crate) cuts_mended: u64,
    masters: u64,
    plant: Option<Plant>,
}

/// What the edge would do at once.
#[derive(Debug)]
pub(crate) enum Done {
    /// These are on its disk now.
    Written(Vec<(CellId, Appended)>),
    /// The disk refused its service: the process has ended.
    Died,
}

/// What a step of the core leads to, besides work for its disks.
#[derive(Debug, Default)]
pub(crate) struct Performed {
    pub(crate) effects: Vec<Effect>,
    /// The log's writer, the store's have to start.
    pub(crate) write: bool,
    /// Of these cells.
    pub(crate) flush: Vec<CellId>,
    /// A snapshot takes the place of what is there.
    pub(crate) installs: bool,
}

/// How a start came out.
#[derive(Debug)]
pub(crate) enum Started {
    Running,
    /// The power went while it was starting.
    Dark,
    /// The disk is full: to be started again.
    NoRoom,
    /// What is on the disk has a level that the release does not know.
    TooOld,
}

pub(crate) fn address(id: u64) -> String {
    format!("m{id}")
}

impl Master {
    /// A machine whose disk is new, or that is already in a group of all masters.
    pub(crate) fn new(
        number: u64,
        masters: u64,
        cells: &[CellId],
        founded: bool,
        rng: &mut Rng,
        plant: Option<Plant>,
    ) -> Self {
        let rows = new_stores(cells);
        if founded {
            rows.values().for_each(|rows| found(rows, masters));
        }
        Self {
            number,
            life: 0,
            clock: MachineClock::new(rng),
            disk: new_disk(),
            rows,
            incarnation: 0,
            running: None,
            rng: rng.fork(),
            levels: SUPPORTED,
            stalled_until: Duration::ZERO,
            cut: false,
            cuts_mended: 0,
            masters,
            plant,
        }
    }

    /// Its number and life.
    pub(crate) fn id(&self) -> MasterId {
        id_of(self.number, self.life)
    }

    /// All that it had is lost; the process does not run.
    pub(crate) fn wipe(&mut self) {
        self.life += 1;
        self.cut = false;
        self.disk = new_disk();
        let cells: Vec<CellId> = self.rows.keys().copied().collect();
        self.rows = new_stores(&cells);
    }

    fn config(&self) -> CoreConfig {
        let peer = |id| Peer { id, name: address(id), address: address(id) };
        CoreConfig {
            group: GroupConfig {
                id: self.id(),
                name: address(self.number),
                address: address(self.number),
                peers: (1..=self.masters).map(peer).collect(),
                heartbeat: Duration::from_millis(50),
                election: ELECTION,
                log_keep_bytes: 3 << 10,
                levels: self.levels,
                lost_group: false,
            },
            desk: DeskConfig {
                cluster: CLUSTER,
                copies: 2,
                session_timeout: Duration::from_millis(2500),
                repair: REPAIR,
            },
        }
    }

    /// Starts a process of a release that knows these levels. An error is a broken promise: a log that a power cut made
    /// unreadable.
    pub(crate) fn start(&mut self, time: Duration, levels: Levels) -> Result<Started, String> {
        self.incarnation += 1;
        self.levels = levels;
        let options = LogOptions {
            dir: PathBuf::from(LOG_DIR),
            segment_bytes: SEGMENT_BYTES,
            cluster: CLUSTER,
            master: self.id(),
        };
        let opened = Segments::open(Arc::new(self.disk.clone()), options);
        let (mut segments, mut recovered) = match opened {
            Ok(opened) => opened,
            Err(_) if self.disk.blown() => return Ok(Started::Dark),
            Err(LogOpenError::Io { source, .. }) if source.kind() == ErrorKind::StorageFull => {
                return Ok(Started::NoRoom);
            }
            Err(error) => return Err(format!("master {} cannot open its log: {error}", self.number)),
        };
        let mut groups = Vec::new();
        let mut now = self.clock.now(time).mono;
        let mut mended = false;
        for (cell, rows) in &self.rows {
            let failed = |error| format!("master {}: {error}", self.number);
            let mut recovered = recovered.remove(cell).unwrap_or_default();
            let begins = recovered.purged;
            let base = rows.open().map_err(failed)?.base();
            if let Err(error) = segments.begin_behind(*cell, base, &mut recovered) {
                let full = error.kind() == ErrorKind::StorageFull;
                return Ok(if full && !self.disk.blown() { Started::NoRoom } else { Started::Dark });
            }
            mended |= recovered.purged != begins;
            match self.plant {
                Some(Plant::TruncateTail) => drop(recovered.entries.pop()),
                Some(Plant::ForgetAnswers) => rows.forget_answers(),
                Some(Plant::DoubleApply) => rows.go_back(&mut recovered),
                _ => {}
            }
            let state = match self.plant {
                Some(Plant::ReplaceAtOnce) if self.incarnation > 1 => rows.open_replaced(self.id()),
                _ => rows.open(),
            };
            let state = state.map_err(failed)?;
            if !levels.has(level_needed(&state, &recovered.entries)) {
                return Ok(Started::TooOld);
            }
            groups.push((state, recovered));
        }
        self.cuts_mended += u64::from(std::mem::take(&mut self.cut) && mended);
        if self.plant == Some(Plant::VoteAtOnce) {
            now = now.saturating_sub(4 * ELECTION);
        }
        let entropy: Arc<dyn Entropy> = SeededEntropy::door(self.rng.fork());
        let others = groups.split_off(1);
        let Some(root) = groups.pop() else { return Err(format!("master {} has no group", self.number)) };
        let core = MasterCore::new(&self.config(), TokenKey::new(&SECRET), root, others, now, &entropy);
        self.running = Some(Running {
            core,
            segments,
            waiting: VecDeque::new(),
            writing: Vec::new(),
            appended: BTreeMap::new(),
            flushing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            switched: false,
        });
        Ok(Started::Running)
    }

    /// The process ends at once, in the midst of whatever its disks are doing. Returns whether there was one.
    pub(crate) fn stop(&mut self) -> bool {
        let Some(mut running) = self.running.take() else { return false };
        for (cell, (store, batch)) in std::mem::take(&mut running.flushing) {
            if let Some(rows) = self.rows.get_mut(&cell).filter(|_| self.rng.chance(500)) {
                rows.write(&*store, &batch);
            }
        }
        let operations = match self.rng.below(4) {
            0 => 0,
            1 => 1000,
            _ => self.rng.below(6),
        };
        self.disk.arm(operations);
        if !running.writing.is_empty() {
            // What has not come to the disk before the end is lost; nobody was told of it.
            drop(running.write(&mut self.rows, self.plant));
        }
        self.cut |= running.switched;
        self.disk.mend();
        true
    }

    /// The last entry whose rows are in the store of a cell.
    pub(crate) fn store_index(&self, cell: CellId) -> u64 {
        let state = self.rows.get(&cell).and_then(|rows| rows.open().ok());
        state.map_or(0, |state| state.applied_index())
    }

    /// Who votes in each cell, as far as the stores know; `None` while it is not running.
    pub(crate) fn stored_voters(&self) -> Option<Vec<Vec<MasterId>>> {
        self.running.as_ref()?;
        self.rows.values().map(|rows| Some(rows.open().ok()?.membership().voters())).collect()
    }

    /// The store of a cell has written what it was given.
    pub(crate) fn flushed(&mut self, now: Now, cell: CellId) {
        let (Some(running), Some(rows)) = (self.running.as_mut(), self.rows.get_mut(&cell)) else { return };
        if let Some((store, batch)) = running.flushing.remove(&cell) {
            if self.plant == Some(Plant::StaleSnapshot) {
                rows.keep_older();
            }
            rows.write(&*store, &batch);
            if self.plant != Some(Plant::FlushBeforeWrite) {
                running.core.flushed(now, cell);
            }
        }
    }

    pub(crate) fn now(&self, time: Duration) -> Now {
        self.clock.now(time)
    }
}

impl Running {
    /// Takes what concerns the disks.
    pub(crate) fn perform(&mut self, now: Now, plant: Option<Plant>) -> Performed {
        let mut done = Performed::default();
        loop {
            let effects = self.core.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                let Effect::Group(cell, effect) = effect else {
                    done.effects.push(effect);
                    continue;
                };
                match effect {
                    group::Effect::Persist(batch) => {
                        let number = batch.number;
                        let appended = batch.entries.iter().map(|entry| self.appended(cell, entry)).collect();
                        self.appended.entry(cell).or_default().push_back((number, appended));
                        let incoming = batch.snapshot.and_then(|_| self.incoming.remove(&cell));
                        done.installs |= incoming.is_some();
                        let work = match incoming {
                            Some(store) => Work::Install(store, batch),
                            None => Work::Append(batch),
                        };
                        self.waiting.push_back((cell, work));
                        if plant == Some(Plant::AckBeforeSync) {
                            self.core.persisted(cell, number);
                        }
                    }
                    group::Effect::Purge { index, term } => {
                        self.waiting.push_back((cell, Work::Purge { index, term }));
                    }
                    group::Effect::Flush(store, batch) => {
                        done.flush.push(cell);
                        self.flushing.insert(cell, (store, batch));
                        if plant == Some(Plant::FlushBeforeWrite) {
                            self.core.flushed(now, cell);
                        }
                    }
                    other => done.effects.push(Effect::Group(cell, other)),
                }
            }
        }
        if self.writing.is_empty() && !self.waiting.is_empty() {
            self.writing = self.waiting.drain(..).collect();
            done.write = true;
        }
        done
    }

    fn appended(&self, cell: CellId, entry: &LogEntry) -> Appended {
        let (index, term) = (entry.index, entry.term);
        let node = self.core.groups().get(cell).map(group::Group::node);
        let before = node.and_then(|node| node.term_of(index - 1)).filter(|term| *term > 0);
        Appended { index, term, before, checksum: crc32c::crc32c(&entry.data) }
    }

    /// One turn of the log's writer; the numbers of the last batches that are durable now, by cell.
    fn write(&mut self, stores: &mut Stores, plant: Option<Plant>) -> std::io::Result<BTreeMap<CellId, u64>> {
        let (mut batches, mut purge, mut last) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (cell, work) in self.writing.drain(..) {
            match work {
                Work::Append(mut batch) => {
                    if plant == Some(Plant::ForgetVote) {
                        batch.hard_state = HardState::default();
                    }
                    last.insert(cell, batch.number);
                    batches.push((cell, batch));
                }
                Work::Install(snapshot, batch) => {
                    self.segments.append(&batches)?;
                    batches.clear();
                    stores.insert(cell, Rows::of(cell, snapshot));
                    self.switched = true;
                    last.insert(cell, batch.number);
                    batches.push((cell, batch));
                }
                Work::Purge { index, term } => drop(purge.insert(cell, (index, term))),
            }
        }
        self.segments.append(&batches)?;
        self.switched = false;
        self.segments.prepare()?;
        for (cell, (index, term)) in purge {
            self.segments.purge(cell, index, term)?;
        }
        Ok(last)
    }

    /// The log's writer is done with what it had in hand.
    pub(crate) fn written(&mut self, now: Now, stores: &mut Stores, plant: Option<Plant>) -> Done {
        let Ok(last) = self.write(stores, plant) else { return Done::Died };
        let mut durable = Vec::new();
        for (cell, number) in last {
            self.core.persisted(cell, number);
            let appended = self.appended.entry(cell).or_default();
            while let Some((_, entries)) = appended.pop_front_if(|(of, _)| *of <= number) {
                durable.extend(entries.into_iter().map(|entry| (cell, entry)));
            }
        }
        for (cell, index) in self.segments.holders(FULL_MAX) {
            self.core.let_go(now, cell, index);
        }
        Done::Written(durable)
    }
}

fn new_stores(cells: &[CellId]) -> Stores {
    cells.iter().map(|cell| (*cell, Rows::new(*cell))).collect()
}

fn id_of(number: u64, life: u32) -> MasterId {
    MasterId::new(u16::try_from(number).unwrap_or(u16::MAX), life)
}

fn new_disk() -> FusedDisk {
    let disk = FusedDisk::new(1 << 30);
    // An empty directory cannot fail to be made in memory.
    drop(mooseng_env::Disk::create_dir_all(&disk, &PathBuf::from(LOG_DIR)));
    disk
}

/// Writes what a group of all masters begins with.
fn found(rows: &Rows, masters: u64) {
    let Ok(mut state) = rows.open() else { return };
    let member = |number| Member {
        id: id_of(number, 0),
        name: address(number),
        address: address(number),
        voter: true,
        wants_vote: true,
    };
    state.found(1, 1, Membership { epoch: 1, members: (1..=masters).map(member).collect() });
    if let Some(batch) = state.freeze() {
        rows.store().write(&batch);
    }
}
