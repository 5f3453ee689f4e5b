//! Healing: what is wrong with a chunk, and what is to be done about it. Pure: rows, reports and the time are arguments.
//!
//! - `subject` and `view`: a chunk's row beside what its servers tell; `moves`: which copies are in the wrong place; `assess`: what is wrong with it and the next step towards its goal.
//! - `ledger`: what is known of all chunks of a cell, kept up to date chunk by chunk; nobody who asks it scans anything.
//! - `plan`: which steps are taken now: the most dangerous first, within limits, nobody for ever left out.
//!
//! A step is found again from row and reports alone, so a new leader goes on where the old one stopped, and nothing is
//! forgotten with it.

mod assess;
mod ledger;
mod limits;
mod moves;
mod plan;
mod standing;
mod subject;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use self::assess::{Condition, Step, Tally, Urgency, assess};
pub(crate) use self::ledger::{Ledger, Sweep};
pub use self::limits::Limits;
pub(crate) use self::plan::{Job, Jobs, Room};
pub(crate) use self::standing::{Seen, Standing, Standings};
pub(crate) use self::subject::Subject;
pub(crate) use self::view::{ChunkView, CopyState};
