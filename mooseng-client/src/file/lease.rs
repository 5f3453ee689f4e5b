//! The write lease of one chunk: how far it is, what was done under it, and what a fault of its chain means. Pure.
//!
//! Three counts tell what is at stake. *Confirmed* counts the changes that every copy of the chain has taken; *synced* says
//! up to which of them a sync has covered; *committed* up to which the masters know. What is confirmed and not synced may
//! be lost when servers stop, so a copy that was interrupted must not go on under a new version as if nothing had happened
//! (RFC 0007).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_types::{CHUNK_SIZE, ChunkCause, ChunkVersion, ServerId};

use crate::chunk::{Fault, Grant, Granted};

/// The first wait after a fault; it doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LONGEST: Duration = Duration::from_millis(400);
/// How long a server that is not reached, or is busy, may keep its copy in the chain, and how long another copy is waited
/// for when the only one is damaged or gone: a restart takes less.
const GRACE: Duration = Duration::from_secs(3);

/// What makes the copies of a new lease ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepare {
    /// Cut every copy to this length: what an earlier writer left beyond it was never part of the file.
    Cut(u64),
    /// Write the small file's content, which has been in the metadata so far.
    Fill(Bytes),
}

/// How far a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A grant is needed.
    Wanted,
    /// The masters are being asked.
    Granting,
    /// Its copies are to be made ready; `running` says whether somebody is at it.
    Preparing { running: bool },
    /// It can be used.
    Held,
}

/// When the next try may be, and since when none has succeeded.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) since: Option<Duration>,
    pub(super) not_before: Duration,
    pause: Duration,
    pub(super) cause: Option<ChunkCause>,
    /// A server that passing trouble keeps from its work, and since when.
    waiting_for: Option<(ServerId, Duration)>,
}

impl Trouble {
    fn pause(&mut self, now: Duration, cause: ChunkCause) {
        self.since.get_or_insert(now);
        self.cause = Some(cause);
        self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_LONGEST);
        self.not_before = now + self.pause;
    }

    /// Whether the server has had its time. Begins to count where it has not begun.
    fn grace_is_over(&mut self, server: ServerId, now: Duration) -> bool {
        match self.waiting_for {
            Some((other, since)) if other == server => now.saturating_sub(since) >= GRACE,
            _ => {
                self.waiting_for = Some((server, now));
                false
            }
        }
    }

    /// Whether the last try was a moment ago.
    pub(super) fn is_recent(&self, now: Duration) -> bool {
        now < self.not_before + GRACE
    }

    /// For how long nothing has succeeded.
    pub(super) fn lasts(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// What is asked of the masters with the next grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Servers to be left out, if a copy that is up remains.
    pub failed: Vec<ServerId>,
    /// A new version, though no server is to be left out.
    pub renew: bool,
    /// No byte was confirmed under the lease: the chunk may be made anew elsewhere.
    pub nothing_written: bool,
}

/// What a fault means to the request that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it again, when and under the grant that the lease says.
    Again,
    /// The disks are full: the bytes cannot be taken.
    Full,
    /// No copy is left that could take anything.
    Hopeless,
}

/// What a grant did to the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It follows the last one directly, or is the first: nobody else had the chunk in between.
    Continues,
    /// Somebody else may have had the chunk. `lost` says whether anything was confirmed and not committed.
    Anew { lost: bool },
}

/// The write lease of one chunk and what was done under it.
#[derive(Debug)]
pub(super) struct Lease {
    /// Tells this lease from an earlier one of the same chunk.
    pub(super) number: u64,
    pub(super) phase: Phase,
    /// The last grant.
    pub(super) grant: Option<Arc<Grant>>,
    prepare: VecDeque<Prepare>,
    prepared: bool,
    /// The length that the copies were cut to, until a sync covers the cut.
    cut: Option<u64>,
    fresh: bool,
    /// The small file's content, as long as the metadata has it too: the commit removes it there.
    fill: Option<Bytes>,
    /// The last version that every copy of its chain is known to have adopted.
    pub(super) adopted: Option<ChunkVersion>,
    /// When the last request began that the whole chain has done: each copy then had all that was confirmed before.
    pub(super) whole_at: Duration,
    /// Chain requests under way.
    pub(super) users: u32,
    pub(super) confirmed: u64,
    pub(super) synced: u64,
    pub(super) committed: u64,
    /// A sync or an adoption is under way.
    pub(super) syncing: bool,
    /// It is being given back: nothing new begins under it.
    pub(super) closing: bool,
    pub(super) trouble: Trouble,
    wish: Wish,
    /// Servers that have said that they stopped while the copy was written.
    interrupted: BTreeSet<ServerId>,
}

impl Lease {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            phase: Phase::Wanted,
            grant: None,
            prepare: VecDeque::new(),
            prepared: false,
            cut: None,
            fresh: false,
            fill: None,
            adopted: None,
            whole_at: Duration::ZERO,
            users: 0,
            confirmed: 0,
            synced: 0,
            committed: 0,
            syncing: false,
            closing: false,
            trouble: Trouble::default(),
            wish: Wish::default(),
            interrupted: BTreeSet::new(),
        }
    }

    /// Whether there is anything to give back that nobody is giving back already.
    pub(super) fn can_be_given_back(&self) -> bool {
        !self.closing && self.phase != Phase::Granting
    }

    pub(super) fn is_unsynced(&self) -> bool {
        self.confirmed > self.synced
    }

    pub(super) fn is_uncommitted(&self) -> bool {
        self.confirmed > self.committed
    }

    /// Whether every copy of the present chain has the present version.
    pub(super) fn is_adopted(&self) -> bool {
        self.phase == Phase::Held
            && self.grant.as_ref().is_some_and(|grant| self.adopted == Some(grant.chunk.version))
    }

    /// Whether the grant of this version is the one that counts.
    pub(super) fn is_newest(&self, version: ChunkVersion) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.chunk.version == version)
    }

    /// What to ask of the masters.
    pub(super) fn begin_grant(&mut self) -> Wish {
        self.phase = Phase::Granting;
        let nothing_written = self.confirmed == 0 && self.adopted.is_none();
        Wish { nothing_written, ..std::mem::take(&mut self.wish) }
    }

    /// The masters have given a grant.
    pub(super) fn granted(&mut self, granted: Granted) -> Arrival {
        let Granted { grant, valid_length, inline, fresh, .. } = granted;
        let continues = self.grant.as_ref().is_some_and(|last| {
            let (last, new) = (&last.chunk, &grant.chunk);
            // Versions count the leases: with one between, somebody else may have had the chunk.
            last.chunk == new.chunk && (new.version == last.version || new.version == last.version.next())
        });
        let arrival = if continues {
            Arrival::Continues
        } else {
            let lost = self.is_uncommitted() || self.is_unsynced();
            (self.confirmed, self.synced, self.committed) = (0, 0, 0);
            (self.adopted, self.prepared) = (None, false);
            self.interrupted.clear();
            Arrival::Anew { lost }
        };
        self.fresh = fresh;
        self.fill = inline.filter(|content| !content.is_empty());
        // A copy that has stopped may have lost a cut that nothing was confirmed upon: it is made again.
        if !self.prepared || self.confirmed == 0 {
            self.prepared = false;
            self.prepare.clear();
            self.cut = Some(valid_length).filter(|length| !fresh && *length < CHUNK_SIZE);
            self.prepare.extend(self.cut.map(Prepare::Cut));
            self.prepare.extend(self.fill.clone().map(Prepare::Fill));
        } else {
            // What has been committed meanwhile is part of the file.
            self.cut = self.cut.map(|_| valid_length).filter(|length| *length < CHUNK_SIZE);
        }
        self.grant = Some(Arc::new(grant));
        self.phase = Phase::Preparing { running: false };
        self.become_ready();
        arrival
    }

    fn become_ready(&mut self) {
        if self.prepare.is_empty() {
            self.prepared = true;
            self.phase = Phase::Held;
        }
    }

    /// The next step of making ready.
    pub(super) fn begin_prepare(&mut self) -> Option<Prepare> {
        let step = self.prepare.front().cloned()?;
        self.phase = Phase::Preparing { running: true };
        Some(step)
    }

    /// A step of making ready is done by the whole chain.
    pub(super) fn prepared(&mut self, version: ChunkVersion) {
        if self.is_newest(version) && matches!(self.phase, Phase::Preparing { .. }) {
            if matches!(self.prepare.pop_front(), Some(Prepare::Fill(_))) {
                self.confirmed += 1;
            }
            self.adopted = Some(version);
            self.succeeded();
            self.phase = Phase::Preparing { running: false };
            self.become_ready();
        }
    }

    /// Every copy of the chain has taken a change that was sent at `begun`.
    pub(super) fn confirm(&mut self, version: ChunkVersion, begun: Duration) {
        self.confirmed += 1;
        self.adopted = Some(version);
        self.whole_at = self.whole_at.max(begun);
        self.succeeded();
    }

    fn succeeded(&mut self) {
        self.trouble = Trouble::default();
    }

    /// A sync or adoption of the whole chain is done that began at `begun`; `covers` tells which changes are durable.
    pub(super) fn adopted(&mut self, version: ChunkVersion, covers: Option<u64>, begun: Duration) {
        if !self.is_newest(version) {
            return;
        }
        self.adopted = Some(version);
        self.whole_at = self.whole_at.max(begun);
        self.synced = self.synced.max(covers.unwrap_or(0));
        if covers.is_some() {
            self.cut = None;
        }
        if !self.is_unsynced() {
            self.interrupted.clear();
        }
        self.succeeded();
    }

    /// A request under `grant` has failed. What an older grant meets says nothing new.
    pub(super) fn failed(&mut self, grant: &Grant, fault: Fault, now: Duration) -> Verdict {
        let first = grant.servers.first().map(|placement| placement.server);
        let server =
            fault.server.filter(|server| grant.servers.iter().any(|at| at.server == *server)).or(first);
        if !self.is_newest(grant.chunk.version) {
            return Verdict::Again;
        }
        if let Phase::Preparing { running } = &mut self.phase {
            *running = false;
        }
        self.trouble.pause(now, fault.cause);
        let Some(server) = server else {
            self.phase = Phase::Wanted;
            return Verdict::Again;
        };
        match fault.cause {
            ChunkCause::Full if self.confirmed > 0 || self.adopted.is_some() || !self.fresh => {
                self.trouble = Trouble::default();
                return Verdict::Full;
            }
            ChunkCause::Damaged | ChunkCause::NoCopy
                if grant.servers.len() == 1 && self.trouble.lasts(now) >= GRACE =>
            {
                return Verdict::Hopeless;
            }
            ChunkCause::Fenced | ChunkCause::TokenExpired | ChunkCause::TokenInvalid => {
                self.phase = Phase::Wanted;
            }
            ChunkCause::Interrupted if !self.is_unsynced() => {
                self.wish.renew = true;
                self.phase = Phase::Wanted;
            }
            ChunkCause::Interrupted => {
                self.interrupted.insert(server);
                self.leave_out(server);
            }
            // Our own time-out names nobody: the chain is asked once more, and says who it is.
            ChunkCause::Silent if fault.server.is_some() => self.leave_out(server),
            ChunkCause::Busy
            | ChunkCause::Garbled
            | ChunkCause::Stopping
            | ChunkCause::Unreachable
            | ChunkCause::Silent => {
                if self.trouble.grace_is_over(server, now) {
                    self.leave_out(server);
                }
            }
            _ => self.leave_out(server),
        }
        Verdict::Again
    }

    fn leave_out(&mut self, server: ServerId) {
        if !self.wish.failed.contains(&server) {
            self.wish.failed.push(server);
        }
        self.phase = Phase::Wanted;
    }

    /// Whether every server of the chain has lost what no sync had covered.
    pub(super) fn is_lost(&self) -> bool {
        self.is_unsynced()
            && self.phase == Phase::Held
            && self.grant.as_ref().is_some_and(|grant| {
                grant.servers.iter().all(|placement| self.interrupted.contains(&placement.server))
            })
    }

    /// What was not synced is given up, and told; the copies go on with what they have, cut anew if the cut is among what
    /// they may have lost, and with the content that the metadata still has.
    pub(super) fn give_up_unsynced(&mut self) {
        self.synced = self.confirmed;
        self.interrupted.clear();
        self.prepare.extend(self.cut.map(Prepare::Cut));
        self.prepare.extend(self.fill.clone().map(Prepare::Fill));
        if !self.prepare.is_empty() {
            self.prepared = false;
            self.phase = Phase::Preparing { running: false };
        }
    }

    /// Whether a commit would remove content from the metadata that no disk of a chunkserver has yet.
    pub(super) fn must_sync_first(&self) -> bool {
        self.fill.is_some() && self.is_unsynced()
    }

    /// The masters know all changes up to number `confirmed`.
    pub(super) fn committed(&mut self, confirmed: u64) {
        self.committed = self.committed.max(confirmed);
        self.fill = None;
    }

    /// No grant came.
    pub(super) fn not_granted(&mut self, now: Duration) {
        self.phase = Phase::Wanted;
        self.trouble.pause(now, ChunkCause::Unreachable);
    }

    /// The masters say that it is not held any more. Tells whether anything confirmed is lost with it. What it has met counts
    /// on: the next request does not wait as long again for what this one has waited for in vain.
    pub(super) fn is_gone(&mut self) -> bool {
        let lost = self.is_uncommitted() || self.is_unsynced();
        let (number, trouble) = (self.number, std::mem::take(&mut self.trouble));
        let (users, closing, syncing) = (self.users, self.closing, self.syncing);
        *self = Self { users, closing, syncing, trouble, ..Self::new(number) };
        lost
    }
}
