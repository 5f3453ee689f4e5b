//! Which servers get the copies of a chunk: a pure function over what is known of the servers, which explains itself.
//!
//! Strategies are composed in this order, each in a file of its own. **Labels**: as many copies as can be get a server that is
//! right for them (`labels`). **Domains**: of all choices that do this, one whose copies share as few regions, racks and hosts as
//! can be (`domains`). **Capacity**: of those one by chance, so that servers fill evenly (`capacity`). **Network**: slow
//! servers get less, and the chain of servers begins near the writer (`network`).
//!
//! Each copy goes to another server, one with room for a whole chunk if there are enough of them, so that a chunk seldom
//! finds its disk full while it grows. (The chunkserver decides which of its disks takes the copy.)

mod capacity;
mod choice;
mod dice;
mod domains;
mod fit;
mod flow;
mod labels;
mod network;
#[cfg(test)]
mod tests;

use std::time::Duration;

use mooseng_types::{Distinguish, Goal, LabelExpression, Labels, ServerId, Strictness};

pub use choice::{Choice, Missing, Placed};
pub use domains::{Crowded, Level};
pub use fit::Fit;
pub use network::Distance;

use capacity::Ticket;
use dice::Dice;
use domains::Topology;
use labels::{Pairs, Problem, Use};

/// A server as placement sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate<'a> {
    /// Which.
    pub server: ServerId,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its region; empty if it has none.
    pub region: &'a str,
    /// Its rack within the region; empty if it has none.
    pub rack: &'a str,
    /// The machine it runs on.
    pub host: &'a str,
    /// Bytes that it can still take, its reserve not counted.
    pub free_bytes: u64,
    /// Copies given to it since it last told its free space.
    pub recently_given: u64,
    /// How long it takes to answer; `None` if that has not been measured.
    pub latency: Option<Duration>,
    /// It has more to do than it should.
    pub is_overloaded: bool,
}

/// Where a writer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// Its region.
    pub region: &'a str,
    /// Its rack.
    pub rack: &'a str,
    /// Its machine.
    pub host: &'a str,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What is wanted.
    pub goal: &'a Goal,
    /// What holds where the goal says nothing of it.
    pub strictness: Strictness,
    /// Servers that could take a copy. One that is among `taken` too takes no other.
    pub candidates: &'a [Candidate<'a>],
    /// Servers that have a copy, which count for the goal where they are right.
    pub taken: &'a [Candidate<'a>],
    /// Who is going to write.
    pub writer: Option<Place<'a>>,
    /// Makes the choice repeatable.
    pub seed: u64,
}

/// Chooses servers for the copies that are missing. Fewer come back where there are fewer: a chunk with one copy is better
/// than an error.
#[must_use]
pub fn choose(ask: &Ask<'_>) -> Choice {
    let is_taken =
        |candidate: &&Candidate<'_>| ask.taken.iter().any(|taken| taken.server == candidate.server);
    let others = ask.candidates.iter().filter(|candidate| !is_taken(candidate));
    let servers: Vec<Candidate<'_>> = ask.taken.iter().chain(others).copied().collect();
    let topology = Topology::of(servers.iter());
    let mut dice = Dice::new(ask.seed);
    let strictness = ask.goal.strictness().unwrap_or(ask.strictness);

    let right = problem(ask, &servers, &topology, ask.goal.copies().iter().collect(), false);
    let mut pairs = draw(&right, &mut dice);
    let missing = without(ask.goal.copies().len(), &pairs);
    let must_wait = !missing.is_empty() && strictness != Strictness::Loose && {
        let later = problem(ask, &servers, &topology, ask.goal.copies().iter().collect(), true);
        let all: Vec<usize> = (0..servers.len()).collect();
        later.solve(&[], &all).pairs.len() > pairs.len()
    };
    let rightly = pairs.len();
    if strictness != Strictness::Strict && !must_wait {
        // Rather any server than none; one that shares what copies are to be kept apart by only where there is no other.
        for distinguish in [ask.goal.distinguish(), None] {
            substitute(ask, (&servers, &topology), distinguish, &mut pairs, &mut dice);
        }
    }
    choice::explain(ask, &right, choice::Outcome { pairs, rightly, must_wait }, &mut dice)
}

/// Gives copies that have no server any that can be had.
fn substitute(
    ask: &Ask<'_>,
    (servers, topology): (&[Candidate<'_>], &Topology),
    distinguish: Option<&Distinguish>,
    pairs: &mut Pairs,
    dice: &mut Dice,
) {
    let missing = without(ask.goal.copies().len(), pairs);
    if missing.is_empty() {
        return;
    }
    let strictness = ask.goal.strictness().unwrap_or(ask.strictness);
    let copies = vec![&LabelExpression::ANY; missing.len()];
    let mut rest = problem(ask, servers, topology, copies, strictness == Strictness::Loose);
    rest.distinguish = distinguish;
    pairs.iter().for_each(|(_, server)| rest.uses[*server] = Use::Counted);
    pairs.extend(draw(&rest, dice).into_iter().map(|(copy, server)| (missing[copy], server)));
}

/// Copies without a server.
fn without(copies: usize, pairs: &[(usize, usize)]) -> Vec<usize> {
    (0..copies).filter(|copy| pairs.iter().all(|(placed, _)| placed != copy)).collect()
}

fn problem<'a>(
    ask: &Ask<'a>,
    servers: &'a [Candidate<'a>],
    topology: &'a Topology,
    copies: Vec<&'a LabelExpression>,
    accepts_overloaded: bool,
) -> Problem<'a> {
    let in_use = |(at, server): (usize, &Candidate<'_>)| match () {
        () if at < ask.taken.len() => Use::Taken,
        () if server.free_bytes == 0 => Use::Not,
        () if server.is_overloaded && !accepts_overloaded => Use::Not,
        () if server.is_overloaded || !capacity::has_room_for_a_chunk(server) => Use::Reluctant,
        () => Use::Ready,
    };
    let uses = servers.iter().enumerate().map(in_use).collect();
    Problem { servers, topology, uses, copies, distinguish: ask.goal.distinguish() }
}

/// One of the best plans, by chance.
fn draw(problem: &Problem<'_>, dice: &mut Dice) -> Pairs {
    // Servers in the order of chance, so that of plans that are equally good each may be found.
    let order = capacity::order(&tickets(problem, |_| true), dice);
    let best = problem.solve(&[], &order);
    let is_taken = |pair: &(usize, usize)| problem.uses[pair.1] == Use::Taken;
    let (mut fixed, open): (Pairs, Pairs) = best.pairs.iter().partition(|pair| is_taken(pair));
    let mut wished = wishes(problem, &open, dice);
    let all = [fixed.as_slice(), &wished].concat();
    if wished.len() == open.len() && problem.solve(&all, &[]).is_as_good_as(&best) {
        return all;
    }
    // Some of what was drawn does not go together: what does is kept, the rest follows the order.
    dice.shuffle(&mut wished);
    for pair in wished {
        fixed.push(pair);
        if !problem.solve(&fixed, &order).is_as_good_as(&best) {
            fixed.pop();
        }
    }
    problem.solve(&fixed, &order).pairs
}

/// Servers drawn for copies of which the same is asked, one lot after the other.
fn wishes(problem: &Problem<'_>, open: &[(usize, usize)], dice: &mut Dice) -> Pairs {
    let mut wished = Pairs::new();
    let mut lots: Vec<Vec<usize>> = Vec::new();
    for (copy, _) in open {
        match lots.iter_mut().find(|lot| problem.copies[lot[0]] == problem.copies[*copy]) {
            Some(lot) => lot.push(*copy),
            None => lots.push(vec![*copy]),
        }
    }
    // The rarer first: what is right for few copies is left to them.
    let rarity = |lot: &Vec<usize>| {
        (0..problem.servers.len()).filter(|server| problem.is_right(lot[0], *server)).count()
    };
    lots.sort_by_cached_key(rarity);
    let is_reluctant = open.iter().any(|(_, server)| problem.uses[*server] == Use::Reluctant);
    for lot in lots {
        let fits = |server: usize| {
            let is_used = wished.iter().any(|(_, used)| *used == server);
            let usable = match problem.uses[server] {
                Use::Ready => true,
                Use::Reluctant => is_reluctant,
                Use::Taken | Use::Counted | Use::Not => false,
            };
            usable && !is_used && problem.is_right(lot[0], server)
        };
        let chosen = capacity::draw(&tickets(problem, fits), lot.len(), dice);
        wished.extend(lot.into_iter().zip(chosen));
    }
    wished
}

fn tickets(problem: &Problem<'_>, fits: impl Fn(usize) -> bool) -> Vec<Ticket> {
    let ticket = |server: usize| Ticket {
        server,
        domains: problem.topology.ids[server],
        weight: capacity::weight(&problem.servers[server]),
    };
    (0..problem.servers.len()).filter(|server| fits(*server)).map(ticket).collect()
}
