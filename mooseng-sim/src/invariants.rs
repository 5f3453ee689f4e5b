//! The promises, one per file, each with its source.

mod acked_is_durable;
mod applied_once;
mod consistent;
mod election_safety;
mod heals;
mod leader_completeness;
mod lease_is_exclusive;
mod level_is_known;
mod linearizable;
mod log_matching;
mod no_lost_name;
mod state_machine_safety;

pub(crate) use acked_is_durable::{compare, judge};
pub(crate) use applied_once::same_answer;
pub(crate) use consistent::consistent;
pub(crate) use election_safety::Elections;
pub(crate) use heals::{CopiesOnDisk, all_are_there, can_do_without, heals, no_orphan_chunk};
pub(crate) use leader_completeness::LeaderCompleteness;
pub(crate) use lease_is_exclusive::lease_is_exclusive;
pub(crate) use level_is_known::{LevelIsKnown, can_go_along, is_served};
pub(crate) use linearizable::{Call, Object, linearizable};
pub(crate) use log_matching::{Appended, LogMatching};
pub(crate) use no_lost_name::same_entries;
pub(crate) use state_machine_safety::{Applied, same_rows};
