//! Tests of the whole machine.

mod cell;
mod class;
mod content;
mod digest;
mod held;
mod lease;
mod level;
mod membership;
mod model;
mod names;
mod once;
