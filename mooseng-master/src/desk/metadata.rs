//! The namespace's requests.

use std::time::Duration;

use bytes::Bytes;
use mooseng_meta::{ClusterCommand, MetaState, Request, SessionRow};
use mooseng_protocol::convert::id16;
use mooseng_protocol::limits::{
    CLIENT_NAME_MAX, LISTING_MAX, LOCATE_MAX, OPEN_MAX, RELEASE_MAX, UNACKED_MAX,
};
use mooseng_protocol::pb;
use mooseng_protocol::principal::Principal;
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_protocol::status::CallError;
use mooseng_types::{CHUNK_SIZE, ChunkIndex, FileKind, FileName, FsError, InodeId, SessionId};

use super::changes::{self, ChangeRequest, copies, inode, session};
use super::requests::{
    Answer, Context, answer, at_most, attr_reply, decode, location, master_addresses, request,
};
use super::{Desk, DeskConfig};
use crate::conn::ConnId;
use crate::group::{Groups, Now};
use crate::registry::Registry;
use crate::sessions::Sessions;
use crate::wire::read_cell;

pub(super) fn dispatch(
    desk: &mut Desk,
    groups: &Groups,
    now: Now,
    from: &Principal,
    conn: ConnId,
    kind: u16,
    body: Bytes,
) -> Result<Answer, CallError> {
    match kind {
        pb::OpenSessionRequest::KIND => open_session(desk, groups, from, decode(body)?),
        pb::ResumeSessionRequest::KIND => resume_session(desk, groups, now.mono, from, conn, &decode(body)?),
        pb::AcknowledgeRecallRequest::KIND => desk.acknowledge_recall(groups, from, conn, decode(body)?),
        pb::LookupRequest::KIND
        | pb::GetAttrRequest::KIND
        | pb::ReaddirRequest::KIND
        | pb::ReadlinkRequest::KIND
        | pb::GetXattrRequest::KIND
        | pb::ListXattrRequest::KIND
        | pb::StatFsRequest::KIND
        | pb::OpenRequest::KIND
        | pb::ReleaseRequest::KIND
        | pb::LocateRequest::KIND => read(desk, groups, now, from, kind, body),
        _ => change(desk, groups, now.mono, from, kind, body),
    }
}

fn read(
    desk: &mut Desk,
    groups: &Groups,
    now: Now,
    from: &Principal,
    kind: u16,
    body: Bytes,
) -> Result<Answer, CallError> {
    match kind {
        pb::LookupRequest::KIND => {
            let it: pb::LookupRequest = decode(body)?;
            let attr =
                state_of(groups, it.parent, now)?.lookup(inode(it.parent), &FileName::parse(&it.name)?)?;
            Ok(Answer::Now(attr_reply(attr)))
        }
        pb::GetAttrRequest::KIND => {
            let it: pb::GetAttrRequest = decode(body)?;
            Ok(Answer::Now(attr_reply(state_of(groups, it.inode, now)?.getattr(inode(it.inode))?)))
        }
        pb::ReaddirRequest::KIND => {
            let it: pb::ReaddirRequest = decode(body)?;
            readdir(state_of(groups, it.inode, now)?, &it)
        }
        pb::ReadlinkRequest::KIND => {
            let it: pb::ReadlinkRequest = decode(body)?;
            let target = state_of(groups, it.inode, now)?.readlink(inode(it.inode))?;
            answer(&pb::ReadlinkReply { target })
        }
        pb::GetXattrRequest::KIND => {
            let it: pb::GetXattrRequest = decode(body)?;
            let value = state_of(groups, it.inode, now)?.getxattr(inode(it.inode), &it.name)?;
            answer(&pb::GetXattrReply { value })
        }
        pb::ListXattrRequest::KIND => {
            let it: pb::ListXattrRequest = decode(body)?;
            let names = state_of(groups, it.inode, now)?.listxattr(inode(it.inode))?;
            answer(&pb::ListXattrReply { names })
        }
        pb::StatFsRequest::KIND => statfs(&desk.registry, state_of(groups, InodeId::ROOT.raw(), now)?),
        pb::OpenRequest::KIND => {
            let it: pb::OpenRequest = decode(body)?;
            let state = state_of(groups, it.inode, now)?;
            desk.may_use(from, session(it.session))?;
            open(&mut desk.cell(state.cell()).sessions, state, now.mono, &it)
        }
        pb::ReleaseRequest::KIND => {
            let it: pb::ReleaseRequest = decode(body)?;
            at_most(it.inodes.len(), RELEASE_MAX, "inodes")?;
            let group = groups.of_session(session(it.session))?;
            group.must_serve_reads(now.mono)?;
            desk.may_use(from, session(it.session))?;
            let sessions = &mut desk.cell(group.cell()).sessions;
            for raw in it.inodes {
                sessions.release(session(it.session), inode(raw), it.number);
            }
            answer(&pb::Empty {})
        }
        pb::LocateRequest::KIND => {
            let it: pb::LocateRequest = decode(body)?;
            let state = state_of(groups, it.inode, now)?;
            desk.may_use(from, session(it.session))?;
            locate(desk, state, now, &it)
        }
        _ => Err(unknown(kind)),
    }
}

/// The state that has an inode, if this master may answer for it now.
fn state_of(groups: &Groups, raw: u64, now: Now) -> Result<&MetaState, CallError> {
    let group = groups.of_inode(inode(raw))?;
    group.must_serve_reads(now.mono)?;
    Ok(group.state())
}

/// The state that a change of this inode is for, if this master takes changes of it.
fn changing(groups: &Groups, raw: u64) -> Result<&MetaState, CallError> {
    let group = groups.of_inode(inode(raw))?;
    group.must_take_changes()?;
    Ok(group.state())
}

fn read_change<R: Rpc>(body: Bytes) -> Result<ChangeRequest, CallError>
where
    ChangeRequest: TryFrom<R, Error = CallError>,
{
    decode::<R>(body)?.try_into()
}

fn change(
    desk: &mut Desk,
    groups: &Groups,
    now: Duration,
    from: &Principal,
    kind: u16,
    body: Bytes,
) -> Result<Answer, CallError> {
    let ChangeRequest { meta, command, context } = match kind {
        pb::CreateRequest::KIND => read_change::<pb::CreateRequest>(body)?,
        pb::SetAttrRequest::KIND => read_change::<pb::SetAttrRequest>(body)?,
        pb::LinkRequest::KIND => read_change::<pb::LinkRequest>(body)?,
        pb::UnlinkRequest::KIND => read_change::<pb::UnlinkRequest>(body)?,
        pb::RmdirRequest::KIND => read_change::<pb::RmdirRequest>(body)?,
        pb::RenameRequest::KIND => read_change::<pb::RenameRequest>(body)?,
        pb::SetXattrRequest::KIND => read_change::<pb::SetXattrRequest>(body)?,
        pb::RemoveXattrRequest::KIND => read_change::<pb::RemoveXattrRequest>(body)?,
        pb::CommitWriteRequest::KIND => read_change::<pb::CommitWriteRequest>(body)?,
        pb::WriteInlineRequest::KIND => read_change::<pb::WriteInlineRequest>(body)?,
        pb::ReleaseLeaseRequest::KIND => read_change::<pb::ReleaseLeaseRequest>(body)?,
        pb::BatchRequest::KIND => read_change::<pb::BatchRequest>(body)?,
        pb::CloseSessionRequest::KIND => read_change::<pb::CloseSessionRequest>(body)?,
        // Servers are chosen as they are now.
        pb::GrantWriteRequest::KIND => {
            let it: pb::GrantWriteRequest = decode(body)?;
            changes::grant_write(desk, changing(groups, it.inode)?, now, &it)?
        }
        _ => return Err(unknown(kind)),
    };
    let request = request(meta.as_ref())?;
    // A session's requests are for the files of its cell: those of others are not found there.
    let group = groups.of_session(request.id.session)?;
    group.must_take_changes()?;
    desk.may_use(from, request.id.session)?;
    let cell = group.cell();
    desk.cell(cell).sessions.heard(request.id.session, now);
    must_acknowledge(group.state(), request)?;
    Ok(Answer::Propose { cell, request: Some(request), command: Box::new(command), context })
}

/// A request too far ahead of what its session has acknowledged has to wait. The state would refuse it for good.
fn must_acknowledge(state: &MetaState, Request { id, acked_below }: Request) -> Result<(), CallError> {
    let acked = state.acked_below(id.session).unwrap_or(0).max(acked_below);
    if id.seq.saturating_sub(acked) < UNACKED_MAX {
        return Ok(());
    }
    let message = format!("{UNACKED_MAX} answers of the session wait to be acknowledged");
    Err(CallError::Unavailable { message })
}

/// Opens a session. Where it says so, one of the same name that is not connected any more belonged to the same mount
/// before it died: it ends soon, so that its leases are in nobody's way, unless it shows a sign of life first. Two mounts
/// may have one name.
fn open_session(
    desk: &mut Desk,
    groups: &Groups,
    from: &Principal,
    it: pb::OpenSessionRequest,
) -> Result<Answer, CallError> {
    let group = groups.of(read_cell(it.cell)?)?;
    group.must_take_changes()?;
    let cell = group.cell();
    let client = id16(&it.client_id, "client_id")?;
    if !from.may_be(client) {
        return Err(CallError::Rejected {
            message: "a client opens sessions under the id of its hello".into(),
        });
    }
    let mut name = it.name;
    name.truncate(name.floor_char_boundary(CLIENT_NAME_MAX));
    if it.replaces {
        for SessionRow { session, .. } in group.state().sessions().iter().filter(|row| row.name == name) {
            desk.cell(cell).sessions.replaced(*session);
        }
    }
    let command = Box::new(ClusterCommand::OpenSession { client, name }.into());
    Ok(Answer::Propose { cell, request: None, command, context: Context::OpenedSession(client) })
}

/// What a session is told when it is opened.
pub(super) fn session_reply(
    config: &DeskConfig,
    state: &MetaState,
    session: SessionId,
) -> pb::OpenSessionReply {
    let copies = copies(config, state).into();
    pb::OpenSessionReply { session: session.raw(), timeout_ms: timeout_ms(config), copies }
}

fn timeout_ms(config: &DeskConfig) -> u32 {
    u32::try_from(config.session_timeout.as_millis()).unwrap_or(u32::MAX)
}

fn resume_session(
    desk: &mut Desk,
    groups: &Groups,
    now: Duration,
    from: &Principal,
    conn: ConnId,
    it: &pb::ResumeSessionRequest,
) -> Result<Answer, CallError> {
    let id = session(it.session);
    let group = groups.of_session(id)?;
    group.must_serve_reads(now)?;
    if !group.state().session_exists(id) {
        return Err(FsError::SessionExpired.into());
    }
    desk.may_use(from, id)?;
    at_most(it.open_inodes.len(), OPEN_MAX, "open_inodes")?;
    let sessions = &mut desk.cell(group.cell()).sessions;
    sessions.resumed(id, conn, now);
    if it.list_follows {
        sessions.list_open(id, it.as_of, it.open_inodes.iter().map(|raw| inode(*raw)));
    }
    desk.send_recalls(group.cell(), now);
    answer(&pb::ResumeSessionReply { timeout_ms: timeout_ms(&desk.config), masters: master_addresses(group) })
}

fn readdir(state: &MetaState, it: &pb::ReaddirRequest) -> Result<Answer, CallError> {
    let entries_max = usize::try_from(it.entries_max).unwrap_or(LISTING_MAX).clamp(1, LISTING_MAX);
    let listing = state.readdir(inode(it.inode), it.cookie, entries_max)?;
    let entries = listing.entries.into_iter().map(|entry| pb::DirEntry {
        inode: entry.inode.raw(),
        name: Bytes::copy_from_slice(entry.name.as_bytes()),
        kind: entry.kind.raw().into(),
        cookie: entry.cookie,
        attr: it.plus.then(|| state.getattr(entry.inode).ok().map(Into::into)).flatten(),
    });
    let entries = entries.collect();
    answer(&pb::ReaddirReply { entries, end: listing.end, parent: listing.parent.raw() })
}

fn statfs(registry: &Registry, state: &MetaState) -> Result<Answer, CallError> {
    let totals = state.totals();
    let copies = u64::from(state.settings().map_or(1, |settings| settings.copies)).max(1);
    let total_bytes =
        registry.iter().map(|(_, server)| server.total_bytes()).fold(0, u64::saturating_add) / copies;
    let free_bytes =
        registry.iter().map(|(_, server)| server.free_bytes()).fold(0, u64::saturating_add) / copies;
    answer(&pb::StatFsReply { total_bytes, free_bytes, inodes: totals.inodes, used_bytes: totals.used_bytes })
}

fn open(
    sessions: &mut Sessions,
    state: &MetaState,
    now: Duration,
    it: &pb::OpenRequest,
) -> Result<Answer, CallError> {
    let (id, target) = (session(it.session), inode(it.inode));
    if !state.session_exists(id) {
        return Err(FsError::SessionExpired.into());
    }
    let attr = state.getattr(target)?;
    sessions.heard(id, now);
    sessions.open(id, target, it.number);
    let inline = if attr.kind == FileKind::File { state.inline(target) } else { None };
    answer(&pb::OpenReply { attr: Some(attr.into()), inline })
}

fn locate(desk: &Desk, state: &MetaState, now: Now, it: &pb::LocateRequest) -> Result<Answer, CallError> {
    let target = inode(it.inode);
    let attr = state.getattr(target)?;
    let found = state.locate(target, ChunkIndex::from_raw(it.first_index), it.count.min(LOCATE_MAX))?;
    let covers_start = u64::from(it.first_index) * CHUNK_SIZE == 0;
    let inline = if covers_start { state.inline(target) } else { None };
    // A chunk that was never committed reads as a hole, whatever its copies hold.
    let committed = found.iter().filter(|(_, _, row)| row.committed.raw() > 0);
    let chunks = committed
        .map(|found| location(&desk.registry, &desk.tokens, now, session(it.session), found))
        .collect::<Result<_, _>>()?;
    answer(&pb::LocateReply { attr: Some(attr.into()), inline, chunks })
}

fn unknown(kind: u16) -> CallError {
    CallError::Rejected { message: format!("unknown request {} ({kind:#x})", rpc::name(kind)) }
}
