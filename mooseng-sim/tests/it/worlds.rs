//! Worlds without planted bugs: all promises hold.

use mooseng_sim::{Happening, Shape, run};

use crate::seeds::KEPT;

const SEEDS: u64 = 200;

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
fn seeds_that_once_failed_do_not_fail_again() {
    check(KEPT.iter().copied());
}

/// Else the promises above would be kept because nothing endangers them.
#[test]
fn worlds_do_all_that_promises_are_easily_broken_by() {
    for shape in [Shape::Three, Shape::Five] {
        let counts: Vec<_> = (1..=SEEDS).map(|seed| run(seed, shape, None).counts).collect();
        for what in Happening::ALL {
            let worlds = counts.iter().filter(|counts| counts.of(what) > 0).count();
            assert!(worlds > 0, "{} in no world with {} masters", what.name(), shape.name());
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
