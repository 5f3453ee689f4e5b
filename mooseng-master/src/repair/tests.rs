//! One chunk on some servers, and a master that does what is planned, against promises that hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooseng_meta::{ChunkRow, Layout};
use mooseng_types::{ChunkId, ChunkIndex, ChunkVersion, InodeId, ServerId, SessionId};
use proptest::prelude::*;

use super::moves::Moves;
use super::*;
use crate::registry::Copy;

const CHUNK: ChunkId = ChunkId::from_raw(7);

fn version(raw: u32) -> ChunkVersion {
    ChunkVersion::from_raw(raw)
}

fn server(raw: u32) -> ServerId {
    ServerId::from_raw(raw)
}

/// A copy, as it is on its disk, and what is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct OnDisk {
    copy: Copy,
    /// Its bytes are not those that were written.
    rotten: bool,
}

/// The cluster, as far as one chunk is concerned.
#[derive(Clone, Debug)]
struct Cluster {
    wanted: usize,
    row: Vec<ServerId>,
    committed: u32,
    granted: u32,
    leased: bool,
    differs: bool,
    settling: Option<ChunkVersion>,
    servers: BTreeMap<ServerId, (Standing, Option<OnDisk>)>,
    draining: BTreeSet<ServerId>,
}

impl Cluster {
    fn view(&self) -> ChunkView {
        let row = ChunkRow {
            inode: InodeId::from_raw(2),
            index: ChunkIndex::from_raw(0),
            committed: version(self.committed),
            granted: version(self.granted),
            lease: self.leased.then_some(SessionId::from_raw(1)),
            layout: Layout::Copies(self.row.clone()),
            valid_length: 0,
            differs: self.differs,
        };
        let told = self.servers.iter().filter_map(|(id, (_, has))| Some((*id, has.as_ref()?.copy)));
        let told: Vec<_> = told.collect();
        let mut view =
            ChunkView::new(&row, &self.row, self.wanted, self.settling, &told, |id| self.servers[&id].0);
        view.look_for_moves(|counted, beside| {
            let drained = |id: &&ServerId| self.draining.contains(id);
            Moves {
                leaving: counted.iter().filter(drained).copied().collect(),
                welcome: beside.iter().filter(|id| !drained(id)).copied().collect(),
                ..Moves::default()
            }
        });
        view
    }

    /// Servers that are there and get copies, or have good ones.
    fn takers(&self) -> usize {
        let takes = |(id, (standing, _)): &(&ServerId, &(Standing, Option<OnDisk>))| {
            let has_one = self.row.contains(id) && self.good(**id);
            *standing == Standing::Serving && (has_one || !self.draining.contains(id))
        };
        self.servers.iter().filter(takes).count()
    }

    fn good(&self, id: ServerId) -> bool {
        let has = self.servers[&id].1;
        has.is_some_and(|has| {
            !has.rotten && !has.copy.in_doubt && has.copy.version >= version(self.committed)
        })
    }

    /// Whether the bytes can still be had, now or when servers come back.
    fn has_bytes(&self) -> bool {
        self.servers.keys().any(|id| self.good(*id))
    }

    /// Copies that the row counts, that are where they can be read, and of which it is known that they are whole.
    fn verified(&self) -> usize {
        let verified = |id: &&ServerId| {
            let (standing, has) = self.servers[*id];
            standing == Standing::Serving && has.is_some_and(|has| has.copy.verified)
        };
        self.row.iter().filter(verified).count()
    }

    fn perform(&mut self, job: Job) {
        match job {
            Job::Add { server, version } => {
                assert!(!self.row.contains(&server) && !self.leased && self.committed == version.raw());
                self.row.push(server);
            }
            Job::BeginSettle { granted } => {
                assert!(!self.leased && self.granted == granted.raw());
                self.granted += 1;
                self.settling = Some(version(self.granted));
            }
            Job::Settle { server, version } => {
                let has = self.servers.get_mut(&server).unwrap().1.as_mut().expect("the chosen one is there");
                has.copy = Copy { version, in_doubt: false, verified: false };
            }
            Job::EndSettle { version } => {
                assert_eq!(self.granted, version.raw());
                (self.committed, self.differs) = (self.granted, false);
            }
            Job::Strike { server } => {
                assert!(self.row.contains(&server));
                if self.row.len() > 1 {
                    self.row.retain(|other| *other != server);
                }
            }
            Job::Fetch { server, source, version, replace } => {
                let from = self.servers[&source].1.expect("a source has a copy");
                let to = &mut self.servers.get_mut(&server).unwrap().1;
                if from.rotten {
                    // Found on the way: nothing comes of it, and the source sets its copy aside.
                    self.servers.get_mut(&source).unwrap().1 = None;
                } else if to.is_none_or(|has| has.copy.version < version || replace) {
                    let copy = Copy { version, in_doubt: false, verified: true };
                    *to = Some(OnDisk { copy, rotten: false });
                }
            }
            Job::Verify { server } => {
                let has = &mut self.servers.get_mut(&server).unwrap().1;
                match has {
                    Some(copy) if copy.rotten => *has = None,
                    Some(copy) => copy.copy.verified = true,
                    None => {}
                }
            }
            Job::Condemn { server, .. } => {
                assert!(
                    self.verified() >= self.wanted,
                    "a copy goes while {} of {} verified ones stand",
                    self.verified(),
                    self.wanted
                );
                self.servers.get_mut(&server).unwrap().1 = None;
            }
        }
    }
}

/// The planner's questions, answered by the model.
struct Answers<'a>(&'a Cluster);

impl Room for Answers<'_> {
    fn step(&mut self, _: ChunkId) -> Option<(Step, u64)> {
        Some((assess(&self.0.view())?.1?.1, 1))
    }

    fn target(&mut self, _: ChunkId, usable: &dyn Fn(ServerId) -> bool) -> Option<ServerId> {
        let free = |(id, (standing, _)): (&ServerId, &(Standing, Option<OnDisk>))| {
            let is_free = !self.0.row.contains(id) && !self.0.draining.contains(id) && usable(*id);
            (*standing == Standing::Serving && is_free).then_some(*id)
        };
        let view = self.0.view();
        let has_one = |id: &ServerId| {
            let good = |state: &CopyState| matches!(state, CopyState::Good { .. });
            view.beside.iter().any(|(server, state)| server == id && good(state))
        };
        self.0.servers.iter().filter_map(free).find(|id| !has_one(id))
    }

    fn has_in_doubt(&self, server: ServerId, _: ChunkId) -> bool {
        self.0.servers[&server].1.is_some_and(|has| has.copy.in_doubt)
    }
}

fn on_disk() -> impl Strategy<Value = Option<OnDisk>> {
    let copy = (1..5u32, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let copy = copy.prop_map(|(raw, verified, in_doubt, rotten)| OnDisk {
        // What was verified is whole.
        copy: Copy { version: version(raw), in_doubt, verified: verified && !in_doubt && !rotten },
        rotten,
    });
    prop::option::weighted(0.7, copy)
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        6 => Just(Standing::Serving),
        1 => Just(Standing::Away),
        1 => Just(Standing::Missed),
        1 => Just(Standing::Gone),
    ]
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let servers = prop::collection::vec((standing(), on_disk()), 2..7);
    let numbers = (1..4usize, 1..4u32, 0..2u32, prop::bool::weighted(0.1), prop::bool::weighted(0.2));
    let draining = prop::collection::btree_set(0..7u32, 0..3);
    (servers, prop::collection::btree_set(0..7u32, 1..4), draining, numbers).prop_map(
        |(list, row, draining, (wanted, committed, more, leased, differs))| {
            let count = list.len() as u32;
            let granted = committed + more * (committed % 2);
            let list = list.into_iter().map(|(standing, has): (_, Option<OnDisk>)| {
                let given_out = |mut has: OnDisk| {
                    has.copy.version = has.copy.version.min(version(granted));
                    has
                };
                (standing, has.map(given_out))
            });
            let row: BTreeSet<u32> = row.into_iter().map(|number| 1 + number % count).collect();
            Cluster {
                wanted,
                row: row.into_iter().map(server).collect(),
                committed,
                // Most chunks are quiet.
                granted,
                leased,
                differs,
                settling: None,
                servers: (1..).map(server).zip(list).collect(),
                draining: draining.into_iter().map(|number| server(1 + number % count)).collect(),
            }
        },
    )
}

/// Plans and does what is planned until nothing is; how many rounds it took.
fn heal(cluster: &mut Cluster) -> usize {
    let (mut jobs, limits) = (Jobs::default(), Limits::default());
    for round in 0.. {
        assert!(round < 60, "no end: {cluster:?}");
        let now = Duration::from_secs(100 * round);
        let mut ledger = Ledger::default();
        let (tally, next) = assess(&cluster.view()).unzip();
        let next = next.flatten();
        ledger.note(CHUNK, tally, next.as_ref().map(|(urgency, _)| *urgency));
        jobs.follow(CHUNK, next.as_ref().map(|(_, step)| step));
        let plan = jobs.plan(now, &limits, &ledger, &mut Answers(cluster));
        if plan.jobs.is_empty() {
            return round as usize;
        }
        plan.jobs.into_iter().for_each(|(_, job)| cluster.perform(job));
    }
    unreachable!()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn healing_ends_and_never_takes_the_last_good_bytes(mut cluster in cluster()) {
        let had = cluster.has_bytes();
        heal(&mut cluster);
        prop_assert!(cluster.has_bytes() || !had, "{:?}", cluster);
    }

    #[test]
    fn a_quiet_chunk_with_a_good_copy_comes_to_its_goal_or_to_as_many_servers_as_there_are(mut cluster in cluster()) {
        cluster.granted = cluster.committed;
        cluster.leased = false;
        let committed = version(cluster.committed);
        for has in cluster.servers.values_mut().filter_map(|(_, has)| has.as_mut()) {
            has.copy.version = has.copy.version.min(committed);
        }
        // Servers that may come back are waited for.
        cluster.servers.values_mut().filter(|(standing, _)| *standing != Standing::Serving).for_each(|(standing, _)| *standing = Standing::Gone);
        let counted_good = cluster.row.iter().any(|id| cluster.good(*id) && cluster.servers[id].0 == Standing::Serving);
        heal(&mut cluster);
        if counted_good {
            let live = cluster.row.iter().filter(|id| cluster.good(**id) && cluster.servers[*id].0 == Standing::Serving).count();
            let rotten = cluster.servers.values().filter(|(_, has)| has.is_some_and(|has| has.rotten)).count();
            prop_assert!(live + rotten >= cluster.wanted.min(cluster.takers()), "{:?}", cluster);
            // Nothing stays on a server that is drained if all of it can be elsewhere.
            let free = cluster.servers.iter().filter(|(id, (standing, has))| {
                *standing == Standing::Serving && !cluster.draining.contains(id) && has.is_none_or(|has| !has.rotten)
            });
            if free.count() >= cluster.wanted {
                prop_assert!(cluster.row.iter().all(|id| !cluster.draining.contains(id)), "{:?}", cluster);
            }
        }
    }

    #[test]
    fn a_chunk_that_may_be_written_is_left_alone(mut cluster in cluster()) {
        cluster.leased = true;
        prop_assert_eq!(heal(&mut cluster), 0);
    }
}

#[test]
fn a_copy_with_all_that_is_committed_is_taken_in_where_the_row_counts_none_that_is_left() {
    let has = |raw| Copy { version: version(raw), in_doubt: false, verified: false };
    let on_disk = |raw| (Standing::Serving, Some(OnDisk { copy: has(raw), rotten: false }));
    // The writer could not reach the second server and went on with the first, which then lost its disk.
    let mut cluster = Cluster {
        wanted: 2,
        row: vec![server(1)],
        committed: 1,
        granted: 2,
        leased: false,
        differs: true,
        settling: None,
        servers: BTreeMap::from([
            (server(1), (Standing::Serving, None)),
            (server(2), on_disk(1)),
            (server(3), (Standing::Serving, None)),
        ]),
        draining: BTreeSet::new(),
    };
    let lost = cluster.clone();
    heal(&mut cluster);
    let good = cluster.row.iter().filter(|id| cluster.good(**id)).count();
    assert_eq!((cluster.committed, good), (3, 2), "{cluster:?}");
    // A copy in doubt may have what was written since: so it is waited for.
    let mut doubtful = lost.clone();
    let mut copy = on_disk(2);
    copy.1.as_mut().unwrap().copy.in_doubt = true;
    doubtful.servers.insert(server(1), copy);
    assert_eq!(heal(&mut doubtful), 0);
    let mut away = lost;
    away.servers.insert(server(1), (Standing::Missed, None));
    assert_eq!(heal(&mut away), 0);
}

#[test]
fn conditions_are_what_people_call_them() {
    let good = CopyState::Good { version: version(3), verified: false };
    let doubt = CopyState::InDoubt { version: version(3), verified: false };
    let conditions = |counted: &[CopyState], beside: &[CopyState]| {
        let copies = |list: &[CopyState], from: u32| (from..).map(server).zip(list.iter().copied()).collect();
        let view = ChunkView {
            wanted: 2,
            committed: version(3),
            granted: version(3),
            leased: false,
            differs: false,
            settling: None,
            counted: copies(counted, 1),
            beside: copies(beside, 10),
            moves: Moves::default(),
        };
        assess(&view).unwrap().0.conditions().collect::<Vec<_>>()
    };
    use Condition::*;
    assert_eq!(conditions(&[good, good], &[]), []);
    assert_eq!(conditions(&[good, CopyState::Lost], &[]), [Endangered]);
    assert_eq!(conditions(&[good, CopyState::Away(Standing::Away)], &[]), [Endangered]);
    assert_eq!(conditions(&[good, doubt], &[]), [UnderGoal, InDoubt]);
    assert_eq!(conditions(&[doubt, CopyState::Lost], &[]), [Endangered, InDoubt]);
    assert_eq!(conditions(&[CopyState::Lost, CopyState::Stale { version: version(2) }], &[]), [Missing]);
    assert_eq!(conditions(&[good, good], &[good]), [OverGoal]);
    assert_eq!(conditions(&[good, good, good], &[]), [OverGoal]);
}
