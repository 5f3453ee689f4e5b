//! Tests of the whole machine.

mod lease;
mod model;
mod names;
mod once;
