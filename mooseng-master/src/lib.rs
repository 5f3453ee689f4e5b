//! The master: keeps the namespace, by Raft with its peers, and knows where every chunk is.
//!
//! In reading order:
//! - [`raft`]: one log that a majority has on disk.
//! - [`core`]: the master without sockets, files and threads. It owns the consensus core, the namespace
//!   (`mooseng-meta`), the [`sessions`] and the [`registry`] of chunkservers.
//! - `service`: requests off the wire, into the core and back.
//! - [`multiregion`]: where copies are put.
//! - [`store`] and [`cache_enhanced`]: the namespace's rows on disk and in memory.
//! - [`snapshot`]: all rows, from one master to another.
//! - [`recover`]: the group made anew from one master, after a majority was lost for good.
//! - [`digests`]: do all replicas have the same state?
//! - [`server`]: the edge: one thread that owns the core and all sockets.
//! - [`daemon`]: the process.

pub mod cache_config;
pub mod cache_enhanced;
pub mod config;
pub mod core;
pub mod daemon;
pub mod digests;
pub mod multiregion;
mod open;
mod open_files;
pub mod raft;
pub mod recover;
pub mod registry;
pub mod server;
mod service;
pub mod sessions;
pub mod snapshot;
pub mod store;

pub use daemon::run;
