//! Why a group does not do now what it is asked.

use mooseng_types::CellId;

use crate::raft::{ChangeError, ProposeError};

/// The answer in place of an answer. Nothing was done, unless it says that it may have been.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unready {
    /// The leader is to be asked, which is there if anybody knows it.
    #[error("not the leader")]
    NotLeader {
        /// Where it serves.
        leader: Option<String>,
    },
    /// There is no state yet.
    #[error("the cluster is being founded")]
    Founding,
    /// Whether another leads cannot be known yet.
    #[error("the leader has yet to hear from a majority")]
    NoMajority,
    /// What was proposed may be done or not.
    #[error("the leader has changed; send the request again")]
    LeaderChanged,
    /// What was proposed is not in the log.
    #[error("another leader's entry took this one's place; send the request again")]
    Replaced,
    /// More would have to wait for disks than may.
    #[error(transparent)]
    Overloaded(ProposeError),
    /// A change of the masters' group is not taken now.
    #[error(transparent)]
    MembershipChange(#[from] ChangeError),
    /// The group of a cell is hosted elsewhere.
    #[error("this master has no part in {0}")]
    OtherCell(CellId),
    /// No later try would do better.
    #[error("a command of {bytes} bytes is too long for the log")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}
