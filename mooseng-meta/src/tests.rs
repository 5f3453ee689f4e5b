//! Tests of the whole machine.

mod content;
mod lease;
mod membership;
mod model;
mod names;
mod once;
