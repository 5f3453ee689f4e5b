//! Sending what was written: the background's share, and what `close(2)` and `fsync(2)` wait for. Pure.

use std::time::Duration;

use mooseng_types::ChunkIndex;

use super::buffer::Take;
use super::steps::{Brought, Need, sooner};
use super::{File, Lease, Operation, Step};
use crate::ClientError;

/// The background's share: full pieces, as long as there are any.
#[derive(Debug, Clone, Copy)]
pub struct SendFull;

impl Operation for SendFull {
    type Output = ();

    /// Ends where others are at work or a pause lasts: a flush does the rest.
    fn next(&mut self, file: &mut File, now: Duration) -> Step<()> {
        match file.send_step(Take::Full, false, now) {
            Brought::Do(action) => Step::Do(action),
            Brought::Ready | Brought::Wait(_) => Step::Done(Ok(())),
        }
    }
}

/// Everything written before the call is at the chunkservers and known to the masters; with `durable`, on the disks.
#[derive(Debug, Clone)]
pub struct Flush {
    mark: u64,
    durable: bool,
    begun: Duration,
    until: Duration,
    /// What is to be synced and committed: known once all is sent.
    targets: Option<Vec<(ChunkIndex, u64, u64)>>,
    told_masters: bool,
    only_send: bool,
}

impl Flush {
    /// A flush of what `file` holds now.
    #[must_use]
    pub fn new(file: &File, durable: bool, now: Duration) -> Self {
        let durable = durable && file.rules.durable;
        let until = now + file.rules.patience;
        Self {
            mark: file.buffer.last_write(),
            durable,
            begun: now,
            until,
            targets: None,
            told_masters: false,
            only_send: false,
        }
    }

    /// The same without a commit: to make room in the write buffer.
    #[must_use]
    pub fn only_send(file: &File, now: Duration) -> Self {
        Self { only_send: true, ..Self::new(file, false, now) }
    }

    /// Further threads that could help with the syncs of other chunks, each with a clone of this operation.
    #[must_use]
    pub fn helpers(&self, file: &File) -> usize {
        let Some(targets) = self.targets.as_ref().filter(|_| self.durable) else { return 0 };
        let open = |(index, number, target): &&(ChunkIndex, u64, u64)| {
            file.leases
                .get(index)
                .is_some_and(|lease| lease.number == *number && lease.synced < *target && !lease.syncing)
        };
        targets.iter().filter(open).count()
    }

    fn send(&self, file: &mut File, now: Duration) -> Brought {
        if file.buffer.is_clean_up_to(self.mark) {
            return Brought::Ready;
        }
        match file.inline_step(self.mark) {
            Brought::Ready => {}
            other => return other,
        }
        match file.send_step(Take::UpTo(self.mark), false, now) {
            // What is left is being sent by others.
            Brought::Ready if !file.buffer.is_clean_up_to(self.mark) => Brought::Wait(None),
            other => other,
        }
    }

    fn sync(&mut self, file: &mut File, now: Duration) -> Brought {
        let targets = self.targets.get_or_insert_with(|| {
            let target = |(index, lease): (&ChunkIndex, &Lease)| (*index, lease.number, lease.confirmed);
            file.leases.iter().map(target).collect()
        });
        let mut wait = None;
        let mut waiting = false;
        for (index, number, target) in targets {
            if file.leases.get(index).is_none_or(|lease| lease.number != *number) {
                // Whoever gave the lease back has synced it; if it was lost, that has been noted.
                continue;
            }
            let need = match self.durable {
                true => Need::Disks { up_to: *target },
                // What was lost before the call is to be told by it.
                false => Need::Whole { since: self.begun },
            };
            match file.sync_step(*index, need, now) {
                Brought::Ready => {}
                Brought::Do(action) => return Brought::Do(action),
                Brought::Wait(until) => {
                    waiting = true;
                    wait = sooner(wait, until);
                }
            }
        }
        if waiting { Brought::Wait(wait) } else { Brought::Ready }
    }

    fn commit(&mut self, file: &mut File, now: Duration) -> Brought {
        let targets = self.targets.as_deref().unwrap_or_default();
        let known = targets.iter().all(|(index, number, target)| {
            file.leases.get(index).is_none_or(|lease| lease.number != *number || lease.committed >= *target)
        });
        // One look more, for the length and the time of what needs no chunk.
        if known && self.told_masters {
            return Brought::Ready;
        }
        let brought = file.commit_step(None, false, now);
        self.told_masters |= !matches!(brought, Brought::Wait(_));
        brought
    }
}

impl Operation for Flush {
    type Output = ();

    fn next(&mut self, file: &mut File, now: Duration) -> Step<()> {
        let brought = match self.send(file, now) {
            Brought::Ready if self.only_send => Brought::Ready,
            Brought::Ready => match self.sync(file, now) {
                Brought::Ready => self.commit(file, now),
                other => other,
            },
            other => other,
        };
        match brought {
            Brought::Ready => Step::Done(Ok(())),
            Brought::Do(action) => Step::Do(action),
            Brought::Wait(_) if now >= self.until => Step::Done(Err(gave_up("flush", file.rules.patience))),
            Brought::Wait(until) => Step::Wait(sooner(until, Some(self.until))),
        }
    }
}

/// An operation that has taken as long as it may.
pub(super) fn gave_up(what: &'static str, patience: Duration) -> ClientError {
    let after_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    ClientError::GaveUp { what, after_ms, last: "see the log for the servers that did not answer".into() }
}
