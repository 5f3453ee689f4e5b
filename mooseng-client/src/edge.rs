//! What carries actions out: the way to the masters, the way to the chunkservers, threads, budgets, caches. Nothing here
//! decides what becomes of a file; that is [`crate::file`]'s and [`crate::session`]'s.

pub(crate) mod budget;
pub(crate) mod chunkservers;
pub(crate) mod data_cache;
pub(crate) mod door;
pub(crate) mod inode;
pub(crate) mod keeper;
pub(crate) mod masters;
pub mod messages;
pub(crate) mod operate;
pub(crate) mod reader;
pub(crate) mod recalls;
pub(crate) mod wire;
pub(crate) mod workers;
