//! Runs all workers, each at its own pace, and knows what each is doing.

use std::time::Duration;

use mooseng_meta::{Command, Response};
use mooseng_types::{ChunkId, ClusterId};

use super::delete_dead_chunks::DeleteDeadChunks;
use super::end_maintenance::EndMaintenance;
use super::expire_sessions::ExpireSessions;
use super::found_state::FoundState;
use super::heal::Heal;
use super::index_chunks::IndexChunks;
use super::reap_orphans::ReapOrphans;
use super::{Jobs, Order, Round, Surroundings, Worker, refusal};
use crate::group::{Group, Now, Unready};
use crate::repair::Limits;

/// How often the workers look around.
const INTERVAL: Duration = Duration::from_millis(50);
/// How often they do where they have found nothing to do and nothing has changed since. What else they go by are reports of
/// chunkservers and the time, and both can wait for so long.
const INTERVAL_AT_REST: Duration = Duration::from_millis(500);

/// What a worker does, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct WorkerStatus {
    pub(crate) name: &'static str,
    /// Commands that it has proposed and that are not applied yet.
    pub(crate) under_way: u64,
    /// Commands of its own that were applied since this process began.
    pub(crate) applied: u64,
    /// Orders that it has given.
    pub(crate) ordered: u64,
    /// Commands that were refused, or that got lost with a leader.
    pub(crate) refused: u64,
    /// Why the last one was.
    pub(crate) trouble: String,
}

#[derive(Debug)]
struct Hired {
    worker: Box<dyn Worker + Send>,
    status: WorkerStatus,
}

/// Which of the workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WorkerId(usize);

/// All workers of the leader.
#[derive(Debug)]
pub(crate) struct Supervisor {
    workers: Vec<Hired>,
    last: Duration,
    /// The last entry applied when they found nothing to do.
    at_rest: Option<u64>,
    #[cfg(test)]
    pub(crate) turns: usize,
}

/// What a round of all workers has led to.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) commands: Vec<(WorkerId, Command)>,
    pub(crate) orders: Vec<Order>,
}

impl Supervisor {
    /// Nobody has worked yet.
    pub(crate) fn new(cluster: ClusterId, copies: u8, session_timeout: Duration, limits: Limits) -> Self {
        let workers: Vec<Box<dyn Worker + Send>> = vec![
            Box::new(FoundState { cluster, copies }),
            Box::new(ExpireSessions { timeout: session_timeout }),
            Box::new(ReapOrphans),
            Box::new(IndexChunks),
            Box::new(Heal::new(limits)),
            Box::new(DeleteDeadChunks::default()),
            Box::new(EndMaintenance),
        ];
        let hired = |worker: Box<dyn Worker + Send>| {
            let status = WorkerStatus { name: worker.name(), ..WorkerStatus::default() };
            Hired { worker, status }
        };
        Self {
            workers: workers.into_iter().map(hired).collect(),
            last: Duration::ZERO,
            at_rest: None,
            #[cfg(test)]
            turns: 0,
        }
    }

    /// This master has begun to lead.
    pub(crate) fn begin(&mut self) {
        (self.last, self.at_rest) = (Duration::ZERO, None);
        self.workers.iter_mut().for_each(|hired| hired.worker.begin());
    }

    /// Time has passed: those work that wait for nothing. The state must be this leader's to read.
    pub(crate) fn turn(
        &mut self,
        Now { mono: now, wall }: Now,
        group: &mut Group,
        Surroundings { callers, registry, sessions, ledger }: Surroundings<'_>,
    ) -> Work {
        let mut work = Work::default();
        let applied = group.state().applied_index();
        let at_rest = self.at_rest == Some(applied) && !ledger.is_due(now);
        let interval = if at_rest { INTERVAL_AT_REST } else { INTERVAL };
        if now.saturating_sub(self.last) < interval {
            return work;
        }
        (self.last, self.at_rest) = (now, None);
        #[cfg(test)]
        {
            self.turns += 1;
        }
        // The group comes first: with a master less than there should be, nothing else is as urgent.
        if !group.node().may_serve_reads(now) || !group.mend(now) {
            return work;
        }
        let founded = group.state().settings().is_some();
        for (index, hired) in self.workers.iter_mut().enumerate() {
            if hired.status.under_way > 0 || (hired.worker.needs_state() && !founded) {
                continue;
            }
            let jobs = Jobs::default();
            let mut round = Round { now, wall, group, callers, registry, sessions, ledger, jobs };
            hired.worker.work(&mut round);
            let Jobs { commands, orders } = round.jobs;
            hired.status.under_way = commands.len() as u64;
            hired.status.ordered += orders.len() as u64;
            work.commands.extend(commands.into_iter().map(|command| (WorkerId(index), command)));
            work.orders.extend(orders);
        }
        let under_way = self.workers.iter().any(|hired| hired.status.under_way > 0);
        let idle = founded && !under_way && work.orders.is_empty();
        self.at_rest = idle.then_some(applied);
        work
    }

    /// A worker's command was applied.
    pub(crate) fn applied(&mut self, id: WorkerId, response: &Response) {
        let Some(hired) = self.workers.get_mut(id.0) else { return };
        match refusal(response) {
            None => {
                hired.status.under_way = hired.status.under_way.saturating_sub(1);
                hired.status.applied += 1;
            }
            Some(why) => hired.refused(why),
        }
    }

    /// A worker's command was not proposed, or got lost: what it is for is found again.
    pub(crate) fn refused(&mut self, id: WorkerId, why: &Unready) {
        if let Some(hired) = self.workers.get_mut(id.0) {
            hired.refused(why.to_string());
        }
    }

    /// A chunkserver could not carry out an order about this chunk.
    pub(crate) fn failed(&mut self, now: Duration, chunk: ChunkId) {
        self.workers.iter_mut().for_each(|hired| hired.worker.failed(now, chunk));
    }

    /// What each worker does.
    pub(crate) fn status(&self) -> impl Iterator<Item = &WorkerStatus> {
        self.workers.iter().map(|hired| &hired.status)
    }
}

impl Hired {
    fn refused(&mut self, why: String) {
        self.status.under_way = self.status.under_way.saturating_sub(1);
        self.status.refused += 1;
        if self.status.trouble != why {
            tracing::warn!(
                worker = self.status.name,
                why,
                "a command of a worker was refused; it tries again"
            );
        }
        self.status.trouble = why;
    }
}
