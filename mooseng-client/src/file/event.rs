//! What came of actions, and what it changes. Pure.

use std::time::Duration;

use mooseng_types::{Attr, ChunkCause, FsError};

use super::buffer::Piece;
use super::content::{Layout, Pages};
use super::lease::{Arrival, Verdict};
use super::{CommitJob, Event, File, InlineJob, LeaseKey, LocateJob, ReleaseJob, SyncJob, WriteJob};
use crate::chunk::{Fault, Granted, Located, Opened};
use crate::{ClientError, Loss};

/// When something happened: by the clock, and by the client's count of what the masters have told.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Monotonic.
    pub now: Duration,
    /// Drawn before the action was carried out.
    pub asked: u64,
    /// Drawn after it.
    pub told: u64,
}

/// Chunks of one file whose troubles are remembered after their leases.
const TROUBLES_MAX: usize = 64;

/// What a commit or a grant that failed means to the bytes behind it.
fn loss_of(error: &ClientError) -> Loss {
    match error {
        ClientError::Refused(refusal) => Loss::Refused(*refusal),
        ClientError::Lost(loss) => *loss,
        _ => Loss::NoAnswer,
    }
}

impl File {
    /// Takes in what came of an action. An error is one of the operation that carried it out, and ends it; what programs
    /// are to be told otherwise is kept (see [`File::tell`]).
    pub fn happened(&mut self, event: Event, at: At) -> Result<(), ClientError> {
        self.news = true;
        match event {
            Event::Granted(key, result) => self.granted(key, result, at),
            Event::Prepared(key, grant, result) => {
                if let Some(lease) = self.lease_used(key) {
                    match result {
                        Ok(()) => lease.prepared(grant.chunk.version),
                        Err(fault) => self.chain_failed(key, &grant, fault, at.now),
                    }
                }
                Ok(())
            }
            Event::Wrote(job, result) => {
                self.wrote(&job, result, at.now);
                Ok(())
            }
            Event::Synced(job, result) => {
                self.synced(&job, result, at.now);
                Ok(())
            }
            Event::WroteInline(job, result) => {
                let outcome = self.wrote_inline(&job, result, at);
                self.changed(outcome)
            }
            Event::Committed(job, result) => {
                let outcome = self.committed(&job, result, at);
                self.changed(outcome)
            }
            Event::Released(job, result) => {
                let outcome = self.released(&job, result);
                self.changed(outcome)
            }
            Event::Located(job, result) => self.located(&job, result, at),
            Event::SizeSet(result) => {
                let outcome = self.size_set(result, at);
                self.changed(outcome)
            }
        }
    }

    /// A change of ours has been answered: what was told meanwhile and is still news is somebody else's doing.
    fn changed(&mut self, outcome: Result<(), ClientError>) -> Result<(), ClientError> {
        if let Some((attr, asked, told)) = self.unexplained.take() {
            self.take_attr(attr, asked, told, false);
        }
        outcome
    }

    fn granted(
        &mut self,
        key: LeaseKey,
        result: Result<Granted, ClientError>,
        at: At,
    ) -> Result<(), ClientError> {
        if self.lease(key).is_none() {
            return Ok(());
        }
        let granted = match result {
            Ok(granted) => granted,
            Err(error) => return self.not_granted(key, &error, at.now),
        };
        let attr = granted.attr;
        let arrival = self.lease_of(key.index).granted(granted);
        if let Arrival::Anew { lost } = arrival {
            // Its place was the file's end as it was before somebody else may have written there.
            let appended = self.buffer.discard_chunk(key.index, true);
            if lost || appended {
                self.losses.note(Loss::LeaseTaken);
            }
        }
        if let Some(attr) = attr {
            self.take_attr(attr, at.asked, at.told, false);
        }
        Ok(())
    }

    fn not_granted(&mut self, key: LeaseKey, error: &ClientError, now: Duration) -> Result<(), ClientError> {
        let lease = self.lease_of(key.index);
        lease.not_granted(now);
        let at_stake = lease.is_uncommitted() || lease.is_unsynced();
        // With something at stake it is tried on; else nobody is served by that.
        if !at_stake && lease.users == 0 {
            self.leases.remove(&key.index);
        }
        let loss = match error {
            ClientError::Refused(FsError::NoSpace) => Loss::Unwritable(ChunkCause::Full),
            other => loss_of(other),
        };
        if self.buffer.discard_chunk(key.index, false) {
            self.losses.note(loss);
            // The bytes of other chunks are no part of the refusal: a flush goes on with them.
            if matches!(error, ClientError::Refused(_)) && !at_stake {
                return Ok(());
            }
        }
        Err(error.clone())
    }

    fn wrote(&mut self, job: &WriteJob, result: Result<(), Fault>, now: Duration) {
        let version = job.grant.chunk.version;
        let Some(lease) = self.lease_used(job.lease) else {
            return self.buffer.put_back(&job.piece);
        };
        match result {
            Ok(()) if lease.is_newest(version) => {
                lease.confirm(version, job.begun);
                self.landed = self.landed.max(job.piece.offset + job.piece.data.len() as u64);
                if job.lease.index.raw() == 0 {
                    self.content.set_layout(Layout::Chunks);
                }
                self.buffer.finish(&job.piece);
            }
            // The lease was replaced meanwhile; it is not certain which copies have the piece.
            Ok(()) => self.buffer.put_back(&job.piece),
            Err(fault) => match lease.failed(&job.grant, fault, now) {
                Verdict::Again => self.buffer.put_back(&job.piece),
                Verdict::Full => self.lose_piece(&job.piece, Loss::Unwritable(fault.cause)),
                Verdict::Hopeless => {
                    self.lose_piece(&job.piece, Loss::Unwritable(fault.cause));
                    self.lose_all(job.lease, fault.cause);
                }
            },
        }
    }

    fn lose_piece(&mut self, piece: &Piece, loss: Loss) {
        self.buffer.finish(piece);
        self.losses.note(loss);
    }

    fn synced(&mut self, job: &SyncJob, result: Result<(), Fault>, now: Duration) {
        let version = job.grant.chunk.version;
        let Some(lease) = self.lease_used(job.lease) else { return };
        lease.syncing = false;
        match result {
            Ok(()) => lease.adopted(version, job.durable.then_some(job.covers), job.begun),
            Err(fault) => self.chain_failed(job.lease, &job.grant, fault, now),
        }
    }

    fn wrote_inline(
        &mut self,
        job: &InlineJob,
        result: Result<Attr, ClientError>,
        at: At,
    ) -> Result<(), ClientError> {
        (self.changing, self.writing_inline) = (false, false);
        match result {
            Ok(attr) => {
                let length = job.piece.data.len() as u64;
                let offset =
                    if job.append.is_some() { attr.size.saturating_sub(length) } else { job.piece.offset };
                self.buffer.finish(&job.piece);
                self.placed.extend(job.append.map(|number| (number, offset)));
                if self.buffer.is_empty() {
                    self.mtime = None;
                }
                let known = self.inline().is_some();
                if self.take_attr(attr, at.told, at.told, true) && known && self.inline().is_some() {
                    self.content.written_inline(offset as usize, &job.piece.data);
                }
                Ok(())
            }
            // The masters see it otherwise: a chunk is its place.
            Err(ClientError::Refused(FsError::Invalid | FsError::NotSupported | FsError::FileTooLarge)) => {
                self.content.set_layout(Layout::Chunks);
                self.content.forget_places();
                self.buffer.put_back(&job.piece);
                Ok(())
            }
            Err(error) if job.append.is_some() => Err(error),
            Err(error) => {
                self.lose_piece(&job.piece, loss_of(&error));
                Ok(())
            }
        }
    }

    fn committed(
        &mut self,
        job: &CommitJob,
        result: Result<Attr, ClientError>,
        at: At,
    ) -> Result<(), ClientError> {
        self.changing = false;
        match result {
            Ok(attr) => {
                for (key, confirmed) in &job.leases {
                    if let Some(lease) = self.lease(*key) {
                        lease.committed(*confirmed);
                    }
                    // What was looked up before may count again when the lease is over.
                    self.content.forget_place(key.index);
                    if job.commit.release {
                        self.end_lease(*key);
                    }
                }
                if job.whole {
                    self.commit_width = mooseng_protocol::limits::COMMIT_MAX;
                    if self.buffer.is_empty() && self.mtime == job.commit.mtime {
                        self.mtime = None;
                    }
                    if self.landed == job.commit.size_at_least {
                        self.landed = 0;
                    }
                }
                self.take_attr(attr, at.told, at.told, true);
                Ok(())
            }
            Err(ClientError::Refused(refusal)) => {
                self.commit_refused(job, refusal);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The masters have refused a commit as a whole. Unless a lease was renewed meanwhile, one of them is lost.
    fn commit_refused(&mut self, job: &CommitJob, refusal: FsError) {
        let renewed =
            job.commit.chunks.iter().any(|chunk| {
                self.leases.get(&chunk.index).is_some_and(|lease| !lease.is_newest(chunk.version))
            });
        if refusal == FsError::LeaseLost && (renewed || job.leases.len() > 1) {
            self.commit_width = if renewed { self.commit_width } else { 1 };
            return;
        }
        let mut lost = job.leases.is_empty();
        for (key, _) in &job.leases {
            if let Some(lease) = self.lease(*key) {
                lost |= lease.is_gone();
            }
            self.content.forget_place(key.index);
        }
        if job.whole {
            self.mtime = None;
            self.landed = 0;
        }
        if lost {
            let taken = refusal == FsError::LeaseLost;
            self.losses.note(if taken { Loss::LeaseTaken } else { Loss::Refused(refusal) });
        }
    }

    fn released(&mut self, job: &ReleaseJob, result: Result<(), ClientError>) -> Result<(), ClientError> {
        self.changing &= !job.held;
        match result {
            // Removed meanwhile, and the leases with it.
            Ok(()) | Err(ClientError::Refused(FsError::NotFound | FsError::Stale | FsError::LeaseLost)) => {
                job.leases.iter().for_each(|key| self.end_lease(*key));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Nothing is held under the lease any more. What it has met counts for the next one.
    pub(super) fn end_lease(&mut self, key: LeaseKey) {
        if self.lease(key).is_none() {
            return;
        }
        if let Some(lease) = self.leases.remove(&key.index)
            && lease.trouble.since.is_some()
        {
            if self.troubles.len() >= TROUBLES_MAX {
                self.troubles.clear();
            }
            self.troubles.insert(key.index, lease.trouble);
        }
        self.content.forget_place(key.index);
    }

    fn located(
        &mut self,
        job: &LocateJob,
        result: Result<(Opened, Vec<Located>), ClientError>,
        at: At,
    ) -> Result<(), ClientError> {
        let (opened, chunks) = result?;
        if job.asked != self.content.places() {
            self.take_attr(opened.attr, at.asked, at.told, false);
            return Ok(());
        }
        let inline = opened.inline.clone();
        self.learn_opened(opened, at.asked, at.told);
        self.content.locate(job.first, job.count, chunks, inline);
        Ok(())
    }

    fn size_set(&mut self, result: Result<Attr, ClientError>, at: At) -> Result<(), ClientError> {
        (self.changing, self.resizing) = (false, false);
        let attr = result?;
        self.content.forget_places();
        self.content.touch();
        self.landed = 0;
        if self.buffer.is_empty() {
            self.mtime = None;
        }
        if !self.take_attr(attr, at.told, at.told, true) {
            return Ok(());
        }
        // Where somebody else has changed the file before us, its content is not known any more.
        let cut = self.inline().filter(|content| attr.size <= content.len() as u64);
        match cut.map(|content| content.slice(..attr.size as usize)) {
            Some(content) => self.content.learn_inline(content),
            None if attr.size == 0 => self.content.learn_inline(bytes::Bytes::new()),
            None => self.content.set_layout(Layout::Chunks),
        }
        Ok(())
    }

    /// The masters have told attributes, asked for at `asked`, which may be older than what is known.
    pub fn learn(&mut self, attr: Attr, asked: u64, told: u64) {
        self.take_attr(attr, asked, told, false);
    }

    /// The same with what an open or a look at the chunks tells of the content.
    pub fn learn_opened(&mut self, opened: Opened, asked: u64, told: u64) {
        let counts = self.take_attr(opened.attr, asked, told, false);
        if let Some(content) = opened.inline
            && counts
            && !self.changing
            && self.is_clean()
            && self.leases.is_empty()
        {
            self.content.learn_inline(content);
        }
    }

    fn take_attr(&mut self, attr: Attr, asked: u64, told: u64, mine: bool) -> bool {
        let next = self.content.attr().map(|known| known.content_version.wrapping_add(1));
        if self.changing && !mine && next == Some(attr.content_version) {
            self.unexplained = Some((attr, asked, told));
            return false;
        }
        if !self.content.learn(attr, asked, told, mine) {
            return false;
        }
        // What the masters do not know yet makes the file longer; what was known before says nothing: it may have been cut.
        self.size = match self.is_clean() {
            true => attr.size,
            false => attr.size.max(self.buffer.end()).max(self.landed),
        };
        true
    }

    /// Attributes as programs here are to see them: the newest that are known, with what was written here and is not
    /// committed. `None` if none are known.
    #[must_use]
    pub fn seen(&self) -> Option<Attr> {
        let mut attr = self.content.attr()?;
        if !self.is_clean() {
            attr.size = attr.size.max(self.size);
            if let Some(mtime) = self.mtime {
                attr.mtime = mtime;
                attr.ctime = attr.ctime.max(mtime);
            }
        }
        Some(attr)
    }

    /// A program opens the file, of which the masters have just told: what pages of it the kernel may have. `remembered` is
    /// the content version that they were of when the file was last known here.
    pub fn opened(&mut self, remembered: Option<u64>) -> Pages {
        self.content.opened(remembered)
    }

    /// The content version that the kernel's pages are of.
    #[must_use]
    pub fn pages(&self) -> Option<u64> {
        self.content.pages()
    }

    /// Whether somebody else has changed the content since the last call: caches of it are to be dropped.
    pub fn take_foreign_change(&mut self) -> bool {
        self.content.take_foreign()
    }
}
