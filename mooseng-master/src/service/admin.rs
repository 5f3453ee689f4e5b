//! Administration: what the cluster looks like from here.

use bytes::Bytes;
use mooseng_meta::Member;
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
        epoch: core.group.epoch,
        joining: joining(core, now),
    })
}

fn masters(core: &MasterCore) -> Vec<pb::MasterStatus> {
    let leader = core.node.leader();
    let leads = core.node.role() == Role::Leader;
    let status = |member: &Member| {
        let id = member.id;
        let role = match id {
            _ if id == core.config.id && core.door.removed => "removed",
            _ if Some(id) == leader => "leader",
            _ if leads && id != core.config.id && !core.node.is_active(id) => "unreachable",
            _ if !member.voter => "learner",
            _ if id == core.config.id => core.node.role().name(),
            _ => "follower",
        };
        let own = id == core.config.id;
        pb::MasterStatus {
            id: id.number(),
            name: member.name.clone(),
            address: member.address.clone(),
            role: role.into(),
            term: core.node.term(),
            commit_index: core.node.commit_index(),
            applied_index: if own { core.state.applied_index() } else { core.node.matched(id) },
        }
    };
    core.group.members.iter().map(status).collect()
}

/// Masters that ask to be let in, and this one if it is one of them.
fn joining(core: &MasterCore, now: Now) -> Vec<pb::MasterStatus> {
    let status = |id: MasterId, name: &str, address: &str| pb::MasterStatus {
        id: id.number(),
        name: name.into(),
        address: address.into(),
        role: "joining".into(),
        ..Default::default()
    };
    let own = core.group.members.is_empty();
    let own = own.then(|| status(core.config.id, &core.config.name, &core.config.address));
    let strangers = core.door.asking(now.mono).filter(|knock| core.group.get(knock.id).is_none());
    own.into_iter().chain(strangers.map(|knock| status(knock.id, &knock.name, &knock.address))).collect()
}

/// fsck of the metadata.
pub(super) fn check(core: &MasterCore, now: Now) -> Result<Answer, CallError> {
    core.must_serve_reads(now)?;
    let violations = mooseng_meta::check(&core.state).iter().map(ToString::to_string).collect();
    let totals = core.state.totals();
    answer(&pb::CheckReply { violations, inodes: totals.inodes, chunks: totals.chunks })
}
