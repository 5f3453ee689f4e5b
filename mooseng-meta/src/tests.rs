//! Tests of the whole machine.

mod lease;
mod names;
mod once;
