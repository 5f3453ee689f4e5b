//! Tests of the whole machine.

mod content;
mod digest;
mod lease;
mod membership;
mod model;
mod names;
mod once;
