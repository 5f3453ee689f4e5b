//! Numbers that change with nearly every command: kept in memory, written as one row at a freeze.

use crate::settings::Totals;

/// The next ids and the totals. Of inodes, chunks and sessions these are numbers within the cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    pub(crate) next_inode: u64,
    pub(crate) next_chunk: u64,
    pub(crate) next_session: u64,
    pub(crate) next_server: u32,
    pub(crate) totals: Totals,
}

impl Default for Counters {
    /// Those of an empty namespace; inode 1 is the cell's root.
    fn default() -> Self {
        Self { next_inode: 2, next_chunk: 1, next_session: 1, next_server: 1, totals: Totals::default() }
    }
}

/// Ids of inodes, chunks and sessions that are left out when a state begins anew: more than anybody can have been given
/// by entries that are lost.
const IDS_SKIPPED: u64 = 1 << 32;
/// The same for chunkservers, whose ids have 32 bits.
const SERVERS_SKIPPED: u32 = 1 << 12;

impl Counters {
    /// Leaves out all ids that somebody may have who is not known here.
    pub(crate) fn skip_ids(&mut self) {
        self.next_inode += IDS_SKIPPED;
        self.next_chunk += IDS_SKIPPED;
        self.next_session += IDS_SKIPPED;
        self.next_server += SERVERS_SKIPPED;
    }
}
