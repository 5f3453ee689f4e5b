//! A client process: the product's cores of sessions and files, and what carries their actions out in this world. Nothing
//! here decides; where the product has threads and sockets, this has futures and the world's ports.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use mooseng_client::ClientError;
use mooseng_client::chunk::Located;
use mooseng_client::file::{At, Event, Explained, File, Operation, ReadStep, Rules, Step, Told};
use mooseng_client::session::{Belief, Kind, Next, OpenFiles, Recalls, RequestIds, Retry};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::{CellId, ChunkId, ChunkIndex, ChunkVersion, FsError, InodeId, ServerId};

use crate::oracle::Oracle;
use crate::plant::Plant;
use crate::task::Port;

/// How long something is tried: longer than any world's faults last.
const PATIENCE: Duration = Duration::from_secs(120);
/// Waiting futures look again after so long, if nothing wakes them before.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) type Result<T> = std::result::Result<T, ClientError>;

/// What the process has in memory.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) belief: Belief,
    ids: RequestIds,
    pub(super) session: u64,
    sessions_lost: u64,
    /// When it got the session in place of the last one that was lost.
    renewed: Duration,
    /// By file: pieces that were sent, now and when the last session was lost.
    pub(super) sent: BTreeMap<InodeId, u64>,
    sent_before: BTreeMap<InodeId, u64>,
    renewing: bool,
    pub(super) opens: OpenFiles,
    pub(super) recalls: Recalls,
    files: BTreeMap<InodeId, File>,
    stamp: u64,
    /// Under which leader (by term of the belief) and session the open files were told.
    pub(super) told: Option<(u64, u64)>,
    /// Of a planted bug: what it was told first of a file's chunks.
    pub(super) places: BTreeMap<(InodeId, ChunkIndex), Vec<Located>>,
    /// Of a planted bug: versions under which something was written.
    pub(super) written: BTreeSet<(ChunkId, ChunkVersion)>,
    /// Addresses of the servers of its leases.
    pub(super) addresses: BTreeMap<ServerId, String>,
    /// Reads of copies in doubt, as no other was left.
    pub(super) doubtful_reads: u64,
}

/// The process. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) port: Port,
    memory: Rc<RefCell<Memory>>,
    pub(super) oracle: Rc<RefCell<Oracle>>,
    /// The cell whose files it is for.
    pub(super) cell: CellId,
    pub(super) plant: Option<Plant>,
}

/// The number in a master's address.
fn number_of(address: &str) -> u64 {
    address.strip_prefix('m').and_then(|digits| digits.parse().ok()).unwrap_or(1)
}

impl Process {
    pub(crate) fn new(
        port: Port,
        oracle: Rc<RefCell<Oracle>>,
        cell: CellId,
        masters: u64,
        plant: Option<Plant>,
    ) -> Self {
        let first = port.rng(|rng| rng.below(masters));
        let addresses: Vec<String> =
            (0..masters).map(|n| format!("m{}", (first + n) % masters + 1)).collect();
        let memory = Memory {
            belief: Belief::new(&addresses),
            ids: RequestIds::default(),
            session: 0,
            sessions_lost: 0,
            renewed: Duration::ZERO,
            sent: BTreeMap::new(),
            sent_before: BTreeMap::new(),
            renewing: false,
            opens: OpenFiles::default(),
            recalls: Recalls::default(),
            files: BTreeMap::new(),
            stamp: 0,
            told: None,
            places: BTreeMap::new(),
            addresses: BTreeMap::new(),
            written: BTreeSet::new(),
            doubtful_reads: 0,
        };
        Self { port, memory: Rc::new(RefCell::new(memory)), oracle, cell, plant }
    }

    /// Whether something was read from a copy in doubt since there were so many reads of such.
    pub(super) fn has_doubted_since(&self, doubtful_reads: u64) -> bool {
        self.memory().doubtful_reads != doubtful_reads
    }

    pub(super) fn memory(&self) -> RefMut<'_, Memory> {
        self.memory.borrow_mut()
    }

    pub(crate) fn session(&self) -> u64 {
        self.memory().session
    }

    /// How many sessions have expired under the process.
    pub(crate) fn sessions_lost(&self) -> u64 {
        self.memory().sessions_lost
    }

    /// Whether it has heard that its session is over and has no other yet.
    pub(crate) fn is_renewing(&self) -> bool {
        self.memory().renewing
    }

    /// Since when it has the present session: the one before had ended by then.
    pub(crate) fn renewed(&self) -> Duration {
        self.memory().renewed
    }

    /// How many pieces of a file it has begun to send.
    pub(crate) fn sent(&self, inode: InodeId) -> u64 {
        self.memory().sent.get(&inode).copied().unwrap_or(0)
    }

    /// The same as of the end of the last session that was lost.
    pub(crate) fn sent_before_renewal(&self, inode: InodeId) -> u64 {
        self.memory().sent_before.get(&inode).copied().unwrap_or(0)
    }

    fn stamp(&self) -> u64 {
        let mut memory = self.memory();
        memory.stamp += 1;
        memory.stamp
    }

    /// A request that changes nothing.
    pub(crate) async fn query<R: Rpc>(
        &self,
        what: &'static str,
        make: impl Fn(u64) -> R,
    ) -> Result<R::Reply> {
        loop {
            let session = self.session();
            match self.tries(what, || make(session)).await {
                (Err(error), _) if error.is(FsError::SessionExpired) => self.renew(session).await?,
                (other, _) => return other,
            }
        }
    }

    /// A request that changes something: every try bears the same number.
    pub(crate) async fn change<R: Rpc>(
        &self,
        kind: Kind,
        what: &'static str,
        make: impl Fn(pb::RequestMeta) -> R,
    ) -> Result<R::Reply> {
        loop {
            let session = self.session();
            let number = RefCell::new(self.memory().ids.begin());
            let mut tries = RefCell::new(0u32);
            let meta = || {
                let mut number = number.borrow_mut();
                *tries.borrow_mut() += 1;
                if *tries.borrow() > 1 && self.plant == Some(Plant::FreshNumbers) {
                    self.memory().ids.end(*number);
                    *number = self.memory().ids.begin();
                }
                pb::RequestMeta { session, seq: *number, acked_below: self.memory().ids.acked_below() }
            };
            let (result, in_doubt) = self.tries(what, || make(meta())).await;
            *tries.get_mut() = 0;
            self.memory().ids.end(*number.borrow());
            match result {
                Err(error) if error.is(FsError::SessionExpired) => {
                    self.renew(session).await?;
                    if let Some(error) = kind.expired(what, in_doubt) {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    async fn tries<R: Rpc>(&self, what: &'static str, make: impl Fn() -> R) -> (Result<R::Reply>, bool) {
        let mut retry = Retry::new(what, self.port.now(), PATIENCE);
        loop {
            let believed = self.memory().belief.now();
            let master = number_of(&believed.leader);
            let timeout = self.port.rng(|rng| rng.ms(250, 700));
            let request = make();
            self.port.note(|| format!("to master {master}: {what}"));
            let error = match self.port.ask_master(master, &request, timeout).await {
                Ok(reply) => return (Ok(reply), retry.is_in_doubt()),
                Err(error) => error,
            };
            self.port.note(|| format!("{what}: {error}"));
            if matches!(error, CallError::Transport(_)) {
                self.port.hang_up(master);
            }
            let (now, random) = (self.port.now(), self.port.rng(|rng| rng.below(u64::MAX)));
            let (next, _) = retry.failed(&mut self.memory().belief, &believed, &error, false, now, random);
            match next {
                Next::Again => {}
                Next::Pause(time) | Next::Await(time) => self.port.sleep(time).await,
                Next::End(error) => return (Err(error), retry.is_in_doubt()),
            }
        }
    }

    /// Opens the first session, or a new one in place of one that has expired; once, whoever notices.
    pub(crate) async fn renew(&self, expired: u64) -> Result<()> {
        while self.memory().renewing {
            self.port.sleep(LOOK).await;
        }
        if self.session() != expired {
            return Ok(());
        }
        self.memory().renewing = true;
        let client_id = self.port.rng(|rng| rng.bytes(16));
        let request = pb::OpenSessionRequest {
            client_id: client_id.into(),
            name: "client".into(),
            replaces: false,
            cell: self.cell.raw().into(),
        };
        let (opened, _) = self.tries("open a session", || request.clone()).await;
        let mut memory = self.memory();
        memory.renewing = false;
        let opened = opened?;
        memory.sessions_lost += u64::from(expired != 0);
        memory.renewed = self.port.now();
        memory.sent_before = memory.sent.clone();
        memory.session = opened.session;
        memory.ids = RequestIds::default();
        Ok(())
    }

    /// Something of a file's core. What a lost session took is lost from here on.
    pub(super) fn with<T>(&self, inode: InodeId, what: impl FnOnce(&mut File) -> T) -> T {
        let mut memory = self.memory();
        let (lost, stamp) = (memory.sessions_lost, memory.stamp);
        let rules = Rules { patience: PATIENCE, durable: true };
        let seed = u32::try_from(stamp).unwrap_or(0);
        let file = memory.files.entry(inode).or_insert_with(|| File::new(inode, rules, seed, lost));
        if self.plant != Some(Plant::OutliveSession) {
            file.session_lost(lost);
        }
        what(file)
    }

    /// Files that are known.
    pub(super) fn known(&self) -> Vec<InodeId> {
        self.memory().files.keys().copied().collect()
    }

    /// Whether nothing is held for a file.
    fn may_go(&self, inode: InodeId) -> bool {
        let memory = self.memory();
        memory.files.get(&inode).is_none_or(File::may_be_forgotten)
    }

    /// Runs an operation of a file to its end.
    pub(crate) async fn run<O: Operation>(&self, inode: InodeId, mut operation: O) -> Result<O::Output> {
        loop {
            let now = self.port.now();
            match self.with(inode, |file| operation.next(file, now)) {
                Step::Done(result) => {
                    self.with(inode, |file| operation.abandon(file));
                    return result;
                }
                Step::Wait(until) => {
                    let time = until.map_or(LOOK, |until| until.saturating_sub(now)).min(LOOK);
                    self.port.sleep(time.max(Duration::from_micros(100))).await;
                }
                Step::Do(action) => {
                    let asked = self.stamp();
                    self.port.note(|| format!("{inode} {asked}: {action:?}"));
                    let event = self.carry_out(inode, action).await;
                    self.port.note(|| format!("{inode} {asked}: {event:?}"));
                    if let Err(error) = self.happened(inode, event, asked) {
                        self.with(inode, |file| operation.abandon(file));
                        return Err(error);
                    }
                }
            }
        }
    }

    fn happened(&self, inode: InodeId, event: Event, asked: u64) -> Result<()> {
        let at = At { now: self.port.now(), asked, told: self.stamp() };
        self.with(inode, |file| file.happened(event, at))
    }

    /// Opens a file. What an error of writing in the background is told with comes back.
    pub(crate) async fn open(&self, inode: InodeId) -> Result<Told> {
        let number = self.memory().opens.begin(inode);
        let asked = self.stamp();
        let opened =
            self.query("open", |session| pb::OpenRequest { session, inode: inode.raw(), number }).await;
        self.memory().opens.end(inode, opened.is_ok());
        let opened = opened?;
        let opened = mooseng_client::messages::opened(opened)?;
        let told = self.stamp();
        let now = self.port.now();
        let explained = self.with(inode, |file| {
            if self.plant != Some(Plant::OldAttributes) || file.seen().is_none() {
                file.learn_opened(opened, asked, told);
            }
            Explained::new(file, now)
        });
        self.run(inode, explained).await?;
        Ok(self.with(inode, |file| {
            file.opened(None);
            file.begin_told()
        }))
    }

    /// Closes a file.
    /// Begins to make a file that is open from then on; the number of it.
    pub(crate) fn begin_create(&self) -> u64 {
        self.memory().opens.begin_create()
    }

    /// The file has been made, or not.
    pub(crate) fn end_create(&self, number: u64, made: Option<&pb::Attr>) {
        self.memory().opens.end_create(number, made.map(|attr| InodeId::from_raw(attr.inode)));
    }

    pub(crate) fn close(&self, inode: InodeId) {
        self.memory().opens.closed(inode);
    }

    /// Tells the masters which files are closed, and forgets those that hold nothing any more.
    pub(super) async fn tell_closed(&self) -> Result<()> {
        let idle: Vec<InodeId> = self.known().into_iter().filter(|inode| self.may_go(*inode)).collect();
        let taken = self.memory().opens.take_closed(|inode| idle.contains(&inode));
        let Some((number, closed)) = taken else { return Ok(()) };
        let inodes: Vec<u64> = closed.iter().map(|inode| inode.raw()).collect();
        self.query("release", |session| pb::ReleaseRequest { session, inodes: inodes.clone(), number })
            .await?;
        for inode in closed {
            if self.may_go(inode) && !self.memory().opens.is_known(inode) {
                self.memory().files.remove(&inode);
            }
        }
        Ok(())
    }

    /// Reads as a program does.
    pub(crate) async fn read(&self, inode: InodeId, offset: u64, length: u64) -> Result<Vec<u8>> {
        let plan = self.plan(inode, offset, length).await?;
        let mut base = Vec::new();
        for span in &plan.base {
            self.read_span(inode, span, &mut base).await?;
        }
        Ok(plan.finish(base.into()).to_vec())
    }

    pub(super) async fn plan(
        &self,
        inode: InodeId,
        offset: u64,
        length: u64,
    ) -> Result<mooseng_client::file::Plan> {
        loop {
            let now = self.port.now();
            match self.with(inode, |file| file.read(offset, length, now)) {
                ReadStep::Ready(plan) => return Ok(plan),
                ReadStep::Wait(_) => self.port.sleep(LOOK).await,
                ReadStep::Do(action) => {
                    let asked = self.stamp();
                    let event = self.carry_out(inode, action).await;
                    self.happened(inode, event, asked)?;
                }
            }
        }
    }
}
