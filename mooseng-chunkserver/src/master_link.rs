//! The links to the masters: registration, heartbeats, reports, and the leader's orders. Every master is told that this
//! server lives; only the leader is told what it has, and only the leader orders. Which masters there are the leader
//! says; the configuration only says where to look first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Threads;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::Mux;

use crate::changes::{Change, Changes, ToTell};
use crate::epoch::Epoch;
use crate::orders::Orders;
use crate::store::{CopyInfo, Store};

/// Masters of a cluster, at most.
const MASTERS_MAX: usize = 16;
/// Copies named in one report.
const REPORT_MAX: usize = 10_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// A master of another cluster will not change its mind soon.
const FOREIGN_BACK_OFF: Duration = Duration::from_secs(15);

/// What every link works with.
#[derive(Debug)]
pub(crate) struct LinkContext {
    pub(crate) store: Arc<Store>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) hello: pb::Hello,
    pub(crate) uuid: [u8; 16],
    /// Where this server serves.
    pub(crate) address: String,
    pub(crate) heartbeat: Duration,
    /// The number that the masters gave this server; 0 for none yet.
    pub(crate) server: AtomicU32,
    /// Those of the configuration.
    pub(crate) configured: BTreeSet<String>,
    /// Those that the leader has told of last.
    pub(crate) told: Mutex<BTreeSet<String>>,
    pub(crate) epoch: Epoch,
}

impl LinkContext {
    fn wanted(&self) -> BTreeSet<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.configured.union(&told).cloned().collect()
    }
}

/// Keeps a link to every master until the end is near.
pub(crate) fn keep_links(context: &Arc<LinkContext>) {
    let threads = Threads::default();
    let mut running = BTreeSet::new();
    while !context.changes.stopping() {
        let wanted = context.wanted();
        running.retain(|master| wanted.contains(master));
        for master in wanted {
            if !running.insert(master.clone()) {
                continue;
            }
            let for_link = Arc::clone(context);
            let name = master.clone();
            if let Err(error) = threads.spawn("master-link", move || run(&for_link, &name)) {
                tracing::error!(%error, "no thread for a link to a master");
                running.remove(&master);
            }
        }
        context.changes.wait(context.heartbeat, true);
    }
    threads.join();
}

/// Keeps the link to `master` until the end is near, or the master is none any more.
fn run(context: &LinkContext, master: &str) {
    let mut back_off = BACK_OFF.0;
    let mut said = false;
    while !context.changes.stopping() && context.wanted().contains(master) {
        let reason = match connect(context, master) {
            Ok(mux) => {
                tracing::info!(master, "master reached");
                (back_off, said) = (BACK_OFF.0, false);
                let ended = talk(context, &mux);
                mux.close();
                ended
            }
            Err(error) => Err(error),
        };
        let Err(error) = reason else { continue };
        let foreign = matches!(error, CallError::Rejected { .. });
        if !std::mem::replace(&mut said, true) {
            if foreign {
                tracing::error!(master, %error, "master refuses this server: correct masters or cluster_id");
            } else {
                tracing::warn!(master, %error, "master not reached, trying on");
            }
        }
        context.changes.wait(if foreign { FOREIGN_BACK_OFF } else { back_off }, true);
        back_off = (back_off * 2).min(BACK_OFF.1);
    }
}

fn connect(context: &LinkContext, master: &str) -> Result<Arc<Mux>, CallError> {
    let orders = Arc::clone(&context.orders);
    let on_push = move |kind: u16, body: Bytes| orders.take(kind, &body);
    let hello = pb::Hello { epoch: context.epoch.highest(), ..context.hello.clone() };
    let (mux, reply) = Mux::connect(master, &hello, CONNECT_TIMEOUT, on_push)?;
    if reply.cluster_id != context.hello.cluster_id {
        let message = "the master belongs to another cluster".to_owned();
        return Err(CallError::Rejected { message });
    }
    context.epoch.hear(reply.epoch)?;
    Ok(mux)
}

/// Registers and sends heartbeats until the connection ends.
fn talk(context: &LinkContext, mux: &Mux) -> Result<(), CallError> {
    let mut registered = false;
    while !context.changes.stopping() {
        if !registered {
            registered = register(context, mux)?;
        }
        let server = context.server.load(Ordering::Acquire);
        let mut leader = false;
        if server != 0 {
            let request = pb::HeartbeatRequest {
                server,
                disks: disk_status(&context.store),
                address: context.address.clone(),
            };
            let reply = mux.call(&request, &[], CALL_TIMEOUT)?;
            context.epoch.hear(reply.epoch)?;
            leader = reply.leader;
            if reply.leader {
                let masters = reply.masters.into_iter().take(MASTERS_MAX).collect();
                *context.told.lock().unwrap_or_else(PoisonError::into_inner) = masters;
                report(context, mux, server, reply.want_full_report)?;
            }
        }
        context.changes.wait(context.heartbeat, !leader);
        if mux.is_closed() {
            return Err(CallError::Unavailable { message: "the master closed the connection".into() });
        }
    }
    Ok(())
}

/// Whether this master is the leader and knows the server now.
fn register(context: &LinkContext, mux: &Mux) -> Result<bool, CallError> {
    let request = pb::RegisterServerRequest {
        uuid: context.uuid.to_vec().into(),
        name: context.hello.name.clone(),
        address: context.address.clone(),
        disks: disk_status(&context.store),
    };
    match mux.call(&request, &[], CALL_TIMEOUT) {
        Ok(reply) => {
            if context.server.swap(reply.server, Ordering::AcqRel) != reply.server {
                tracing::info!(server = reply.server, "registered");
            }
            Ok(true)
        }
        Err(CallError::NotLeader { .. } | CallError::Unavailable { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn report(context: &LinkContext, mux: &Mux, server: u32, full: bool) -> Result<(), CallError> {
    if full {
        return report_everything(context, mux, server);
    }
    loop {
        match context.changes.take(REPORT_MAX) {
            ToTell::Everything => return report_everything(context, mux, server),
            ToTell::Some(changes) if changes.is_empty() => return Ok(()),
            ToTell::Some(changes) => {
                let request = pb::ChunkReportRequest {
                    server,
                    full: false,
                    last: false,
                    chunks: changes.iter().filter_map(here).collect(),
                    lost: changes.iter().filter(|c| c.1 == Change::Lost).map(|c| c.0.raw()).collect(),
                };
                if let Err(error) = mux.call(&request, &[], CALL_TIMEOUT) {
                    context.changes.put_back(ToTell::Some(changes));
                    return Err(error);
                }
            }
        }
    }
}

fn here((chunk, change): &(mooseng_types::ChunkId, Change)) -> Option<pb::CopyStatus> {
    match change {
        Change::Here(version) => {
            Some(pb::CopyStatus { chunk: chunk.raw(), version: version.raw(), in_doubt: false })
        }
        Change::Lost => None,
    }
}

/// Reports every copy, in parts. Changes noted before are covered; those that come meanwhile follow.
fn report_everything(context: &LinkContext, mux: &Mux, server: u32) -> Result<(), CallError> {
    context.changes.clear();
    let copies = context.store.list();
    let mut parts: Vec<&[CopyInfo]> = copies.chunks(REPORT_MAX).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let count = parts.len();
    for (number, part) in parts.into_iter().enumerate() {
        let chunks = part.iter().map(|copy| pb::CopyStatus {
            chunk: copy.chunk.raw(),
            version: copy.version.raw(),
            in_doubt: copy.in_doubt,
        });
        let request = pb::ChunkReportRequest {
            server,
            full: true,
            last: number + 1 == count,
            chunks: chunks.collect(),
            lost: Vec::new(),
        };
        if let Err(error) = mux.call(&request, &[], CALL_TIMEOUT) {
            context.changes.put_back(ToTell::Everything);
            return Err(error);
        }
    }
    tracing::info!(copies = copies.len(), "everything reported to the leader");
    Ok(())
}

fn disk_status(store: &Store) -> Vec<pb::DiskStatus> {
    let status = store.disks().iter().map(|disk| {
        let (total_bytes, _) = disk.space();
        pb::DiskStatus {
            path: disk.root().display().to_string(),
            total_bytes,
            free_bytes: disk.room(),
            failed: disk.failed(),
            chunks: disk.copies(),
        }
    });
    status.collect()
}
