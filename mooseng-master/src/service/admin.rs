//! Administration: what the cluster looks like from here.

use bytes::Bytes;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::MasterId;

use super::{Answer, answer};
use crate::core::{MasterCore, Now};
use crate::raft::Role;

/// The cluster as this master sees it. Answered by any master: a follower knows the masters and the servers that speak
/// to it, the leader knows everything.
pub(super) fn cluster_status(core: &MasterCore, now: Now) -> Result<Answer, CallError> {
    let totals = core.state.totals();
    let servers = core.registry.iter().map(|(id, server)| pb::ServerStatus {
        id: id.raw(),
        name: server.name.clone(),
        address: server.address.clone(),
        state: if server.is_up(now.mono) { "up" } else { "down" }.into(),
        total_bytes: server.total_bytes(),
        free_bytes: server.free_bytes(),
        chunks: server.disks.iter().map(|disk| disk.copies).sum(),
        disks: server.disks.len() as u64,
        disks_failed: server.disks.iter().filter(|disk| disk.failed).count() as u64,
    });
    let servers = servers.collect();
    let sessions =
        if core.node.role() == Role::Leader { core.sessions.len() } else { core.state.sessions().len() };
    answer(&pb::ClusterStatusReply {
        cluster_id: Bytes::copy_from_slice(&core.config.cluster.bytes()),
        masters: masters(core),
        servers,
        sessions: sessions as u64,
        inodes: totals.inodes,
        used_bytes: totals.used_bytes,
        chunks: totals.chunks,
        orphans: core.state.orphans(usize::MAX).len() as u64,
        ..Default::default()
    })
}

fn masters(core: &MasterCore) -> Vec<pb::MasterStatus> {
    let leader = core.node.leader();
    let leads = core.node.role() == Role::Leader;
    let status = |peer: &crate::config::Peer| {
        let id = MasterId::from_raw(peer.id);
        let role = match id {
            _ if id == core.config.id => core.node.role().name(),
            _ if Some(id) == leader => "leader",
            _ if leads && !core.node.is_active(id) => "unreachable",
            _ => "follower",
        };
        pb::MasterStatus {
            id: peer.id,
            name: peer.name.clone(),
            address: peer.address.clone(),
            role: role.into(),
            term: core.node.term(),
            commit_index: core.node.commit_index(),
            applied_index: if id == core.config.id {
                core.state.applied_index()
            } else {
                core.node.matched(id)
            },
        }
    };
    core.config.peers.iter().map(status).collect()
}

/// fsck of the metadata.
pub(super) fn check(core: &MasterCore, now: Now) -> Result<Answer, CallError> {
    core.must_serve_reads(now)?;
    let violations = mooseng_meta::check(&core.state).iter().map(ToString::to_string).collect();
    let totals = core.state.totals();
    answer(&pb::CheckReply { violations, inodes: totals.inodes, chunks: totals.chunks })
}
