//! Masters as they are used: real sockets, real files.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

mod cells;
mod door;
mod facade;
mod failover;
mod group;
mod recover;
mod strangers;
mod world;
