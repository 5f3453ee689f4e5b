//! What the leader wants back from a session: what it is, and the number by which the session acknowledges it.

use mooseng_types::{ChunkIndex, InodeId, SessionId};

use crate::convert::BadMessage;
use crate::pb;
use crate::pb::recall::Recalled as Wire;

/// What is recalled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Recalled {
    /// The write lease of a chunk.
    Chunk {
        /// The file.
        inode: InodeId,
        /// Which chunk of it.
        index: ChunkIndex,
    },
}

impl Recalled {
    /// The inode that it is of.
    #[must_use]
    pub fn inode(self) -> InodeId {
        match self {
            Self::Chunk { inode, .. } => inode,
        }
    }
}

/// A recall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recall {
    /// Who is to give something back.
    pub session: SessionId,
    /// Rises within a cell, also from one leader to the next. A recall that is sent again keeps its number.
    pub number: u64,
    /// What is to be given back.
    pub what: Recalled,
}

impl From<Recall> for pb::Recall {
    fn from(recall: Recall) -> Self {
        let Recalled::Chunk { inode, index } = recall.what;
        let chunk = pb::RecalledChunk { inode: inode.raw(), index: index.raw() };
        Self { session: recall.session.raw(), number: recall.number, recalled: Some(Wire::Chunk(chunk)) }
    }
}

impl TryFrom<pb::Recall> for Recall {
    type Error = BadMessage;

    /// A kind that is not known here is as good as none.
    fn try_from(recall: pb::Recall) -> Result<Self, BadMessage> {
        let Wire::Chunk(chunk) = recall.recalled.ok_or(BadMessage { field: "recalled" })?;
        let (inode, index) = (InodeId::from_raw(chunk.inode), ChunkIndex::from_raw(chunk.index));
        let what = Recalled::Chunk { inode, index };
        Ok(Self { session: SessionId::from_raw(recall.session), number: recall.number, what })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_recall_has_these_bytes() {
        let what = Recalled::Chunk { inode: InodeId::from_raw(7), index: ChunkIndex::from_raw(2) };
        let recall = Recall { session: SessionId::from_raw(3), number: 300, what };
        let bytes = pb::Recall::from(recall).encode_to_vec();
        assert_eq!(bytes, [0x08, 3, 0x10, 0xac, 2, 0x1a, 4, 0x08, 7, 0x10, 2]);
        assert_eq!(Recall::try_from(pb::Recall::decode(&bytes[..]).unwrap()), Ok(recall));
    }

    #[test]
    fn a_recall_of_a_kind_that_is_not_known_is_taken_for_no_other() {
        let bytes = [0x08, 3, 0x10, 5, 0x22, 4, 0x08, 7, 0x10, 2];
        let recall = pb::Recall::decode(&bytes[..]).unwrap();
        assert_eq!(Recall::try_from(recall), Err(BadMessage { field: "recalled" }));
    }
}
