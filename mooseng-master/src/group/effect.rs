//! What a group asks of the edge.

use std::sync::Arc;

use mooseng_meta::{Batch, MetaStore};
use mooseng_types::MasterId;

#[cfg(doc)]
use super::Group;
use super::PeerMessages;
use crate::raft::{Message, Persist};

/// What the edge has to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// To the log; [`Group::persisted`] follows.
    Persist(Persist),
    /// The log is not needed up to here.
    Purge {
        /// The last entry to go.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// To another master; may be lost.
    Send(MasterId, PeerMessages),
    /// To another master, with the rows of this one's store: they must be of the entry that the message names.
    /// [`Group::snapshot_sent`] follows.
    SendSnapshot(MasterId, Message),
    /// [`Group::links`] has changed.
    Relink,
    /// This master's state is not what the others have: it must not serve any more, nor be started again as it is.
    OutOfService(String),
    /// This master's log lacks what it had acknowledged: it must begin anew, as one that has lost its disk.
    LostLog(String),
    /// The group goes on without this master: it must not be started again as it is.
    LeftBehind(String),
    /// To this store; [`Group::flushed`] follows.
    Flush(Arc<dyn MetaStore>, Arc<Batch>),
}
