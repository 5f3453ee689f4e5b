//! Which lease stands in a command's way: what a leader asks before it proposes, so that a refusal is no entry of the log.

use mooseng_types::{ChunkIndex, InodeId, SessionId};

use crate::chunk::ChunkRow;
use crate::command::Command;
use crate::state::MetaState;

/// A lease for which a command would be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseInTheWay {
    /// The file.
    pub inode: InodeId,
    /// Which chunk of it.
    pub index: ChunkIndex,
    /// Who has the lease.
    pub holder: SessionId,
}

impl LeaseInTheWay {
    /// The chunk's lease, if it is in the way of `asker`.
    pub(crate) fn of(row: &ChunkRow, asker: Option<SessionId>) -> Option<Self> {
        let holder = row.held_by_another(asker)?;
        Some(Self { inode: row.inode, index: row.index, holder })
    }
}

impl MetaState {
    /// The lease for which the command would be [refused](mooseng_types::FsError::LeaseHeld), were it applied now. `None` also
    /// for what would be refused for another reason.
    #[must_use]
    pub fn lease_in_the_way(&self, command: &Command) -> Option<LeaseInTheWay> {
        command.lease_in_the_way(&self.tables)
    }
}
