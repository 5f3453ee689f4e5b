//! Masters as processes are: real sockets, real files, one thread each.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

mod failover;
mod world;
