//! What the two sides of a connection say first.

use bytes::Bytes;
use mooseng_types::{ClusterId, Levels};

use crate::{PROTOCOL_VERSION, pb};

/// What stands for the cluster in the hello of a part that has yet to learn it.
const UNKNOWN_CLUSTER: [u8; 16] = [0; 16];

impl pb::Hello {
    /// What a part says that opens a connection. `cluster` is `None` if it has yet to learn it.
    #[must_use]
    pub fn new(role: pb::Role, name: &str, cluster: Option<ClusterId>, levels: Levels) -> Self {
        let cluster = cluster.map_or(UNKNOWN_CLUSTER, ClusterId::bytes);
        Self {
            cluster_id: Bytes::copy_from_slice(&cluster),
            protocol_version: PROTOCOL_VERSION,
            role: role.into(),
            name: name.to_owned(),
            epoch: 0,
            node_id: 0,
            level_lowest: levels.lowest().raw().into(),
            level_highest: levels.highest().raw().into(),
            nonce: Bytes::new(),
            client_id: Bytes::new(),
        }
    }
}

impl pb::HelloReply {
    /// What a part says that was called.
    #[must_use]
    pub fn new(name: &str, cluster: ClusterId, levels: Levels) -> Self {
        Self {
            cluster_id: Bytes::copy_from_slice(&cluster.bytes()),
            protocol_version: PROTOCOL_VERSION,
            name: name.to_owned(),
            level_lowest: levels.lowest().raw().into(),
            level_highest: levels.highest().raw().into(),
            ..Self::default()
        }
    }
}
