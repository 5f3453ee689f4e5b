//! Planted bugs: each must be found within a bounded number of seeds.

use mooseng_sim::{Plant, Shape, run};

/// Seeds within which a bug of the masters must be found.
const SEEDS: u64 = 300;
/// Worlds within which a bug of the data path must be found: those of half a minute.
const WORLDS: u64 = 1500;
/// Promises about what files hold.
const CONTENT: [&str; 4] = ["acked_is_durable", "content_is_current", "appends_are_whole", "open_is_kept"];

/// Found, by one of the promises that it breaks.
fn is_found(plant: Plant) {
    is_found_by(plant, &[""]);
}

/// Found, by one of these promises.
fn is_found_by(plant: Plant, promises: &[&str]) {
    let shape = |seed: u64| if seed.is_multiple_of(3) { Shape::Five } else { Shape::Three };
    assert!((1..=SEEDS).any(|seed| breaks(plant, promises, seed, shape(seed))), "{}", plant.name());
}

/// Found in worlds of all shapes, because a file does not hold what it must.
fn loses_data(plant: Plant) {
    is_found_in_time(plant, &CONTENT);
}

/// Found in worlds of all shapes, by one of these promises.
fn is_found_in_time(plant: Plant, promises: &[&str]) {
    let shapes = [Shape::One, Shape::Three, Shape::Five];
    let mut worlds = (1..=WORLDS).map(|number| (number.div_ceil(3), shapes[(number % 3) as usize]));
    assert!(worlds.any(|(seed, shape)| breaks(plant, promises, seed, shape)), "{}", plant.name());
}

fn breaks(plant: Plant, promises: &[&str], seed: u64, shape: Shape) -> bool {
    let violations = run(seed, shape, Some(plant)).violations;
    violations.iter().any(|violation| promises.iter().any(|promise| violation.contains(promise)))
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
    loses_data(Plant::CountOnNothing);
}

#[test]
fn a_client_that_does_not_sync_is_found() {
    loses_data(Plant::SkipSync);
}

#[test]
fn a_group_that_is_replaced_at_once_is_found() {
    is_found_by(Plant::ReplaceAtOnce, &["election_safety", "leader_completeness"]);
}

#[test]
fn chunks_behind_a_small_files_content_taken_for_holes_are_found() {
    loses_data(Plant::InlineHidesChunks);
}

#[test]
fn a_commit_of_a_version_that_no_copy_has_is_found() {
    loses_data(Plant::AdoptNothing);
}

#[test]
fn a_copy_made_again_in_the_place_of_one_moved_aside_is_found() {
    loses_data(Plant::CreateAgain);
}

#[test]
fn a_dead_writers_bytes_that_come_back_are_found() {
    loses_data(Plant::SkipCut);
}

#[test]
fn old_places_of_chunks_believed_after_others_have_written_are_found() {
    loses_data(Plant::OldPlaces);
}

#[test]
fn old_attributes_believed_at_an_open_are_found() {
    loses_data(Plant::OldAttributes);
}

#[test]
fn an_error_that_no_sync_carries_is_found() {
    loses_data(Plant::SwallowErrors);
}

#[test]
fn bytes_that_outlive_their_session_are_found() {
    loses_data(Plant::OutliveSession);
}

#[test]
fn damage_that_vouches_for_itself_is_found() {
    loses_data(Plant::TrustDamage);
}

#[test]
fn an_append_over_what_others_have_appended_is_found() {
    loses_data(Plant::AppendWhereItSeems);
}

#[test]
fn a_copy_in_doubt_that_passes_for_a_whole_one_is_found() {
    loses_data(Plant::ReadInDoubt);
}

#[test]
fn bytes_behind_what_was_committed_that_pass_for_content_are_found() {
    loses_data(Plant::ReadBehindTheEnd);
}

#[test]
fn a_list_of_open_files_that_claims_to_know_of_opens_under_way_is_found() {
    loses_data(Plant::ListTooMuch);
}

#[test]
fn a_close_that_does_not_ask_for_what_was_sent_before_it_is_found() {
    // It takes a power cut of all copies between a close and the next sync, and nobody who writes the chunk again.
    let found = |seed| breaks(Plant::CloseUnasked, &CONTENT, seed, Shape::Five);
    assert!((1001..=1001 + WORLDS).any(found), "{}", Plant::CloseUnasked.name());
}

#[test]
fn a_client_that_blames_a_healthy_server_for_the_silence_of_another_is_found() {
    is_found_in_time(Plant::BlameTheFirst, &["none_is_blamed_falsely"]);
}

#[test]
fn a_part_that_stays_connected_when_the_level_rises_beyond_it_is_found() {
    let found = |seed| breaks(Plant::LeaveConnected, &["level_is_known"], seed, Shape::Mixed);
    assert!((1..=SEEDS).any(found));
}

#[test]
fn a_client_that_lets_a_copy_be_made_anew_which_a_lost_disk_had_is_found() {
    let found = |seed| breaks(Plant::MakeCopiesAnew, &CONTENT, seed, Shape::Healing);
    assert!((1..=WORLDS).any(found), "{}", Plant::MakeCopiesAnew.name());
}
