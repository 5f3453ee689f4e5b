//! What the core asks of the edge.

use std::collections::BTreeMap;
use std::sync::Arc;

use mooseng_meta::{Batch, MetaStore};
use mooseng_protocol::pb;
use mooseng_types::MasterId;

use super::ConnId;
#[cfg(doc)]
use super::MasterCore;
use crate::raft::Persist;

/// What the edge has to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// To the log; [`MasterCore::persisted`] follows.
    Persist(Persist),
    /// The log is not needed up to here.
    Purge {
        /// The last entry to go.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// To another master; may be lost.
    Send(MasterId, pb::RaftMessages),
    /// Bytes for a connection: a reply or a push.
    Frame(ConnId, Vec<u8>),
    /// To another master, with the rows of this one's store: they must be of the entry that the message names.
    /// [`MasterCore::snapshot_sent`] follows.
    SendSnapshot(MasterId, pb::RaftMessage),
    /// These masters are to be reached from now on, at these addresses, and no others.
    Link(BTreeMap<MasterId, String>),
    /// This master's state is not what the others have: it must not serve any more, nor be started again as it is.
    OutOfService(String),
    /// This master's log lacks what it had acknowledged: it must begin anew, as one that has lost its disk.
    LostLog(String),
    /// The group goes on without this master: it must not be started again as it is.
    LeftBehind(String),
    /// This connection is to be closed.
    Cut(ConnId),
    /// To every client connected: this master leads now.
    Announce(Vec<u8>),
    /// To this store; [`MasterCore::flushed`] follows.
    Flush(Arc<dyn MetaStore>, Arc<Batch>),
    /// A view of this store, as it is now or later, is to be checked; [`MasterCore::checked`] follows.
    Check(Arc<dyn MetaStore>),
}
