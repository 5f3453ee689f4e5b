//! Tests of the whole machine.

mod content;
mod lease;
mod model;
mod names;
mod once;
