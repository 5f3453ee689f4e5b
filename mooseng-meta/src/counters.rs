//! Numbers that change with nearly every command: kept in memory, written as one row at a freeze.

use crate::settings::Totals;

/// The next ids and the totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    pub(crate) next_inode: u64,
    pub(crate) next_chunk: u64,
    pub(crate) next_session: u64,
    pub(crate) next_server: u32,
    pub(crate) totals: Totals,
}

impl Default for Counters {
    /// Those of an empty namespace; inode 1 is the root's.
    fn default() -> Self {
        Self { next_inode: 2, next_chunk: 1, next_session: 1, next_server: 1, totals: Totals::default() }
    }
}
