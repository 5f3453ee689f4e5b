//! Runs operations of a file's core on the thread of whoever wants them, and carries out what they ask for.

use std::sync::Arc;
use std::time::Duration;

use mooseng_types::{ChunkIndex, InodeId};

use super::inode::{Entered, Inode};
use super::messages::WriteHow;
use crate::Result;
use crate::client::Client;
use crate::file::{Action, At, Event, Flush, GiveBack, Operation, Prepare, SendFull, Step, SyncJob};

/// The longest wait for a change before the core is asked again: a bound, in case a change is not told.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);
/// Threads that help a flush with the syncs of further chunks.
const HELPERS_MAX: usize = 7;

impl Client {
    /// Runs an operation to its end.
    pub(crate) fn run<O: Operation>(&self, inode: &Inode, operation: O) -> Result<O::Output> {
        self.run_watched(inode, operation, |_, _| {})
    }

    /// The same; `watch` sees the operation and the file before each action.
    fn run_watched<O: Operation>(
        &self,
        inode: &Inode,
        mut operation: O,
        mut watch: impl FnMut(&O, &Entered<'_>),
    ) -> Result<O::Output> {
        let mut core = inode.enter(self);
        loop {
            let now = self.clock.monotonic();
            match operation.next(&mut core.file, now) {
                Step::Done(result) => {
                    operation.abandon(&mut core.file);
                    return result;
                }
                Step::Wait(until) => {
                    core.wait(until.map_or(WAIT_MAX, |until| until.saturating_sub(now)).min(WAIT_MAX));
                }
                Step::Do(action) => {
                    watch(&operation, &core);
                    drop(core);
                    let happened;
                    (core, happened) = self.act(inode, action);
                    if let Err(error) = happened {
                        operation.abandon(&mut core.file);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Carries an action out and tells the core what came of it. The caller is not inside the core, and is afterwards.
    pub(super) fn act<'a>(&'a self, inode: &'a Inode, action: Action) -> (Entered<'a>, Result<()>) {
        let asked = self.next_stamp();
        let event = self.carry_out(inode.id, action);
        let mut core = inode.enter(self);
        let at = At { now: self.clock.monotonic(), asked, told: self.next_stamp() };
        let happened = core.file.happened(event, at);
        (core, happened)
    }

    /// Carries an action out. Waits for servers; holds no lock.
    pub(crate) fn carry_out(&self, inode: InodeId, action: Action) -> Event {
        match action {
            Action::Grant(key, wish) => {
                Event::Granted(key, self.masters.grant_write(inode, key.index, &wish))
            }
            Action::Prepare(key, grant, step) => {
                let done = match &step {
                    Prepare::Cut(length) => self.chunks.truncate(&grant, *length),
                    Prepare::Fill(content) => self.chunks.write(&grant, 0, content, WriteHow::default()),
                };
                Event::Prepared(key, grant, done)
            }
            Action::Write(job) => {
                let how = WriteHow { sync: false, continues: job.continues, exists: job.exists };
                let done = self.chunks.write(&job.grant, job.offset_in_chunk(), &job.piece.data, how);
                Event::Wrote(job, done)
            }
            Action::Adopt(job) => {
                let how = WriteHow { sync: job.durable, continues: job.continues, exists: job.exists };
                let done = self.chunks.write(&job.grant, 0, &[], how);
                Event::Synced(job, done)
            }
            Action::Sync(job) => self.carry_out_sync(job),
            Action::WriteInline(job) => {
                let done = self.masters.write_inline(inode, &job);
                Event::WroteInline(job, done)
            }
            Action::Commit(job) => {
                let done = self.masters.commit_write(inode, &job.commit);
                Event::Committed(job, done)
            }
            Action::ReleaseLeases(job) => {
                let indexes: Vec<_> = job.leases.iter().map(|key| key.index).collect();
                Event::Released(job, self.masters.release_leases(inode, &indexes))
            }
            Action::Locate(job) => {
                let found = self.masters.locate(inode, &job);
                Event::Located(job, found)
            }
            Action::SetSize(change) => Event::SizeSet(self.masters.set_attr(inode, change)),
        }
    }

    fn carry_out_sync(&self, job: SyncJob) -> Event {
        let done = self.chunks.sync(&job.grant);
        Event::Synced(job, done)
    }

    /// Makes everything written before the call visible to all clients; with `durable`, what `fsync` promises. Further
    /// threads help where several chunks are to be synced.
    pub(crate) fn flush_and_commit(self: &Arc<Self>, inode: &Arc<Inode>, durable: bool) -> Result<()> {
        let flush = Flush::new(&inode.enter(self).file, durable, self.clock.monotonic());
        let mut helped = false;
        self.run_watched(inode, flush, |flush, core| {
            let helpers = flush.helpers(&core.file).min(HELPERS_MAX);
            if helped || helpers == 0 {
                return;
            }
            helped = true;
            for _ in 0..helpers {
                let (client, inode, flush) = (Arc::clone(self), Arc::clone(inode), flush.clone());
                // With a full queue the caller does it alone. An error is the caller's too.
                self.flushers.try_submit(move || drop(client.run(&inode, flush)));
            }
        })
    }

    /// Sends full pieces in the background.
    pub(crate) fn kick(self: &Arc<Self>, inode: &Arc<Inode>) {
        let (client, inode) = (Arc::clone(self), Arc::clone(inode));
        // A full queue means that the threads are busy; what is not taken now is sent by the next flush, which a
        // waiting writer starts too. Errors are kept by the file.
        self.flushers.try_submit(move || drop(client.run(&inode, SendFull)));
    }

    /// Gives all write leases back.
    pub(crate) fn give_back(&self, inode: &Inode) -> Result<()> {
        let now = self.clock.monotonic();
        let give_back = GiveBack::new(&mut inode.enter(self).file, None, now);
        self.run(inode, give_back)
    }

    /// Gives back a write lease that the masters recall; `false` if that cannot be yet.
    pub(crate) fn give_back_recalled(&self, inode: &Inode, index: ChunkIndex) -> Result<bool> {
        let now = self.clock.monotonic();
        let give_back = GiveBack::recalled(&mut inode.enter(self).file, index, now);
        give_back.map_or(Ok(false), |give_back| self.run(inode, give_back).map(|()| true))
    }
}
