//! Calls to the masters, for the commands.

use std::time::Duration;

use anyhow::{Context as _, bail};
use mooseng_env::{Clock as _, SystemClock};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_protocol::{PROTOCOL_VERSION, pb};
use mooseng_types::ClusterId;
use serde::Serialize;

use crate::Target;
use crate::up::layout::Layout;

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(60);
/// How long a leader is waited for.
const LEADER: Duration = Duration::from_secs(10);

/// The cluster, as status shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterStatus {
    pub(crate) cluster_id: String,
    pub(crate) masters: Vec<Master>,
    pub(crate) servers: Vec<Server>,
    pub(crate) sessions: u64,
    pub(crate) inodes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) chunks: u64,
    pub(crate) orphans: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Master {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) address: String,
    pub(crate) term: u64,
    pub(crate) commit_index: u64,
    pub(crate) applied_index: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) address: String,
    pub(crate) total_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) chunks: u64,
    pub(crate) disks: u64,
    pub(crate) disks_failed: u64,
}

/// The addresses of the masters to speak to.
pub(crate) fn masters(target: &Target) -> anyhow::Result<Vec<String>> {
    if !target.master.is_empty() {
        return Ok(target.master.clone());
    }
    let Some(data) = &target.data else {
        bail!("which cluster? give --data DIR (or MOOSENG_DATA), or --master ADDR,ADDR");
    };
    let layout = Layout::load(data)?.with_context(|| {
        format!("{} holds no cluster: make one with `mooseng up --data DIR`", data.display())
    })?;
    Ok(layout.masters.iter().map(|master| master.address.clone()).collect())
}

fn hello() -> pb::Hello {
    pb::Hello {
        cluster_id: vec![0; 16].into(),
        protocol_version: PROTOCOL_VERSION,
        role: pb::Role::Admin.into(),
        name: "mooseng".into(),
        ..Default::default()
    }
}

fn ask<R: Rpc>(address: &str, request: &R) -> Result<R::Reply, CallError> {
    FrameStream::connect(address, &hello(), CONNECT)?.0.call(request, &[], ANSWER)
}

/// Asks one master after the other until the leader answers.
pub(crate) fn ask_leader<R: Rpc>(masters: &[String], request: &R) -> anyhow::Result<R::Reply> {
    let clock = SystemClock::default();
    let mut last = None;
    while clock.monotonic() < LEADER {
        for address in masters {
            match ask(address, request) {
                Ok(reply) => return Ok(reply),
                Err(error) if error.is_retryable() => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        clock.sleep(Duration::from_millis(50));
    }
    let why = last.map_or_else(String::new, |error| format!(" ({:#})", anyhow::Error::from(error)));
    bail!("no leader among {}{why}: are a majority of the masters running?", masters.join(", "))
}

/// The cluster as the leader sees it, or else as any master does. Masters that do not answer are shown as such.
pub(crate) fn cluster_status(masters: &[String]) -> anyhow::Result<ClusterStatus> {
    let mut best: Option<pb::ClusterStatusReply> = None;
    let mut answered = Vec::new();
    let mut last = None;
    for address in masters {
        match ask(address, &pb::ClusterStatusRequest {}) {
            Ok(reply) => {
                let mine = reply.masters.iter().find(|master| master.address == *address).cloned();
                let leads = mine.as_ref().is_some_and(|master| master.role == "leader");
                if best.is_none() || leads {
                    best = Some(reply);
                }
                answered.extend(mine);
            }
            Err(error) => last = Some(error),
        }
    }
    let Some(best) = best else {
        let why = last.map_or_else(String::new, |error| format!(" ({:#})", anyhow::Error::from(error)));
        bail!("no master answers at {}{why}: is the cluster running?", masters.join(", "));
    };
    Ok(merge(best, &answered))
}

/// What each master says of itself counts more than what another says of it.
fn merge(best: pb::ClusterStatusReply, answered: &[pb::MasterStatus]) -> ClusterStatus {
    let cluster_id = <[u8; 16]>::try_from(&best.cluster_id[..]).map(ClusterId::from_bytes);
    let masters = best.masters.into_iter().map(|told| {
        let own = answered.iter().find(|own| own.id == told.id);
        let role = own.map_or_else(|| "unreachable".into(), |own| own.role.clone());
        let m = own.cloned().unwrap_or(told);
        Master {
            id: m.id,
            name: m.name,
            role,
            address: m.address,
            term: m.term,
            commit_index: m.commit_index,
            applied_index: m.applied_index,
        }
    });
    let servers = best.servers.into_iter().map(|s| Server {
        id: s.id,
        name: s.name,
        state: s.state,
        address: s.address,
        total_bytes: s.total_bytes,
        free_bytes: s.free_bytes,
        chunks: s.chunks,
        disks: s.disks,
        disks_failed: s.disks_failed,
    });
    ClusterStatus {
        cluster_id: cluster_id.map_or_else(|_| String::new(), |id| id.to_string()),
        masters: masters.collect(),
        servers: servers.collect(),
        sessions: best.sessions,
        inodes: best.inodes,
        used_bytes: best.used_bytes,
        chunks: best.chunks,
        orphans: best.orphans,
    }
}
