//! The master: keeps the namespace, by Raft with its peers, and knows where every chunk is.
//!
//! In reading order, from below; imports run one way, which `cargo xtask tidy` checks:
//! - [`raft`]: one log that a majority has on disk.
//! - [`store`] and [`cache_enhanced`]: the namespace's rows on disk and in memory.
//! - [`snapshot`]: all rows, from one master to another.
//! - [`group`]: one Raft group: consensus, state, membership, digests, who waits. It knows no connection and no request.
//! - [`registry`] and [`sessions`]: the chunkservers and the clients, as the leader sees them now; `callers`: which levels the
//!   parts that are connected know.
//! - `repair`: what is wrong with a chunk, and what is to be done about it.
//! - `worker`: what the leader does without being asked.
//! - [`multiregion`]: where copies are put.
//! - [`desk`]: a request: decode, one call, encode.
//! - [`core`]: groups and desk, without sockets, files and threads.
//! - [`wire`]: what masters say to each other, to and from the schema.
//! - [`recover`]: the group made anew from one master, after a majority was lost for good.
//! - [`server`]: the edge: one thread that owns the core and all sockets.
//! - [`daemon`]: the process.

pub mod cache_config;
pub mod cache_enhanced;
mod callers;
pub mod config;
mod conn;
pub mod core;
pub mod daemon;
pub mod desk;
pub mod group;
pub mod multiregion;
mod open;
pub mod raft;
pub mod recover;
pub mod registry;
mod repair;
pub mod server;
pub mod sessions;
pub mod snapshot;
pub mod store;
pub mod wire;
mod worker;

pub use daemon::run;
