//! The desk: what a master has once, above its groups. A request comes in, is decoded, leads to one call into a group or to
//! one look at it, and is answered.
//!
//! - `requests`: which request is whose, and what completes it; `metadata`, `servers`, `admin`: the requests.
//! - `askers`: who waits for what was proposed; `parked`: requests that wait for a lease; `checks`: for fsck.
//! - `levels`: who is connected, and how far the cluster's level may rise.
//! - `outbox`: frames for connections.

mod admin;
mod askers;
mod checks;
mod effect;
mod levels;
#[cfg(test)]
mod limits_tests;
mod metadata;
mod outbox;
mod parked;
mod requests;
mod servers;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Entropy;
use mooseng_meta::{Checked, ClusterCommand, Command, MetaState, Request, Response};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_types::{ClusterId, FsError, MasterId, Part, SessionId};

pub use self::effect::Effect;
pub(crate) use self::outbox::reply_frame;

use self::askers::{Asker, Askers};
use self::checks::Checks;
use self::levels::Callers;
use self::outbox::Outbox;
use self::parked::Parked;
use self::requests::{Answer, Context};
use self::tokens::Tokens;
use crate::conn::ConnId;
use crate::group::{Group, News, Now, Proposal, Ticket, Unready};
use crate::registry::Registry;
use crate::sessions::Sessions;
use crate::worker::{Order, Supervisor};

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
}

/// What one master has once.
#[derive(Debug)]
pub struct Desk {
    config: DeskConfig,
    tokens: Tokens,
    entropy: Arc<dyn Entropy>,
    sessions: Sessions,
    registry: Registry,
    callers: Callers,
    askers: Askers,
    parked: Parked,
    checks: Checks,
    workers: Supervisor,
    out: Outbox,
    /// This master leads, as far as the desk has heard.
    leads: bool,
    started: Duration,
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
        let workers = Supervisor::new(config.cluster, config.copies, config.session_timeout);
        Self {
            config,
            tokens: Tokens::new(key),
            entropy,
            sessions: Sessions::default(),
            registry: Registry::of(&state.servers()),
            callers: Callers::default(),
            askers: Askers::default(),
            parked: Parked::default(),
            checks: Checks::default(),
            workers,
            out: Outbox::default(),
            leads: false,
            started: now,
        }
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, group: &mut Group, now: Now) {
        if self.leads {
            self.let_workers_work(group, now);
        }
        self.look_after_parked(group, now.mono);
    }

    fn let_workers_work(&mut self, group: &mut Group, now: Now) {
        let work = self.workers.turn(now.mono, group, &mut self.registry, &mut self.sessions);
        for (worker, command) in work.commands {
            let ticket = self.askers.enter(Asker::Worker(worker));
            group.gather(Proposal { request: None, command, ticket });
        }
        for order in work.orders {
            self.order(now, order);
        }
    }

    /// Whether a connection that says hello may go on; to a master, what it has acknowledged to this one.
    pub(crate) fn admit(
        &mut self,
        group: &mut Group,
        conn: ConnId,
        hello: &pb::Hello,
    ) -> Result<Option<pb::Acknowledged>, CallError> {
        let later = group.is_of_an_earlier_epoch(hello.epoch);
        if hello.role() == pb::Role::Master {
            self.callers.called(conn, hello);
            let acknowledged = group.acknowledged_by(MasterId::from_raw(hello.node_id));
            return Ok(acknowledged.map(|it| pb::Acknowledged { index: it.index, term: it.term }));
        }
        if later {
            let (epoch, own) = (hello.epoch, group.members().epoch);
            let message = format!("this master's group has epoch {own}, not {epoch}");
            return Err(CallError::Rejected { message });
        }
        self.callers.called(conn, hello);
        Ok(None)
    }

    /// A connection ended.
    pub(crate) fn closed(&mut self, now: Duration, conn: ConnId) {
        self.registry.closed(conn);
        self.sessions.disconnected(conn, now);
        self.parked.forget(&mut self.askers, conn);
        self.callers.hung_up(conn);
    }

    /// A request off the wire. The answer comes as an effect, now or when a majority has it.
    pub(crate) fn request(&mut self, group: &mut Group, now: Now, conn: ConnId, header: Header, body: Bytes) {
        match requests::dispatch(self, group, now, conn, header, body) {
            Ok(Answer::Now(body)) => self.out.reply(conn, header, Ok(&body)),
            Ok(Answer::Later) => {}
            Ok(Answer::Propose(request, command, context)) => {
                let asker = Asker::Client { conn, header, context };
                self.propose(group, now.mono, asker, request, *command);
            }
            Ok(Answer::Change(change, member, done)) => {
                let context = Context::Changed(done);
                let ticket = self.askers.enter(Asker::Client { conn, header, context });
                if let Err(error) = group.propose_change(change, &member, Some(ticket)) {
                    self.refuse(ticket, &error);
                }
            }
            Err(error) => self.out.reply(conn, header, Err(&error)),
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
        if let Err(error) = command.check() {
            return self.fail(ticket, &error.into());
        }
        let proposal = Proposal { request, command, ticket };
        let Some(lease) = parked::lease_in_the_way(group.state(), &proposal) else {
            return group.gather(proposal);
        };
        self.recall(group.state(), lease);
        if !self.parked.park(proposal, lease, now, deadline) {
            self.fail(ticket, &CallError::Refused(FsError::LeaseHeld));
        }
    }

    /// Something has happened in the group.
    pub(crate) fn hear(&mut self, group: &mut Group, now: Now, news: News) {
        match news {
            News::Applied { command, response, ticket } => {
                self.applied(group, now, &command, &response, ticket.is_some());
                if let Some(ticket) = ticket {
                    self.complete(group, now, ticket, response);
                }
            }
            News::Changed(ticket) => self.complete(group, now, ticket, Response::Done),
            News::Refused(ticket, why) => self.refuse(ticket, &why),
            News::Installed => self.registry = Registry::of(&group.state().servers()),
            News::Flushed => self.checks.begin(group, now.mono, &mut self.out),
            News::Leads => self.begin_to_lead(group, now.mono),
            News::LeadsNoMore => {
                self.leads = false;
                let error = Unready::LeaderChanged.into();
                self.checks.refuse_waiting(&error, &mut self.out);
                for ticket in self.parked.take_all() {
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
            Command::Cluster(ClusterCommand::RegisterServer { .. }) => {
                group.state().servers().iter().for_each(|row| self.registry.know(row));
            }
            Command::Cluster(ClusterCommand::RaiseLevel { level }) => {
                self.callers.cut_off_below(*level, &mut self.out);
            }
            _ => {}
        }
        // A session that an earlier leader opened has come to light.
        if let (false, true, Response::Session(session)) = (mine, self.leads, response) {
            self.sessions.known(*session, now.mono);
        }
        self.leases_moved(group, command.moves_leases());
    }

    /// What was proposed with this ticket has been applied.
    fn complete(&mut self, group: &Group, now: Now, ticket: Ticket, response: Response) {
        match self.askers.leave(ticket) {
            Some(Asker::Client { conn, header, context }) => {
                let reply = requests::complete(self, group, now, conn, context, response);
                self.out.reply(conn, header, reply.as_deref());
            }
            Some(Asker::Worker(worker)) => self.workers.applied(worker, &response),
            None => {}
        }
    }

    fn refuse(&mut self, ticket: Ticket, why: &Unready) {
        match self.askers.leave(ticket) {
            Some(Asker::Client { conn, header, .. }) => {
                self.out.reply(conn, header, Err(&why.clone().into()));
            }
            Some(Asker::Worker(worker)) => self.workers.refused(worker, why),
            None => {}
        }
    }

    /// A client's request is answered with an error. (Workers wait for the group only.)
    fn fail(&mut self, ticket: Ticket, error: &CallError) {
        if let Some(Asker::Client { conn, header, .. }) = self.askers.leave(ticket) {
            self.out.reply(conn, header, Err(error));
        }
    }

    fn begin_to_lead(&mut self, group: &Group, now: Duration) {
        self.leads = true;
        self.registry.forget_reports();
        self.sessions.begin(now, group.state().sessions().iter().map(|row| row.session));
        self.workers.begin();
        let leader_address = group.config().address.clone();
        self.out.announce(&pb::LeaderChanged { leader_address });
    }

    /// What a check has found, or why it could not be made.
    pub(crate) fn checked(&mut self, group: &mut Group, now: Now, found: Result<Checked, CallError>) {
        self.checks.done(found, &mut self.out);
        self.checks.begin(group, now.mono, &mut self.out);
    }

    fn order(&mut self, now: Now, order: Order) {
        let (Order::Delete(server, _) | Order::Fetch(server, _)) = &order;
        let Some(conn) = self.registry.get(*server).and_then(|server| server.conn) else { return };
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
                let source = fetch.source;
                self.out.push(conn, &pb::CopyChunk { chunk, version, source, token, replace: true, part: 0 });
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
