//! What is read of a disk to check it, a piece at a time: first the copies that the leader wants verified, then the pass over all.
//! Whoever has threads calls [`Keeper::step`] where it may wait for the disk, as long as there is more to do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_types::Part;

use crate::copy_events::{CopyEvent, CopyEvents};
use crate::engine::Now;
use crate::scrub::{Next, Progress, Scrub};
use crate::scrub_file;
use crate::store::{Checked, ChunkDisk, Store, StoreError, Verification};

/// Copies of a disk that wait to be verified; the leader orders again what finds no room.
const ORDERS_MAX: usize = 10_000;
/// Copies of a pass that are looked up at once.
const LISTED: usize = 1024;
/// The file on a disk that says how far the pass over it is.
const NOTE: &str = "scrub";

/// The keepers of all disks, in the order of the store's.
#[derive(Debug, Default)]
pub(crate) struct Keepers(Vec<Keeper>);

impl Keepers {
    /// Keepers that make a pass in `period`, if there is one, and go on where an earlier process has stopped.
    pub(crate) fn new(store: &Store, period: Option<Duration>) -> Self {
        let keeper = |(number, disk): (usize, &Arc<ChunkDisk>)| {
            let noted = if disk.failed() { None } else { disk.read_note(NOTE) };
            let progress = noted.map_or(Some(Progress::default()), |bytes| scrub_file::decode(&bytes));
            if progress.is_none() {
                tracing::warn!(disk = %disk.root().display(), "the note on the pass over the disk is damaged: a new pass begins");
            }
            Keeper::new(number, Scrub::new(period, progress.unwrap_or_default()))
        };
        Self(store.disks().iter().enumerate().map(keeper).collect())
    }

    pub(crate) fn get(&self, disk: usize) -> Option<&Keeper> {
        self.0.get(disk)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Keeper> {
        self.0.iter()
    }
}

/// What is read of one disk.
#[derive(Debug)]
pub(crate) struct Keeper {
    disk: usize,
    state: Mutex<State>,
    /// Somebody calls [`Keeper::step`] until there is nothing more to do.
    at_work: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// What the leader wants verified.
    orders: BTreeSet<Part>,
    ordered: Option<Verification>,
    scrub: Scrub,
    scrubbed: Option<Verification>,
}

/// What a step does, without the lock.
enum Work {
    Ordered(Verification),
    Scrubbed(Verification),
    List(Option<Part>),
    Nothing,
}

/// Too many copies wait to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many copies wait to be verified")]
pub(crate) struct TooMany;

impl Keeper {
    fn new(disk: usize, scrub: Scrub) -> Self {
        let state = State { orders: BTreeSet::new(), ordered: None, scrub, scrubbed: None };
        Self { disk, state: Mutex::new(state), at_work: AtomicBool::new(false) }
    }

    /// Wants a copy of this disk verified.
    pub(crate) fn order(&self, part: Part) -> Result<(), TooMany> {
        let mut state = self.lock();
        if state.ordered.as_ref().is_some_and(|at_work| at_work.part() == part) {
            return Ok(());
        }
        if state.orders.len() >= ORDERS_MAX {
            return Err(TooMany);
        }
        state.orders.insert(part);
        Ok(())
    }

    /// How far the pass is.
    pub(crate) fn progress(&self) -> Progress {
        self.lock().scrub.progress()
    }

    /// Whether there are no passes over the disk at all.
    pub(crate) fn is_off(&self) -> bool {
        self.lock().scrub.is_off()
    }

    /// Changes what becomes of the passes.
    pub(crate) fn direct(&self, change: impl FnOnce(&mut Scrub)) {
        change(&mut self.lock().scrub);
    }

    /// Whether the caller is the one to call [`Self::step`] from now on, until [`Self::rest`].
    pub(crate) fn begin(&self) -> bool {
        !self.at_work.swap(true, Ordering::AcqRel)
    }

    /// Ends what [`Self::begin`] has begun.
    pub(crate) fn rest(&self) {
        self.at_work.store(false, Ordering::Release);
    }

    /// Does one piece of what is to be done; whether there may be more to do at once.
    pub(crate) fn step(&self, store: &Store, events: &CopyEvents, now: Now) -> bool {
        if store.disks().get(self.disk).is_none_or(|disk| disk.failed()) {
            return false;
        }
        let more = match self.next(store, events, now) {
            Work::Nothing => false,
            Work::List(after) => {
                let (parts, left) = store.copies_after(self.disk, after, LISTED);
                self.lock().scrub.listed(now, parts, left);
                true
            }
            Work::Ordered(verification) => {
                self.verify(events, verification);
                true
            }
            Work::Scrubbed(verification) => {
                self.scrub(now, verification);
                true
            }
        };
        self.save(store, now.mono, false);
        more
    }

    fn next(&self, store: &Store, events: &CopyEvents, now: Now) -> Work {
        let mut state = self.lock();
        if let Some(going) = state.ordered.take() {
            return Work::Ordered(going);
        }
        while let Some(part) = state.orders.pop_first() {
            match store.find(part) {
                Some(chunk) => return Work::Ordered(Verification::new(chunk)),
                None => events.note(part, CopyEvent::Lost),
            }
        }
        loop {
            match state.scrub.next(now) {
                Next::Wait => return Work::Nothing,
                Next::List(after) => return Work::List(after),
                Next::Read(part) => {
                    if let Some(going) = state.scrubbed.take().filter(|going| going.part() == part) {
                        return Work::Scrubbed(going);
                    }
                    match store.find(part) {
                        Some(chunk) => return Work::Scrubbed(Verification::new(chunk)),
                        None => state.scrub.read(now, part, false),
                    }
                }
            }
        }
    }

    fn verify(&self, events: &CopyEvents, mut verification: Verification) {
        match verification.step() {
            Ok(Checked::Going) => self.lock().ordered = Some(verification),
            Ok(checked) => verification.tell(checked),
            Err(error) => {
                tracing::warn!(%error, "copy not verified");
                // Of those that were lost before, the leader may not know.
                if matches!(error, StoreError::NotFound { .. } | StoreError::Broken { .. }) {
                    events.note(verification.part(), CopyEvent::Lost);
                }
            }
        }
    }

    fn scrub(&self, now: Now, mut verification: Verification) {
        let part = verification.part();
        let damaged = match verification.step() {
            Ok(Checked::Going) => {
                self.lock().scrubbed = Some(verification);
                return;
            }
            Ok(Checked::Whole(_) | Checked::Restless) => false,
            Err(error) => {
                tracing::warn!(%error, "copy not read in the pass over the disk");
                matches!(error, StoreError::Broken { .. })
            }
        };
        self.lock().scrub.read(now, part, damaged);
    }

    /// Notes on the disk how far the pass is, if that is due.
    pub(crate) fn save(&self, store: &Store, now: Duration, stopping: bool) {
        let Some(disk) = store.disks().get(self.disk).filter(|disk| !disk.failed()) else { return };
        let due = self.lock().scrub.save_due(now, stopping);
        if let Some(progress) = due {
            disk.write_note(NOTE, &scrub_file::encode(&progress));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
