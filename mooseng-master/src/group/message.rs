//! What one master says to another about a group.

use mooseng_meta::Member;
use mooseng_types::{CellId, MasterId};

use crate::raft::Message;

/// All that goes to another master at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerMessages {
    /// Which group it is about.
    pub cell: CellId,
    /// Of the consensus core, in order.
    pub messages: Vec<Message>,
    /// From the leader: every voter has the log on disk up to here.
    pub all_have: u64,
    /// Where the sender last noted the rolling hash of its state, and the hash.
    pub digest: Option<(u64, u64)>,
    /// From the leader to a replica whose state is not the others'.
    pub differs: Option<Differing>,
    /// From a master that is in no group.
    pub join: Option<Join>,
    /// To a master that asks to be let in, or that is not in the group any more.
    pub view: Option<View>,
    /// Of the sender's group; 0 of one that is in none.
    pub epoch: u64,
}

impl PeerMessages {
    /// About this cell's group, nothing yet.
    #[must_use]
    pub fn of(cell: CellId) -> Self {
        Self {
            cell,
            messages: Vec::new(),
            all_have: 0,
            digest: None,
            differs: None,
            join: None,
            view: None,
            epoch: 0,
        }
    }
}

/// A master asks to be let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    /// Its number and life.
    pub id: MasterId,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub address: String,
    /// It was in a group that the receiver may know nothing of.
    pub lost_group: bool,
}

/// The group, as the sender knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// Which making of the group.
    pub epoch: u64,
    /// The entry of the log that it is as of.
    pub index: u64,
    /// Its members.
    pub members: Vec<Member>,
}

/// A replica's state is not the others'.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Differing {
    /// Where that is seen.
    pub index: u64,
    /// The replica's hash there.
    pub theirs: u64,
    /// The others' hash.
    pub majority: u64,
    /// The replica: a later life under the same address is not meant.
    pub member: MasterId,
}
