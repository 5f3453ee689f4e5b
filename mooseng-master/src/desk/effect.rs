//! What the desk asks of the edge.

use std::sync::Arc;

use mooseng_meta::MetaStore;

use crate::conn::ConnId;

/// What the edge has to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Bytes for a connection: a reply or a push.
    Frame(ConnId, Vec<u8>),
    /// This connection is to be closed.
    Cut(ConnId),
    /// To every client connected: this master leads now.
    Announce(Vec<u8>),
    /// A view of this store, as it is now or later, is to be checked; what is found comes back.
    Check(Arc<dyn MetaStore>),
}
