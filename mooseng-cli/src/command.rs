//! One subcommand per file.

pub(crate) mod cluster;
pub(crate) mod fsck;
pub(crate) mod key;
