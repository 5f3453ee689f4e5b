//! The namespace's requests.

use std::time::Duration;

use bytes::Bytes;
use mooseng_meta::{
    AttrCommand, ClusterCommand, Command, CommittedChunk, ContentCommand, MetaState, NameCommand, RenameMode,
    Request, SessionRow, XattrMode,
};
use mooseng_protocol::convert::{id16, kind as kind_of, mode};
use mooseng_protocol::limits::{
    CLIENT_NAME_MAX, COMMIT_MAX, FAILED_MAX, INDEXES_MAX, LISTING_MAX, LOCATE_MAX, OPEN_MAX, RELEASE_MAX,
    UNACKED_MAX,
};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_protocol::status::CallError;
use mooseng_types::{
    CHUNK_SIZE, ChunkId, ChunkIndex, ChunkVersion, FileKind, FileName, FsError, InodeId, ServerId, SessionId,
    SetAttr, TimeNs,
};

use super::requests::{
    Answer, Context, answer, at_most, attr_reply, decode, location, master_addresses, request,
};
use super::{Desk, DeskConfig};
use crate::conn::ConnId;
use crate::group::{Group, Now};
use crate::multiregion::placement::place;
use crate::registry::Registry;
use crate::sessions::Sessions;

pub(super) fn dispatch(
    desk: &mut Desk,
    group: &Group,
    now: Now,
    conn: ConnId,
    kind: u16,
    body: Bytes,
) -> Result<Answer, CallError> {
    match kind {
        pb::OpenSessionRequest::KIND => open_session(&mut desk.sessions, group, decode(body)?),
        pb::ResumeSessionRequest::KIND => resume_session(desk, group, now.mono, conn, &decode(body)?),
        pb::LookupRequest::KIND
        | pb::GetAttrRequest::KIND
        | pb::ReaddirRequest::KIND
        | pb::ReadlinkRequest::KIND
        | pb::GetXattrRequest::KIND
        | pb::ListXattrRequest::KIND
        | pb::StatFsRequest::KIND
        | pb::OpenRequest::KIND
        | pb::ReleaseRequest::KIND
        | pb::LocateRequest::KIND => {
            group.must_serve_reads(now.mono)?;
            read(desk, group, now, kind, body)
        }
        _ => {
            group.must_take_changes()?;
            change(desk, group, now.mono, kind, body)
        }
    }
}

fn read(desk: &mut Desk, group: &Group, now: Now, kind: u16, body: Bytes) -> Result<Answer, CallError> {
    let state = group.state();
    match kind {
        pb::LookupRequest::KIND => {
            let it: pb::LookupRequest = decode(body)?;
            let attr = state.lookup(inode(it.parent), &FileName::parse(&it.name)?)?;
            Ok(Answer::Now(attr_reply(attr)))
        }
        pb::GetAttrRequest::KIND => {
            let it: pb::GetAttrRequest = decode(body)?;
            Ok(Answer::Now(attr_reply(state.getattr(inode(it.inode))?)))
        }
        pb::ReaddirRequest::KIND => readdir(state, &decode(body)?),
        pb::ReadlinkRequest::KIND => {
            let it: pb::ReadlinkRequest = decode(body)?;
            answer(&pb::ReadlinkReply { target: state.readlink(inode(it.inode))? })
        }
        pb::GetXattrRequest::KIND => {
            let it: pb::GetXattrRequest = decode(body)?;
            answer(&pb::GetXattrReply { value: state.getxattr(inode(it.inode), &it.name)? })
        }
        pb::ListXattrRequest::KIND => {
            let it: pb::ListXattrRequest = decode(body)?;
            answer(&pb::ListXattrReply { names: state.listxattr(inode(it.inode))? })
        }
        pb::StatFsRequest::KIND => statfs(&desk.registry, state),
        pb::OpenRequest::KIND => open(&mut desk.sessions, state, now.mono, &decode(body)?),
        pb::ReleaseRequest::KIND => {
            let it: pb::ReleaseRequest = decode(body)?;
            at_most(it.inodes.len(), RELEASE_MAX, "inodes")?;
            for raw in it.inodes {
                desk.sessions.release(session(it.session), inode(raw), it.number);
            }
            answer(&pb::Empty {})
        }
        pb::LocateRequest::KIND => locate(desk, state, now, &decode(body)?),
        _ => Err(unknown(kind)),
    }
}

fn change(
    desk: &mut Desk,
    group: &Group,
    now: Duration,
    kind: u16,
    body: Bytes,
) -> Result<Answer, CallError> {
    let state = group.state();
    let (meta, command, context) = match kind {
        pb::CreateRequest::KIND => create(decode(body)?)?,
        pb::SetAttrRequest::KIND => set_attr(state, &decode(body)?)?,
        pb::LinkRequest::KIND => link(&decode(body)?)?,
        pb::UnlinkRequest::KIND => {
            let it: pb::UnlinkRequest = decode(body)?;
            let (parent, name) = (inode(it.parent), FileName::parse(&it.name)?);
            (it.meta, NameCommand::Unlink { parent, name }.into(), Context::Empty)
        }
        pb::RmdirRequest::KIND => {
            let it: pb::RmdirRequest = decode(body)?;
            let (parent, name) = (inode(it.parent), FileName::parse(&it.name)?);
            (it.meta, NameCommand::Rmdir { parent, name }.into(), Context::Empty)
        }
        pb::RenameRequest::KIND => rename(&decode(body)?)?,
        pb::SetXattrRequest::KIND => set_xattr(decode(body)?)?,
        pb::RemoveXattrRequest::KIND => {
            let it: pb::RemoveXattrRequest = decode(body)?;
            (
                it.meta,
                AttrCommand::RemoveXattr { inode: inode(it.inode), name: it.name }.into(),
                Context::Empty,
            )
        }
        pb::GrantWriteRequest::KIND => grant_write(desk, state, now, &decode(body)?)?,
        pb::CommitWriteRequest::KIND => commit_write(decode(body)?)?,
        pb::WriteInlineRequest::KIND => {
            let it: pb::WriteInlineRequest = decode(body)?;
            let pb::WriteInlineRequest { offset, data, append, .. } = it;
            let command = ContentCommand::WriteInline { inode: inode(it.inode), offset, append, data }.into();
            (it.meta, command, Context::Recalling(inode(it.inode), ChunkIndex::from_raw(0)))
        }
        pb::ReleaseLeaseRequest::KIND => {
            let it: pb::ReleaseLeaseRequest = decode(body)?;
            at_most(it.indexes.len(), INDEXES_MAX, "indexes")?;
            let indexes = it.indexes.iter().map(|index| ChunkIndex::from_raw(*index)).collect();
            let command = ContentCommand::ReleaseLease {
                session: session_of(it.meta),
                inode: inode(it.inode),
                indexes,
            }
            .into();
            (it.meta, command, Context::Empty)
        }
        pb::CloseSessionRequest::KIND => {
            let it: pb::CloseSessionRequest = decode(body)?;
            let session = session_of(it.meta);
            (it.meta, ClusterCommand::CloseSession { session }.into(), Context::ClosedSession(session))
        }
        _ => return Err(unknown(kind)),
    };
    let request = request(meta.as_ref())?;
    desk.sessions.heard(request.id.session, now);
    must_acknowledge(state, request)?;
    Ok(Answer::Propose(Some(request), Box::new(command), context))
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

type Change = (Option<pb::RequestMeta>, Command, Context);

fn create(it: pb::CreateRequest) -> Result<Change, CallError> {
    let kind = kind_of(it.kind)?;
    let open = it.open && kind == FileKind::File;
    let context = if open { Context::Created(session_of(it.meta), it.open_number) } else { Context::Attr };
    let command = NameCommand::Create {
        parent: inode(it.parent),
        name: FileName::parse(&it.name)?,
        kind,
        mode: mode(it.mode)?,
        uid: it.uid,
        gid: it.gid,
        rdev: it.rdev,
        target: it.target,
    }
    .into();
    Ok((it.meta, command, context))
}

fn set_attr(state: &MetaState, it: &pb::SetAttrRequest) -> Result<Change, CallError> {
    let change = SetAttr::try_from(it)?;
    // In the way are leases behind the lower one of the old end and the new.
    let old = state.getattr(inode(it.inode)).map_or(0, |attr| attr.size);
    let context = match change.size.and_then(|size| ChunkIndex::of_offset(size.min(old))) {
        Some(index) => Context::Recalling(inode(it.inode), index),
        None => Context::Attr,
    };
    let session = it.meta.map(|meta| session(meta.session));
    Ok((it.meta, AttrCommand::SetAttr { inode: inode(it.inode), change, session }.into(), context))
}

fn link(it: &pb::LinkRequest) -> Result<Change, CallError> {
    let (new_parent, new_name) = (inode(it.new_parent), FileName::parse(&it.new_name)?);
    let command = NameCommand::Link { inode: inode(it.inode), new_parent, new_name };
    Ok((it.meta, command.into(), Context::Attr))
}

fn set_xattr(it: pb::SetXattrRequest) -> Result<Change, CallError> {
    let mode = match (it.create, it.replace) {
        (false, false) => XattrMode::Any,
        (true, false) => XattrMode::Create,
        (false, true) => XattrMode::Replace,
        (true, true) => return Err(FsError::Invalid.into()),
    };
    let command = AttrCommand::SetXattr { inode: inode(it.inode), name: it.name, value: it.value, mode };
    Ok((it.meta, command.into(), Context::Empty))
}

fn rename(it: &pb::RenameRequest) -> Result<Change, CallError> {
    let mode = match (it.no_replace, it.exchange) {
        (false, false) => RenameMode::Replace,
        (true, false) => RenameMode::NoReplace,
        (false, true) => RenameMode::Exchange,
        (true, true) => return Err(FsError::Invalid.into()),
    };
    let command = NameCommand::Rename {
        parent: inode(it.parent),
        name: FileName::parse(&it.name)?,
        new_parent: inode(it.new_parent),
        new_name: FileName::parse(&it.new_name)?,
        mode,
    }
    .into();
    Ok((it.meta, command, Context::Empty))
}

fn grant_write(
    desk: &Desk,
    state: &MetaState,
    now: Duration,
    it: &pb::GrantWriteRequest,
) -> Result<Change, CallError> {
    at_most(it.failed_servers.len(), FAILED_MAX, "failed_servers")?;
    let failed: Vec<ServerId> = it.failed_servers.iter().map(|id| ServerId::from_raw(*id)).collect();
    let copies = copies(&desk.config, state);
    let candidates = place(&desk.registry.candidates(now, &failed), copies.into(), desk.entropy.next_u64());
    let (session, inode, index) = (session_of(it.meta), inode(it.inode), ChunkIndex::from_raw(it.index));
    let found = state.locate(inode, index, 1);
    let is_new = found.as_ref().is_ok_and(Vec::is_empty);
    let servers = found.iter().flatten().flat_map(|(_, _, row)| row.servers.clone()).collect::<Vec<_>>();
    let up = desk.registry.up(&servers, now);
    // Their heartbeats come soon; a chunk with too few copies, or an error for want of room, would be for good.
    if candidates.len() < copies.into() && desk.is_young(now) && desk.registry.awaits(&failed) && is_new {
        let message = "some chunkservers have yet to speak to this master".into();
        return Err(CallError::Unavailable { message });
    }
    if index.start() >= mooseng_types::FILE_SIZE_MAX {
        return Err(FsError::FileTooLarge.into());
    }
    let (nothing_written, renew) = (it.nothing_written, it.renew);
    let command =
        ContentCommand::GrantWrite { session, inode, index, candidates, failed, up, nothing_written, renew }
            .into();
    Ok((it.meta, command, Context::Grant(session, inode, index)))
}

fn commit_write(it: pb::CommitWriteRequest) -> Result<Change, CallError> {
    at_most(it.chunks.len(), COMMIT_MAX, "chunks")?;
    let chunks = it.chunks.iter().map(|chunk| CommittedChunk {
        index: ChunkIndex::from_raw(chunk.index),
        chunk: ChunkId::from_raw(chunk.chunk),
        version: ChunkVersion::from_raw(chunk.version),
        release: chunk.release,
    });
    let command = ContentCommand::CommitWrite {
        session: session_of(it.meta),
        inode: inode(it.inode),
        size_at_least: it.size_at_least,
        mtime: it.mtime_ns.map(TimeNs::from_raw),
        chunks: chunks.collect(),
    }
    .into();
    Ok((it.meta, command, Context::Attr))
}

/// Opens a session. Where it says so, one of the same name that is not connected any more belonged to the same mount
/// before it died: it ends soon, so that its leases are in nobody's way, unless it shows a sign of life first. Two mounts
/// may have one name.
fn open_session(
    sessions: &mut Sessions,
    group: &Group,
    it: pb::OpenSessionRequest,
) -> Result<Answer, CallError> {
    group.must_take_changes()?;
    let client = id16(&it.client_id, "client_id")?;
    let mut name = it.name;
    name.truncate(name.floor_char_boundary(CLIENT_NAME_MAX));
    if it.replaces {
        for SessionRow { session, .. } in group.state().sessions().iter().filter(|row| row.name == name) {
            sessions.replaced(*session);
        }
    }
    Ok(Answer::Propose(
        None,
        Box::new(ClusterCommand::OpenSession { client, name }.into()),
        Context::OpenedSession,
    ))
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

/// Copies of a new chunk.
fn copies(config: &DeskConfig, state: &MetaState) -> u8 {
    state.settings().map_or(config.copies, |settings| settings.copies)
}

fn timeout_ms(config: &DeskConfig) -> u32 {
    u32::try_from(config.session_timeout.as_millis()).unwrap_or(u32::MAX)
}

fn resume_session(
    desk: &mut Desk,
    group: &Group,
    now: Duration,
    conn: ConnId,
    it: &pb::ResumeSessionRequest,
) -> Result<Answer, CallError> {
    group.must_serve_reads(now)?;
    let id = session(it.session);
    if !group.state().session_exists(id) {
        return Err(FsError::SessionExpired.into());
    }
    at_most(it.open_inodes.len(), OPEN_MAX, "open_inodes")?;
    desk.sessions.resumed(id, conn, now);
    if it.list_follows {
        desk.sessions.list_open(id, it.as_of, it.open_inodes.iter().map(|raw| inode(*raw)));
    }
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
        .collect();
    answer(&pb::LocateReply { attr: Some(attr.into()), inline, chunks })
}

fn inode(raw: u64) -> InodeId {
    InodeId::from_raw(raw)
}

fn session(raw: u64) -> SessionId {
    SessionId::from_raw(raw)
}

fn session_of(meta: Option<pb::RequestMeta>) -> SessionId {
    session(meta.map_or(0, |meta| meta.session))
}

fn unknown(kind: u16) -> CallError {
    CallError::Rejected { message: format!("unknown request {} ({kind:#x})", rpc::name(kind)) }
}
