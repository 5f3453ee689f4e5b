//! What was chosen, and why.

use std::fmt;

use mooseng_types::{Distinguish, LabelExpression, ServerId};

use super::dice::Dice;
use super::domains::{self, Crowded, Topology};
use super::labels::{Pairs, Problem, Use};
use super::network::Distance;
use super::{Ask, Candidate};

/// What was chosen, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The new copies, in the order in which they are to be written: the one nearest to the writer first.
    pub placed: Vec<Placed>,
    /// Copies that were there and count for the goal.
    pub kept: Vec<Placed>,
    /// Copies that nothing was found for.
    pub missing: Vec<Missing>,
    /// Domains with more copies than would have to be.
    pub crowded: Vec<Crowded>,
    /// The right servers for some copy have much to do, and it has to wait for them.
    pub must_wait: bool,
}

/// A copy that has its server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Where it goes.
    pub server: ServerId,
    /// Which copy of the goal it is.
    pub copy: usize,
    /// What was asked of it.
    pub asked: LabelExpression,
    /// The server is what was asked for; otherwise no such was to be had.
    pub is_right: bool,
    /// How far it is from the writer, if that is known.
    pub distance: Option<Distance>,
}

/// A copy that has no server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// Which copy of the goal it is.
    pub copy: usize,
    /// What was asked of it.
    pub asked: LabelExpression,
    /// Servers with such labels.
    pub matching: usize,
    /// Those of them that have no room.
    pub full: usize,
    /// Those of them that have room and too much to do.
    pub overloaded: usize,
    /// What no two copies may share.
    pub distinguish: Option<Distinguish>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, matching, full, overloaded, .. } = self;
        let number = self.copy + 1;
        match (*matching, matching - full - overloaded) {
            (0, _) => write!(f, "copy {number} ({asked}): no server that is up has such labels"),
            (_, 0) => {
                write!(
                    f,
                    "copy {number} ({asked}): of {matching} such servers {full} are full and {overloaded} have too much to do"
                )
            }
            _ => {
                write!(
                    f,
                    "copy {number} ({asked}): the {matching} such servers are needed for other copies"
                )?;
                let Some(distinguish) = &self.distinguish else { return Ok(()) };
                write!(f, ", or share what {distinguish} keeps apart")
            }
        }
    }
}

impl Choice {
    /// The servers of the new copies, in the order in which they are to be written.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerId> {
        self.placed.iter().map(|placed| placed.server).collect()
    }
}

/// Which copies have which servers.
pub(super) struct Outcome {
    /// Those for which the servers are right, then the others.
    pub(super) pairs: Pairs,
    /// How many of them are right.
    pub(super) rightly: usize,
    pub(super) must_wait: bool,
}

pub(super) fn explain(ask: &Ask<'_>, problem: &Problem<'_>, outcome: Outcome, dice: &mut Dice) -> Choice {
    let Outcome { pairs, rightly, must_wait } = outcome;
    let placed = pairs.iter().enumerate().map(|(at, (copy, server))| {
        let server = &problem.servers[*server];
        Placed {
            server: server.server,
            copy: *copy,
            asked: problem.copies[*copy].clone(),
            is_right: at < rightly,
            distance: ask.writer.map(|writer| Distance::between(&writer, server)),
        }
    });
    let is_taken = |placed: &Placed| ask.taken.iter().any(|taken| taken.server == placed.server);
    let (mut kept, mut placed): (Vec<Placed>, Vec<Placed>) = placed.partition(is_taken);
    kept.sort_by_key(|kept| kept.copy);
    dice.shuffle(&mut placed);
    placed.sort_by_key(|placed| placed.distance);

    let chosen = pairs.iter().map(|(_, server)| *server).filter(|server| *server >= ask.taken.len());
    let all: Vec<usize> = (0..ask.taken.len()).chain(chosen).collect();
    let is_usable = |server: usize| {
        all.contains(&server)
            || matches!(problem.uses[server], Use::Ready | Use::Reluctant)
                && ask.goal.wants(problem.servers[server].labels)
    };
    let topology: &Topology = problem.topology;
    Choice {
        crowded: domains::crowded(problem.servers, topology, &all, is_usable),
        missing: super::without(problem.copies.len(), &pairs)
            .into_iter()
            .map(|copy| missing(problem, copy))
            .collect(),
        placed,
        kept,
        must_wait,
    }
}

fn missing(problem: &Problem<'_>, copy: usize) -> Missing {
    let matching: Vec<&Candidate<'_>> =
        problem.servers.iter().filter(|server| problem.copies[copy].matches(server.labels)).collect();
    let full = |server: &&&Candidate<'_>| server.free_bytes == 0;
    Missing {
        copy,
        asked: problem.copies[copy].clone(),
        matching: matching.len(),
        full: matching.iter().filter(full).count(),
        overloaded: matching.iter().filter(|server| server.free_bytes > 0 && server.is_overloaded).count(),
        distinguish: problem.distinguish.cloned(),
    }
}
