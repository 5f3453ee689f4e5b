//! Which copies are in the wrong place, and where they would be in the right one.

use mooseng_meta::ServerMode;
use mooseng_types::{Goal, LabelExpression, ServerId, Strictness};

use crate::multiregion::placement::{Ask, Candidate, choose};
use crate::registry::Registry;

/// Copies that are not where they should be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Moves {
    /// Servers of good copies that the row counts and that are to be elsewhere.
    pub(crate) leaving: Vec<ServerId>,
    /// Servers of good copies beside those of the row that may take their place.
    pub(crate) welcome: Vec<ServerId>,
    /// Servers of good copies that do least for the goal: where there are too many, these go first.
    pub(crate) spare: Vec<ServerId>,
    /// Nobody is leaving but copies that the goal wants on other servers: they move only to such.
    pub(crate) only_right: bool,
}

impl Moves {
    /// Of a chunk with good copies on the servers `counted`, and beside those on `beside`. Whether a server is up does not count:
    /// what is up changes from moment to moment, and a move waits for its target.
    pub(crate) fn of(goal: &Goal, counted: &[ServerId], beside: &[ServerId], registry: &Registry) -> Self {
        let mode = |server: &ServerId| registry.get(*server).map(|known| known.mode);
        let (mut leaving, staying): (Vec<ServerId>, Vec<ServerId>) =
            counted.iter().partition(|server| mode(server) == Some(ServerMode::Draining));
        let only_right = leaving.is_empty();
        let can_be_wrong =
            goal.distinguish().is_some() || goal.copies().iter().any(|copy| *copy != LabelExpression::ANY);
        let mut moves = Self::default();
        let mut right = staying.clone();
        if can_be_wrong || counted.len() > goal.copies().len() {
            right = kept(goal, &staying, registry);
            moves.spare = staying.iter().copied().filter(|server| !right.contains(server)).collect();
        }
        if can_be_wrong && !moves.spare.is_empty() {
            let others = registry.iter().map(|(server, _)| server);
            let others =
                others.filter(|server| !counted.contains(server) && mode(server) == Some(ServerMode::Normal));
            let better = placed(goal, &right, &others.collect::<Vec<_>>(), registry);
            leaving.extend(moves.spare.iter().take(better));
        }
        if !leaving.is_empty() {
            let is_welcome = |server: &&ServerId| {
                let suits = || placed(goal, &right, &[**server], registry) > 0;
                mode(server) == Some(ServerMode::Normal) && (!only_right || suits())
            };
            moves.welcome = beside.iter().filter(is_welcome).copied().collect();
        }
        Self { leaving, only_right, ..moves }
    }

    /// Of `good` copies one too many: the one to go.
    pub(crate) fn first_to_go(&self, good: &[ServerId]) -> Option<ServerId> {
        let listed = self.leaving.iter().chain(&self.spare).find(|server| good.contains(server));
        listed.or(good.last()).copied()
    }
}

/// As placement sees them, were they up, empty and idle.
fn candidates<'a>(servers: &[ServerId], registry: &'a Registry) -> Vec<Candidate<'a>> {
    let candidate = |server: &ServerId| {
        let candidate = registry.get(*server)?.candidate(*server);
        Some(Candidate { free_bytes: 1 << 40, recently_given: 0, is_overloaded: false, ..candidate })
    };
    servers.iter().filter_map(candidate).collect()
}

/// Those of the servers that count for the goal.
fn kept(goal: &Goal, servers: &[ServerId], registry: &Registry) -> Vec<ServerId> {
    let taken = candidates(servers, registry);
    let ask =
        Ask { goal, strictness: Strictness::Strict, candidates: &[], taken: &taken, writer: None, seed: 0 };
    choose(&ask).kept.iter().map(|kept| kept.server).collect()
}

/// How many more copies find a right server among `others`.
fn placed(goal: &Goal, taken: &[ServerId], others: &[ServerId], registry: &Registry) -> usize {
    let (taken, others) = (candidates(taken, registry), candidates(others, registry));
    let ask = Ask {
        goal,
        strictness: Strictness::Strict,
        candidates: &others,
        taken: &taken,
        writer: None,
        seed: 0,
    };
    choose(&ask).placed.iter().filter(|placed| placed.is_right).count()
}

#[cfg(test)]
mod tests {
    use mooseng_meta::{ServerPlace, ServerRow};
    use mooseng_types::Labels;

    use super::*;

    fn server(raw: u32) -> ServerId {
        ServerId::from_raw(raw)
    }

    fn servers(raw: &[u32]) -> Vec<ServerId> {
        raw.iter().copied().map(server).collect()
    }

    /// Servers numbered from 1 on: their label and mode.
    fn registry(list: &[(&str, ServerMode)]) -> Registry {
        let row = |(at, (label, mode)): (u32, &(&str, ServerMode))| ServerRow {
            server: server(at),
            uuid: [0; 16],
            name: String::new(),
            address: format!("h{at}:1"),
            place: ServerPlace { labels: Labels::parse(&[label]).unwrap(), ..ServerPlace::default() },
            mode: *mode,
        };
        Registry::of(&(1..).zip(list).map(row).collect::<Vec<_>>())
    }

    const NORMAL: ServerMode = ServerMode::Normal;

    #[test]
    fn copies_leave_a_server_that_is_drained_for_any_and_one_with_a_wrong_label_for_a_right_one() {
        let all = registry(&[("A", ServerMode::Draining), ("A", NORMAL), ("B", NORMAL), ("A", NORMAL)]);
        let moves = |goal: &str, counted: &[u32], beside: &[u32]| {
            let moves = Moves::of(&goal.parse().unwrap(), &servers(counted), &servers(beside), &all);
            (moves.leaving, moves.welcome, moves.only_right)
        };
        let none = Vec::new;
        assert_eq!(moves("2", &[2, 3], &[4]), (none(), none(), true));
        assert_eq!(moves("2", &[1, 3], &[4]), (servers(&[1]), servers(&[4]), false));
        assert_eq!(moves("2A", &[2, 4], &[3]), (none(), none(), true));
        assert_eq!(moves("2A", &[2, 3], &[4]), (servers(&[3]), servers(&[4]), true));
        assert_eq!(moves("2A", &[3, 2], &[1]), (servers(&[3]), none(), true), "it is drained");
        assert_eq!(moves("2C", &[2, 3], &[4]), (none(), none(), true), "nobody else is right");
        assert_eq!(moves("3A", &[2, 4, 3], &[]), (none(), none(), true));
    }

    #[test]
    fn of_too_many_copies_those_go_first_that_leave_and_then_those_that_do_not_count() {
        let all = registry(&[("B", NORMAL), ("A", NORMAL), ("A", NORMAL), ("A", ServerMode::Draining)]);
        let first = |goal: &str, good: &[u32]| {
            let good = servers(good);
            Moves::of(&goal.parse().unwrap(), &good, &[], &all).first_to_go(&good)
        };
        assert_eq!(first("2A", &[1, 2, 3]), Some(server(1)));
        assert_eq!(first("2A", &[4, 1, 2, 3]), Some(server(4)));
        assert_ne!(first("A,B", &[1, 2, 3]), Some(server(1)), "it is the only one of its kind");
    }
}
