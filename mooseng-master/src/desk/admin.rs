//! Administration: what the cluster looks like from here, and changes of the masters' group.

use std::time::Duration;

use bytes::Bytes;
use mooseng_meta::{Member, ServerMode};
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{Level, MasterId};

use super::requests::{Answer, Context, answer};
use super::{Desk, upkeep};
use crate::group::{Group, Groups};
use crate::raft::MembershipChange;
use crate::worker::WorkerStatus;

/// More orphans than these are not counted: that would take too long between two heartbeats.
const ORPHANS_COUNTED: usize = 10_000;

/// The cluster as this master sees it. Answered by any master: a follower knows the masters and the servers that speak
/// to it, the leader knows everything.
pub(super) fn cluster_status(desk: &Desk, groups: &Groups, now: Duration) -> Result<Answer, CallError> {
    let group = groups.root();
    let cell = desk.cells.get(&group.cell());
    let state = group.state();
    let totals = state.totals();
    let servers = desk.registry.iter().map(|(id, server)| pb::ServerStatus {
        id: id.raw(),
        name: server.name.clone(),
        address: server.address.clone(),
        labels: server.place.labels.iter().map(ToString::to_string).collect(),
        region: server.place.region.clone(),
        rack: server.place.rack.clone(),
        state: if server.is_up(now) { "up" } else { "down" }.into(),
        total_bytes: server.total_bytes(),
        free_bytes: server.free_bytes(),
        chunks: server.disks.iter().map(|disk| disk.copies).fold(0, u64::saturating_add),
        disks: server.disks.len() as u64,
        disks_failed: server.disks.iter().filter(|disk| disk.failed).count() as u64,
        door: server.door.as_ref().map(Into::into),
        mode: match server.mode {
            ServerMode::Normal => pb::ServerMode::Normal,
            ServerMode::Draining => pb::ServerMode::Draining,
            ServerMode::Maintenance { .. } => pb::ServerMode::Maintenance,
        }
        .into(),
        maintenance_until_ns: match server.mode {
            ServerMode::Maintenance { until } => until.raw(),
            ServerMode::Normal | ServerMode::Draining => 0,
        },
        empty: upkeep::is_empty(desk, groups, id),
    });
    let servers = servers.collect();
    let sessions =
        if group.leads() { cell.map_or(0, |cell| cell.sessions.len()) } else { state.sessions().len() };
    answer(&pb::ClusterStatusReply {
        cluster_id: Bytes::copy_from_slice(&desk.config.cluster.bytes()),
        masters: masters(group),
        servers,
        sessions: sessions as u64,
        inodes: totals.inodes,
        used_bytes: totals.used_bytes,
        chunks: totals.chunks,
        orphans: state.orphans(ORPHANS_COUNTED).len() as u64,
        epoch: group.members().epoch,
        joining: joining(group, now),
        level: state.level().raw().into(),
        workers: cell.iter().flat_map(|cell| cell.workers.status()).map(worker).collect(),
        cells: groups.iter().map(cell_status).collect(),
        door: Some((&desk.door.snapshot()).into()),
    })
}

fn cell_status(group: &Group) -> pb::CellStatus {
    pb::CellStatus {
        cell: group.cell().raw().into(),
        role: group.node().role().name().into(),
        leader: group.node().leader().map_or(0, MasterId::number),
        term: group.node().term(),
        applied_index: group.state().applied_index(),
        voters: u32::try_from(group.members().voters().len()).unwrap_or(u32::MAX),
    }
}

fn worker(status: &WorkerStatus) -> pb::WorkerStatus {
    let WorkerStatus { name, under_way, applied, ordered, refused, trouble } = status;
    pb::WorkerStatus {
        name: (*name).to_owned(),
        under_way: *under_way,
        applied: *applied,
        ordered: *ordered,
        refused: *refused,
        trouble: trouble.clone(),
    }
}

fn masters(group: &Group) -> Vec<pb::MasterStatus> {
    let leader = group.node().leader();
    let leads = group.leads();
    let status = |member: &Member| {
        let id = member.id;
        let role = match id {
            _ if id == group.config().id && group.door().removed => "removed",
            _ if Some(id) == leader => "leader",
            _ if leads && id != group.config().id && !group.node().is_active(id) => "unreachable",
            _ if !member.voter => "learner",
            _ if id == group.config().id => group.node().role().name(),
            _ => "follower",
        };
        let own = id == group.config().id;
        pb::MasterStatus {
            id: id.number(),
            name: member.name.clone(),
            address: member.address.clone(),
            role: role.into(),
            term: group.node().term(),
            commit_index: group.node().commit_index(),
            applied_index: if own { group.state().applied_index() } else { group.node().matched(id) },
            voter: member.voter,
        }
    };
    group.members().members.iter().map(status).collect()
}

/// Masters that ask to be let in, and this one if it is one of them.
fn joining(group: &Group, now: Duration) -> Vec<pb::MasterStatus> {
    let status = |id: MasterId, name: &str, address: &str| pb::MasterStatus {
        id: id.number(),
        name: name.into(),
        address: address.into(),
        role: "joining".into(),
        ..Default::default()
    };
    let own = group.members().members.is_empty();
    let own = own.then(|| status(group.config().id, &group.config().name, &group.config().address));
    let strangers = group.door().asking(now).filter(|knock| group.members().get(knock.id).is_none());
    own.into_iter().chain(strangers.map(|knock| status(knock.id, &knock.name, &knock.address))).collect()
}

/// Lets a master that asks to be let in become a learner; it becomes a voter by itself, unless it is to stay one.
pub(super) fn add_master(
    group: &Group,
    now: Duration,
    it: &pb::AddMasterRequest,
) -> Result<Answer, CallError> {
    group.must_lead()?;
    let named = |name: &str, id: MasterId| it.master == name || it.master == id.number().to_string();
    if let Some(member) = group.members().members.iter().find(|member| named(&member.name, member.id)) {
        return rejected(format!("{} is in the group already", member.name));
    }
    let Some(knock) = group.door().asking(now).find(|knock| named(&knock.name, knock.id)) else {
        return rejected(format!(
            "no master called {} asks to be let in: start it with an empty data directory, this cluster's id and key, and `peers` that name a master of this cluster",
            it.master
        ));
    };
    let member = Member {
        id: knock.id,
        name: knock.name.clone(),
        address: knock.address.clone(),
        voter: false,
        wants_vote: !it.learner,
    };
    let what = if it.learner {
        "a learner: a copy of the metadata, without a vote"
    } else {
        "a voter once it has caught up"
    };
    let done = format!("{} at {} becomes {what}", member.name, member.address);
    change(it.dry_run, MembershipChange::Learner(knock.id), member, done)
}

/// Takes a master out of the group.
pub(super) fn remove_master(group: &Group, it: &pb::RemoveMasterRequest) -> Result<Answer, CallError> {
    group.must_lead()?;
    let member = find(group, &it.master)?;
    if member.id == group.config().id {
        return rejected(format!(
            "{} leads: first let another one lead (mooseng cluster transfer-leader), then remove it",
            member.name
        ));
    }
    let left: Vec<MasterId> = group.node().voters().into_iter().filter(|id| *id != member.id).collect();
    let answering =
        left.iter().filter(|id| **id == group.config().id || group.node().is_active(**id)).count();
    let needed = left.len() / 2 + 1;
    if answering < needed {
        return rejected(format!(
            "without {} the group would have {} voters, of which {answering} answer and {needed} are needed: mend one of them first",
            member.name,
            left.len()
        ));
    }
    let done = format!("{} leaves; {} voters stay, {needed} of them needed", member.name, left.len());
    change(it.dry_run, MembershipChange::Remove(member.id), member.clone(), done)
}

fn change(
    dry_run: bool,
    change: MembershipChange,
    member: Member,
    done: String,
) -> Result<Answer, CallError> {
    if dry_run {
        answer(&pb::MembershipReply { done })
    } else {
        Ok(Answer::MembershipChange(change, member, done))
    }
}

/// Lets another master lead.
pub(super) fn transfer_leader(
    group: &mut Group,
    now: Duration,
    it: &pb::TransferLeaderRequest,
) -> Result<Answer, CallError> {
    group.must_lead()?;
    let to = if it.master.is_empty() { group.node().successor() } else { Some(find(group, &it.master)?.id) };
    let Some(member) = to.and_then(|to| group.members().get(to)).cloned() else {
        return rejected("no other voter answers".into());
    };
    match () {
        () if member.id == group.config().id => return rejected(format!("{} leads already", member.name)),
        () if !member.voter => return rejected(format!("{} is a learner and cannot lead", member.name)),
        () if !group.node().has_caught_up(member.id) => {
            return rejected(format!("{} does not answer, or lags behind", member.name));
        }
        () => {}
    }
    if !it.dry_run {
        group.hand_over_to(now, member.id);
    }
    answer(&pb::TransferLeaderReply { to: member.name })
}

/// Raises the cluster's level as far as everybody can go.
pub(super) fn upgrade(
    desk: &Desk,
    group: &Group,
    now: Duration,
    it: &pb::UpgradeRequest,
) -> Result<Answer, CallError> {
    group.must_serve_reads(now)?;
    let survey = desk.survey(group, now);
    let command = survey.raise_level()?;
    let reply = upgraded(survey.level, survey.highest);
    if it.dry_run {
        answer(&reply)
    } else {
        let (command, context) = (Box::new(command.into()), Context::Upgraded(reply));
        Ok(Answer::Propose { cell: group.cell(), request: None, command, context })
    }
}

fn upgraded(before: Level, level: Level) -> pb::UpgradeReply {
    pb::UpgradeReply { level_before: before.raw().into(), level: level.raw().into() }
}

fn find<'a>(group: &'a Group, master: &str) -> Result<&'a Member, CallError> {
    let named = |member: &&Member| member.name == master || member.id.number().to_string() == master;
    let names =
        || group.members().members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
    group.members().members.iter().find(named).ok_or_else(|| CallError::Rejected {
        message: format!("no master of the group is called {master}: there are {}", names()),
    })
}

fn rejected<T>(message: String) -> Result<T, CallError> {
    Err(CallError::Rejected { message })
}
