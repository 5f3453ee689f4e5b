//! The steps that all operations are made of: a lease brought forward, a piece sent, a chain synced, a commit made. Each
//! looks at what there is, hands out one action at most, and notes that somebody is at it. Pure.

use std::time::Duration;

use mooseng_types::{CHUNK_SIZE, ChunkCause, ChunkIndex, INLINE_MAX};

use super::buffer::{Piece, Take};
use super::lease::{Lease, Phase, Verdict};
use super::{Action, CommitJob, File, InlineJob, LeaseKey, SyncJob, WriteJob};
use crate::Loss;
use crate::chunk::{Commit, CommitChunk, Fault, Grant};

/// What a step comes to.
#[derive(Debug)]
pub(super) enum Brought {
    /// There is nothing to do.
    Ready,
    /// This is to be done next.
    Do(Action),
    /// Something is under way, or a pause lasts until then.
    Wait(Option<Duration>),
}

/// What is wanted of the copies of a lease.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// They have the lease's version.
    Version,
    /// Those that have it had at this time or later all that was confirmed before and that no sync has covered.
    Whole { since: Duration },
    /// The changes up to this number are on the disks.
    Disks { up_to: u64 },
}

impl Need {
    fn is_met(self, lease: &Lease) -> bool {
        match self {
            Self::Version => lease.is_adopted(),
            Self::Whole { since } => !lease.is_unsynced() || (lease.is_adopted() && lease.whole_at >= since),
            Self::Disks { up_to } => lease.synced >= up_to.min(lease.confirmed),
        }
    }
}

/// The earlier of two times to ask again.
pub(super) fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl File {
    /// Brings the lease of a chunk to where it can be used. `closing`: also one that is being given back.
    pub(super) fn bring_lease(&mut self, index: ChunkIndex, closing: bool, now: Duration) -> Brought {
        if self.resizing || (self.writing_inline && index.raw() == 0) {
            return Brought::Wait(None);
        }
        let met = self.troubles.remove(&index).filter(|trouble| trouble.is_recent(now));
        let lease = self.lease_of(index);
        if let Some(met) = met.filter(|_| lease.trouble.since.is_none()) {
            lease.trouble = met;
        }
        if lease.closing && !closing {
            return Brought::Wait(None);
        }
        if lease.is_lost() {
            lease.give_up_unsynced();
            self.losses.note(Loss::Interrupted);
            self.news = true;
        }
        let lease = self.lease_of(index);
        let key = LeaseKey { index, number: lease.number };
        if now < lease.trouble.not_before {
            return Brought::Wait(Some(lease.trouble.not_before));
        }
        match lease.phase {
            Phase::Wanted => Brought::Do(Action::Grant(key, lease.begin_grant())),
            Phase::Granting | Phase::Preparing { running: true } => Brought::Wait(None),
            Phase::Preparing { running: false } => match (lease.grant.clone(), lease.begin_prepare()) {
                (Some(grant), Some(step)) => {
                    lease.users += 1;
                    Brought::Do(Action::Prepare(key, grant, step))
                }
                _ => Brought::Wait(None),
            },
            Phase::Held => Brought::Ready,
        }
    }

    /// Sends a piece that `which` allows, or brings the lease of one forward. `Ready`: there is none.
    pub(super) fn send_step(&mut self, which: Take, closing: bool, now: Duration) -> Brought {
        self.give_up_pieces(now);
        if let Some(piece) = self.take_piece(which, closing, now) {
            return Brought::Do(self.write_job(piece, now));
        }
        let mut wait = None;
        let mut waiting = false;
        for index in self.buffer.waiting_chunks(which) {
            waiting = true;
            match self.bring_lease(index, closing, now) {
                Brought::Ready => {}
                Brought::Do(action) => return Brought::Do(action),
                Brought::Wait(until) => wait = sooner(wait, until),
            }
        }
        match self.take_piece(which, closing, now) {
            Some(piece) => Brought::Do(self.write_job(piece, now)),
            None if waiting => Brought::Wait(wait),
            None => Brought::Ready,
        }
    }

    fn take_piece(&mut self, which: Take, closing: bool, now: Duration) -> Option<Piece> {
        let leases = &self.leases;
        let usable = |index| {
            leases.get(&index).is_some_and(|lease| {
                lease.phase == Phase::Held
                    && (closing || !lease.closing)
                    && now >= lease.trouble.not_before
                    && !lease.is_lost()
            })
        };
        if self.resizing { None } else { self.buffer.take(which, usable) }
    }

    fn write_job(&mut self, piece: Piece, now: Duration) -> Action {
        let index = ChunkIndex::of_offset(piece.offset).unwrap_or(ChunkIndex::from_raw(u32::MAX));
        let lease = self.lease_of(index);
        lease.users += 1;
        let grant = lease.grant.clone().unwrap_or_else(|| unreachable!("a lease that is held has a grant"));
        let key = LeaseKey { index, number: lease.number };
        let (continues, exists) = (lease.is_unsynced(), lease.confirmed > 0);
        Action::Write(WriteJob { lease: key, grant, piece, continues, exists, begun: now })
    }

    /// What nobody could take for too long is given up, and told: kept, it would block every other writer in the end.
    fn give_up_pieces(&mut self, now: Duration) {
        let patience = self.rules.patience;
        let over = |lease: &Lease| lease.trouble.lasts(now) >= patience;
        let given_up: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, lease)| over(lease))
            .map(|(index, lease)| (*index, lease.trouble.cause))
            .collect();
        self.news |= !given_up.is_empty();
        for (index, cause) in given_up {
            if self.buffer.discard_chunk(index, false) {
                self.losses.note(cause.map_or(Loss::NoAnswer, Loss::Unwritable));
            }
            let lease = self.lease_of(index);
            lease.trouble = Default::default();
            if lease.users == 0
                && !lease.is_unsynced()
                && !lease.is_uncommitted()
                && lease.phase == Phase::Wanted
            {
                self.leases.remove(&index);
            }
        }
    }

    /// Asks the copies of a chunk for what is needed of them.
    pub(super) fn sync_step(&mut self, index: ChunkIndex, need: Need, now: Duration) -> Brought {
        let Some(lease) = self.leases.get_mut(&index) else { return Brought::Ready };
        if need.is_met(lease) {
            return Brought::Ready;
        }
        if lease.syncing {
            return Brought::Wait(None);
        }
        match self.bring_lease(index, true, now) {
            Brought::Ready => {}
            other => return other,
        }
        let Some(lease) = self.leases.get_mut(&index) else { return Brought::Ready };
        // A lost lease has nothing to sync any more.
        if need.is_met(lease) {
            return Brought::Ready;
        }
        let Some(grant) = lease.grant.clone() else { return Brought::Wait(None) };
        lease.syncing = true;
        lease.users += 1;
        let key = LeaseKey { index, number: lease.number };
        let (continues, covers) = (lease.is_unsynced(), lease.confirmed);
        let durable = matches!(need, Need::Disks { .. });
        let sync = durable && lease.is_adopted();
        let exists = covers > 0;
        let job = SyncJob { lease: key, grant, continues, exists, durable, covers, begun: now };
        Brought::Do(if sync { Action::Sync(job) } else { Action::Adopt(job) })
    }

    /// Tells the masters what has been written; of some chunks only, with `only`. With `release` their leases end. `Ready`:
    /// they know.
    pub(super) fn commit_step(
        &mut self,
        only: Option<&[ChunkIndex]>,
        release: bool,
        now: Duration,
    ) -> Brought {
        if self.changing {
            return Brought::Wait(None);
        }
        let in_scope = |index: &ChunkIndex| only.is_none_or(|only| only.contains(index));
        let indexes: Vec<ChunkIndex> = self
            .leases
            .iter()
            .filter(|(index, lease)| in_scope(index) && lease.is_uncommitted())
            .map(|(index, _)| *index)
            .collect();
        for index in &indexes {
            let first = self.lease_of(*index).must_sync_first() && self.rules.durable;
            let target = self.lease_of(*index).confirmed;
            // Only a version that the copies have may be committed.
            let adopted = self.sync_step(*index, Need::Version, now);
            let brought = match adopted {
                Brought::Ready if first => self.sync_step(*index, Need::Disks { up_to: target }, now),
                other => other,
            };
            match brought {
                Brought::Ready => {}
                other => return other,
            }
        }
        let indexes: Vec<ChunkIndex> = indexes
            .into_iter()
            .filter(|index| self.leases.get(index).is_some_and(Lease::is_uncommitted))
            .collect();
        if indexes.is_empty() && (self.mtime.is_none() || self.landed == 0 || only.is_some()) {
            if self.buffer.is_empty() {
                self.mtime = None;
            }
            return Brought::Ready;
        }
        // The bytes of other chunks are not part of the file yet.
        let last = only.and_then(|only| only.iter().max());
        let end = last.map_or(u64::MAX, |index| index.start() + CHUNK_SIZE);
        Brought::Do(self.commit_job(&indexes, self.landed.min(end), release))
    }

    fn commit_job(&mut self, indexes: &[ChunkIndex], size_at_least: u64, release: bool) -> Action {
        let part = &indexes[..indexes.len().min(self.commit_width)];
        let whole = part.len() == indexes.len();
        let mut job =
            CommitJob { commit: Commit { release, ..Commit::default() }, leases: Vec::new(), whole };
        for index in part {
            let lease = self.lease_of(*index);
            if let (Some(grant), Some(version)) = (lease.grant.as_ref(), lease.adopted) {
                job.commit.chunks.push(CommitChunk { index: *index, chunk: grant.chunk.chunk, version });
                job.leases.push((LeaseKey { index: *index, number: lease.number }, lease.confirmed));
            }
        }
        // A part makes the file as long as its own chunks need.
        let end = part.last().filter(|_| !whole).map_or(u64::MAX, |index| index.start() + CHUNK_SIZE);
        (job.commit.size_at_least, job.commit.mtime) = (size_at_least.min(end), self.mtime);
        self.changing = true;
        Action::Commit(job)
    }

    /// The unsent bytes of a file that is small enough to live in the metadata, one piece at a time.
    pub(super) fn inline_step(&mut self, mark: u64) -> Brought {
        let small = self.is_small() && self.buffer.dirty_end() <= INLINE_MAX;
        if !small || self.buffer.is_clean_up_to(mark) {
            return Brought::Ready;
        }
        if self.changing || self.resizing || self.buffer.is_sending() {
            return Brought::Wait(None);
        }
        match self.buffer.take(Take::UpTo(mark), |_| true) {
            Some(piece) => {
                (self.changing, self.writing_inline) = (true, true);
                Brought::Do(Action::WriteInline(InlineJob { piece, append: None }))
            }
            None => Brought::Ready,
        }
    }

    /// A request under a lease has come to an end.
    pub(super) fn lease_used(&mut self, key: LeaseKey) -> Option<&mut Lease> {
        let lease = self.lease(key)?;
        lease.users = lease.users.saturating_sub(1);
        Some(lease)
    }

    /// A chain has failed a request that is not a piece's.
    pub(super) fn chain_failed(&mut self, key: LeaseKey, grant: &Grant, fault: Fault, now: Duration) {
        let Some(lease) = self.lease(key) else { return };
        match lease.failed(grant, fault, now) {
            Verdict::Again => {}
            // No byte of the file is at stake in it; whoever has some is told by its own write.
            Verdict::Full => self.lose_chunk(key.index, Loss::Unwritable(fault.cause)),
            Verdict::Hopeless => self.lose_all(key, fault.cause),
        }
    }

    /// No copy of a chunk can be written any more: what waits for it is lost, and what was confirmed and is not durable.
    pub(super) fn lose_all(&mut self, key: LeaseKey, cause: ChunkCause) {
        if self.lease(key).is_some_and(Lease::is_gone) {
            self.losses.note(Loss::Unwritable(cause));
        }
        self.given_up = (self.given_up.0 + 1, Some((key.index, cause)));
        self.lose_chunk(key.index, Loss::Unwritable(cause));
    }

    /// Unsent bytes of a chunk cannot be taken.
    pub(super) fn lose_chunk(&mut self, index: ChunkIndex, loss: Loss) {
        if self.buffer.discard_chunk(index, false) {
            self.losses.note(loss);
        }
    }
}
