//! Cores for the tests beside their parts.

use std::sync::Arc;
use std::time::Duration;

use mooseng_env::SystemEntropy;
use mooseng_meta::{MemoryStore, MetaState};
use mooseng_protocol::token::TokenKey;
use mooseng_types::{ClusterId, MasterId, TimeNs};

use super::{CoreConfig, MasterCore, Now};
use crate::config::Peer;
use crate::raft::Recovered;

pub(super) const NOW: Now = Now { mono: Duration::ZERO, wall: TimeNs::from_raw(0) };

/// Master 1 of so many.
pub(super) fn config(masters: u64) -> CoreConfig {
    let peer = |id| Peer { id, name: format!("m{id}"), address: format!("m{id}:1") };
    CoreConfig {
        id: MasterId::from_raw(1),
        name: "m1".into(),
        address: "m1:1".into(),
        log_keep_bytes: 1 << 20,
        lost_group: false,
        peers: (1..=masters).map(peer).collect(),
        cluster: ClusterId::from_bytes([1; 16]),
        copies: 2,
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(250),
        session_timeout: Duration::from_secs(5),
    }
}

/// One with an empty store.
pub(super) fn core(config: CoreConfig, recovered: Recovered) -> MasterCore {
    let state = MetaState::open(Arc::new(MemoryStore::new())).unwrap();
    let (key, entropy) = (TokenKey::new(&[0; 32]), Arc::new(SystemEntropy));
    MasterCore::new(config, key, state, recovered, NOW.mono, entropy)
}
