//! The chunkservers' requests.

use std::time::Duration;

use mooseng_meta::{ClusterCommand, ServerPlace};
use mooseng_protocol::convert::{id16, part};
use mooseng_protocol::limits::{DISKS_MAX, TEXT_MAX};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkId, ChunkVersion, Labels, Level, Part, ServerId};
use prost::Message;

use super::requests::{Answer, Context, answer, at_most, master_addresses};
use crate::conn::ConnId;
use crate::group::{Group, Groups};
use crate::registry::{Copy, Disk, Registry, Report};

/// Makes a server known, or finds it known already.
pub(super) fn register(
    registry: &mut Registry,
    group: &Group,
    now: Duration,
    conn: ConnId,
    it: pb::RegisterServerRequest,
) -> Result<Answer, CallError> {
    let uuid = id16(&it.uuid, "uuid")?;
    at_most(it.name.len(), TEXT_MAX, "name")?;
    at_most(it.address.len(), TEXT_MAX, "address")?;
    at_most(it.disks.len(), DISKS_MAX, "disks")?;
    let place = place(&it)?;
    // Below the level of classes a place cannot be kept.
    let place = (group.state().level() >= Level::CLASSES).then_some(place);
    let known = group.state().servers().into_iter().find(|row| row.uuid == uuid);
    if let Some(row) = known
        && row.name == it.name
        && row.address == it.address
        && place.as_ref().is_none_or(|place| *place == row.place)
    {
        return Ok(Answer::Now(registered(registry, group, now, conn, &it, row.server)));
    }
    group.must_lead()?;
    let (name, address) = (it.name.clone(), it.address.clone());
    let command = ClusterCommand::RegisterServer { uuid, name, address, place }.into();
    let (command, context) = (Box::new(command), Context::Registered(it));
    Ok(Answer::Propose { cell: group.cell(), request: None, command, context })
}

/// Where a server says that it stands.
fn place(it: &pb::RegisterServerRequest) -> Result<ServerPlace, CallError> {
    at_most(it.region.len(), TEXT_MAX, "region")?;
    at_most(it.rack.len(), TEXT_MAX, "rack")?;
    let labels = Labels::parse(&it.labels);
    let labels = labels.map_err(|error| CallError::Rejected { message: format!("labels: {error}") })?;
    Ok(ServerPlace { labels, region: it.region.clone(), rack: it.rack.clone() })
}

/// The server has its number.
pub(super) fn registered(
    registry: &mut Registry,
    group: &Group,
    now: Duration,
    conn: ConnId,
    it: &pb::RegisterServerRequest,
    server: ServerId,
) -> Vec<u8> {
    if let Some(server) = registry.heard(server, conn, now, disks(&it.disks)) {
        server.has_placed = group.state().level() >= Level::CLASSES;
    }
    pb::RegisterServerReply { server: server.raw() }.encode_to_vec()
}

/// A server is alive.
pub(super) fn heartbeat(
    registry: &mut Registry,
    groups: &Groups,
    now: Duration,
    conn: ConnId,
    it: pb::HeartbeatRequest,
) -> Result<Answer, CallError> {
    at_most(it.disks.len(), DISKS_MAX, "disks")?;
    let id = ServerId::from_raw(it.server);
    let leader = groups.lead_any();
    let Some(server) = registry.heard(id, conn, now, disks(&it.disks)) else {
        return Err(CallError::Unavailable {
            message: format!("server {id} is not known here yet: register first"),
        });
    };
    // Told now and then; what was told last stays.
    if let Some(door) = it.door {
        server.tell_door(door.into(), pb::ReadChunkRequest::KIND);
    }
    let want_full_report = leader && !server.reported;
    let can_keep_more = !server.has_placed && groups.root().state().level() >= Level::CLASSES;
    let register_again = can_keep_more && groups.root().must_lead().is_ok();
    let masters = if leader { master_addresses(groups.root()) } else { Vec::new() };
    let epoch = groups.root().members().epoch;
    answer(&pb::HeartbeatReply { leader, want_full_report, masters, epoch, register_again })
}

/// Of what a report tells.
#[derive(Debug)]
pub(super) struct Told {
    /// Of all that the server has.
    pub(super) everything: bool,
    /// Of these.
    pub(super) chunks: Vec<ChunkId>,
    /// That copies of these could not be fetched.
    pub(super) failed: Vec<ChunkId>,
}

/// What a server has.
pub(super) fn report(
    registry: &mut Registry,
    groups: &Groups,
    it: &pb::ChunkReportRequest,
) -> Result<Told, CallError> {
    if !groups.lead_any() {
        return Err(groups.root().not_leader().into());
    }
    let copy = |copy: &pb::CopyStatus| {
        let version = ChunkVersion::from_raw(copy.version);
        let (in_doubt, verified) = (copy.in_doubt, copy.verified);
        part(copy.chunk, copy.part).map(|part| (part, Copy { version, in_doubt, verified }))
    };
    let lost = it.lost.iter().map(|chunk| part(*chunk, 0));
    let lost = lost.chain(it.lost_parts.iter().map(|lost| Part::try_from(*lost)));
    let report = Report {
        full: it.full,
        last: it.last,
        copies: it.chunks.iter().map(copy).collect::<Result<_, _>>()?,
        lost: lost.collect::<Result<_, _>>()?,
    };
    let named = report.copies.iter().map(|(part, _)| part).chain(&report.lost).map(|part| part.chunk());
    let told = Told {
        everything: report.full && report.last,
        chunks: if report.full { Vec::new() } else { named.collect() },
        failed: it.failed.iter().map(|failure| ChunkId::from_raw(failure.chunk)).collect(),
    };
    for failure in &it.failed {
        let (reason, source) = (failure.reason().as_str_name(), &failure.source);
        tracing::warn!(server = it.server, chunk = failure.chunk, source, reason, "a copy was not fetched");
    }
    if !registry.report(ServerId::from_raw(it.server), report) {
        let message = format!("server {} is not known here yet: register first", it.server);
        return Err(CallError::Unavailable { message });
    }
    Ok(told)
}

fn disks(disks: &[pb::DiskStatus]) -> Vec<Disk> {
    let disk = |disk: &pb::DiskStatus| Disk {
        total_bytes: disk.total_bytes,
        free_bytes: disk.free_bytes,
        failed: disk.failed,
        copies: disk.chunks,
    };
    disks.iter().map(disk).collect()
}
