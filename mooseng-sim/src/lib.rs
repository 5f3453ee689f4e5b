//! A seeded, single-threaded world with faults that drives the real cores: masters on their real log, the real chunk
//! store, clients that speak the protocol. Equal seeds give equal runs, to the last event.
//!
//! In reading order: [`world`] is the event loop and owns everything; `master` and `server` are machines that can
//! crash; `client` is what people run; [`oracle`] knows what each answer implies; [`invariants`] are the promises, one
//! per file; [`plant`] is how we know that they can be broken at all.

mod client;
mod clock;
mod disk;
mod entropy;
pub mod invariants;
mod master;
mod net;
pub mod oracle;
pub mod plant;
mod rows;
mod server;
mod task;
pub mod world;

pub use plant::Plant;
pub use world::{Counts, Happening, Outcome, Shape, run, run_in_detail};
