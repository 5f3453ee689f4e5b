//! What the log's entries that change the masters' group carry, in the bytes that they have in the log.

use bytes::Bytes;
use prost::Message as _;

use crate::pb;

/// The entry itself, laid out as the Raft library does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChangeEntry {
    /// 0: becomes a voter, 1: leaves, 2: becomes a learner.
    pub kind: u32,
    /// Number and life of the master it is about.
    pub node: u64,
    /// A [`MemberNote`].
    pub context: Bytes,
}

impl ChangeEntry {
    /// Reads an entry's bytes; `None` if they are no such entry's.
    #[must_use]
    pub fn decode(data: Bytes) -> Option<Self> {
        let pb::MembershipChange { id: _, kind, node, context } = pb::MembershipChange::decode(data).ok()?;
        Some(Self { kind, node, context })
    }

    /// The entry's bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let Self { kind, node, context } = self;
        pb::MembershipChange { id: 0, kind, node, context }.encode_to_vec()
    }
}

/// What goes with a change: the member that it is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberNote {
    /// Number and life.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub address: String,
    /// It is to vote, once it has caught up.
    pub wants_vote: bool,
}

impl MemberNote {
    /// Reads a note; `None` if the bytes are none.
    #[must_use]
    pub fn decode(bytes: Bytes) -> Option<Self> {
        let pb::GroupMember { id, name, address, voter } = pb::GroupMember::decode(bytes).ok()?;
        Some(Self { id, name, address, wants_vote: voter })
    }

    /// The note's bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let Self { id, name, address, wants_vote } = self;
        pb::GroupMember { id, name, address, voter: wants_vote }.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_and_its_note_have_the_bytes_that_are_in_the_logs() {
        let (name, address) = ("m".to_owned(), "a".to_owned());
        let note = MemberNote { id: 3, name, address, wants_vote: true };
        assert_eq!(note.clone().encode(), b"\x08\x03\x12\x01m\x1a\x01a\x20\x01");
        assert_eq!(MemberNote::decode(note.clone().encode().into()), Some(note.clone()));
        let entry = ChangeEntry { kind: 2, node: 3, context: note.encode().into() };
        assert_eq!(entry.clone().encode(), b"\x10\x02\x18\x03\x22\x0a\x08\x03\x12\x01m\x1a\x01a\x20\x01");
        assert_eq!(ChangeEntry::decode(entry.clone().encode().into()), Some(entry));
        assert_eq!(ChangeEntry::decode(Bytes::from_static(b"\xff")), None);
    }
}
