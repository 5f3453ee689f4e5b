//! Requests that change something, as the commands for them.

use std::time::Duration;

use mooseng_meta::{
    AttrCommand, ClusterCommand, Command, CommittedChunk, ContentCommand, MetaState, NameCommand, RenameMode,
    XattrMode,
};
use mooseng_protocol::convert::{kind as kind_of, mode};
use mooseng_protocol::limits::{COMMIT_MAX, FAILED_MAX, INDEXES_MAX};
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{
    ChunkId, ChunkIndex, ChunkVersion, FileKind, FileName, FsError, InodeId, ServerId, SessionId, SetAttr,
    TimeNs,
};

use super::requests::{Context, at_most};
use super::{Desk, DeskConfig};
use crate::multiregion::placement::place;

/// Whose request it is, the command for it, and what its reply needs.
pub(super) type ChangeRequest = (Option<pb::RequestMeta>, Command, Context);

pub(super) fn create(it: pb::CreateRequest) -> Result<ChangeRequest, CallError> {
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

pub(super) fn set_attr(state: &MetaState, it: &pb::SetAttrRequest) -> Result<ChangeRequest, CallError> {
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

pub(super) fn unlink(it: &pb::UnlinkRequest) -> Result<ChangeRequest, CallError> {
    let (parent, name) = (inode(it.parent), FileName::parse(&it.name)?);
    Ok((it.meta, NameCommand::Unlink { parent, name }.into(), Context::Empty))
}

pub(super) fn rmdir(it: &pb::RmdirRequest) -> Result<ChangeRequest, CallError> {
    let (parent, name) = (inode(it.parent), FileName::parse(&it.name)?);
    Ok((it.meta, NameCommand::Rmdir { parent, name }.into(), Context::Empty))
}

pub(super) fn link(it: &pb::LinkRequest) -> Result<ChangeRequest, CallError> {
    let (new_parent, new_name) = (inode(it.new_parent), FileName::parse(&it.new_name)?);
    let command = NameCommand::Link { inode: inode(it.inode), new_parent, new_name };
    Ok((it.meta, command.into(), Context::Attr))
}

pub(super) fn set_xattr(it: pb::SetXattrRequest) -> Result<ChangeRequest, CallError> {
    let mode = match (it.create, it.replace) {
        (false, false) => XattrMode::Any,
        (true, false) => XattrMode::Create,
        (false, true) => XattrMode::Replace,
        (true, true) => return Err(FsError::Invalid.into()),
    };
    let command = AttrCommand::SetXattr { inode: inode(it.inode), name: it.name, value: it.value, mode };
    Ok((it.meta, command.into(), Context::Empty))
}

pub(super) fn rename(it: &pb::RenameRequest) -> Result<ChangeRequest, CallError> {
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

pub(super) fn grant_write(
    desk: &Desk,
    state: &MetaState,
    now: Duration,
    it: &pb::GrantWriteRequest,
) -> Result<ChangeRequest, CallError> {
    at_most(it.failed_servers.len(), FAILED_MAX, "failed_servers")?;
    let failed: Vec<ServerId> = it.failed_servers.iter().map(|id| ServerId::from_raw(*id)).collect();
    let copies = copies(&desk.config, state);
    let candidates = place(&desk.registry.candidates(now, &failed), copies.into(), desk.entropy.next_u64());
    let (session, inode, index) = (session_of(it.meta), inode(it.inode), ChunkIndex::from_raw(it.index));
    let found = state.locate(inode, index, 1);
    let is_new = found.as_ref().is_ok_and(Vec::is_empty);
    // A chunk in parts is refused when the command is applied.
    let having = found.iter().flatten().filter_map(|(_, _, row)| row.layout.copies().ok());
    let up = having.flat_map(|servers| desk.registry.up(servers, now)).collect();
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

pub(super) fn commit_write(it: pb::CommitWriteRequest) -> Result<ChangeRequest, CallError> {
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

pub(super) fn remove_xattr(it: pb::RemoveXattrRequest) -> ChangeRequest {
    let command = AttrCommand::RemoveXattr { inode: inode(it.inode), name: it.name };
    (it.meta, command.into(), Context::Empty)
}

pub(super) fn write_inline(it: pb::WriteInlineRequest) -> ChangeRequest {
    let pb::WriteInlineRequest { meta, offset, data, append, .. } = it;
    let command = ContentCommand::WriteInline { inode: inode(it.inode), offset, append, data }.into();
    (meta, command, Context::Recalling(inode(it.inode), ChunkIndex::from_raw(0)))
}

pub(super) fn release_lease(it: &pb::ReleaseLeaseRequest) -> Result<ChangeRequest, CallError> {
    at_most(it.indexes.len(), INDEXES_MAX, "indexes")?;
    let indexes = it.indexes.iter().map(|index| ChunkIndex::from_raw(*index)).collect();
    let session = session_of(it.meta);
    let command = ContentCommand::ReleaseLease { session, inode: inode(it.inode), indexes };
    Ok((it.meta, command.into(), Context::Empty))
}

pub(super) fn close_session(it: pb::CloseSessionRequest) -> ChangeRequest {
    let session = session_of(it.meta);
    (it.meta, ClusterCommand::CloseSession { session }.into(), Context::ClosedSession(session))
}

/// Copies of a new chunk.
pub(super) fn copies(config: &DeskConfig, state: &MetaState) -> u8 {
    state.settings().map_or(config.copies, |settings| settings.copies)
}

pub(super) fn inode(raw: u64) -> InodeId {
    InodeId::from_raw(raw)
}

pub(super) fn session(raw: u64) -> SessionId {
    SessionId::from_raw(raw)
}

pub(super) fn session_of(meta: Option<pb::RequestMeta>) -> SessionId {
    session(meta.map_or(0, |meta| meta.session))
}
