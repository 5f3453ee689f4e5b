//! Requests off the wire: decode, one call of the domain, encode. Generated types go no further than this folder.
//!
//! [`dispatch`] answers at once what only reads, and turns what changes something into a [`Command`]; [`complete`] turns
//! the state's [`Response`] into the reply once a majority has the command.

mod admin;
pub(crate) mod grpc;
mod metadata;
pub(crate) mod servers;

use bytes::Bytes;
use mooseng_meta::{ChunkRow, Command, Grant, Member, Request, Response};
use mooseng_protocol::convert::{BadMessage, request_id};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::Token;
use mooseng_types::{ChunkId, ChunkIndex, ChunkVersion, FsError, InodeId, Part, ServerId, SessionId};
use prost::Message;

use crate::core::{ConnId, MasterCore, Now};
use crate::raft::Change;

/// How long a chunk's token is good for, in seconds. Versions fence; this only bounds what a stolen token is worth.
const TOKEN_SECONDS: u64 = 24 * 3600;

/// What a request leads to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The reply's body.
    Now(Vec<u8>),
    /// The reply comes by itself.
    Later,
    /// To be agreed on first.
    Propose(Option<Request>, Box<Command>, Context),
    /// A change of the masters' group, to be agreed on first; and what is then done, for people.
    Change(Change, Member, String),
}

/// What is needed to answer once the command is applied.
#[derive(Debug)]
pub(crate) enum Context {
    /// An empty reply.
    Empty,
    /// The attributes.
    Attr,
    /// The attributes of a file that the session has open from now on, by its open with this number.
    Created(SessionId, u64),
    /// The attributes; where a lease is in the way, its holder is asked to give it back.
    Recalling(InodeId, ChunkIndex),
    /// A write lease.
    Grant(SessionId, InodeId, ChunkIndex),
    /// A session.
    OpenedSession,
    /// A session's end.
    ClosedSession(SessionId),
    /// A chunkserver's number.
    Registered(pb::RegisterServerRequest),
    /// The masters' group has changed.
    Changed(String),
    /// The cluster's level has risen.
    Upgraded(pb::UpgradeReply),
}

/// Decodes a body.
fn decode<R: Rpc>(body: Bytes) -> Result<R, CallError> {
    R::decode(body).map_err(|error| CallError::Rejected { message: format!("{}: {error}", R::NAME) })
}

/// Refuses a length above its limit.
fn at_most(length: usize, limit: usize, field: &'static str) -> Result<(), BadMessage> {
    if length <= limit { Ok(()) } else { Err(BadMessage { field }) }
}

fn answer(reply: &impl Message) -> Result<Answer, CallError> {
    Ok(Answer::Now(reply.encode_to_vec()))
}

/// Answers a request, or says what has to be agreed on for it.
pub(crate) fn dispatch(
    core: &mut MasterCore,
    now: Now,
    conn: ConnId,
    header: Header,
    body: Bytes,
) -> Result<Answer, CallError> {
    match header.kind {
        pb::ClusterStatusRequest::KIND => admin::cluster_status(core, now),
        pb::CheckRequest::KIND => core.check(now, conn, header).map(|()| Answer::Later),
        pb::AddMasterRequest::KIND => admin::add_master(core, now, &decode(body)?),
        pb::RemoveMasterRequest::KIND => admin::remove_master(core, &decode(body)?),
        pb::TransferLeaderRequest::KIND => admin::transfer_leader(core, now, &decode(body)?),
        pb::UpgradeRequest::KIND => admin::upgrade(core, now, &decode(body)?),
        pb::HeartbeatRequest::KIND => servers::heartbeat(core, now, conn, decode(body)?),
        pb::ChunkReportRequest::KIND => servers::report(core, &decode(body)?),
        pb::RegisterServerRequest::KIND => servers::register(core, now, conn, decode(body)?),
        kind if kind & 0xff00 == 0x0100 => metadata::dispatch(core, now, conn, kind, body),
        kind => Err(CallError::Rejected {
            message: format!("a master does not serve {} ({kind:#x})", rpc::name(kind)),
        }),
    }
}

/// Answers once the command has been applied.
pub(crate) fn complete(
    core: &mut MasterCore,
    now: Now,
    conn: ConnId,
    context: Context,
    response: Response,
) -> Result<Vec<u8>, CallError> {
    match (&context, &response) {
        (
            Context::Grant(_, inode, index) | Context::Recalling(inode, index),
            Response::Refused(FsError::LeaseHeld),
        ) => {
            core.recall_leases(*inode, *index);
        }
        (Context::ClosedSession(session), _) => core.sessions.closed(*session),
        _ => {}
    }
    let reply = match (context, MasterCore::refused(response)?) {
        (Context::Empty | Context::ClosedSession(_), _) => Vec::new(),
        (Context::Attr | Context::Recalling(..), Response::Attr(attr)) => attr_reply(attr),
        (Context::Created(session, number), Response::Attr(attr)) => {
            core.sessions.open(session, attr.inode, number);
            attr_reply(attr)
        }
        (Context::Grant(session, ..), Response::Grant(grant)) => {
            core.grant_reply(now, session, grant).encode_to_vec()
        }
        (Context::OpenedSession, Response::Session(session)) => {
            core.sessions.opened(session, now.mono);
            core.sessions.resumed(session, conn, now.mono);
            metadata::session_reply(core, session).encode_to_vec()
        }
        (Context::Upgraded(reply), Response::Done) => reply.encode_to_vec(),
        (Context::Changed(done), Response::Done) => pb::MembershipReply { done }.encode_to_vec(),
        (Context::Registered(request), Response::Server(server)) => {
            servers::registered(core, now, conn, request, server)
        }
        (_, response) => return Err(MasterCore::mismatched(&response)),
    };
    Ok(reply)
}

fn attr_reply(attr: mooseng_types::Attr) -> Vec<u8> {
    pb::AttrReply { attr: Some(attr.into()) }.encode_to_vec()
}

/// The request's identity, as the state wants it.
fn request(meta: Option<&pb::RequestMeta>) -> Result<Request, BadMessage> {
    let (id, acked_below) = request_id(meta)?;
    Ok(Request { id, acked_below })
}

impl MasterCore {
    /// Only the leader takes commands.
    fn must_lead(&self) -> Result<(), CallError> {
        if self.leads() { Ok(()) } else { Err(self.not_leader()) }
    }

    /// Changes are taken by the leader, once the state has been founded.
    fn must_take_changes(&self) -> Result<(), CallError> {
        self.must_lead()?;
        if self.state.settings().is_some() {
            return Ok(());
        }
        Err(CallError::Unavailable { message: "the cluster is being founded".into() })
    }

    /// Only a leader that is sure to be the only one answers reads.
    pub(crate) fn must_serve_reads(&self, now: Now) -> Result<(), CallError> {
        self.must_lead()?;
        if self.node.may_serve_reads(now.mono) && self.state.settings().is_some() {
            return Ok(());
        }
        Err(CallError::Unavailable { message: "the leader has yet to hear from a majority".into() })
    }

    /// Asks the holders of leases on this chunk of the file, and on those after it, to give them back.
    pub(crate) fn recall_leases(&mut self, inode: InodeId, from: ChunkIndex) {
        const RECALLS_MAX: u32 = 64;
        let held = self.state.locate(inode, from, RECALLS_MAX).unwrap_or_default();
        for (index, _, row) in held {
            if let Some(conn) = row.lease.and_then(|session| self.sessions.conn(session)) {
                self.push(conn, &pb::RecallLease { inode: inode.raw(), index: index.raw() });
            }
        }
    }

    fn grant_reply(&mut self, now: Now, session: SessionId, grant: Grant) -> pb::GrantWriteReply {
        if grant.fresh {
            grant.servers.iter().for_each(|server| self.registry.given(*server));
        }
        let token = Token {
            part: Part::whole(grant.chunk),
            base_version: grant.base_version,
            version: grant.version,
            read: true,
            write: true,
            // Of a chunk without a commit copies may be made, also by who comes after the one who has made it.
            create: grant.base_version.raw() == 0,
            session,
            expiry_unix_s: expiry(now),
        };
        pb::GrantWriteReply {
            chunk: grant.chunk.raw(),
            version: grant.version.raw(),
            servers: self.addresses(grant.chunk, &grant.servers, now),
            valid_length: grant.valid_length,
            inline: grant.inline,
            token: Bytes::copy_from_slice(&self.key.sign(&token)),
            fresh: grant.fresh,
            attr: Some(grant.attr.into()),
        }
    }

    /// Where all masters of the group are.
    fn master_addresses(&self) -> Vec<String> {
        self.group.members.iter().map(|member| member.address.clone()).collect()
    }

    fn addresses(&self, chunk: ChunkId, servers: &[ServerId], now: Now) -> Vec<pb::ServerAddress> {
        let known = self.registry.addresses(chunk, servers, now.mono).into_iter();
        known.map(|(server, address)| pb::ServerAddress { server: server.raw(), address }).collect()
    }

    /// A token that lets a session read a chunk in at least `version`.
    fn read_token(&self, now: Now, session: SessionId, chunk: ChunkId, version: ChunkVersion) -> Bytes {
        let token = Token {
            part: Part::whole(chunk),
            base_version: version,
            version,
            read: true,
            write: false,
            create: false,
            session,
            expiry_unix_s: expiry(now),
        };
        Bytes::copy_from_slice(&self.key.sign(&token))
    }

    fn location(
        &self,
        now: Now,
        session: SessionId,
        found: &(ChunkIndex, ChunkId, ChunkRow),
    ) -> pb::ChunkLocation {
        let (index, chunk, row) = found;
        pb::ChunkLocation {
            index: index.raw(),
            chunk: chunk.raw(),
            version: row.committed.raw(),
            valid_length: row.valid_length,
            servers: self.addresses(*chunk, &row.servers, now),
            token: self.read_token(now, session, *chunk, row.committed),
            differs: row.differs,
        }
    }
}

fn expiry(now: Now) -> u64 {
    u64::try_from(now.wall.timespec().0).unwrap_or(0) + TOKEN_SECONDS
}
