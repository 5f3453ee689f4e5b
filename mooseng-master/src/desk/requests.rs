//! Which request is whose, and what completes it. Generated types go no further than the desk.
//!
//! [`dispatch`] answers at once what only reads, and turns what changes something into a [`Command`]; [`complete`] turns
//! the state's [`Response`] into the reply once a majority has the command.

use std::time::Duration;

use bytes::Bytes;
use mooseng_meta::{ChunkRow, Command, Grant, Member, Request, Response};
use mooseng_protocol::convert::{BadMessage, request_id};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::principal::Principal;
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_protocol::status::CallError;
use mooseng_types::{CellId, ChunkId, ChunkIndex, FsError, InodeId, ServerId, SessionId};
use prost::Message;

use super::tokens::Tokens;
use super::{Desk, admin, batch, classes, health, metadata, servers, upkeep};
use crate::conn::ConnId;
use crate::group::{Group, Groups, Now};
use crate::raft::MembershipChange;
use crate::registry::Registry;
use crate::sessions::ClientId;

/// What a request leads to.
#[derive(Debug)]
pub(super) enum Answer {
    /// The reply's body.
    Now(Vec<u8>),
    /// The reply comes by itself; something has happened to this cell's group.
    Later(CellId),
    /// To be agreed on first.
    Propose {
        /// By the group of this cell.
        cell: CellId,
        /// Whose request it is.
        request: Option<Request>,
        /// What it is.
        command: Box<Command>,
        /// What the reply needs.
        context: Context,
    },
    /// A change of the root's group, to be agreed on first; and what is then done, for people.
    MembershipChange(MembershipChange, Member, String),
}

/// What is needed to answer once the command is applied.
#[derive(Debug)]
pub(super) enum Context {
    /// An empty reply.
    Empty,
    /// The attributes.
    Attr,
    /// The attributes of a file that the session has open from now on, by its open with this number.
    Created(SessionId, u64),
    /// The attributes; where a lease is in the way, its holder is asked to give it back.
    Recalling(InodeId, ChunkIndex),
    /// The attributes of a file that was to have this size; in the way are leases behind the lower one of the old end and
    /// the new.
    Resized(InodeId, u64),
    /// A write lease.
    Grant(SessionId, InodeId, ChunkIndex),
    /// A session.
    OpenedSession(ClientId),
    /// A session's end.
    ClosedSession(SessionId),
    /// A chunkserver's number.
    Registered(pb::RegisterServerRequest),
    /// The masters' group has changed.
    Changed(String),
    /// A storage class was made or changed.
    PutClass,
    /// Objects have another class.
    SetClass,
    /// The cluster's level has risen.
    Upgraded(pb::UpgradeReply),
    /// What each change of a batch needs.
    Batch(Vec<Context>),
}

/// Decodes a body.
pub(super) fn decode<R: Rpc>(body: Bytes) -> Result<R, CallError> {
    R::decode(body).map_err(|error| CallError::Rejected { message: format!("{}: {error}", R::NAME) })
}

/// Refuses a length above its limit.
pub(super) fn at_most(length: usize, limit: usize, field: &'static str) -> Result<(), BadMessage> {
    if length <= limit { Ok(()) } else { Err(BadMessage { field }) }
}

pub(super) fn answer(reply: &impl Message) -> Result<Answer, CallError> {
    Ok(Answer::Now(reply.encode_to_vec()))
}

/// Answers a request, or says what has to be agreed on for it.
pub(super) fn dispatch(
    desk: &mut Desk,
    groups: &mut Groups,
    now: Now,
    from: &Principal,
    conn: ConnId,
    header: Header,
    body: Bytes,
) -> Result<Answer, CallError> {
    match header.kind {
        pb::ClusterStatusRequest::KIND => admin::cluster_status(desk, groups, now.mono),
        pb::CheckRequest::KIND => {
            let root = groups.root_mut();
            desk.checks.ask(root, now.mono, (conn, header), &mut desk.out)?;
            Ok(Answer::Later(root.cell()))
        }
        pb::AddMasterRequest::KIND => admin::add_master(groups.root(), now.mono, &decode(body)?),
        pb::RemoveMasterRequest::KIND => admin::remove_master(groups.root(), &decode(body)?),
        pb::TransferLeaderRequest::KIND => {
            admin::transfer_leader(groups.root_mut(), now.mono, &decode(body)?)
        }
        pb::UpgradeRequest::KIND => admin::upgrade(desk, groups.root(), now.mono, &decode(body)?),
        pb::ChunkHealthRequest::KIND => health::chunk_health(desk, groups, now.mono),
        pb::ListChunksRequest::KIND => health::list_chunks(desk, groups, now.mono, &decode(body)?),
        kind if (0x0520..=0x052f).contains(&kind) => {
            classes::dispatch(desk, groups.root(), now.mono, kind, body)
        }
        kind if (0x0530..=0x053f).contains(&kind) => upkeep::dispatch(desk, groups, now, kind, body),
        pb::HeartbeatRequest::KIND => {
            servers::heartbeat(&mut desk.registry, groups, now.mono, conn, decode(body)?)
        }
        pb::ChunkReportRequest::KIND => {
            let report: pb::ChunkReportRequest = decode(body)?;
            let told = servers::report(&mut desk.registry, groups, &report)?;
            desk.told(now.mono, ServerId::from_raw(report.server), &told);
            answer(&pb::ChunkReportReply {})
        }
        pb::RegisterServerRequest::KIND => {
            servers::register(&mut desk.registry, groups.root(), now.mono, conn, decode(body)?)
        }
        kind if kind & 0xff00 == 0x0100 => metadata::dispatch(desk, groups, now, from, conn, kind, body),
        kind => Err(CallError::Rejected {
            message: format!("a master does not serve {} ({kind:#x})", rpc::name(kind)),
        }),
    }
}

/// Answers once the command has been applied.
pub(super) fn complete(
    desk: &mut Desk,
    group: &Group,
    now: Now,
    conn: ConnId,
    context: Context,
    response: Response,
) -> Result<Vec<u8>, CallError> {
    let cell = group.cell();
    take_effect(desk, group, now.mono, &context, &response);
    let reply = match (context, unrefused(response)?) {
        (Context::Empty | Context::ClosedSession(_), _) => Vec::new(),
        (
            Context::Attr | Context::Recalling(..) | Context::Resized(..) | Context::Created(..),
            Response::Attr(attr),
        ) => attr_reply(attr),
        (Context::Batch(contexts), Response::Batch(responses)) => {
            batch::reply(desk, group, now.mono, &contexts, responses)?
        }
        (Context::Grant(session, ..), Response::Grant(grant)) => {
            grant_reply(&mut desk.registry, &desk.tokens, now, session, grant).encode_to_vec()
        }
        (Context::OpenedSession(client), Response::Session(session)) => {
            let sessions = &mut desk.cell(cell).sessions;
            sessions.opened(session, client, now.mono);
            sessions.resumed(session, conn, now.mono);
            metadata::session_reply(&desk.config, group.state(), session).encode_to_vec()
        }
        (Context::PutClass, Response::Class(id)) => {
            classes::put_reply(desk, group, now.mono, id)?.encode_to_vec()
        }
        (Context::SetClass, Response::Changed(changed)) => pb::SetClassReply { changed }.encode_to_vec(),
        (Context::Upgraded(reply), Response::Done) => reply.encode_to_vec(),
        (Context::Changed(done), Response::Done) => pb::MembershipReply { done }.encode_to_vec(),
        (Context::Registered(request), Response::Server(server)) => {
            servers::registered(&mut desk.registry, group, now.mono, conn, &request, server)
        }
        (_, response) => return Err(mismatched(&response)),
    };
    Ok(reply)
}

/// What a response means for the desk, beside the reply.
pub(super) fn take_effect(
    desk: &mut Desk,
    group: &Group,
    now: Duration,
    context: &Context,
    response: &Response,
) {
    match (context, response) {
        (
            Context::Grant(_, inode, index) | Context::Recalling(inode, index),
            Response::Refused(FsError::LeaseHeld),
        ) => {
            desk.recall(group.state(), *inode, *index, now);
        }
        (Context::Resized(inode, size), Response::Refused(FsError::LeaseHeld)) => {
            let old = group.state().getattr(*inode).map_or(0, |attr| attr.size);
            if let Some(index) = ChunkIndex::of_offset(old.min(*size)) {
                desk.recall(group.state(), *inode, index, now);
            }
        }
        (Context::Created(session, number), Response::Attr(attr)) => {
            desk.cell(group.cell()).sessions.open(*session, attr.inode, *number);
        }
        (Context::ClosedSession(session), _) => desk.cell(group.cell()).sessions.closed(*session),
        _ => {}
    }
}

/// The refusals of a state that a waiting client sees.
fn unrefused(response: Response) -> Result<Response, CallError> {
    match response {
        Response::Refused(error) => Err(CallError::Refused(error)),
        other => Ok(other),
    }
}

/// What a reply of the wrong shape means: a bug, told as an I/O error instead of a wrong result.
pub(super) fn mismatched(response: &Response) -> CallError {
    tracing::error!(?response, "a command was answered in the wrong shape");
    CallError::Refused(FsError::Io)
}

pub(super) fn attr_reply(attr: mooseng_types::Attr) -> Vec<u8> {
    pb::AttrReply { attr: Some(attr.into()) }.encode_to_vec()
}

/// The request's identity, as the state wants it.
pub(super) fn request(meta: Option<&pb::RequestMeta>) -> Result<Request, BadMessage> {
    let (id, acked_below) = request_id(meta)?;
    Ok(Request { id, acked_below })
}

fn grant_reply(
    registry: &mut Registry,
    tokens: &Tokens,
    now: Now,
    session: SessionId,
    grant: Grant,
) -> pb::GrantWriteReply {
    if grant.fresh {
        grant.servers.iter().for_each(|server| registry.given(*server));
    }
    let token = tokens.for_writing(now, session, &grant);
    pb::GrantWriteReply {
        chunk: grant.chunk.raw(),
        version: grant.version.raw(),
        servers: addresses(registry, grant.chunk, &grant.servers, now),
        valid_length: grant.valid_length,
        inline: grant.inline,
        token,
        fresh: grant.fresh,
        attr: Some(grant.attr.into()),
    }
}

fn addresses(registry: &Registry, chunk: ChunkId, servers: &[ServerId], now: Now) -> Vec<pb::ServerAddress> {
    let known = registry.addresses(chunk, servers, now.mono).into_iter();
    known.map(|(server, address)| pb::ServerAddress { server: server.raw(), address }).collect()
}

/// Where a session finds a chunk of a file.
pub(super) fn location(
    registry: &Registry,
    tokens: &Tokens,
    now: Now,
    session: SessionId,
    found: &(ChunkIndex, ChunkId, ChunkRow),
) -> Result<pb::ChunkLocation, CallError> {
    let (index, chunk, row) = found;
    let copies = row.layout.copies()?;
    let servers = addresses(registry, *chunk, copies, now);
    if servers.is_empty() && !copies.is_empty() {
        return Err(unknown_servers());
    }
    Ok(pb::ChunkLocation {
        index: index.raw(),
        chunk: chunk.raw(),
        version: row.committed.raw(),
        valid_length: row.valid_length,
        servers,
        token: tokens.for_reading(now, session, *chunk, row.committed),
        differs: row.differs,
    })
}

/// Servers that have a chunk are not known here yet. To go on without them would be to take their copies for lost.
pub(super) fn unknown_servers() -> CallError {
    let message = "this master has yet to hear of the chunkservers that have it".into();
    CallError::Unavailable { message }
}

/// Where all masters of the group are.
pub(super) fn master_addresses(group: &Group) -> Vec<String> {
    group.members().members.iter().map(|member| member.address.clone()).collect()
}
