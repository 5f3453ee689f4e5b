//! Flow of the greatest value and, of those, the least cost: unit by unit along the cheapest way that is left (Ford and Fulkerson
//! 1962; the ways by Bellman and Ford, as costs may be negative).
//!
//! Every arc takes one unit. One that should take more is given several times, each time dearer, where what it takes
//! costs more the more it is.

use std::collections::VecDeque;

struct Arc {
    to: usize,
    is_free: bool,
    cost: i64,
}

/// A network. Its nodes are numbered by whoever builds it.
pub(super) struct Flow {
    /// Each beside its opposite: 2n and 2n + 1.
    arcs: Vec<Arc>,
    leaving: Vec<Vec<usize>>,
}

impl Flow {
    pub(super) fn new(nodes: usize) -> Self {
        Self { arcs: Vec::new(), leaving: vec![Vec::new(); nodes] }
    }

    /// Among ways of the same cost the one whose arcs came first is taken.
    pub(super) fn arc(&mut self, from: usize, to: usize, cost: i64) {
        self.leaving[from].push(self.arcs.len());
        self.arcs.push(Arc { to, is_free: true, cost });
        self.leaving[to].push(self.arcs.len());
        self.arcs.push(Arc { to: from, is_free: false, cost: -cost });
    }

    /// Sends what can be sent; the cost of all of it.
    pub(super) fn fill(&mut self, source: usize, sink: usize) -> i64 {
        let mut total = 0;
        while let Some((cost, by)) = self.cheapest(source, sink) {
            let mut at = sink;
            while at != source {
                let arc = by[at];
                self.arcs[arc].is_free = false;
                self.arcs[arc ^ 1].is_free = true;
                at = self.arcs[arc ^ 1].to;
            }
            total += cost;
        }
        total
    }

    /// Where a unit goes from here, along an arc that was given.
    pub(super) fn leads_to(&self, from: usize) -> Option<usize> {
        let used = |arc: &&usize| arc.is_multiple_of(2) && !self.arcs[**arc].is_free;
        self.leaving[from].iter().find(used).map(|arc| self.arcs[*arc].to)
    }

    /// The cost of the cheapest way, and for each node the arc by which it is reached.
    fn cheapest(&self, source: usize, sink: usize) -> Option<(i64, Vec<usize>)> {
        let mut costs = vec![i64::MAX; self.leaving.len()];
        let mut by = vec![usize::MAX; self.leaving.len()];
        let mut is_queued = vec![false; self.leaving.len()];
        let mut queue = VecDeque::from([source]);
        costs[source] = 0;
        while let Some(node) = queue.pop_front() {
            is_queued[node] = false;
            for &index in &self.leaving[node] {
                let arc = &self.arcs[index];
                let cost = costs[node] + arc.cost;
                if arc.is_free && cost < costs[arc.to] {
                    (costs[arc.to], by[arc.to]) = (cost, index);
                    if !is_queued[arc.to] {
                        is_queued[arc.to] = true;
                        queue.push_back(arc.to);
                    }
                }
            }
        }
        (costs[sink] < i64::MAX).then(|| (costs[sink], by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_flow_comes_first_and_the_least_cost_second() {
        // 0 to 5; two ways, of which the cheapest single one stands in the way of both together.
        let mut flow = Flow::new(6);
        for (from, to, cost) in [(0, 1, 0), (0, 2, 0), (1, 3, 1), (1, 4, 9), (2, 3, 2), (3, 5, 0), (4, 5, 0)]
        {
            flow.arc(from, to, cost);
        }
        assert_eq!(flow.fill(0, 5), 11);
        assert_eq!((flow.leads_to(1), flow.leads_to(2)), (Some(4), Some(3)));
    }

    #[test]
    fn what_takes_more_at_a_higher_price_is_given_as_several_arcs() {
        let mut flow = Flow::new(4);
        for (from, to, cost) in [(0, 1, 0), (0, 1, 0), (0, 1, 0), (1, 2, 0), (1, 2, 5), (1, 3, 3)] {
            flow.arc(from, to, cost);
        }
        (0..3).for_each(|_| flow.arc(2, 3, 0));
        assert_eq!(flow.fill(0, 3), 8);
    }
}
