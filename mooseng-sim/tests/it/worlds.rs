//! Worlds without planted bugs: all promises hold.

use std::time::Duration;

use mooseng_sim::{Happening, Shape, run};

use crate::seeds::KEPT;

const SEEDS: u64 = 200;
/// Worlds that last longer.
const MIXED_SEEDS: u64 = 60;

fn check(worlds: impl Iterator<Item = (u64, Shape)>) {
    let mut failures = Vec::new();
    let mut answered = 0;
    for (seed, shape) in worlds {
        let outcome = run(seed, shape, None);
        answered += outcome.answered;
        if !outcome.violations.is_empty() {
            let name = shape.name();
            failures.push(format!("cargo run -p mooseng-sim --bin explore -- --seed {seed} --world {name}"));
            failures.extend(outcome.violations);
        }
    }
    assert!(failures.is_empty(), "promises were broken:\n{}", failures.join("\n"));
    assert!(answered > 0, "nothing happened in these worlds");
}

#[test]
fn one_master_keeps_its_promises_through_crashes() {
    check((1..=SEEDS).map(|seed| (seed, Shape::One)));
}

#[test]
fn three_masters_keep_their_promises_through_crashes_and_partitions() {
    check((1..=SEEDS).map(|seed| (seed, Shape::Three)));
}

#[test]
fn five_masters_keep_their_promises_through_crashes_and_partitions() {
    check((1..=SEEDS).map(|seed| (seed, Shape::Five)));
}

#[test]
fn chunks_come_back_to_their_goals_by_themselves_whichever_servers_are_lost() {
    check((1..=SEEDS).map(|seed| (seed, Shape::Healing)));
}

/// An hour of simulated time, in worlds of about half a minute each: in one world of an hour the level would rise once.
#[test]
fn a_cluster_keeps_its_promises_while_it_is_upgraded_part_by_part() {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut passed = Duration::ZERO;
    let mut rises = 0;
    for seed in 1.. {
        let outcome = run(seed, Shape::Mixed, None);
        assert!(outcome.violations.is_empty(), "seed {seed} of the mixed world: {:?}", outcome.violations);
        passed += outcome.simulated;
        rises += outcome.counts.of(Happening::Rise);
        if passed >= HOUR {
            break;
        }
    }
    assert!(rises > 100, "the level has risen only {rises} times amid faults");
}

#[test]
fn seeds_that_once_failed_do_not_fail_again() {
    check(KEPT.iter().copied());
}

/// Else the promises above would be kept because nothing endangers them.
#[test]
fn worlds_do_all_that_promises_are_easily_broken_by() {
    let (few, many) = (MIXED_SEEDS, SEEDS);
    for (shape, seeds) in
        [(Shape::Three, many), (Shape::Five, many), (Shape::Mixed, few), (Shape::Healing, few)]
    {
        let counts: Vec<_> = (1..=seeds).map(|seed| run(seed, shape, None).counts).collect();
        let may_happen = |what: &Happening| match shape {
            Shape::Healing => Happening::OF_HEALING.contains(what),
            Shape::Mixed => !Happening::OF_HEALING.contains(what),
            _ => !Happening::OF_HEALING.contains(what) && !Happening::OF_RELEASES.contains(what),
        };
        for what in Happening::ALL.into_iter().filter(may_happen) {
            let worlds = counts.iter().filter(|counts| counts.of(what) > 0).count();
            assert!(worlds > 0, "{} in no world of shape {}", what.name(), shape.name());
        }
    }
}

#[test]
fn equal_seeds_run_alike_and_others_do_not() {
    for shape in Shape::ALL {
        let traces: Vec<_> = (1..=12).map(|seed| run(seed, shape, None).trace).collect();
        let again: Vec<_> = (1..=12).map(|seed| run(seed, shape, None).trace).collect();
        assert_eq!(traces, again);
        let mut different = traces.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), traces.len(), "two seeds ran alike");
    }
}
