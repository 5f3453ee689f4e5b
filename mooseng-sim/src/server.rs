//! A machine that runs a chunkserver: the product's decisions and its chunk store, on a disk that can lose power. Its
//! sockets and threads are edges and stay outside; their part, carrying requests and answers, is played here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mooseng_chunkserver::{BytesRead, ChunkEngine, Completion, Fetch, Now, Request, Say, Talk, Tokens};
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_types::ChunkCause;

use crate::clock::MachineClock;
use crate::disk::FusedDisk;
use crate::entropy::{Rng, SeededEntropy};
use crate::master::{CLUSTER, SECRET};
use crate::plant::Plant;
use crate::task::{ChunkRequest, Port};

/// Room of a server's disk while it is not full.
const CAPACITY: u64 = 1 << 30;
pub(crate) const ROOT: &str = "/chunks";
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
    pub(crate) completion: Completion,
    pub(crate) next: u32,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) index: u32,
    /// Shared with what runs on the machine.
    pub(crate) clock: Rc<RefCell<MachineClock>>,
    pub(crate) disk: FusedDisk,
    pub(crate) incarnation: u64,
    pub(crate) engine: Option<Rc<ChunkEngine>>,
    pub(crate) forwarded: BTreeMap<u64, Forwarded>,
    /// Tasks that end with the process.
    pub(crate) links: Vec<u64>,
    pub(crate) rng: Rng,
    /// Until then it turns requests away.
    pub(crate) busy_until: Duration,
    tokens: RefCell<Tokens>,
    plant: Option<Plant>,
}

pub(crate) fn address(index: u32) -> String {
    format!("s{index}")
}

pub(crate) fn index_of(address: &str) -> Option<u32> {
    address.strip_prefix('s')?.parse().ok()
}

/// What a machine's clocks say.
fn now(clock: &RefCell<MachineClock>, time: Duration) -> Now {
    let clock = clock.borrow();
    Now { mono: clock.now(time).mono, unix_s: clock.unix_seconds(time) }
}

impl Server {
    pub(crate) fn new(index: u32, rng: &mut Rng, plant: Option<Plant>) -> Self {
        Self {
            index,
            clock: Rc::new(RefCell::new(MachineClock::new(rng))),
            disk: FusedDisk::new(CAPACITY),
            incarnation: 0,
            engine: None,
            forwarded: BTreeMap::new(),
            links: Vec::new(),
            rng: rng.fork(),
            busy_until: Duration::ZERO,
            tokens: RefCell::new(Tokens::new(TokenKey::new(&SECRET))),
            plant,
        }
    }

    /// Starts the process. `Ok(false)`: the power went while it was starting.
    pub(crate) fn start(&mut self) -> Result<bool, String> {
        self.incarnation += 1;
        let disks = vec![(Arc::new(self.disk.clone()) as Arc<dyn mooseng_env::Disk>, PathBuf::from(ROOT))];
        let uuid = [u8::try_from(self.index).unwrap_or(0) + 1; 16];
        let entropy = SeededEntropy::door(self.rng.fork());
        if self.plant == Some(Plant::TrustDamage) {
            self.disk.make_all_dirty();
        }
        let open = || ChunkEngine::open(disks.clone(), CLUSTER, &*entropy, uuid, address(self.index));
        let mut opened = open();
        if self.plant == Some(Plant::CreateAgain) && opened.is_ok() {
            self.disk.forget_damage();
            opened = open();
        }
        match opened {
            Ok(_) if self.disk.blown() => Ok(false),
            Ok(engine) => {
                self.engine = Some(Rc::new(engine));
                Ok(true)
            }
            Err(_) if self.disk.blown() => Ok(false),
            Err(error) => Err(format!("server {} cannot open its disk: {error}", self.index)),
        }
    }

    /// There is another disk in the place of its own, an empty one.
    pub(crate) fn lose_disk(&mut self) {
        self.disk = FusedDisk::new(CAPACITY);
    }

    pub(crate) fn stop(&mut self) -> bool {
        self.forwarded.clear();
        self.engine.take().is_some()
    }

    /// Looks after the disk and makes idle copies clean.
    pub(crate) fn keep_house(&self, time: Duration) {
        if let Some(engine) = &self.engine {
            engine.keep_house(now(&self.clock, time), IDLE);
        }
    }

    /// Does what is asked, on this server only; `None` if there is no process.
    pub(crate) fn serve(
        &self,
        time: Duration,
        request: &ChunkRequest,
    ) -> Option<Result<Option<BytesRead>, CallError>> {
        let engine = self.engine.as_ref()?;
        if time < self.busy_until {
            let message = "too many requests at once".to_owned();
            return Some(Err(CallError::Chunk { server: None, cause: ChunkCause::Busy, message }));
        }
        let now = now(&self.clock, time);
        let tokens = &mut *self.tokens.borrow_mut();
        if self.plant != Some(Plant::SkipDataSync) {
            return Some(engine.serve(now, tokens, &request.what, &request.payload));
        }
        match request.what.clone() {
            Request::Sync(_) => Some(Ok(None)),
            Request::Write(write) => {
                let unsynced = Request::Write(pb::WriteChunkRequest { sync: false, ..write });
                Some(engine.serve(now, tokens, &unsynced, &request.payload))
            }
            other => Some(engine.serve(now, tokens, &other, &request.payload)),
        }
    }
}

/// What a link to a master needs to know of its server.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) port: Port,
    pub(crate) engine: Rc<ChunkEngine>,
    pub(crate) clock: Rc<RefCell<MachineClock>>,
    pub(crate) master: u64,
}

impl Link {
    /// Says what is to be said and does what is ordered, for ever.
    pub(crate) async fn run(self) {
        let mut talk = Talk::default();
        loop {
            if let Err(error) = self.say(&mut talk).await {
                if matches!(error, CallError::Transport(_)) {
                    self.port.hang_up(self.master);
                }
                talk = Talk::default();
            }
            self.port.sleep(HEARTBEAT).await;
            talk.woken();
        }
    }

    async fn say(&self, talk: &mut Talk) -> Result<(), CallError> {
        let (port, teller) = (&self.port, self.engine.teller());
        loop {
            while let Some((_, kind, body)) = port.next_push() {
                if let Some(fetch) = self.engine.obey(now(&self.clock, port.now()), kind, &body) {
                    self.fetch(fetch).await;
                }
            }
            match talk.next(teller) {
                Say::Register(request) => {
                    let reply = port.ask_master(self.master, &request, CALL_TIMEOUT).await;
                    talk.registered(teller, reply)?;
                }
                Say::Beat(request) => {
                    talk.beaten(teller, &port.ask_master(self.master, &request, CALL_TIMEOUT).await?);
                }
                Say::Report(request) => {
                    let told = port.ask_master(self.master, &request, CALL_TIMEOUT).await;
                    talk.reported(told.is_ok());
                    told?;
                }
                Say::Wait => return Ok(()),
            }
        }
    }

    /// Fetches a copy. One that does not come is ordered again.
    async fn fetch(&self, mut fetch: Fetch) {
        loop {
            let request = ChunkRequest::new(Request::Read(fetch.request()));
            let answer = self.port.ask_server(fetch.source(), request, CALL_TIMEOUT).await;
            let read = match answer {
                Ok(Some(read)) => read,
                Ok(None) => return,
                Err(error) => {
                    fetch.source_failed(error);
                    return;
                }
            };
            let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            let reply = pb::ReadChunkReply {
                version: read.version,
                copy_length: small(read.copy_length),
                offset: small(read.offset),
                checksums: read.checksums,
            };
            if !matches!(fetch.take(&reply, &read.bytes), Ok(false)) {
                return;
            }
        }
    }
}
