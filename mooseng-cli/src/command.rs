//! One subcommand per file.

pub(crate) mod chunk;
pub(crate) mod class;
pub(crate) mod cluster;
pub(crate) mod file;
pub(crate) mod fsck;
pub(crate) mod health;
pub(crate) mod key;
pub(crate) mod scrub;
pub(crate) mod server;
