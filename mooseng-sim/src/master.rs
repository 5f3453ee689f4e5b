//! A machine that runs a master: the real core on its real log, over a disk that can lose power and a store that has
//! only what was written to it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mooseng_master::core::{CoreConfig, DeskConfig, Effect, GroupConfig, MasterCore, Now};
use mooseng_master::group::{self, Peer};
use mooseng_master::raft::log::{LogOpenError, LogOptions, Segments};
use mooseng_master::raft::{HardState, LogEntry, Persist};
use mooseng_meta::{Batch, Member, Membership, MemoryStore, MetaStore};
use mooseng_protocol::token::TokenKey;
use mooseng_types::{ClusterId, MasterId};

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
const ELECTION: Duration = Duration::from_millis(250);

/// Work of the log's writer, in order.
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

/// The process.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) core: MasterCore,
    segments: Segments,
    waiting: VecDeque<Work>,
    writing: Vec<Work>,
    /// What batches that are not durable yet bring, by their number.
    appended: VecDeque<(u64, Vec<Appended>)>,
    flushing: Option<(Arc<dyn MetaStore>, Arc<Batch>)>,
    /// The store of a snapshot that has come.
    pub(crate) incoming: Option<Arc<MemoryStore>>,
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
    pub(crate) rows: Rows,
    /// Rises with every start, so that what was meant for a former process is told from what is meant for this one.
    pub(crate) incarnation: u64,
    pub(crate) running: Option<Running>,
    pub(crate) rng: Rng,
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
    Written(Vec<Appended>),
    /// The disk refused its service: the process has ended.
    Died,
}

/// What a step of the core leads to, besides work for its disks.
#[derive(Debug, Default)]
pub(crate) struct Performed {
    pub(crate) effects: Vec<Effect>,
    /// The log's writer, the store's have to start.
    pub(crate) write: bool,
    pub(crate) flush: bool,
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
}

pub(crate) fn address(id: u64) -> String {
    format!("m{id}")
}

impl Master {
    /// A machine whose disk is new, or that is already in a group of all masters.
    pub(crate) fn new(number: u64, masters: u64, founded: bool, rng: &mut Rng, plant: Option<Plant>) -> Self {
        let rows = Rows::default();
        if founded {
            found(&rows, masters);
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
        self.rows = Rows::default();
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
                levels: mooseng_types::level::SUPPORTED,
                lost_group: false,
            },
            desk: DeskConfig { cluster: CLUSTER, copies: 2, session_timeout: Duration::from_millis(2500) },
        }
    }

    /// Starts the process. An error is a broken promise: a log that a power cut made unreadable.
    pub(crate) fn start(&mut self, time: Duration) -> Result<Started, String> {
        self.incarnation += 1;
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
        let base = match self.rows.open() {
            Ok(state) => state.base(),
            Err(error) => return Err(format!("master {}: {error}", self.number)),
        };
        let begins = recovered.purged;
        if let Err(error) = segments.begin_behind(base, &mut recovered) {
            let full = error.kind() == ErrorKind::StorageFull;
            return Ok(if full && !self.disk.blown() { Started::NoRoom } else { Started::Dark });
        }
        self.cuts_mended += u64::from(std::mem::take(&mut self.cut) && recovered.purged != begins);
        let mut now = self.clock.now(time).mono;
        match self.plant {
            Some(Plant::TruncateTail) => drop(recovered.entries.pop()),
            Some(Plant::VoteAtOnce) => now = now.saturating_sub(4 * ELECTION),
            Some(Plant::ForgetAnswers) => self.rows.forget_answers(),
            Some(Plant::DoubleApply) => self.rows.go_back(&mut recovered),
            _ => {}
        }
        let state = match self.plant {
            Some(Plant::ReplaceAtOnce) if self.incarnation > 1 => self.rows.open_replaced(self.id()),
            _ => self.rows.open(),
        };
        let state = state.map_err(|error| format!("master {}: {error}", self.number))?;
        let entropy = SeededEntropy::door(self.rng.fork());
        let core = MasterCore::new(self.config(), TokenKey::new(&SECRET), state, recovered, now, entropy);
        self.running = Some(Running {
            core,
            segments,
            waiting: VecDeque::new(),
            writing: Vec::new(),
            appended: VecDeque::new(),
            flushing: None,
            incoming: None,
            switched: false,
        });
        Ok(Started::Running)
    }

    /// The process ends at once, in the midst of whatever its disks are doing. Returns whether there was one.
    pub(crate) fn stop(&mut self) -> bool {
        let Some(mut running) = self.running.take() else { return false };
        if let Some((store, batch)) = running.flushing.take()
            && self.rng.chance(500)
        {
            self.rows.write(&*store, &batch);
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

    /// The last entry whose rows are in the store.
    pub(crate) fn store_index(&self) -> u64 {
        self.rows.open().map_or(0, |state| state.applied_index())
    }

    /// Who votes, as far as the store knows; `None` while it is not running.
    pub(crate) fn stored_voters(&self) -> Option<Vec<MasterId>> {
        let state = self.running.as_ref().and_then(|_| self.rows.open().ok())?;
        Some(state.membership().voters())
    }

    /// The store has written what it was given.
    pub(crate) fn flushed(&mut self, now: Now) {
        let Some(running) = self.running.as_mut() else { return };
        if let Some((store, batch)) = running.flushing.take() {
            if self.plant == Some(Plant::StaleSnapshot) {
                self.rows.keep_older();
            }
            self.rows.write(&*store, &batch);
            if self.plant != Some(Plant::FlushBeforeWrite) {
                running.core.flushed(now);
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
                match effect {
                    Effect::Group(group::Effect::Persist(batch)) => {
                        let number = batch.number;
                        let appended = batch.entries.iter().map(|entry| self.appended(entry)).collect();
                        self.appended.push_back((number, appended));
                        let incoming = self.incoming.take_if(|_| batch.snapshot.is_some());
                        done.installs |= incoming.is_some();
                        self.waiting.push_back(match incoming {
                            Some(store) => Work::Install(store, batch),
                            None => Work::Append(batch),
                        });
                        if plant == Some(Plant::AckBeforeSync) {
                            self.core.persisted(number);
                        }
                    }
                    Effect::Group(group::Effect::Purge { index, term }) => {
                        self.waiting.push_back(Work::Purge { index, term })
                    }
                    Effect::Group(group::Effect::Flush(store, batch)) => {
                        done.flush = true;
                        self.flushing = Some((store, batch));
                        if plant == Some(Plant::FlushBeforeWrite) {
                            self.core.flushed(now);
                        }
                    }
                    other => done.effects.push(other),
                }
            }
        }
        if self.writing.is_empty() && !self.waiting.is_empty() {
            self.writing = self.waiting.drain(..).collect();
            done.write = true;
        }
        done
    }

    fn appended(&self, entry: &LogEntry) -> Appended {
        let (index, term) = (entry.index, entry.term);
        let before = self.core.node().term_of(index - 1).filter(|term| *term > 0);
        Appended { index, term, before, checksum: crc32c::crc32c(&entry.data) }
    }

    /// One turn of the log's writer; the number of the last batch that is durable now.
    fn write(&mut self, rows: &mut Rows, plant: Option<Plant>) -> std::io::Result<Option<u64>> {
        let (mut batches, mut purge) = (Vec::new(), None);
        for work in self.writing.drain(..) {
            match work {
                Work::Append(mut batch) => {
                    if plant == Some(Plant::ForgetVote) {
                        batch.hard_state = HardState::default();
                    }
                    batches.push(batch);
                }
                Work::Install(snapshot, batch) => {
                    self.segments.append(&batches)?;
                    batches.clear();
                    *rows = Rows::of(snapshot);
                    self.switched = true;
                    batches.push(batch);
                }
                Work::Purge { index, term } => purge = Some((index, term)),
            }
        }
        let last = batches.last().map(|batch| batch.number);
        self.segments.append(&batches)?;
        self.switched = false;
        self.segments.prepare()?;
        if let Some((index, term)) = purge {
            self.segments.purge(index, term)?;
        }
        Ok(last)
    }

    /// The log's writer is done with what it had in hand.
    pub(crate) fn written(&mut self, rows: &mut Rows, plant: Option<Plant>) -> Done {
        match self.write(rows, plant) {
            Ok(Some(number)) => {
                self.core.persisted(number);
                let mut durable = Vec::new();
                while let Some((_, entries)) = self.appended.pop_front_if(|(of, _)| *of <= number) {
                    durable.extend(entries);
                }
                Done::Written(durable)
            }
            Ok(None) => Done::Written(Vec::new()),
            Err(_) => Done::Died,
        }
    }
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
