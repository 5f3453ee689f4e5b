//! Which server each copy goes to, so that what is asked of the labels is fulfilled for as many copies as can be, and their
//! failure domains are kept apart as far as that leaves room. One flow finds both: a copy flows to a server that is right for
//! it, from there through its host, rack and region, and pays for whatever another copy has been through already.
//!
//! Where copies are distinguished by labels, these stand in place of the topology.

use std::collections::BTreeSet;

use mooseng_types::{Distinguish, Label, LabelExpression};

use super::Candidate;
use super::domains::{Level, Topology};
use super::flow::Flow;

/// What a server costs in which a chunk may find no room to grow, or that has much to do: more than any sharing.
const RELUCTANT: i64 = 1_000_000_000;
/// What it saves to take a copy that is there already.
const TAKEN: i64 = 1_000_000_000_000;

/// How a server can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// It has a copy already, which counts where it is right.
    Taken,
    /// It has a copy that counts already.
    Counted,
    /// It can take one.
    Ready,
    /// It can take one, if no other can.
    Reluctant,
    /// Not at all.
    Not,
}

/// Copies to be matched with servers.
pub(super) struct Problem<'a> {
    pub(super) servers: &'a [Candidate<'a>],
    pub(super) topology: &'a Topology,
    /// By server.
    pub(super) uses: Vec<Use>,
    /// What is asked of each copy.
    pub(super) copies: Vec<&'a LabelExpression>,
    pub(super) distinguish: Option<&'a Distinguish>,
}

/// Where the nodes of the flow are: servers from the first on, then domains or labels, the sink, and a gate for each of what
/// copies that are there share.
#[derive(Clone, Copy)]
struct Nodes {
    first_server: usize,
    domains: usize,
    sink: usize,
}

/// What no two copies may share.
#[derive(PartialEq)]
enum Shared<'a> {
    Domain(usize),
    Label(&'a Label),
}

enum Apart<'a> {
    /// It may share anything.
    Any,
    /// Copies are distinguished by what it has not got.
    Never,
    /// It may not share this.
    By(Shared<'a>),
}

impl<'a> Apart<'a> {
    fn by(self) -> Option<Shared<'a>> {
        match self {
            Self::By(what) => Some(what),
            Self::Any | Self::Never => None,
        }
    }
}

/// Copies and their servers, by number.
pub(super) type Pairs = Vec<(usize, usize)>;

/// A best way to do it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) pairs: Pairs,
    cost: i64,
}

impl Plan {
    /// Whether it does as much, for as little.
    pub(super) fn is_as_good_as(&self, other: &Self) -> bool {
        self.pairs.len() == other.pairs.len() && self.cost == other.cost
    }
}

impl Problem<'_> {
    pub(super) fn is_right(&self, copy: usize, server: usize) -> bool {
        !matches!(self.uses[server], Use::Not | Use::Counted)
            && self.copies[copy].matches(self.servers[server].labels)
    }

    /// The best that can be done with these pairs, which are right. Of servers that do equally well the one is taken that is
    /// earlier in `order`.
    pub(super) fn solve(&self, fixed: &[(usize, usize)], order: &[usize]) -> Plan {
        let (copies, servers) = (self.copies.len(), self.servers.len());
        let (source, first_server) = (copies, copies + 1);
        let domains = first_server + servers;
        let sink = domains + servers.max(self.topology.counts.iter().sum::<usize>());
        let mut flow = Flow::new(sink + 1 + servers);
        for copy in 0..copies {
            flow.arc(source, copy, 0);
            match fixed.iter().find(|(fixed, _)| *fixed == copy) {
                Some((_, server)) => flow.arc(copy, first_server + server, 0),
                None => order
                    .iter()
                    .filter(|server| self.is_right(copy, **server))
                    .for_each(|server| flow.arc(copy, first_server + server, 0)),
            }
        }
        let nodes = Nodes { first_server, domains, sink };
        self.through_gates(&mut flow, nodes);
        match self.distinguish {
            Some(listed @ Distinguish::Labels(_)) => self.through_labels(&mut flow, listed, nodes),
            _ => self.through_domains(&mut flow, nodes),
        }
        let cost = flow.fill(source, sink);
        let goes = |copy: usize| flow.leads_to(copy).map(|node| (copy, node - first_server));
        Plan { pairs: (0..copies).filter_map(goes).collect(), cost }
    }

    fn price_of(&self, server: usize) -> Option<i64> {
        match self.uses[server] {
            Use::Ready => Some(0),
            Use::Reluctant => Some(RELUCTANT),
            Use::Taken | Use::Counted | Use::Not => None,
        }
    }

    fn has_copy(&self, server: usize) -> bool {
        matches!(self.uses[server], Use::Taken | Use::Counted)
    }

    /// Copies that are there count, but only one of those that share what is to be kept apart.
    fn through_gates(&self, flow: &mut Flow, Nodes { first_server, sink, .. }: Nodes) {
        // What a copy that counts has is gone: its gate leads nowhere.
        let counted = (0..self.servers.len()).filter(|server| self.uses[*server] == Use::Counted);
        let mut apart: Vec<Shared<'_>> = counted.filter_map(|server| self.kept_apart(server).by()).collect();
        for server in (0..self.servers.len()).filter(|server| self.uses[*server] == Use::Taken) {
            match self.kept_apart(server) {
                Apart::Any => flow.arc(first_server + server, sink, -TAKEN),
                Apart::Never => {}
                Apart::By(what) => {
                    let gate = apart.iter().position(|known| *known == what).unwrap_or(apart.len());
                    if gate == apart.len() {
                        apart.push(what);
                        flow.arc(sink + 1 + gate, sink, 0);
                    }
                    flow.arc(first_server + server, sink + 1 + gate, -TAKEN);
                }
            }
        }
    }

    /// Which of the things that no two copies may share the server has.
    fn kept_apart(&self, server: usize) -> Apart<'_> {
        let domain = |level: usize| Apart::By(Shared::Domain(self.topology.ids[server][level]));
        match self.distinguish {
            None => Apart::Any,
            Some(Distinguish::Region) => domain(0),
            Some(Distinguish::Rack) => domain(1),
            Some(Distinguish::Host) => domain(2),
            Some(listed @ Distinguish::Labels(_)) => match listed.label_of(self.servers[server].labels) {
                Some(label) => Apart::By(Shared::Label(label)),
                None => Apart::Never,
            },
        }
    }

    /// A label out of the list takes one copy. What has none of them stands for nothing and takes none.
    fn through_labels(&self, flow: &mut Flow, listed: &Distinguish, nodes: Nodes) {
        let Nodes { first_server, domains: groups, sink } = nodes;
        let mut labels = Vec::new();
        let mut gone = BTreeSet::new();
        for (server, candidate) in self.servers.iter().enumerate() {
            let Some(label) = listed.label_of(candidate.labels) else { continue };
            if self.has_copy(server) {
                gone.insert(label);
            }
            if let Some(price) = self.price_of(server) {
                let group = labels.iter().position(|known| *known == label).unwrap_or(labels.len());
                if group == labels.len() {
                    labels.push(label);
                }
                flow.arc(first_server + server, groups + group, price);
            }
        }
        for (group, _) in labels.iter().enumerate().filter(|(_, label)| !gone.contains(*label)) {
            flow.arc(groups + group, sink, 0);
        }
    }

    fn through_domains(&self, flow: &mut Flow, Nodes { first_server, domains, sink }: Nodes) {
        let [regions, racks, hosts] = self.topology.counts;
        let node = |level: Level, id: usize| match level {
            Level::Region => domains + id,
            Level::Rack => domains + regions + id,
            Level::Host => domains + regions + racks + id,
        };
        let mut taken = [vec![0; regions], vec![0; racks], vec![0; hosts]];
        let mut above = [vec![0; regions], vec![0; racks], vec![0; hosts]];
        for (server, ids) in self.topology.ids.iter().enumerate() {
            for level in 0..3 {
                taken[level][ids[level]] += usize::from(self.has_copy(server));
                above[level][ids[level]] = if level == 0 { 0 } else { ids[level - 1] };
            }
            if let Some(price) = self.price_of(server) {
                flow.arc(first_server + server, node(Level::Host, ids[2]), price);
            }
        }
        for (at, level) in Level::ALL.into_iter().enumerate() {
            for id in 0..self.topology.counts[at] {
                let to = if at == 0 { sink } else { node(Level::ALL[at - 1], above[at][id]) };
                let there = taken[at][id];
                let most = if self.keeps_apart(level) { 1 } else { there + self.copies.len() };
                (there..most).for_each(|others| flow.arc(node(level, id), to, level.price() * others as i64));
            }
        }
    }

    /// Whether no two copies may share a domain of this level.
    fn keeps_apart(&self, level: Level) -> bool {
        matches!(
            (self.distinguish, level),
            (Some(Distinguish::Host), Level::Host)
                | (Some(Distinguish::Rack), Level::Rack)
                | (Some(Distinguish::Region), Level::Region)
        )
    }
}
