//! Failure domains: regions hold racks, racks hold hosts, hosts hold servers. What two copies share costs, so that they share
//! as little as the servers permit: first of all no region, then no rack, then no host.

use std::collections::BTreeMap;
use std::fmt;

use super::Candidate;

/// A level of the topology.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Places far from each other.
    Region,
    /// Servers behind one switch or power line.
    Rack,
    /// Servers on one machine: of one address.
    Host,
}

impl Level {
    /// From above.
    pub const ALL: [Self; 3] = [Self::Region, Self::Rack, Self::Host];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Rack => "rack",
            Self::Host => "host",
        }
    }

    /// What a pair of copies costs that shares a domain of this level. No number of pairs of the levels below is as dear: there
    /// are fewer than a thousand.
    pub(super) const fn price(self) -> i64 {
        match self {
            Self::Region => 1_000_000,
            Self::Rack => 1_000,
            Self::Host => 1,
        }
    }

    /// What the candidate's domain of this level is called; empty if nobody has named it.
    #[must_use]
    pub const fn of<'a>(self, candidate: &Candidate<'a>) -> &'a str {
        match self {
            Self::Region => candidate.region,
            Self::Rack => candidate.rack,
            Self::Host => candidate.host,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Numbers of a server's domains, from above. A rack is one of its region, a host one of its rack, whatever they are called.
pub(super) type DomainIds = [usize; 3];

/// The domains of servers, numbered.
pub(super) struct Topology {
    /// By server.
    pub(super) ids: Vec<DomainIds>,
    /// How many there are, by level.
    pub(super) counts: [usize; 3],
}

impl Topology {
    pub(super) fn of<'a>(servers: impl Iterator<Item = &'a Candidate<'a>>) -> Self {
        let mut known: [BTreeMap<[&str; 3], usize>; 3] = Default::default();
        let ids = servers.map(|server| {
            let full = [server.region, server.rack, server.host];
            std::array::from_fn(|level| {
                let mut path = full;
                path[level + 1..].fill("");
                let next = known[level].len();
                *known[level].entry(path).or_insert(next)
            })
        });
        let ids = ids.collect();
        Self { ids, counts: std::array::from_fn(|level| known[level].len()) }
    }
}

/// More copies in one domain than would have to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crowded {
    /// Of which level.
    pub level: Level,
    /// What the domain is called.
    pub domain: String,
    /// Copies in it.
    pub copies: usize,
    /// Of how many.
    pub of: usize,
    /// Domains of the level that have a server which is up.
    pub known: usize,
    /// Those of them with a server that is right for a copy and has room, or has one.
    pub usable: usize,
}

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, domain, copies, of, known, usable } = self;
        let all = if copies == of { "all " } else { "" };
        write!(f, "{level} {domain} has {all}{copies} of {of} copies: ")?;
        match (*known, *usable) {
            (1, _) => write!(f, "it is the only {level}"),
            (known, usable) if usable < known => {
                write!(f, "of {known} {level}s only {usable} have a server that is right and has room")
            }
            (known, _) => {
                write!(f, "what is asked of the copies leaves no better choice among {known} {level}s")
            }
        }
    }
}

/// The domains that have more of the copies than would have to be, if those were spread evenly over all domains of the level;
/// and any that has all of several. A level without names is none.
pub(super) fn crowded(
    servers: &[Candidate<'_>],
    topology: &Topology,
    chosen: &[usize],
    is_usable: impl Fn(usize) -> bool,
) -> Vec<Crowded> {
    let mut found = Vec::new();
    for (at, level) in Level::ALL.into_iter().enumerate() {
        let mut having: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        chosen.iter().for_each(|server| having.entry(topology.ids[*server][at]).or_default().push(*server));
        let known = topology.counts[at];
        let mut usable: Vec<usize> =
            (0..servers.len()).filter(|s| is_usable(*s)).map(|s| topology.ids[s][at]).collect();
        usable.sort_unstable();
        usable.dedup();
        let enough = chosen.len().div_ceil(known.max(1));
        for there in having.values() {
            let domain = there.first().map_or("", |server| level.of(&servers[*server]));
            let (copies, of) = (there.len(), chosen.len());
            if copies > 1 && (copies > enough || copies == of) && !domain.is_empty() {
                let (domain, usable) = (domain.to_owned(), usable.len());
                found.push(Crowded { level, domain, copies, of, known, usable });
            }
        }
    }
    found
}
