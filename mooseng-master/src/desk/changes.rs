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
    ChunkId, ChunkIndex, ChunkVersion, ClassId, ClassState, FileKind, FileName, FsError, Goal, InodeId,
    ServerId, SessionId, SetAttr, Strictness, TimeNs,
};

use super::requests::{Context, at_most, unknown_servers};
use super::{Desk, DeskConfig};
use crate::multiregion::placement::{Ask, Choice, choose};

/// A request that changes something.
#[derive(Debug)]
pub(super) struct ChangeRequest {
    /// Whose it is.
    pub(super) meta: Option<pb::RequestMeta>,
    pub(super) command: Command,
    /// What its reply needs.
    pub(super) context: Context,
}

impl ChangeRequest {
    pub(super) fn new(meta: Option<pb::RequestMeta>, command: impl Into<Command>, context: Context) -> Self {
        Self { meta, command: command.into(), context }
    }
}

impl TryFrom<pb::CreateRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::CreateRequest) -> Result<Self, CallError> {
        let kind = kind_of(it.kind)?;
        let open = it.open && kind == FileKind::File;
        let context =
            if open { Context::Created(session_of(it.meta), it.open_number) } else { Context::Attr };
        let command = NameCommand::Create {
            parent: inode(it.parent),
            name: FileName::parse(&it.name)?,
            kind,
            mode: mode(it.mode)?,
            uid: it.uid,
            gid: it.gid,
            rdev: it.rdev,
            target: it.target,
        };
        Ok(Self::new(it.meta, command, context))
    }
}

impl TryFrom<pb::SetAttrRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::SetAttrRequest) -> Result<Self, CallError> {
        let change = SetAttr::try_from(&it)?;
        let context = change.size.map_or(Context::Attr, |size| Context::Resized(inode(it.inode), size));
        let session = it.meta.map(|meta| session(meta.session));
        Ok(Self::new(it.meta, AttrCommand::SetAttr { inode: inode(it.inode), change, session }, context))
    }
}

impl TryFrom<pb::UnlinkRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::UnlinkRequest) -> Result<Self, CallError> {
        let (parent, name) = (inode(it.parent), FileName::parse(&it.name)?);
        Ok(Self::new(it.meta, NameCommand::Unlink { parent, name }, Context::Empty))
    }
}

impl TryFrom<pb::RmdirRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::RmdirRequest) -> Result<Self, CallError> {
        let (parent, name) = (inode(it.parent), FileName::parse(&it.name)?);
        Ok(Self::new(it.meta, NameCommand::Rmdir { parent, name }, Context::Empty))
    }
}

impl TryFrom<pb::LinkRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::LinkRequest) -> Result<Self, CallError> {
        let (new_parent, new_name) = (inode(it.new_parent), FileName::parse(&it.new_name)?);
        let command = NameCommand::Link { inode: inode(it.inode), new_parent, new_name };
        Ok(Self::new(it.meta, command, Context::Attr))
    }
}

impl TryFrom<pb::SetXattrRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::SetXattrRequest) -> Result<Self, CallError> {
        let mode = match (it.create, it.replace) {
            (false, false) => XattrMode::Any,
            (true, false) => XattrMode::Create,
            (false, true) => XattrMode::Replace,
            (true, true) => return Err(FsError::Invalid.into()),
        };
        let command = AttrCommand::SetXattr { inode: inode(it.inode), name: it.name, value: it.value, mode };
        Ok(Self::new(it.meta, command, Context::Empty))
    }
}

impl TryFrom<pb::RenameRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::RenameRequest) -> Result<Self, CallError> {
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
        };
        Ok(Self::new(it.meta, command, Context::Empty))
    }
}

pub(super) fn grant_write(
    desk: &Desk,
    state: &MetaState,
    now: Duration,
    it: &pb::GrantWriteRequest,
) -> Result<ChangeRequest, CallError> {
    at_most(it.failed_servers.len(), FAILED_MAX, "failed_servers")?;
    let failed: Vec<ServerId> = it.failed_servers.iter().map(|id| ServerId::from_raw(*id)).collect();
    let choice = place(desk, state, now, inode(it.inode), &failed);
    let is_as_asked = choice.missing.is_empty() && choice.placed.iter().all(|placed| placed.is_right);
    let candidates = choice.servers();
    let (session, inode, index) = (session_of(it.meta), inode(it.inode), ChunkIndex::from_raw(it.index));
    let found = state.locate(inode, index, 1);
    let is_new = found.as_ref().is_ok_and(Vec::is_empty);
    // A chunk in parts is refused when the command is applied.
    let found_one = found.iter().flatten().next();
    let having = found_one.and_then(|(_, _, row)| row.layout.copies().ok());
    let having: Vec<ServerId> = having.into_iter().flatten().copied().collect();
    if !desk.registry.knows(&having) {
        return Err(unknown_servers());
    }
    // For the sake of a server that has lost its disk no copy is dropped. Of a copy that is being made the leader hears later.
    let up = found_one.map_or_else(Vec::new, |(_, chunk, row)| {
        desk.registry.up_with(*chunk, !row.is_uncommitted(), &having, now)
    });
    // Their heartbeats come soon; a chunk with too few copies or in the wrong place, or an error for want of room, would be for
    // good.
    if !is_as_asked && desk.is_young(now) && desk.registry.awaits(&failed) && is_new {
        let message = "some chunkservers have yet to speak to this master".into();
        return Err(CallError::Unavailable { message });
    }
    if choice.must_wait && is_new {
        let message = "the chunkservers that its storage class asks for have too much to do".into();
        return Err(CallError::Unavailable { message });
    }
    if index.start() >= mooseng_types::FILE_SIZE_MAX {
        return Err(FsError::FileTooLarge.into());
    }
    let (nothing_written, renew) = (it.nothing_written, it.renew);
    let command =
        ContentCommand::GrantWrite { session, inode, index, candidates, failed, up, nothing_written, renew };
    Ok(ChangeRequest::new(it.meta, command, Context::Grant(session, inode, index)))
}

impl TryFrom<pb::CommitWriteRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::CommitWriteRequest) -> Result<Self, CallError> {
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
        };
        Ok(Self::new(it.meta, command, Context::Attr))
    }
}

impl TryFrom<pb::RemoveXattrRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::RemoveXattrRequest) -> Result<Self, CallError> {
        let command = AttrCommand::RemoveXattr { inode: inode(it.inode), name: it.name };
        Ok(Self::new(it.meta, command, Context::Empty))
    }
}

impl TryFrom<pb::WriteInlineRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::WriteInlineRequest) -> Result<Self, CallError> {
        let pb::WriteInlineRequest { meta, offset, data, append, .. } = it;
        let command = ContentCommand::WriteInline { inode: inode(it.inode), offset, append, data };
        Ok(Self::new(meta, command, Context::Recalling(inode(it.inode), ChunkIndex::from_raw(0))))
    }
}

impl TryFrom<pb::ReleaseLeaseRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::ReleaseLeaseRequest) -> Result<Self, CallError> {
        at_most(it.indexes.len(), INDEXES_MAX, "indexes")?;
        let indexes = it.indexes.iter().map(|index| ChunkIndex::from_raw(*index)).collect();
        let session = session_of(it.meta);
        let command = ContentCommand::ReleaseLease { session, inode: inode(it.inode), indexes };
        Ok(Self::new(it.meta, command, Context::Empty))
    }
}

impl TryFrom<pb::CloseSessionRequest> for ChangeRequest {
    type Error = CallError;

    fn try_from(it: pb::CloseSessionRequest) -> Result<Self, CallError> {
        let session = session_of(it.meta);
        Ok(Self::new(it.meta, ClusterCommand::CloseSession { session }, Context::ClosedSession(session)))
    }
}

/// Where a new chunk of a file would go, by its class.
pub(super) fn place(
    desk: &Desk,
    state: &MetaState,
    now: Duration,
    inode: InodeId,
    leave_out: &[ServerId],
) -> Choice {
    let class = state.class_for(inode);
    let goal = class.as_ref().map_or_else(
        || Goal::any(copies(&desk.config, state)),
        |class| class.goal(ClassState::Create).clone(),
    );
    choose(&Ask {
        goal: &goal,
        strictness: class.map_or(Strictness::default(), |class| class.strictness),
        candidates: &desk.registry.candidates(now, leave_out),
        taken: &[],
        writer: None,
        seed: desk.entropy.next_u64(),
    })
}

/// Copies of a chunk of the default class.
pub(super) fn copies(config: &DeskConfig, state: &MetaState) -> u8 {
    let default = state.class(ClassId::from_raw(0));
    let goal = default.map(|class| u8::try_from(class.keep.copies().len()).unwrap_or(u8::MAX));
    goal.or_else(|| Some(state.settings()?.copies)).unwrap_or(config.copies)
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
