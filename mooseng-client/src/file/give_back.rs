//! Giving leases back, all or one: what was written under them is sent, synced where `fsync` means the disks (a later
//! `fsync` could not reach the copies any more), and committed. Pure.

use std::time::Duration;

use mooseng_protocol::limits::INDEXES_MAX;
use mooseng_types::ChunkIndex;

use super::buffer::Take;
use super::flush::gave_up;
use super::lease::Phase;
use super::steps::{Brought, Need, sooner};
use super::{Action, File, Lease, LeaseKey, Operation, ReleaseJob, Step};

/// Leases to be given back.
#[derive(Debug)]
pub struct GiveBack {
    leases: Vec<LeaseKey>,
    mark: u64,
    until: Duration,
    /// The masters take a lease for held here that is not.
    unknown: bool,
}

impl GiveBack {
    /// All that are held now; only that of one chunk, with `only`. Nothing new begins under them from here on. One that is
    /// being asked for is not held: whoever waits for it here may keep another one from the client that holds it.
    pub fn new(file: &mut File, only: Option<ChunkIndex>, now: Duration) -> Self {
        let mut leases = Vec::new();
        for (index, lease) in &mut file.leases {
            if only.is_none_or(|only| only == *index) && lease.can_be_given_back() {
                lease.closing = true;
                leases.push(LeaseKey { index: *index, number: lease.number });
            }
        }
        Self { leases, mark: file.buffer.last_write(), until: now + file.rules.patience, unknown: false }
    }

    /// One that the masters recall. `None` while it is being asked for: the recall is of the one before, or has to wait; given
    /// back before anybody has used it, the lease would go to and fro between clients for ever. One that is not held is given
    /// back all the same, and not asked for meanwhile.
    pub fn recalled(file: &mut File, index: ChunkIndex, now: Duration) -> Option<Self> {
        let unknown = file.has_no_lease(index);
        if file.lease_of(index).phase == Phase::Granting {
            return None;
        }
        Some(Self { unknown, ..Self::new(file, Some(index), now) })
    }

    /// Sends and syncs what was written under one lease, until nothing is under way there any more.
    fn finish(&self, file: &mut File, key: LeaseKey, now: Duration) -> Brought {
        if self.unknown {
            // Nothing was sent under it. What is unsent waits for the next one: asked for here, both sides might wait.
            return Brought::Ready;
        }
        if file.buffer.holds_of_chunk(key.index, self.mark) {
            match file.send_step(Take::OfChunk(key.index, self.mark), true, now) {
                Brought::Ready if file.buffer.holds_of_chunk(key.index, self.mark) => {
                    return Brought::Wait(None);
                }
                Brought::Ready => {}
                other => return other,
            }
        }
        let Some(lease) = file.lease(key) else { return Brought::Ready };
        if lease.users > 0 || matches!(lease.phase, Phase::Granting) {
            return Brought::Wait(None);
        }
        if lease.grant.is_none() {
            // It was never had, or is lost.
            file.end_lease(key);
            file.news = true;
            return Brought::Ready;
        }
        let need = Need::Disks { up_to: lease.confirmed };
        if file.rules.durable { file.sync_step(key.index, need, now) } else { Brought::Ready }
    }

    /// Whether nothing is left to be done under a lease but to commit it and give it back.
    fn is_finished(&self, file: &mut File, key: LeaseKey) -> bool {
        let waits = file.buffer.holds_of_chunk(key.index, self.mark);
        let durable = file.rules.durable;
        let finished = |lease: &Lease| {
            let idle = lease.users == 0 && lease.phase != Phase::Granting;
            idle && !waits && lease.grant.is_some() && !(durable && lease.is_unsynced())
        };
        self.unknown || file.lease(key).is_some_and(|lease| finished(lease))
    }

    /// Commits what was written under these leases and gives them back.
    fn release(&self, file: &mut File, mut leases: Vec<LeaseKey>, now: Duration) -> Brought {
        if self.unknown {
            // Not held against a change that is under way: it may be what waits for this.
            return Brought::Do(Action::ReleaseLeases(ReleaseJob { leases, held: false }));
        }
        let indexes: Vec<ChunkIndex> = leases.iter().map(|key| key.index).collect();
        match file.commit_step(Some(&indexes), true, now) {
            Brought::Ready => {
                // Held against a second release of the same.
                file.changing = true;
                leases.truncate(INDEXES_MAX);
                Brought::Do(Action::ReleaseLeases(ReleaseJob { leases, held: true }))
            }
            other => other,
        }
    }

    /// What is finished goes first: a lease that takes its time, or has to be asked for again, keeps no other one from the
    /// client that may hold it up.
    fn step(&mut self, file: &mut File, now: Duration) -> Brought {
        loop {
            self.leases.retain(|key| file.lease(*key).is_some());
            let (finished, open): (Vec<_>, Vec<_>) =
                self.leases.iter().partition(|key| self.is_finished(file, **key));
            let mut wait = None;
            if !finished.is_empty() {
                match self.release(file, finished, now) {
                    Brought::Wait(until) => wait = until,
                    other => return other,
                }
            } else if open.is_empty() {
                return Brought::Ready;
            }
            let mut moved = false;
            for key in open {
                match self.finish(file, key, now) {
                    Brought::Ready => moved = true,
                    Brought::Do(action) => return Brought::Do(action),
                    Brought::Wait(until) => wait = sooner(wait, until),
                }
            }
            if !moved {
                return Brought::Wait(wait);
            }
        }
    }
}

impl Operation for GiveBack {
    type Output = ();

    fn next(&mut self, file: &mut File, now: Duration) -> Step<()> {
        match self.step(file, now) {
            Brought::Ready => Step::Done(Ok(())),
            Brought::Do(action) => Step::Do(action),
            Brought::Wait(_) if now >= self.until => {
                Step::Done(Err(gave_up("give a write lease back", file.rules.patience)))
            }
            Brought::Wait(until) => Step::Wait(sooner(until, Some(self.until))),
        }
    }

    fn abandon(&mut self, file: &mut File) {
        file.news |= !self.leases.is_empty();
        for key in &self.leases {
            if let Some(lease) = file.lease(*key) {
                lease.closing = false;
            }
        }
    }
}
