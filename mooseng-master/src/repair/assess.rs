//! What is wrong with a chunk, and the next step towards its goal: a function of its row and of what is told of its copies.
//!
//! **The rule of deletion**: a copy is struck off or put into quarantine only while as many copies as are wanted stand, each
//! *verified* in the time of this leader. A copy that has nothing to lose (lost, or older than what is committed) is struck off
//! while a good one stands; what is on its server goes by the rule all the same.

use mooseng_types::{ChunkVersion, ServerId};

use super::{ChunkView, CopyState, Standing};

/// What people call the state of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Condition {
    /// No copy can be read.
    Missing,
    /// One copy can be read, and more are wanted.
    Endangered,
    /// Fewer copies can be read than are wanted.
    UnderGoal,
    /// More copies are there than are wanted, or one where none should be.
    OverGoal,
    /// A copy may lack what was written before its server stopped.
    InDoubt,
    /// A copy is to be on another server.
    Misplaced,
}

impl Condition {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Missing, Self::Endangered, Self::UnderGoal, Self::OverGoal, Self::InDoubt, Self::Misplaced];
}

/// How many copies a chunk has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tally {
    /// Copies that its class wants.
    pub(crate) wanted: u8,
    /// Copies that are whole, as new as they must be, and on servers that are there.
    pub(crate) live: u8,
    /// What people call that, a bit for each [`Condition`].
    conditions: u8,
}

/// What is done next about a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The row is to count this copy, which is whole and verified.
    Add {
        /// Its server.
        server: ServerId,
        /// Its version.
        version: ChunkVersion,
    },
    /// Another server is to fetch a copy, from one of these.
    Fetch {
        /// Servers with good copies.
        sources: Vec<(ServerId, ChunkVersion)>,
    },
    /// This server is to fetch its copy in doubt anew.
    Refetch {
        /// The server.
        server: ServerId,
        /// Servers with good copies.
        sources: Vec<(ServerId, ChunkVersion)>,
    },
    /// These are to verify their copies.
    Verify {
        /// The servers.
        servers: Vec<ServerId>,
    },
    /// Copies may differ: a version is to be given out to nobody.
    BeginSettle {
        /// The last version that was given out.
        granted: ChunkVersion,
    },
    /// This server's copy is what the chunk holds, and is to take on the version that was given out for it.
    Settle {
        /// The server.
        server: ServerId,
        /// The version.
        version: ChunkVersion,
    },
    /// All copies that are there are like the chosen one.
    EndSettle {
        /// Their version.
        version: ChunkVersion,
    },
    /// The row is not to count this server any more.
    Strike {
        /// The server.
        server: ServerId,
    },
    /// These copies are to go into quarantine.
    Condemn {
        /// Their servers and versions.
        copies: Vec<(ServerId, ChunkVersion)>,
    },
}

/// What comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Urgency {
    /// One copy is left, or none that the row counts.
    LastCopy,
    /// Copies are missing.
    TooFew,
    /// A copy that was thought to be good may not be.
    Doubt,
    /// A copy is in the wrong place.
    Misplaced,
    /// There is too much.
    TooMany,
}

impl Urgency {
    /// All of them, the most urgent first.
    pub(crate) const ALL: [Self; 5] =
        [Self::LastCopy, Self::TooFew, Self::Doubt, Self::Misplaced, Self::TooMany];
}

impl Tally {
    fn new(view: &ChunkView, live: usize) -> Self {
        let doubtful = view.counted.iter().filter(|(_, state)| matches!(state, CopyState::InDoubt { .. }));
        let doubtful = doubtful.count();
        let present = live + view.beside.len();
        let mut conditions = 0;
        let mut is = |condition: Condition, so: bool| conditions |= u8::from(so) << condition as u8;
        let readable = live + doubtful;
        is(Condition::Missing, readable == 0);
        is(Condition::Endangered, readable == 1 && view.wanted > 1);
        is(Condition::UnderGoal, readable > 1 && live < view.wanted);
        is(Condition::OverGoal, present > view.wanted || !view.beside.is_empty());
        is(Condition::InDoubt, doubtful > 0 || view.differs);
        is(Condition::Misplaced, !view.moves.leaving.is_empty());
        Self { wanted: narrow(view.wanted), live: narrow(live), conditions }
    }

    /// What people call it.
    pub(crate) fn conditions(self) -> impl Iterator<Item = Condition> {
        Condition::ALL.into_iter().filter(move |&condition| self.conditions & (1 << condition as u8) != 0)
    }
}

fn narrow(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// How a chunk is, and the next step. `None` of a chunk of which nothing is committed: it has nothing to lose. A chunk that may be
/// written takes no step: its writer says what became of its copies.
pub(crate) fn assess(view: &ChunkView) -> Option<(Tally, Option<(Urgency, Step)>)> {
    if view.committed.raw() == 0 {
        return None;
    }
    let sources = good(&view.counted);
    let tally = Tally::new(view, sources.len());
    if view.leased {
        return Some((tally, None));
    }
    let step = match () {
        () if sources.is_empty() => adopt(view),
        () if !view.is_quiet() => settle(view, sources),
        () => improve(view, sources),
    };
    let urgency = |step: &Step| match step {
        Step::Strike { .. } | Step::Condemn { .. } => Urgency::TooMany,
        Step::Verify { .. } if tally.live >= tally.wanted => Urgency::TooMany,
        Step::Fetch { .. } | Step::Add { .. } if tally.live >= tally.wanted => Urgency::Misplaced,
        _ if tally.live <= 1 => Urgency::LastCopy,
        Step::Refetch { .. } | Step::BeginSettle { .. } | Step::Settle { .. } | Step::EndSettle { .. } => {
            Urgency::Doubt
        }
        _ => Urgency::TooFew,
    };
    Some((tally, step.map(|step| (urgency(&step), step))))
}

/// Copies may differ in what was not committed, or in what a writer that died has left. Readers take the first good one of the
/// row: that one is chosen, the others follow it, and nobody sees them differ meanwhile.
fn settle(view: &ChunkView, sources: Vec<(ServerId, ChunkVersion)>) -> Option<Step> {
    let &(first, _) = sources.first().filter(|_| view.granted.raw() < u32::MAX)?;
    // One that is only away for a moment may be the one that readers have seen.
    let may_come =
        |(_, state): &(ServerId, CopyState)| matches!(state, CopyState::Away(away) if *away < Standing::Gone);
    if view.counted.iter().any(may_come) {
        return None;
    }
    let settled: Vec<_> = sources.into_iter().filter(|(_, has)| Some(*has) == view.settling).collect();
    if settled.is_empty() || view.settling != Some(view.granted) {
        let is_verified = view.counted.iter().any(|(server, state)| *server == first && state.is_verified());
        // What it lacks will be nowhere: so it must be whole.
        return Some(match view.settling.filter(|version| *version == view.granted) {
            _ if !is_verified => Step::Verify { servers: vec![first] },
            None => Step::BeginSettle { granted: view.granted },
            Some(version) => Step::Settle { server: first, version },
        });
    }
    let behind = view.counted.iter().find(|(server, state)| {
        let is_there =
            matches!(state, CopyState::Good { .. } | CopyState::InDoubt { .. } | CopyState::Stale { .. });
        is_there && settled.iter().all(|(other, _)| other != server)
    });
    Some(match behind {
        Some((server, _)) => Step::Refetch { server: *server, sources: settled },
        None => Step::EndSettle { version: view.granted },
    })
}

/// The row counts no good copy that can be read. One that a server has beside those is taken in.
fn adopt(view: &ChunkView) -> Option<Step> {
    let is_hope = |state: &CopyState| match state {
        // A server that is only away has what it had.
        CopyState::Away(away) => *away < Standing::Gone,
        // What was written and not committed may be there and nowhere else. Where all are in doubt, readers are told so: to
        // settle on one would be to vouch for what it may lack.
        CopyState::InDoubt { .. } => !view.is_quiet(),
        CopyState::Good { .. } | CopyState::Stale { .. } | CopyState::Lost => false,
    };
    if view.counted.iter().any(|(_, state)| is_hope(state)) { None } else { take_in(view, |_| true) }
}

/// A good copy beside those of the row that has what is committed, to be counted; first it is verified.
fn take_in(view: &ChunkView, is_welcome: impl Fn(ServerId) -> bool) -> Option<Step> {
    let welcome = view.beside.iter().filter(|(server, _)| is_welcome(*server));
    let good = welcome.filter_map(|&(server, state)| match state {
        CopyState::Good { version, verified } if version == view.committed => {
            Some((server, version, verified))
        }
        _ => None,
    });
    let (server, version, verified) = good.max_by_key(|(_, _, verified)| *verified)?;
    Some(if verified { Step::Add { server, version } } else { Step::Verify { servers: vec![server] } })
}

/// There is a good copy that the row counts.
fn improve(view: &ChunkView, sources: Vec<(ServerId, ChunkVersion)>) -> Option<Step> {
    let (wanted, live) = (view.wanted, sources.len());
    let find = |test: fn(&CopyState) -> bool| {
        view.counted.iter().find(|(_, state)| test(state)).map(|(server, _)| *server)
    };

    // What is lost there says nothing any more, and its server may be the one to get the copy again.
    if let Some(server) = find(|state| matches!(state, CopyState::Lost | CopyState::Stale { .. })) {
        return Some(Step::Strike { server });
    }
    if let Some(server) = find(|state| matches!(state, CopyState::InDoubt { .. })) {
        return Some(Step::Refetch { server, sources });
    }
    let patience = if live <= 1 { Standing::Missed } else { Standing::Gone };
    let hoped =
        view.counted.iter().filter(|(_, state)| matches!(state, CopyState::Away(away) if *away < patience));
    if live + hoped.count() < wanted {
        return take_in(view, |_| true).or_else(|| fetch(view, sources));
    }
    if live < wanted {
        return None;
    }

    // Enough are there. From here on it is about taking away.
    if let Some(server) = find(|state| matches!(state, CopyState::Away(Standing::Gone))) {
        return (view.counted.len() > wanted).then_some(Step::Strike { server });
    }
    let good: Vec<ServerId> = sources.iter().map(|(server, _)| *server).collect();
    let staying = good.iter().filter(|server| !view.moves.leaving.contains(server)).count();
    if staying < wanted && staying < live {
        // One that leaves goes when another has come.
        return take_in(view, |server| view.moves.welcome.contains(&server)).or_else(|| fetch(view, sources));
    }
    let surplus = if live > wanted { view.moves.first_to_go(&good) } else { None };
    if surplus.is_none() && view.beside.is_empty() {
        return None;
    }
    let staying = view.counted.iter().filter(|(server, _)| Some(*server) != surplus);
    let unverified: Vec<ServerId> = staying
        .filter(|(_, state)| matches!(state, CopyState::Good { verified: false, .. }))
        .map(|(server, _)| *server)
        .collect();
    if !unverified.is_empty() {
        return Some(Step::Verify { servers: unverified });
    }
    if let Some(server) = surplus {
        return Some(Step::Strike { server });
    }
    let copies = view.beside.iter().filter_map(|(server, state)| Some((*server, state.version()?))).collect();
    Some(Step::Condemn { copies })
}

/// A further copy, of what is committed.
fn fetch(view: &ChunkView, mut sources: Vec<(ServerId, ChunkVersion)>) -> Option<Step> {
    sources.retain(|(_, version)| *version == view.committed);
    (view.is_quiet() && !sources.is_empty()).then_some(Step::Fetch { sources })
}

fn good(copies: &[(ServerId, CopyState)]) -> Vec<(ServerId, ChunkVersion)> {
    let good = |&(server, state): &(ServerId, CopyState)| match state {
        CopyState::Good { version, .. } => Some((server, version)),
        _ => None,
    };
    copies.iter().filter_map(good).collect()
}

impl Step {
    /// Whether it changes the row.
    pub(crate) fn is_change(&self) -> bool {
        matches!(
            self,
            Self::Add { .. } | Self::Strike { .. } | Self::BeginSettle { .. } | Self::EndSettle { .. }
        )
    }

    /// Whether an order for `self` is still one for what is to be done now.
    pub(crate) fn covers(&self, now: &Self) -> bool {
        match (self, now) {
            (Self::Verify { servers }, Self::Verify { servers: left }) => {
                left.iter().all(|server| servers.contains(server))
            }
            (Self::Condemn { copies }, Self::Condemn { copies: left }) => {
                left.iter().all(|copy| copies.contains(copy))
            }
            (Self::Fetch { .. }, Self::Fetch { .. }) => true,
            (Self::Refetch { server, .. }, Self::Refetch { server: other, .. }) => server == other,
            _ => self == now,
        }
    }
}
