//! Whether the servers that are up can do what a goal asks: for those who are about to ask for it.

use mooseng_types::{Goal, LabelExpression, Strictness};

use super::{Ask, Candidate, choose};

/// What the servers make of a goal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fit {
    /// Copies that it asks for.
    pub copies: usize,
    /// Copies that find a right server.
    pub placed: usize,
    /// More copies, that find another one, as strictly as labels are taken.
    pub substituted: usize,
    /// Servers that are right for some copy.
    pub matching: usize,
    /// Copies without a right server, and domains with more of the others than would have to be; for people.
    pub warnings: Vec<String>,
    is_loose: bool,
}

impl Fit {
    /// The goal on these servers, as if none of them had much to do.
    #[must_use]
    pub fn of(goal: &Goal, strictness: Strictness, candidates: &[Candidate<'_>]) -> Self {
        let strictness = goal.strictness().unwrap_or(strictness);
        let mut candidates = candidates.to_vec();
        candidates.iter_mut().for_each(|candidate| candidate.is_overloaded = false);
        let ask = Ask { goal, strictness, candidates: &candidates, taken: &[], writer: None, seed: 0 };
        let choice = choose(&ask);
        let placed = choice.placed.iter().filter(|placed| placed.is_right).count();
        let another = |copy: usize, asked: &LabelExpression| {
            format!("copy {} ({asked}): no right server can be had, so it goes to another one", copy + 1)
        };
        let substitutes = choice.placed.iter().filter(|placed| !placed.is_right);
        let warnings = choice
            .missing
            .iter()
            .map(ToString::to_string)
            .chain(substitutes.map(|placed| another(placed.copy, &placed.asked)))
            .chain(choice.crowded.iter().map(ToString::to_string));
        Self {
            copies: goal.copies().len(),
            placed,
            substituted: choice.placed.len() - placed,
            matching: candidates.iter().filter(|candidate| goal.wants(candidate.labels)).count(),
            warnings: warnings.collect(),
            is_loose: strictness == Strictness::Loose,
        }
    }

    /// Whether the goal can be met. Where labels are taken loosely, by any servers.
    #[must_use]
    pub fn is_met(&self) -> bool {
        let counting = if self.is_loose { self.placed + self.substituted } else { self.placed };
        counting == self.copies
    }

    /// How many servers may be lost at once without the loss of a chunk.
    #[must_use]
    pub fn losses_survived(&self) -> usize {
        (self.placed + self.substituted).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::{Labels, ServerId};

    use super::*;

    #[test]
    fn a_goal_is_met_by_right_servers_and_a_loose_one_by_any() {
        let labels = [&["A"][..], &["A"], &["B"]].map(|labels| Labels::parse(labels).unwrap());
        let candidate = |(at, labels)| Candidate {
            server: ServerId::from_raw(at),
            labels,
            region: "",
            rack: "",
            host: "",
            free_bytes: 1 << 30,
            recently_given: 0,
            latency: None,
            is_overloaded: true,
        };
        let servers: Vec<Candidate<'_>> = (0..).zip(&labels).map(candidate).collect();
        for (goal, [copies, placed, substituted, matching, losses], is_met) in [
            ("2A", [2, 2, 0, 2, 1], true),
            ("3A", [3, 2, 1, 2, 2], false),
            ("3A:loose", [3, 2, 1, 2, 2], true),
            ("3A:strict", [3, 2, 0, 2, 1], false),
            ("C", [1, 0, 1, 0, 0], false),
            ("4", [4, 3, 0, 3, 2], false),
        ] {
            let fit = Fit::of(&goal.parse().unwrap(), Strictness::Standard, &servers);
            let found = [fit.copies, fit.placed, fit.substituted, fit.matching, fit.losses_survived()];
            assert_eq!(
                (found, fit.is_met()),
                ([copies, placed, substituted, matching, losses], is_met),
                "{goal}"
            );
            assert_eq!(fit.warnings.is_empty(), placed == copies, "{goal}: {:?}", fit.warnings);
        }
    }
}
