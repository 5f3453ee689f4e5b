//! The desk: what a master has once, above its groups. A request comes in, is decoded, leads to one call into a group or to
//! one look at it, and is answered.
//!
//! - `requests`: which request is whose, and what completes it; `metadata` (and `changes`, `batch`), `servers`, `admin`, `health`: the
//!   requests.
//! - `askers`: who waits for what was proposed; `parked`: requests that wait for a lease; `checks`: for fsck.
//! - `recalls`: the leases that others wait for.
//! - `outbox`: frames for connections.

mod admin;
mod askers;
mod batch;
mod changes;
mod checks;
mod classes;
mod effect;
mod health;
mod metadata;
mod outbox;
mod parked;
mod recalls;
mod requests;
mod servers;
#[cfg(test)]
mod tests;
mod tokens;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Entropy;
use mooseng_meta::{Checked, ClusterCommand, Command, MetaState, RepairCommand, Request, Response};
use mooseng_protocol::door::Door;
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::principal::Principal;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_protocol::transport::greet;
use mooseng_types::{
    CellId, ChunkId, ChunkVersion, ClusterId, FsError, Level, Levels, MasterId, Part, ServerId, SessionId,
};

pub use self::effect::Effect;
pub(crate) use self::outbox::reply_frame;

use self::askers::{Asker, Askers};
use self::checks::Checks;
use self::outbox::Outbox;
use self::parked::Parked;
use self::recalls::Recalls;
use self::requests::{Answer, Context};
use self::servers::Told;
use self::tokens::Tokens;
use crate::callers::{Callers, Survey};
use crate::conn::ConnId;
use crate::group::{Acknowledged, Group, Groups, News, Now, Proposal, Ticket, Unready};
use crate::registry::Registry;
use crate::repair::Ledger;
pub use crate::repair::Limits;
use crate::sessions::Sessions;
use crate::worker::{Order, Supervisor, Surroundings};

/// Chunkservers find a master that has started within this time.
const YOUNG: Duration = Duration::from_secs(4);

/// What the desk is told of the cluster.
#[derive(Clone, Debug)]
pub struct DeskConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// Copies of a chunk in a new cluster.
    pub copies: u8,
    /// When a silent session ends.
    pub session_timeout: Duration,
    /// How patient and how eager repair is.
    pub repair: Limits,
}

/// How far the chunks of a cell are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Healing {
    /// Some are still to be looked at.
    pub busy: bool,
    /// About so many something is to be done.
    pub todo: usize,
    /// So many chunkservers are not there, or have not told of all their copies.
    pub away: usize,
}

/// What one master has once.
#[derive(Debug)]
pub struct Desk {
    config: DeskConfig,
    tokens: Tokens,
    entropy: Arc<dyn Entropy>,
    registry: Registry,
    callers: Callers,
    askers: Askers,
    checks: Checks,
    cells: BTreeMap<CellId, CellDesk>,
    out: Outbox,
    /// What has passed the master's door, to show. The edge counts.
    door: Arc<Door>,
    started: Duration,
}

/// What the desk has for each cell.
#[derive(Debug)]
struct CellDesk {
    sessions: Sessions,
    parked: Parked,
    recalls: Recalls,
    workers: Supervisor,
    /// How the cell's chunks are, while this master leads.
    ledger: Ledger,
    /// This master leads the cell's group, as far as the desk has heard.
    leads: bool,
}

impl CellDesk {
    fn new(config: &DeskConfig) -> Self {
        let workers = Supervisor::new(config.cluster, config.copies, config.session_timeout, config.repair);
        let (parked, recalls, ledger) = (Parked::default(), Recalls::default(), Ledger::default());
        Self { sessions: Sessions::default(), parked, recalls, workers, ledger, leads: false }
    }
}

impl Desk {
    /// A desk that has been asked nothing yet.
    #[must_use]
    pub fn new(
        config: DeskConfig,
        key: TokenKey,
        state: &MetaState,
        now: Duration,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            config,
            tokens: Tokens::new(key),
            entropy,
            registry: Registry::of(&state.servers()),
            callers: Callers::default(),
            askers: Askers::default(),
            checks: Checks::default(),
            cells: BTreeMap::new(),
            out: Outbox::default(),
            door: Arc::default(),
            started: now,
        }
    }

    /// Where requests are to be counted.
    pub(crate) fn door(&self) -> Arc<Door> {
        Arc::clone(&self.door)
    }

    /// What there is for a cell.
    fn cell(&mut self, cell: CellId) -> &mut CellDesk {
        self.cells.entry(cell).or_insert_with(|| CellDesk::new(&self.config))
    }

    /// Lets time pass for a group.
    pub(crate) fn tick(&mut self, group: &mut Group, now: Now) {
        let cell = self.cells.entry(group.cell()).or_insert_with(|| CellDesk::new(&self.config));
        if cell.leads {
            let surroundings = Surroundings {
                callers: &self.callers,
                registry: &mut self.registry,
                sessions: &mut cell.sessions,
                ledger: &mut cell.ledger,
            };
            let work = cell.workers.turn(now, group, surroundings);
            for (worker, command) in work.commands {
                let ticket = self.askers.enter(Asker::Worker(group.cell(), worker));
                group.gather(Proposal { request: None, command, ticket });
            }
            for order in work.orders {
                self.order(now, order);
            }
        }
        self.look_after_parked(group, now.mono);
        self.look_after_recalls(group.cell(), now.mono);
    }

    /// A part that has proved who it is says Hello. It is told what this master is, or why the two cannot work together,
    /// and then the connection is of no use.
    pub(crate) fn welcome(
        &mut self,
        groups: &mut Groups,
        conn: ConnId,
        hello: &pb::Hello,
    ) -> Result<pb::HelloReply, CallError> {
        let root = groups.root_mut();
        let own = pb::HelloReply::new(&root.config().name, self.config.cluster, root.config().levels);
        let own = pb::HelloReply { level: root.state().level().raw().into(), ..own };
        greet(hello, &own)?;
        let (is_master, epoch) = (hello.role() == pb::Role::Master, root.members().epoch);
        if root.is_of_an_earlier_epoch(hello.epoch) && !is_master {
            let message = format!("this master's group has epoch {epoch}, not {}", hello.epoch);
            return Err(CallError::Rejected { message });
        }
        let leader_address = root.leader_address().unwrap_or_default();
        let id = MasterId::from_raw(hello.node_id);
        // Levels that make no sense were refused above.
        if let Some(levels) = Levels::said(hello.level_lowest, hello.level_highest) {
            self.callers.called(conn, &hello.name, is_master.then_some(id), levels);
        }
        let acknowledged = |group: &Group| {
            let Acknowledged { index, term } = group.acknowledged_by(id).filter(|_| is_master)?;
            Some(pb::Acknowledged { index, term, cell: group.cell().raw().into() })
        };
        Ok(pb::HelloReply {
            leader_address,
            epoch,
            acknowledged: acknowledged(groups.root()),
            acknowledged_cells: groups.others().filter_map(acknowledged).collect(),
            ..own
        })
    }

    /// Whether `from` may use a session: one is used by the client alone that has opened it. Who knows its number only gets
    /// nothing by it.
    fn may_use(&self, from: &Principal, session: SessionId) -> Result<(), CallError> {
        let owner = self.cells.get(&session.cell()).and_then(|cell| cell.sessions.client(session));
        if owner.is_none_or(|owner| from.may_be(owner)) {
            return Ok(());
        }
        let error = CallError::Rejected { message: format!("session {session} is another client's") };
        self.door.refused().forbidden(&from.name, &error);
        Err(error)
    }

    /// A connection ended.
    pub(crate) fn closed(&mut self, now: Duration, conn: ConnId) {
        self.registry.closed(conn);
        for cell in self.cells.values_mut() {
            cell.sessions.disconnected(conn, now);
            cell.parked.forget(&mut self.askers, conn);
        }
        self.callers.hung_up(conn);
    }

    /// A request off the wire, of one that has proved who it is. The answer comes as an effect, now or when a majority has it.
    /// Returns the cell to whose group it leads.
    pub(crate) fn request(
        &mut self,
        groups: &mut Groups,
        now: Now,
        from: &Principal,
        conn: ConnId,
        header: Header,
        body: Bytes,
    ) -> Option<CellId> {
        let may =
            from.may_send(header.kind).inspect_err(|error| self.door.refused().forbidden(&from.name, error));
        let answer = may.and_then(|()| requests::dispatch(self, groups, now, from, conn, header, body));
        match answer {
            Ok(Answer::Now(body)) => {
                self.out.reply(conn, header, Ok(&body));
                None
            }
            Ok(Answer::Later(cell)) => Some(cell),
            Ok(Answer::Propose { cell, request, command, context }) => {
                let asker = Asker::Client { conn, header, context };
                self.propose(groups.get_mut(cell)?, now.mono, asker, request, *command);
                Some(cell)
            }
            Ok(Answer::MembershipChange(change, member, done)) => {
                let context = Context::Changed(done);
                let ticket = self.askers.enter(Asker::Client { conn, header, context });
                if let Err(error) = groups.root_mut().propose_change(change, &member, Some(ticket)) {
                    self.refuse(ticket, &error);
                }
                Some(groups.root().cell())
            }
            Err(error) => {
                self.out.reply(conn, header, Err(&error));
                None
            }
        }
    }

    /// Hands a command to the group, at once or when no lease is in its way any more.
    fn propose(
        &mut self,
        group: &mut Group,
        now: Duration,
        asker: Asker,
        request: Option<Request>,
        command: Command,
    ) {
        let deadline = asker.deadline();
        let ticket = self.askers.enter(asker);
        // Masters of an earlier release could not read it.
        let known = command.level() <= group.state().level();
        if let Err(error) = command.check().and(known.then_some(()).ok_or(FsError::NotSupported)) {
            return self.fail(ticket, &error.into());
        }
        let proposal = Proposal { request, command, ticket };
        let Some(lease) = parked::lease_in_the_way(group.state(), &proposal) else {
            return group.gather(proposal);
        };
        self.recall(group.state(), lease.inode, lease.index, now);
        if !self.cell(group.cell()).parked.park(proposal, lease, now, deadline) {
            self.fail(ticket, &CallError::Refused(FsError::LeaseHeld));
        }
    }

    /// Something has happened in the group.
    pub(crate) fn hear(&mut self, group: &mut Group, now: Now, news: News) {
        let is_root = group.cell() == CellId::ROOT;
        match news {
            News::Applied { command, response, ticket, chunks } => {
                self.touched(group.cell(), &chunks, now.mono);
                self.applied(group, now, &command, &response, ticket.is_some());
                if let Some(ticket) = ticket {
                    self.complete(group, now, ticket, response);
                }
            }
            News::Changed(ticket) => self.complete(group, now, ticket, Response::Done),
            News::Refused(ticket, why) => self.refuse(ticket, &why),
            // The root's group knows the chunkservers, and is the one that is checked.
            News::Installed if is_root => {
                self.registry = Registry::of(&group.state().servers());
                // The entry that raised the level may be one of those that the snapshot stands for.
                self.cut_off_below(group.state().level());
            }
            News::Flushed if is_root => self.checks.begin(group, now.mono, &mut self.out),
            News::Installed | News::Flushed => {}
            News::Leads => self.begin_to_lead(group, now.mono),
            News::LeadsNoMore => {
                let error = Unready::LeaderChanged.into();
                if is_root {
                    self.checks.refuse_waiting(&error, &mut self.out);
                }
                let cell = self.cell(group.cell());
                cell.leads = false;
                cell.ledger = Ledger::default();
                cell.recalls.end();
                for ticket in cell.parked.take_all() {
                    self.fail(ticket, &error);
                }
            }
        }
    }

    /// A command has been applied, whoever proposed it.
    fn applied(&mut self, group: &mut Group, now: Now, command: &Command, response: &Response, mine: bool) {
        match command {
            // A follower may lead next, before a server that another master has made known speaks to it. A copy on a
            // server without an address would be left out of the next write.
            Command::Cluster(
                ClusterCommand::RegisterServer { .. }
                | ClusterCommand::SetServerMode { .. }
                | ClusterCommand::ForgetServer { .. },
            ) => self.registry.know_all(&group.state().servers()),
            Command::Cluster(ClusterCommand::RaiseLevel { level }) => {
                self.cut_off_below(*level);
            }
            // Only what has come about counts: refused, the version may have become a writer's meanwhile.
            Command::Repair(RepairCommand::BeginSettle { chunk, granted }) if *response == Response::Done => {
                let cell = self.cell(group.cell());
                if cell.leads {
                    cell.ledger.settle(*chunk, granted.next());
                }
            }
            // What is wanted of chunks may be something else now.
            Command::Class(_) => self.cell(group.cell()).ledger.sweep_rows(),
            _ => {}
        }
        // A session that an earlier leader opened has come to light.
        let cell = self.cell(group.cell());
        if let (false, true, Response::Session(session)) = (mine, cell.leads, response)
            && let Command::Cluster(ClusterCommand::OpenSession { client, .. }) = command
        {
            cell.sessions.known(*session, *client, now.mono);
        }
        self.leases_moved(group, command.moves_leases(), now.mono);
    }

    /// Rows of chunks have changed. What servers tell of them comes later.
    fn touched(&mut self, cell: CellId, chunks: &[ChunkId], now: Duration) {
        let report_lag = self.config.repair.report_lag;
        if let Some(cell) = self.cells.get_mut(&cell).filter(|cell| cell.leads) {
            chunks.iter().for_each(|chunk| cell.ledger.mark(*chunk, now + report_lag));
        }
    }

    /// A chunkserver has told of its copies.
    fn told(&mut self, now: Duration, server: ServerId, told: &Told) {
        for cell in self.cells.values_mut().filter(|cell| cell.leads && told.everything) {
            cell.ledger.sweep_server(server);
        }
        for &chunk in &told.chunks {
            if let Some(cell) = self.cells.get_mut(&chunk.cell()).filter(|cell| cell.leads) {
                cell.ledger.mark(chunk, now);
            }
        }
        for &chunk in &told.failed {
            if let Some(cell) = self.cells.get_mut(&chunk.cell()).filter(|cell| cell.leads) {
                cell.workers.failed(now, chunk);
            }
        }
    }

    /// What was proposed with this ticket has been applied.
    fn complete(&mut self, group: &Group, now: Now, ticket: Ticket, response: Response) {
        match self.askers.leave(ticket) {
            Some(Asker::Client { conn, header, context }) => {
                let reply = requests::complete(self, group, now, conn, context, response);
                self.out.reply(conn, header, reply.as_deref());
            }
            Some(Asker::Worker(cell, worker)) => self.cell(cell).workers.applied(worker, &response),
            None => {}
        }
    }

    fn refuse(&mut self, ticket: Ticket, why: &Unready) {
        match self.askers.leave(ticket) {
            Some(Asker::Client { conn, header, .. }) => {
                self.out.reply(conn, header, Err(&why.clone().into()));
            }
            Some(Asker::Worker(cell, worker)) => self.cell(cell).workers.refused(worker, why),
            None => {}
        }
    }

    /// A client's request is answered with an error. (Workers wait for the group only.)
    fn fail(&mut self, ticket: Ticket, error: &CallError) {
        if let Some(Asker::Client { conn, header, .. }) = self.askers.leave(ticket) {
            self.out.reply(conn, header, Err(error));
        }
    }

    /// Parts that do not know this level lose their connections.
    fn cut_off_below(&mut self, level: Level) {
        self.callers.take_below(level).into_iter().for_each(|conn| self.out.cut(conn));
    }

    /// Of a chunkserver that the state knows of.
    #[cfg(test)]
    pub(crate) fn know(&mut self, row: &mooseng_meta::ServerRow) {
        self.registry.know(row);
    }

    /// How often the workers of the root's cell have looked around.
    #[cfg(test)]
    pub(crate) fn turns_of_workers(&mut self) -> usize {
        self.cell(CellId::ROOT).workers.turns
    }

    /// How far the chunks of a cell are, if this master leads it.
    pub(crate) fn healing(&self, cell: CellId) -> Option<Healing> {
        let ledger = &self.cells.get(&cell).filter(|cell| cell.leads)?.ledger;
        let busy = !ledger.is_complete() || ledger.is_due(Duration::MAX);
        Some(Healing { busy, todo: ledger.todo_len(), away: ledger.standings.away() })
    }

    /// What all parts know.
    pub(crate) fn survey(&self, group: &Group, now: Duration) -> Survey {
        let sessions = self.cells.get(&group.cell()).map(|cell| &cell.sessions);
        self.callers.survey(group, &self.registry, sessions, now)
    }

    fn begin_to_lead(&mut self, group: &Group, now: Duration) {
        self.registry.forget_reports();
        let cell = self.cell(group.cell());
        cell.leads = true;
        cell.sessions.begin(now, group.state().sessions().iter().map(|row| (row.session, row.client)));
        cell.workers.begin();
        cell.ledger.begin();
        cell.recalls.begin(group.node().term());
        if group.cell() == CellId::ROOT {
            let leader_address = group.config().address.clone();
            self.out.announce(&pb::LeaderChanged { leader_address });
        }
    }

    /// What a check has found, or why it could not be made.
    pub(crate) fn checked(&mut self, group: &mut Group, now: Now, found: Result<Checked, CallError>) {
        self.checks.done(found, &mut self.out);
        self.checks.begin(group, now.mono, &mut self.out);
    }

    fn order(&mut self, now: Now, order: Order) {
        let Some(conn) = self.registry.get(order.server()).and_then(|server| server.conn) else { return };
        match order {
            Order::Delete(_, parts) => {
                let (whole, parts): (Vec<Part>, Vec<Part>) =
                    parts.into_iter().partition(|part| part.is_whole());
                let chunks = whole.into_iter().map(|part| part.chunk().raw()).collect();
                let parts = parts.into_iter().map(pb::PartRef::from).collect();
                self.out.push(conn, &pb::DeleteChunks { chunks, parts });
            }
            Order::Fetch(_, fetch) => {
                let token = self.tokens.for_reading(now, SessionId::from_raw(0), fetch.chunk, fetch.version);
                let (chunk, version) = (fetch.chunk.raw(), fetch.version.raw());
                let (source, replace) = (fetch.source, fetch.replace);
                self.out.push(conn, &pb::CopyChunk { chunk, version, source, token, replace, part: 0 });
            }
            Order::Settle(_, part, version) => {
                let (chunk, index) = (part.chunk().raw(), part.index().into());
                self.out.push(conn, &pb::SettleChunk { chunk, index, version: version.raw() });
            }
            Order::Verify(_, parts) => {
                let parts = parts.into_iter().map(pb::PartRef::from).collect();
                self.out.push(conn, &pb::VerifyChunks { parts });
            }
            Order::Quarantine(_, copies, keep_s) => {
                let condemned = |(part, version): (Part, ChunkVersion)| pb::CondemnedCopy {
                    chunk: part.chunk().raw(),
                    index: part.index().into(),
                    version: version.raw(),
                };
                let copies = copies.into_iter().map(condemned).collect();
                self.out.push(conn, &pb::QuarantineChunks { copies, keep_s });
            }
        }
    }

    /// Whether this master has started so lately that chunkservers may not have found it yet.
    fn is_young(&self, now: Duration) -> bool {
        now.saturating_sub(self.started) < YOUNG
    }

    /// What is to be done since the last call, in order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        self.out.take()
    }
}
