//! Nodes for the tests beside the node's parts.

use std::sync::Arc;
use std::time::Duration;

use mooseng_env::SystemEntropy;
use mooseng_types::MasterId;
use raft::eraftpb::MessageType;

use super::{MembershipChange, Node, NodeConfig};
use crate::raft::{Message, Recovered};

pub(super) const NOW: Duration = Duration::ZERO;

/// Lets everything become durable and take effect; returns the changes of the group that did.
pub(super) fn settle(node: &mut Node) -> Vec<MembershipChange> {
    let mut changes = Vec::new();
    while let Some(output) = node.output() {
        if let Some(persist) = output.persist {
            drop(node.persisted(persist.number));
        }
        for entry in output.committed {
            if let Some((change, _)) = MembershipChange::of_entry(&entry).filter(|_| entry.kind == 1) {
                assert!(node.apply_change(entry.index, change));
                changes.push(change);
            }
            node.applied(entry.index);
        }
    }
    changes
}

pub(super) fn from(from: u64, kind: MessageType, term: u64) -> Message {
    Message { kind: kind as u32, to: 2, from, term, ..Default::default() }
}

/// Master 2 of so many.
pub(super) fn node(voters: u64) -> Node {
    let config = NodeConfig {
        id: MasterId::from_raw(2),
        voters: (1..=voters).map(MasterId::from_raw).collect(),
        learners: Vec::new(),
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(250),
        applied: 0,
        keep_bytes: 1 << 20,
    };
    Node::new(&config, Recovered::default(), NOW, Arc::new(SystemEntropy))
}

pub(super) fn stand(node: &mut Node) {
    node.raw.campaign().unwrap();
    settle(node);
    node.step(NOW, from(3, MessageType::MsgRequestPreVoteResponse, 2));
    settle(node);
}
