//! One subcommand per file.

pub(crate) mod class;
pub(crate) mod cluster;
pub(crate) mod file;
pub(crate) mod fsck;
pub(crate) mod key;
