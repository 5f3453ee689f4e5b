//! A machine that runs a chunkserver: the real chunk store on a disk that can lose power. Its sockets and threads are
//! edges and stay outside; their part, the write chain and the link to the masters, is played here.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_chunkserver::{ChunkEngine, Piece, StoreError};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::{Token, TokenKey};
use mooseng_types::{ChunkId, ChunkVersion, FsError};
use prost::Message as _;

use crate::clock::MachineClock;
use crate::disk::FusedDisk;
use crate::entropy::Rng;
use crate::master::{CLUSTER, SECRET};
use crate::plant::Plant;
use crate::task::{ChunkRequest, Port};

/// Room of a server's disk while it is not full.
const CAPACITY: u64 = 1 << 30;
const ROOT: &str = "/chunks";
const HEARTBEAT: Duration = Duration::from_millis(300);
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// A dirty copy that was not written for this long is made clean.
const IDLE: Duration = Duration::from_millis(700);

/// Where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Asker {
    Task { task: u64, call: u64 },
    Server { index: u32, incarnation: u64, call: u64 },
}

/// A request of which the server behind this one has its part.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) asker: Asker,
    pub(crate) here: Result<(), CallError>,
    pub(crate) next: u32,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) index: u32,
    pub(crate) clock: MachineClock,
    pub(crate) disk: FusedDisk,
    pub(crate) incarnation: u64,
    pub(crate) engine: Option<Rc<ChunkEngine>>,
    pub(crate) forwarded: BTreeMap<u64, Forwarded>,
    /// Tasks that end with the process.
    pub(crate) links: Vec<u64>,
    pub(crate) rng: Rng,
    plant: Option<Plant>,
}

pub(crate) fn address(index: u32) -> String {
    format!("s{index}")
}

pub(crate) fn index_of(address: &str) -> Option<u32> {
    address.strip_prefix('s')?.parse().ok()
}

impl Server {
    pub(crate) fn new(index: u32, rng: &mut Rng, plant: Option<Plant>) -> Self {
        Self {
            index,
            clock: MachineClock::new(rng),
            disk: FusedDisk::new(CAPACITY),
            incarnation: 0,
            engine: None,
            forwarded: BTreeMap::new(),
            links: Vec::new(),
            rng: rng.fork(),
            plant,
        }
    }

    /// Starts the process. `Ok(false)`: the power went while it was starting.
    pub(crate) fn start(&mut self) -> Result<bool, String> {
        self.incarnation += 1;
        let disks = vec![(Arc::new(self.disk.clone()) as Arc<dyn mooseng_env::Disk>, PathBuf::from(ROOT))];
        match ChunkEngine::open(disks, CLUSTER) {
            Ok(_) if self.disk.blown() => Ok(false),
            Ok(engine) => {
                self.engine = Some(Rc::new(engine));
                Ok(true)
            }
            Err(_) if self.disk.blown() => Ok(false),
            Err(error) => Err(format!("server {} cannot open its disk: {error}", self.index)),
        }
    }

    pub(crate) fn stop(&mut self) -> bool {
        self.forwarded.clear();
        self.engine.take().is_some()
    }

    /// Makes idle copies clean.
    pub(crate) fn settle_idle(&self, time: Duration) {
        if let Some(engine) = &self.engine {
            engine.settle_idle(self.clock.now(time).mono, IDLE);
        }
    }

    /// Does what is asked, on this server only; `None` if there is no process.
    pub(crate) fn serve(
        &self,
        time: Duration,
        request: &ChunkRequest,
    ) -> Option<Result<Option<Piece>, CallError>> {
        let engine = self.engine.as_ref()?;
        Some(self.serve_here(engine, time, request))
    }

    fn serve_here(
        &self,
        engine: &ChunkEngine,
        time: Duration,
        request: &ChunkRequest,
    ) -> Result<Option<Piece>, CallError> {
        let now = self.clock.now(time).mono;
        let done: Result<(), StoreError> = match request {
            ChunkRequest::Write(it, payload) => {
                let token = self.token(time, &it.token, it.chunk)?;
                let written = engine.write(now, &token, it.offset.into(), payload, &it.checksums);
                written.and_then(|()| if it.sync { self.sync(engine, now, &token) } else { Ok(()) })
            }
            ChunkRequest::Sync(it) => self.sync(engine, now, &self.token(time, &it.token, it.chunk)?),
            ChunkRequest::Truncate(it) => {
                engine.truncate(now, &self.token(time, &it.token, it.chunk)?, it.length.into())
            }
            ChunkRequest::Read(it) => {
                let token = self.token(time, &it.token, it.chunk)?;
                let oldest = ChunkVersion::from_raw(it.version).max(token.base_version);
                let (offset, length) = (it.offset.into(), it.length.into());
                return Ok(Some(engine.read(now, token.chunk, oldest, offset, length)?));
            }
        };
        Ok(done.map(|()| None)?)
    }

    fn sync(&self, engine: &ChunkEngine, now: Duration, token: &Token) -> Result<(), StoreError> {
        if self.plant == Some(Plant::SkipDataSync) {
            return Ok(());
        }
        engine.sync(now, token)
    }

    fn token(&self, time: Duration, bytes: &[u8], chunk: u64) -> Result<Token, CallError> {
        let verified = TokenKey::new(&SECRET).verify(bytes, self.clock.unix_seconds(time));
        let token = verified.map_err(|bad| CallError::Rejected { message: bad.to_string() })?;
        if token.chunk != ChunkId::from_raw(chunk) {
            return Err(CallError::Rejected { message: "the token is for another chunk".into() });
        }
        Ok(token)
    }
}

/// What the client is told when the server behind this one failed.
pub(crate) fn blame(server: u32, error: CallError) -> CallError {
    match error {
        CallError::Refused(FsError::LeaseLost) => error,
        CallError::Unavailable { message } if message.starts_with(CHAIN_BROKEN) => {
            CallError::Unavailable { message }
        }
        other => CallError::Unavailable { message: format!("{CHAIN_BROKEN} {server}: {other}") },
    }
}

/// The beginning of the message that tells a client which server to leave out.
pub(crate) const CHAIN_BROKEN: &str = "chain broken at server";

/// The servers of a chain that are still to be reached, of a request that changes something.
pub(crate) fn chain(request: &mut ChunkRequest) -> Option<&mut Vec<pb::ServerAddress>> {
    match request {
        ChunkRequest::Write(it, _) => Some(&mut it.chain),
        ChunkRequest::Sync(it) => Some(&mut it.chain),
        ChunkRequest::Truncate(it) => Some(&mut it.chain),
        ChunkRequest::Read(_) => None,
    }
}

/// What a link to a master needs to know of its server.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) port: Port,
    pub(crate) engine: Rc<ChunkEngine>,
    pub(crate) index: u32,
    pub(crate) master: u64,
    /// The number that the masters gave the server; 0 for none yet.
    pub(crate) number: Rc<Cell<u32>>,
}

impl Link {
    /// Registers, sends heartbeats, reports to the leader and does what it orders, for ever.
    pub(crate) async fn run(self) {
        let mut registered = false;
        loop {
            let ended = self.talk(&mut registered).await;
            if matches!(ended, Err(CallError::Transport(_))) {
                self.port.hang_up(self.master);
                registered = false;
            }
            self.port.sleep(HEARTBEAT).await;
        }
    }

    async fn talk(&self, registered: &mut bool) -> Result<(), CallError> {
        while let Some((kind, body)) = self.port.next_push() {
            self.take_order(kind, body);
        }
        if !*registered {
            let request = pb::RegisterServerRequest {
                uuid: Bytes::copy_from_slice(&[u8::try_from(self.index).unwrap_or(0) + 1; 16]),
                name: address(self.index),
                address: address(self.index),
                disks: self.engine.disk_status(),
            };
            let reply = self.port.ask_master(self.master, &request, CALL_TIMEOUT).await?;
            self.number.set(reply.server);
            *registered = true;
        }
        let server = self.number.get();
        let (disks, address) = (self.engine.disk_status(), address(self.index));
        let request = pb::HeartbeatRequest { server, disks, address };
        let reply = self.port.ask_master(self.master, &request, CALL_TIMEOUT).await?;
        if reply.leader { self.report(server, reply.want_full_report).await } else { Ok(()) }
    }

    async fn report(&self, server: u32, full: bool) -> Result<(), CallError> {
        let changes = if full { None } else { self.engine.take_changes() };
        let request = match changes {
            Some((chunks, lost)) if chunks.is_empty() && lost.is_empty() => return Ok(()),
            Some((chunks, lost)) => pb::ChunkReportRequest { server, chunks, lost, ..Default::default() },
            None => {
                let chunks = self.engine.report_everything();
                pb::ChunkReportRequest { server, full: true, last: true, chunks, lost: Vec::new() }
            }
        };
        let told = self.port.ask_master(self.master, &request, CALL_TIMEOUT).await;
        if told.is_err() {
            self.engine.report_failed();
        }
        told.map(drop)
    }

    fn take_order(&self, kind: u16, body: Bytes) {
        if kind == pb::DeleteChunks::KIND
            && let Ok(order) = pb::DeleteChunks::decode(body)
        {
            let chunks: Vec<_> = order.chunks.into_iter().map(ChunkId::from_raw).collect();
            self.engine.delete(&chunks);
        }
    }
}
