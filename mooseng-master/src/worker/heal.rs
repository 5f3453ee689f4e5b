//! Brings every chunk to its goal and keeps it there. What is to be done the [repair](crate::repair) core says; here rows and
//! reports are put before it, and what it plans becomes commands and orders.

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_meta::{RepairCommand, ServerMode};
use mooseng_types::{ChunkId, ChunkVersion, Level, Part, ServerId};

use super::{Fetch, Order, Round, Worker};
use crate::multiregion::placement::{Ask, Candidate, choose};
use crate::registry::KnownServer;
use crate::repair::{
    ChunkView, CopyState, Job, Jobs, Limits, Room, Seen, Standing, Step, Subject, Sweep, Tally, Urgency,
    assess,
};

/// Chunks looked at in one round, marked ones and swept ones each.
const LOOKED_AT_MAX: usize = 512;

/// What this leader remembers of its orders. Another leader finds what is to be done from rows and reports.
#[derive(Debug)]
pub(super) struct Heal {
    limits: Limits,
    jobs: Jobs,
    led_since: Option<Duration>,
    /// As of the last look: where copies belong.
    places: Option<u64>,
}

impl Heal {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, jobs: Jobs::default(), led_since: None, places: None }
    }

    fn follow_servers(&mut self, round: &mut Round<'_>, led_since: Duration) {
        let now = round.now;
        let standing = |(id, server): (ServerId, &KnownServer)| {
            let excused = matches!(server.mode, ServerMode::Maintenance { .. });
            let serving = server.is_up(now) && server.reported;
            let seen = Seen { serving, heard: server.heard, excused };
            (id, Standing::of(seen, now, led_since, &self.limits))
        };
        for server in round.ledger.standings.follow(round.registry.iter().map(standing)) {
            self.jobs.forget_server(server);
            round.ledger.sweep_server(server);
        }
        let places = round.registry.places();
        if self.places != Some(places) {
            self.places = Some(places);
            round.ledger.sweep_rows();
        }
    }

    /// Looks at chunks that are marked, and at the next of a sweep.
    fn look_around(&mut self, round: &mut Round<'_>) {
        for chunk in round.ledger.take_due(round.now, LOOKED_AT_MAX) {
            self.look_at(round, chunk);
        }
        let Some(sweep) = round.ledger.take_sweep() else { return };
        let left = match sweep {
            Sweep::Rows(from) => {
                let rows = round.state().chunks(from, LOOKED_AT_MAX);
                for (chunk, _) in &rows {
                    self.look_at(round, *chunk);
                }
                let next = rows.last().filter(|_| rows.len() == LOOKED_AT_MAX);
                next.map(|(last, _)| Sweep::Rows(ChunkId::from_raw(last.raw() + 1)))
            }
            Sweep::Server(server, after) => {
                // What a server should have and has not told of, the table says.
                let mut parts = round.registry.parts_of(server, after, LOOKED_AT_MAX);
                match round.state().held_by(server, after, LOOKED_AT_MAX) {
                    Some(held) => parts.extend(held),
                    // Without the table only the rows say what it should have.
                    None if after.is_none() => round.ledger.sweep_rows(),
                    None => {}
                }
                parts.sort_unstable();
                parts.dedup();
                parts.truncate(LOOKED_AT_MAX);
                for part in &parts {
                    self.look_at(round, part.chunk());
                }
                let next = parts.last().filter(|_| parts.len() == LOOKED_AT_MAX);
                next.map(|last| Sweep::Server(server, Some(*last)))
            }
        };
        round.ledger.swept(sweep, left);
    }

    fn look_at(&mut self, round: &mut Round<'_>, chunk: ChunkId) {
        let step = match subject(round, chunk) {
            Subject::Known { view, .. } => {
                if view.is_quiet() {
                    round.ledger.settled(chunk);
                }
                let (tally, next) = next_step(round, &view);
                round.ledger.note(chunk, tally, next.as_ref().map(|(urgency, _)| *urgency));
                next.map(|(_, step)| step)
            }
            Subject::Unknown(copies) => {
                round.ledger.note_unknown(chunk, Some(Urgency::TooMany));
                Some(Step::Condemn { copies })
            }
            Subject::Nothing => {
                round.ledger.settled(chunk);
                round.ledger.note(chunk, None, None);
                None
            }
        };
        self.jobs.follow(chunk, step.as_ref());
    }

    fn give(&mut self, round: &mut Round<'_>) {
        let mut room = Surveyor(&*round);
        let plan = self.jobs.plan(round.now, &self.limits, round.ledger, &mut room);
        for chunk in plan.stale {
            round.ledger.mark(chunk, round.now);
        }
        let mut orders = Orders::default();
        for (chunk, job) in plan.jobs {
            let part = Part::whole(chunk);
            match job {
                Job::Add { server, version } => {
                    round.propose(RepairCommand::AddReplica { chunk, version, server });
                }
                Job::BeginSettle { granted } => round.propose(RepairCommand::BeginSettle { chunk, granted }),
                Job::Settle { server, version } => round.order(Order::Settle(server, part, version)),
                Job::EndSettle { version } => round.propose(RepairCommand::EndSettle { chunk, version }),
                Job::Strike { server } => round.propose(RepairCommand::RemoveReplica { chunk, server }),
                Job::Fetch { server, source, version, replace } => {
                    let Some(source) = round.registry.get(source).map(|source| source.address.clone()) else {
                        continue;
                    };
                    round.registry.given(server);
                    round.order(Order::Fetch(server, Fetch { chunk, version, source, replace }));
                }
                Job::Verify { server } => orders.verify.entry(server).or_default().push(part),
                Job::Condemn { server, version } => {
                    let keep_s = match round.state().chunk(chunk) {
                        Some(_) => self.limits.quarantine_s,
                        None => self.limits.quarantine_unknown_s,
                    };
                    orders.quarantine.entry((server, keep_s)).or_default().push((part, version));
                }
            }
        }
        orders.give(round);
    }
}

/// Orders of one kind to one server are one.
#[derive(Default)]
struct Orders {
    verify: BTreeMap<ServerId, Vec<Part>>,
    quarantine: BTreeMap<(ServerId, u64), Vec<(Part, ChunkVersion)>>,
}

impl Orders {
    fn give(self, round: &mut Round<'_>) {
        self.verify.into_iter().for_each(|(server, parts)| round.order(Order::Verify(server, parts)));
        for ((server, keep_s), copies) in self.quarantine {
            round.order(Order::Quarantine(server, copies, keep_s));
        }
    }
}

impl Worker for Heal {
    fn name(&self) -> &'static str {
        "heal"
    }

    fn begin(&mut self) {
        *self = Self::new(self.limits);
    }

    fn work(&mut self, round: &mut Round<'_>) {
        let led_since = *self.led_since.get_or_insert(round.now);
        self.follow_servers(round, led_since);
        self.look_around(round);
        self.give(round);
    }

    fn failed(&mut self, now: Duration, chunk: ChunkId) {
        self.jobs.failed(chunk, now);
    }
}

fn subject(round: &Round<'_>, chunk: ChunkId) -> Subject {
    Subject::of(round.state(), round.registry, round.ledger, chunk)
}

/// How a chunk is, and the next step about it.
fn next_step(round: &Round<'_>, view: &ChunkView) -> (Option<Tally>, Option<(Urgency, Step)>) {
    let (tally, next) = assess(view).unzip();
    // Masters of an earlier release could not read the entries.
    let is_known = |step: &Step| {
        let settles = matches!(step, Step::BeginSettle { .. } | Step::EndSettle { .. });
        !settles || round.state().level() >= Level::CLASSES
    };
    (tally, next.flatten().filter(|(_, step)| is_known(step)))
}

/// Answers the planner from rows and registry.
struct Surveyor<'a, 'b>(&'a Round<'b>);

impl Room for Surveyor<'_, '_> {
    fn step(&mut self, chunk: ChunkId) -> Option<(Step, u64)> {
        match subject(self.0, chunk) {
            Subject::Known { row, view } => {
                let (_, step) = next_step(self.0, &view).1?;
                Some((step, self.0.state().copy_length(&row)))
            }
            Subject::Unknown(copies) => Some((Step::Condemn { copies }, 0)),
            Subject::Nothing => None,
        }
    }

    fn target(&mut self, chunk: ChunkId, usable: &dyn Fn(ServerId) -> bool) -> Option<ServerId> {
        let Subject::Known { row, view } = subject(self.0, chunk) else { return None };
        let class = self.0.state().class_for(row.inode)?;
        let good = |(_, state): &&(ServerId, CopyState)| matches!(state, CopyState::Good { .. });
        let has_one = view.counted.iter().chain(view.beside.iter().filter(good));
        let has_one: Vec<ServerId> = has_one.map(|(server, _)| *server).collect();
        let mut candidates = self.0.registry.candidates(self.0.now, &has_one);
        candidates.retain(|candidate| {
            self.0.ledger.standings.of(candidate.server) == Standing::Serving && usable(candidate.server)
        });
        let stays = |(server, _): &&(ServerId, CopyState)| !view.moves.leaving.contains(server);
        let live = view.counted.iter().filter(good).filter(stays);
        let taken: Vec<Candidate<'_>> =
            live.filter_map(|(server, _)| Some(self.0.registry.get(*server)?.candidate(*server))).collect();
        let choice = choose(&Ask {
            goal: &class.keep,
            strictness: class.strictness,
            candidates: &candidates,
            taken: &taken,
            writer: None,
            seed: chunk.raw() ^ self.0.now.as_millis() as u64,
        });
        // What is moved for the sake of labels moves to where they are right, or not at all.
        let only_right = !view.moves.leaving.is_empty() && view.moves.only_right;
        choice.placed.iter().find(|placed| placed.is_right || !only_right).map(|placed| placed.server)
    }

    fn has_in_doubt(&self, server: ServerId, chunk: ChunkId) -> bool {
        let told = self.0.registry.get(server).and_then(|server| server.copies.get(&Part::whole(chunk)));
        told.is_some_and(|copy| copy.in_doubt)
    }
}
