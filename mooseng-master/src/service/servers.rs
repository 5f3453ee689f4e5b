//! The chunkservers' requests.

use mooseng_meta::ClusterCommand;
use mooseng_protocol::convert::{id16, part};
use mooseng_protocol::limits::{DISKS_MAX, TEXT_MAX};
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkId, ChunkVersion, Part, ServerId, SessionId};
use prost::Message;

use super::{Answer, Context, answer, at_most};
use crate::core::{ConnId, MasterCore, Now};
use crate::registry::{Copy, Disk, Report};

/// A copy to be fetched.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    /// The address of the server that has it.
    pub(crate) source: String,
}

/// Makes a server known, or finds it known already.
pub(super) fn register(
    core: &mut MasterCore,
    now: Now,
    conn: ConnId,
    it: pb::RegisterServerRequest,
) -> Result<Answer, CallError> {
    let uuid = id16(&it.uuid, "uuid")?;
    at_most(it.name.len(), TEXT_MAX, "name")?;
    at_most(it.address.len(), TEXT_MAX, "address")?;
    at_most(it.disks.len(), DISKS_MAX, "disks")?;
    let known = core.state.servers().into_iter().find(|row| row.uuid == uuid);
    if let Some(row) = known
        && row.name == it.name
        && row.address == it.address
    {
        return Ok(Answer::Now(registered(core, now, conn, it, row.server)));
    }
    core.must_lead()?;
    let command =
        ClusterCommand::RegisterServer { uuid, name: it.name.clone(), address: it.address.clone() }.into();
    Ok(Answer::Propose(None, Box::new(command), Context::Registered(it)))
}

/// The server has its number.
pub(super) fn registered(
    core: &mut MasterCore,
    now: Now,
    conn: ConnId,
    it: pb::RegisterServerRequest,
    server: ServerId,
) -> Vec<u8> {
    core.registry.heard(server, conn, now.mono, disks(&it.disks));
    pb::RegisterServerReply { server: server.raw() }.encode_to_vec()
}

/// A server is alive.
pub(super) fn heartbeat(
    core: &mut MasterCore,
    now: Now,
    conn: ConnId,
    it: pb::HeartbeatRequest,
) -> Result<Answer, CallError> {
    at_most(it.disks.len(), DISKS_MAX, "disks")?;
    let id = ServerId::from_raw(it.server);
    let leader = core.leads();
    let Some(server) = core.registry.heard(id, conn, now.mono, disks(&it.disks)) else {
        return Err(CallError::Unavailable {
            message: format!("server {id} is not known here yet: register first"),
        });
    };
    let want_full_report = leader && !server.reported;
    let masters = if leader { core.master_addresses() } else { Vec::new() };
    answer(&pb::HeartbeatReply { leader, want_full_report, masters, epoch: core.group.epoch })
}

/// What a server has.
pub(super) fn report(core: &mut MasterCore, it: &pb::ChunkReportRequest) -> Result<Answer, CallError> {
    core.must_lead()?;
    let copy = |copy: &pb::CopyStatus| {
        let version = ChunkVersion::from_raw(copy.version);
        part(copy.chunk, copy.part).map(|part| (part, Copy { version, in_doubt: copy.in_doubt }))
    };
    let lost = it.lost.iter().map(|chunk| part(*chunk, 0));
    let lost = lost.chain(it.lost_parts.iter().map(|lost| Part::try_from(*lost)));
    let report = Report {
        full: it.full,
        last: it.last,
        copies: it.chunks.iter().map(copy).collect::<Result<_, _>>()?,
        lost: lost.collect::<Result<_, _>>()?,
    };
    if !core.registry.report(ServerId::from_raw(it.server), report) {
        let message = format!("server {} is not known here yet: register first", it.server);
        return Err(CallError::Unavailable { message });
    }
    answer(&pb::ChunkReportReply {})
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

impl MasterCore {
    /// Orders a server to delete its whole copies of `chunks`.
    pub(crate) fn order_deletion(&mut self, server: ServerId, chunks: &[ChunkId]) {
        if let Some(conn) = self.registry.get(server).and_then(|server| server.conn) {
            let chunks = chunks.iter().map(|chunk| chunk.raw()).collect();
            self.push(conn, &pb::DeleteChunks { chunks, parts: Vec::new() });
        }
    }

    /// Orders a server to fetch a copy anew from one that has it whole.
    pub(crate) fn order_copy(&mut self, now: Now, server: ServerId, order: Fetch) {
        if let Some(conn) = self.registry.get(server).and_then(|server| server.conn) {
            let Fetch { chunk, version, source } = order;
            let token = self.read_token(now, SessionId::from_raw(0), chunk, version);
            let (chunk, version) = (chunk.raw(), version.raw());
            self.push(conn, &pb::CopyChunk { chunk, version, source, token, replace: true, part: 0 });
        }
    }

    /// Takes over from the state what servers there are.
    pub(crate) fn know_servers(&mut self) {
        for row in self.state.servers() {
            self.registry.know(&row);
        }
    }
}
