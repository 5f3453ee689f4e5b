//! Planted bugs: each must be found within a bounded number of seeds.

use mooseng_sim::{Plant, Shape, run};

/// Seeds within which a bug must be found.
const SEEDS: u64 = 300;

/// Found, by one of the promises that it breaks.
fn is_found(plant: Plant) {
    is_found_by(plant, &[""]);
}

/// Found, by one of these promises.
fn is_found_by(plant: Plant, promises: &[&str]) {
    let broken = |seed: u64| {
        let shape = if seed.is_multiple_of(3) { Shape::Five } else { Shape::Three };
        let violations = run(seed, shape, Some(plant)).violations;
        violations.iter().any(|violation| promises.iter().any(|promise| violation.starts_with(promise)))
    };
    assert!((1..=SEEDS).any(broken), "{} was not found by {SEEDS} seeds", plant.name());
}

#[test]
fn a_log_that_acknowledges_before_it_syncs_is_found() {
    is_found(Plant::AckBeforeSync);
}

#[test]
fn a_voter_that_forgets_its_vote_is_found() {
    is_found(Plant::ForgetVote);
}

#[test]
fn a_log_that_loses_its_last_entry_is_found() {
    is_found(Plant::TruncateTail);
}

#[test]
fn a_store_that_tells_of_rows_before_it_has_them_is_found() {
    is_found(Plant::FlushBeforeWrite);
}

#[test]
fn a_chunkserver_that_does_not_sync_is_found() {
    is_found(Plant::SkipDataSync);
}

#[test]
fn a_client_that_does_not_keep_its_numbers_is_found() {
    is_found(Plant::FreshNumbers);
}

#[test]
fn a_leader_that_answers_after_its_lease_is_found() {
    is_found(Plant::SlowClock);
}

#[test]
fn a_restarted_voter_that_votes_at_once_is_found() {
    is_found(Plant::VoteAtOnce);
}

#[test]
fn a_master_that_applies_entries_twice_is_found() {
    is_found(Plant::DoubleApply);
}

#[test]
fn a_master_that_forgets_its_answers_is_found() {
    is_found(Plant::ForgetAnswers);
}

#[test]
fn a_snapshot_of_older_rows_is_found() {
    is_found_by(Plant::StaleSnapshot, &["state_machine_safety"]);
}

#[test]
fn a_snapshot_without_the_answers_is_found() {
    is_found_by(Plant::SnapshotWithoutAnswers, &["state_machine_safety"]);
}

#[test]
fn a_client_that_counts_on_lost_bytes_is_found() {
    is_found(Plant::CountOnNothing);
}

#[test]
fn a_client_that_does_not_sync_is_found() {
    is_found(Plant::SkipSync);
}

#[test]
fn a_group_that_is_replaced_at_once_is_found() {
    is_found_by(Plant::ReplaceAtOnce, &["election_safety", "leader_completeness"]);
}
