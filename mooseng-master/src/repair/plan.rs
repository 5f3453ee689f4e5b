//! Which steps are taken now: the most urgent first, within the limits of each server, and nobody for ever left out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooseng_types::{ChunkId, ChunkVersion, ServerId};

use super::{Ledger, Limits, Step, Urgency};

/// Chunks of one urgency looked at in one round.
const LOOKED_AT_MAX: usize = 256;
/// Changes of rows asked for in one round.
const CHANGES_MAX: usize = 256;
/// A chunk whose job has failed rests for so long.
const REST: Duration = Duration::from_secs(5);

/// What is to be done about a chunk now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// The row is to count this server's copy.
    Add { server: ServerId, version: ChunkVersion },
    /// A version is to be given out to nobody, by which copies that may differ are settled.
    BeginSettle { granted: ChunkVersion },
    /// A server's copy is chosen, and takes on this version.
    Settle { server: ServerId, version: ChunkVersion },
    /// All copies are like the chosen one.
    EndSettle { version: ChunkVersion },
    /// The row is not to count this server's copy any more.
    Strike { server: ServerId },
    /// A server is to fetch a copy of this version; with `replace` in place of one of the same version that is in doubt.
    Fetch { server: ServerId, source: ServerId, version: ChunkVersion, replace: bool },
    /// A server is to verify its copy.
    Verify { server: ServerId },
    /// A server is to put its copy into quarantine.
    Condemn { server: ServerId, version: ChunkVersion },
}

/// What the planner asks about the cluster.
pub(crate) trait Room {
    /// The next step of a chunk as it is now, and about how many bytes a copy of it has; `None` if there is none any more.
    fn step(&mut self, chunk: ChunkId) -> Option<(Step, u64)>;

    /// A server for a new copy of `chunk`: one that has none, with room, and of which `usable` says that it has time.
    fn target(&mut self, chunk: ChunkId, usable: &dyn Fn(ServerId) -> bool) -> Option<ServerId>;

    /// Whether a server has a copy of `chunk` that is in doubt.
    fn has_in_doubt(&self, server: ServerId, chunk: ChunkId) -> bool;
}

/// What a server has been given to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Load {
    fetches: usize,
    fetch_bytes: u64,
    verifications: usize,
    removals: usize,
}

/// What is done for a step, and what it takes of servers.
type Assigned = (Vec<Job>, Vec<(ServerId, Part)>);

/// A server's part in a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Fetch(u64),
    Verification,
    Removal,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct UnderWay {
    step: Step,
    parts: Vec<(ServerId, Part)>,
    until: Duration,
}

/// What a round comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    /// What is to be done now.
    pub(crate) jobs: Vec<(ChunkId, Job)>,
    /// Chunks to be looked at again: what was to be done about them is not any more. A server that tells of all its copies does not
    /// name those that it has no more.
    pub(crate) stale: Vec<ChunkId>,
}

/// The jobs that are under way, and how the planner goes through those that wait.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    under_way: BTreeMap<ChunkId, UnderWay>,
    by_time: BTreeSet<(Duration, ChunkId)>,
    loads: BTreeMap<ServerId, Load>,
    /// Up to here each urgency was looked at in this turn.
    looked_to: BTreeMap<Urgency, ChunkId>,
}

impl Load {
    fn change(&mut self, part: Part, more: bool) {
        let count = |count: &mut usize| *count = if more { *count + 1 } else { count.saturating_sub(1) };
        match part {
            Part::Fetch(bytes) => {
                count(&mut self.fetches);
                let sum = &mut self.fetch_bytes;
                *sum = if more { sum.saturating_add(bytes) } else { sum.saturating_sub(bytes) };
            }
            Part::Verification => count(&mut self.verifications),
            Part::Removal => count(&mut self.removals),
        }
    }

    fn has_room(&self, part: Part, limits: &Limits) -> bool {
        match part {
            Part::Fetch(bytes) => {
                let fits = self.fetch_bytes.saturating_add(bytes) <= limits.fetch_bytes;
                self.fetches == 0 || (self.fetches < limits.fetches && fits)
            }
            Part::Verification => self.verifications < limits.verifications,
            Part::Removal => self.removals < limits.removals,
        }
    }
}

impl Jobs {
    /// A chunk was looked at again, and this is its next step: a job that does not serve it any more is over.
    pub(crate) fn follow(&mut self, chunk: ChunkId, step: Option<&Step>) {
        let serves = |job: &UnderWay| step.is_some_and(|step| job.step.covers(step));
        if self.under_way.get(&chunk).is_some_and(|job| !serves(job)) {
            self.end(chunk);
        }
    }

    /// A fetch has failed: the chunk rests for a while, and what it took of servers is free.
    pub(crate) fn failed(&mut self, chunk: ChunkId, now: Duration) {
        if let Some(UnderWay { step, .. }) = self.end(chunk) {
            self.begin(chunk, step, Vec::new(), now + REST);
        }
    }

    /// A server has begun anew or does not stand where it stood: what it was told to do is void.
    pub(crate) fn forget_server(&mut self, server: ServerId) {
        let concerns = |job: &UnderWay| job.parts.iter().any(|(other, _)| *other == server);
        let over: Vec<ChunkId> =
            self.under_way.iter().filter(|(_, job)| concerns(job)).map(|(chunk, _)| *chunk).collect();
        over.into_iter().for_each(|chunk| drop(self.end(chunk)));
    }

    /// Jobs that have come to nothing are over.
    fn expire(&mut self, now: Duration) {
        while let Some(&(until, chunk)) = self.by_time.first()
            && until <= now
        {
            self.end(chunk);
        }
    }

    fn begin(&mut self, chunk: ChunkId, step: Step, parts: Vec<(ServerId, Part)>, until: Duration) {
        for &(server, part) in &parts {
            self.loads.entry(server).or_default().change(part, true);
        }
        self.by_time.insert((until, chunk));
        self.under_way.insert(chunk, UnderWay { step, parts, until });
    }

    fn end(&mut self, chunk: ChunkId) -> Option<UnderWay> {
        let job = self.under_way.remove(&chunk)?;
        self.by_time.remove(&(job.until, chunk));
        for &(server, part) in &job.parts {
            if let Some(load) = self.loads.get_mut(&server) {
                load.change(part, false);
            }
        }
        Some(job)
    }

    fn has_room(&self, server: ServerId, part: Part, limits: &Limits) -> bool {
        self.loads.get(&server).copied().unwrap_or_default().has_room(part, limits)
    }

    /// The steps that can be taken now, and chunks of which the ledger says that something is to be done and nothing is.
    pub(crate) fn plan(
        &mut self,
        now: Duration,
        limits: &Limits,
        ledger: &Ledger,
        room: &mut dyn Room,
    ) -> Plan {
        self.expire(now);
        let (mut plan, mut changes) = (Plan::default(), 0);
        for urgency in Urgency::ALL {
            let after = self.looked_to.remove(&urgency);
            let list: Vec<ChunkId> = ledger.todo(urgency, after).take(LOOKED_AT_MAX).collect();
            if list.len() == LOOKED_AT_MAX {
                self.looked_to.extend(list.last().map(|last| (urgency, *last)));
            }
            for chunk in list {
                if self.under_way.contains_key(&chunk) {
                    continue;
                }
                let Some((step, bytes)) = room.step(chunk) else {
                    plan.stale.push(chunk);
                    continue;
                };
                let is_change = step.is_change();
                if is_change && changes == CHANGES_MAX {
                    continue;
                }
                let Some((jobs, parts)) = self.assign(chunk, &step, bytes, limits, room) else { continue };
                changes += usize::from(is_change);
                self.begin(chunk, step, parts, now + limits.job_timeout);
                plan.jobs.extend(jobs.into_iter().map(|job| (chunk, job)));
            }
        }
        plan
    }

    /// Who does what for a step; `None` if those who could have no time.
    fn assign(
        &self,
        chunk: ChunkId,
        step: &Step,
        bytes: u64,
        limits: &Limits,
        room: &mut dyn Room,
    ) -> Option<Assigned> {
        let has_room = |server: ServerId, part: Part| self.has_room(server, part, limits);
        let all = |servers: Vec<(ServerId, Job)>, part: Part| {
            let (servers, jobs): (Vec<ServerId>, Vec<Job>) =
                servers.into_iter().filter(|(server, _)| has_room(*server, part)).unzip();
            let parts = servers.into_iter().map(|server| (server, part)).collect();
            (!jobs.is_empty()).then_some((jobs, parts))
        };
        match step {
            &Step::Add { server, version } => Some((vec![Job::Add { server, version }], Vec::new())),
            &Step::Strike { server } => Some((vec![Job::Strike { server }], Vec::new())),
            &Step::BeginSettle { granted } => Some((vec![Job::BeginSettle { granted }], Vec::new())),
            &Step::EndSettle { version } => Some((vec![Job::EndSettle { version }], Vec::new())),
            &Step::Settle { server, version } => {
                all(vec![(server, Job::Settle { server, version })], Part::Removal)
            }
            Step::Verify { servers } => {
                let verify = |&server: &ServerId| (server, Job::Verify { server });
                all(servers.iter().map(verify).collect(), Part::Verification)
            }
            Step::Condemn { copies } => {
                let condemn = |&(server, version): &(ServerId, ChunkVersion)| {
                    (server, Job::Condemn { server, version })
                };
                all(copies.iter().map(condemn).collect(), Part::Removal)
            }
            Step::Fetch { sources } | Step::Refetch { sources, .. } => {
                let part = Part::Fetch(bytes);
                let busy = |server: ServerId| self.loads.get(&server).map_or(0, |load| load.fetch_bytes);
                let with_time = sources.iter().filter(|(server, _)| has_room(*server, part));
                let &(source, version) = with_time.min_by_key(|(server, _)| busy(*server))?;
                let (server, replace) = match step {
                    Step::Refetch { server, .. } => (has_room(*server, part).then_some(*server)?, true),
                    _ => {
                        let server = room.target(chunk, &|server| has_room(server, part))?;
                        (server, room.has_in_doubt(server, chunk))
                    }
                };
                let parts = vec![(server, part), (source, part)];
                Some((vec![Job::Fetch { server, source, version, replace }], parts))
            }
        }
    }
}
