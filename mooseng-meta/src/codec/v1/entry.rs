//! Entries of the log: stamp, request, then the command's number and its fields in the order of the type.

use mooseng_types::{ChunkId, ChunkIndex, ChunkVersion, ClusterId, FileName, RequestId, SetAttr, SetTime};

use super::{FORMAT, inode, kind, open, put_servers, server, session, time};
use crate::codec::{CodecError, Reader, Writer};
use crate::command::{Command, CommittedChunk, Entry, RenameMode, Request, XattrMode};

/// Numbers of the commands; never used again for another.
mod tag {
    pub(super) const BOOTSTRAP: u8 = 1;
    pub(super) const OPEN_SESSION: u8 = 2;
    pub(super) const CLOSE_SESSION: u8 = 3;
    pub(super) const REGISTER_SERVER: u8 = 4;
    pub(super) const CREATE: u8 = 5;
    pub(super) const LINK: u8 = 6;
    pub(super) const UNLINK: u8 = 7;
    pub(super) const RMDIR: u8 = 8;
    pub(super) const RENAME: u8 = 9;
    pub(super) const SET_ATTR: u8 = 10;
    pub(super) const SET_XATTR: u8 = 11;
    pub(super) const REMOVE_XATTR: u8 = 12;
    pub(super) const GRANT_WRITE: u8 = 13;
    pub(super) const COMMIT_WRITE: u8 = 14;
    pub(super) const WRITE_INLINE: u8 = 15;
    pub(super) const RELEASE_LEASE: u8 = 16;
    pub(super) const ADD_REPLICA: u8 = 17;
    pub(super) const REMOVE_REPLICA: u8 = 18;
    pub(super) const REAP_ORPHANS: u8 = 19;
    pub(super) const FORGET_DEAD: u8 = 20;
}

/// Room for an entry without a payload.
const USUAL_SIZE: usize = 96;

impl Entry {
    /// The entry as bytes, for the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let payload = match &self.command {
            Command::Create { name, target, .. } => name.as_bytes().len() + target.len(),
            Command::WriteInline { data: payload, .. } | Command::SetXattr { value: payload, .. } => {
                payload.len()
            }
            _ => 0,
        };
        let mut w = Writer::new(FORMAT, USUAL_SIZE + payload);
        w.i64(self.stamp.raw());
        w.option(self.request, |w, request| {
            w.var(request.id.session.raw());
            w.var(request.id.seq);
            w.var(request.acked_below);
        });
        put_command(&mut w, &self.command);
        w.finish()
    }

    /// Reads an entry back. Any bytes may be given.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let entry = Self { stamp: time(&mut r)?, request: r.option(request)?, command: command(&mut r)? };
        r.finish(entry)
    }
}

fn request(r: &mut Reader<'_>) -> Result<Request, CodecError> {
    let id = RequestId { session: session(r)?, seq: r.var()? };
    Ok(Request { id, acked_below: r.var()? })
}

fn put_command(w: &mut Writer, command: &Command) {
    match command {
        Command::Bootstrap { .. }
        | Command::OpenSession { .. }
        | Command::CloseSession { .. }
        | Command::RegisterServer { .. } => put_cluster_command(w, command),
        Command::Create { .. }
        | Command::Link { .. }
        | Command::Unlink { .. }
        | Command::Rmdir { .. }
        | Command::Rename { .. } => put_name_command(w, command),
        Command::SetAttr { .. } | Command::SetXattr { .. } | Command::RemoveXattr { .. } => {
            put_attr_command(w, command);
        }
        Command::GrantWrite { .. }
        | Command::CommitWrite { .. }
        | Command::WriteInline { .. }
        | Command::ReleaseLease { .. } => put_write_command(w, command),
        Command::AddReplica { .. }
        | Command::RemoveReplica { .. }
        | Command::ReapOrphans { .. }
        | Command::ForgetDead { .. } => put_repair_command(w, command),
    }
}

fn put_cluster_command(w: &mut Writer, command: &Command) {
    match command {
        Command::Bootstrap { cluster, copies } => {
            w.u8(tag::BOOTSTRAP);
            w.raw(&cluster.bytes());
            w.u8(*copies);
        }
        Command::OpenSession { client, name } => {
            w.u8(tag::OPEN_SESSION);
            w.raw(client);
            w.bytes(name.as_bytes());
        }
        Command::CloseSession { session } => {
            w.u8(tag::CLOSE_SESSION);
            w.var(session.raw());
        }
        Command::RegisterServer { uuid, name, address } => {
            w.u8(tag::REGISTER_SERVER);
            w.raw(uuid);
            w.bytes(name.as_bytes());
            w.bytes(address.as_bytes());
        }
        _ => {}
    }
}

fn put_name_command(w: &mut Writer, command: &Command) {
    match command {
        Command::Create { parent, name, kind, mode, uid, gid, rdev, target } => {
            w.u8(tag::CREATE);
            w.var(parent.raw());
            w.bytes(name.as_bytes());
            w.u8(kind.raw());
            for number in [u32::from(*mode), *uid, *gid, *rdev] {
                w.var(number.into());
            }
            w.bytes(target);
        }
        Command::Link { inode, new_parent, new_name } => {
            w.u8(tag::LINK);
            w.var(inode.raw());
            w.var(new_parent.raw());
            w.bytes(new_name.as_bytes());
        }
        Command::Unlink { parent, name } => {
            w.u8(tag::UNLINK);
            w.var(parent.raw());
            w.bytes(name.as_bytes());
        }
        Command::Rmdir { parent, name } => {
            w.u8(tag::RMDIR);
            w.var(parent.raw());
            w.bytes(name.as_bytes());
        }
        Command::Rename { parent, name, new_parent, new_name, mode } => {
            w.u8(tag::RENAME);
            w.var(parent.raw());
            w.bytes(name.as_bytes());
            w.var(new_parent.raw());
            w.bytes(new_name.as_bytes());
            w.u8(match mode {
                RenameMode::Replace => 0,
                RenameMode::NoReplace => 1,
                RenameMode::Exchange => 2,
            });
        }
        _ => {}
    }
}

fn put_set_time(w: &mut Writer, time: SetTime) {
    w.option(
        match time {
            SetTime::Now => None,
            SetTime::At(at) => Some(at),
        },
        |w, at| w.i64(at.raw()),
    );
}

fn put_attr_command(w: &mut Writer, command: &Command) {
    match command {
        Command::SetAttr { inode, change, session } => {
            w.u8(tag::SET_ATTR);
            w.var(inode.raw());
            w.option(change.mode, |w, mode| w.var(mode.into()));
            w.option(change.uid, |w, uid| w.var(uid.into()));
            w.option(change.gid, |w, gid| w.var(gid.into()));
            w.option(change.size, Writer::var);
            w.option(change.atime, put_set_time);
            w.option(change.mtime, put_set_time);
            w.option(*session, |w, session| w.var(session.raw()));
        }
        Command::SetXattr { inode, name, value, mode } => {
            w.u8(tag::SET_XATTR);
            w.var(inode.raw());
            w.bytes(name);
            w.bytes(value);
            w.u8(match mode {
                XattrMode::Any => 0,
                XattrMode::Create => 1,
                XattrMode::Replace => 2,
            });
        }
        Command::RemoveXattr { inode, name } => {
            w.u8(tag::REMOVE_XATTR);
            w.var(inode.raw());
            w.bytes(name);
        }
        _ => {}
    }
}

fn put_write_command(w: &mut Writer, command: &Command) {
    match command {
        Command::GrantWrite { session, inode, index, candidates, failed, up, nothing_written, renew } => {
            w.u8(tag::GRANT_WRITE);
            w.var(session.raw());
            w.var(inode.raw());
            w.var(index.raw().into());
            put_servers(w, candidates);
            put_servers(w, failed);
            put_servers(w, up);
            w.u8((*nothing_written).into());
            w.u8((*renew).into());
        }
        Command::CommitWrite { session, inode, size_at_least, mtime, chunks } => {
            w.u8(tag::COMMIT_WRITE);
            w.var(session.raw());
            w.var(inode.raw());
            w.var(*size_at_least);
            w.option(*mtime, |w, mtime| w.i64(mtime.raw()));
            w.list(chunks, |w, committed| {
                w.var(committed.index.raw().into());
                w.var(committed.chunk.raw());
                w.var(committed.version.raw().into());
                w.u8(committed.release.into());
            });
        }
        Command::WriteInline { inode, offset, append, data } => {
            w.u8(tag::WRITE_INLINE);
            w.var(inode.raw());
            w.var((*offset).into());
            w.u8((*append).into());
            w.bytes(data);
        }
        Command::ReleaseLease { session, inode, indexes } => {
            w.u8(tag::RELEASE_LEASE);
            w.var(session.raw());
            w.var(inode.raw());
            w.list(indexes, |w, index| w.var(index.raw().into()));
        }
        _ => {}
    }
}

fn put_repair_command(w: &mut Writer, command: &Command) {
    match command {
        Command::AddReplica { chunk, version, server } => {
            w.u8(tag::ADD_REPLICA);
            w.var(chunk.raw());
            w.var(version.raw().into());
            w.var(server.raw().into());
        }
        Command::RemoveReplica { chunk, server } => {
            w.u8(tag::REMOVE_REPLICA);
            w.var(chunk.raw());
            w.var(server.raw().into());
        }
        Command::ReapOrphans { inodes } => {
            w.u8(tag::REAP_ORPHANS);
            w.list(inodes, |w, inode| w.var(inode.raw()));
        }
        Command::ForgetDead { chunks } => {
            w.u8(tag::FORGET_DEAD);
            w.list(chunks, |w, chunk| w.var(chunk.raw()));
        }
        _ => {}
    }
}

fn name(r: &mut Reader<'_>) -> Result<FileName, CodecError> {
    FileName::parse(r.slice()?).map_err(|_| CodecError::Value("name"))
}

fn chunk(r: &mut Reader<'_>) -> Result<ChunkId, CodecError> {
    r.var().map(ChunkId::from_raw)
}

fn version(r: &mut Reader<'_>) -> Result<ChunkVersion, CodecError> {
    r.narrow().map(ChunkVersion::from_raw)
}

fn index(r: &mut Reader<'_>) -> Result<ChunkIndex, CodecError> {
    r.narrow().map(ChunkIndex::from_raw)
}

fn set_time(r: &mut Reader<'_>) -> Result<SetTime, CodecError> {
    Ok(r.option(time)?.map_or(SetTime::Now, SetTime::At))
}

fn rename_mode(r: &mut Reader<'_>) -> Result<RenameMode, CodecError> {
    match r.u8()? {
        0 => Ok(RenameMode::Replace),
        1 => Ok(RenameMode::NoReplace),
        2 => Ok(RenameMode::Exchange),
        _ => Err(CodecError::Value("rename mode")),
    }
}

fn xattr_mode(r: &mut Reader<'_>) -> Result<XattrMode, CodecError> {
    match r.u8()? {
        0 => Ok(XattrMode::Any),
        1 => Ok(XattrMode::Create),
        2 => Ok(XattrMode::Replace),
        _ => Err(CodecError::Value("xattr mode")),
    }
}

fn set_attr(r: &mut Reader<'_>) -> Result<SetAttr, CodecError> {
    Ok(SetAttr {
        mode: r.option(Reader::narrow)?,
        uid: r.option(Reader::narrow)?,
        gid: r.option(Reader::narrow)?,
        size: r.option(Reader::var)?,
        atime: r.option(set_time)?,
        mtime: r.option(set_time)?,
    })
}

fn create(r: &mut Reader<'_>) -> Result<Command, CodecError> {
    Ok(Command::Create {
        parent: inode(r)?,
        name: name(r)?,
        kind: kind(r)?,
        mode: r.narrow()?,
        uid: r.narrow()?,
        gid: r.narrow()?,
        rdev: r.narrow()?,
        target: r.bytes()?,
    })
}

fn committed(r: &mut Reader<'_>) -> Result<CommittedChunk, CodecError> {
    Ok(CommittedChunk { index: index(r)?, chunk: chunk(r)?, version: version(r)?, release: r.bool()? })
}

fn command(r: &mut Reader<'_>) -> Result<Command, CodecError> {
    let tag = r.u8()?;
    match tag {
        tag::BOOTSTRAP..=tag::REGISTER_SERVER => cluster_command(tag, r),
        tag::CREATE..=tag::RENAME => name_command(tag, r),
        _ => file_command(tag, r),
    }
}

fn cluster_command(tag: u8, r: &mut Reader<'_>) -> Result<Command, CodecError> {
    Ok(match tag {
        tag::BOOTSTRAP => Command::Bootstrap { cluster: ClusterId::from_bytes(r.array()?), copies: r.u8()? },
        tag::OPEN_SESSION => Command::OpenSession { client: r.array()?, name: r.text()? },
        tag::CLOSE_SESSION => Command::CloseSession { session: session(r)? },
        _ => Command::RegisterServer { uuid: r.array()?, name: r.text()?, address: r.text()? },
    })
}

fn name_command(tag: u8, r: &mut Reader<'_>) -> Result<Command, CodecError> {
    Ok(match tag {
        tag::CREATE => create(r)?,
        tag::LINK => Command::Link { inode: inode(r)?, new_parent: inode(r)?, new_name: name(r)? },
        tag::UNLINK => Command::Unlink { parent: inode(r)?, name: name(r)? },
        tag::RMDIR => Command::Rmdir { parent: inode(r)?, name: name(r)? },
        _ => Command::Rename {
            parent: inode(r)?,
            name: name(r)?,
            new_parent: inode(r)?,
            new_name: name(r)?,
            mode: rename_mode(r)?,
        },
    })
}

fn file_command(tag: u8, r: &mut Reader<'_>) -> Result<Command, CodecError> {
    Ok(match tag {
        tag::SET_ATTR => {
            Command::SetAttr { inode: inode(r)?, change: set_attr(r)?, session: r.option(session)? }
        }
        tag::SET_XATTR => {
            Command::SetXattr { inode: inode(r)?, name: r.bytes()?, value: r.bytes()?, mode: xattr_mode(r)? }
        }
        tag::REMOVE_XATTR => Command::RemoveXattr { inode: inode(r)?, name: r.bytes()? },
        tag::GRANT_WRITE => Command::GrantWrite {
            session: session(r)?,
            inode: inode(r)?,
            index: index(r)?,
            candidates: r.list(server)?,
            failed: r.list(server)?,
            up: r.list(server)?,
            nothing_written: r.bool()?,
            renew: r.bool()?,
        },
        tag::COMMIT_WRITE => Command::CommitWrite {
            session: session(r)?,
            inode: inode(r)?,
            size_at_least: r.var()?,
            mtime: r.option(time)?,
            chunks: r.list(committed)?,
        },
        tag::WRITE_INLINE => Command::WriteInline {
            inode: inode(r)?,
            offset: r.narrow()?,
            append: r.bool()?,
            data: r.bytes()?,
        },
        tag::RELEASE_LEASE => {
            Command::ReleaseLease { session: session(r)?, inode: inode(r)?, indexes: r.list(index)? }
        }
        tag::ADD_REPLICA => {
            Command::AddReplica { chunk: chunk(r)?, version: version(r)?, server: server(r)? }
        }
        tag::REMOVE_REPLICA => Command::RemoveReplica { chunk: chunk(r)?, server: server(r)? },
        tag::REAP_ORPHANS => Command::ReapOrphans { inodes: r.list(inode)? },
        tag::FORGET_DEAD => Command::ForgetDead { chunks: r.list(chunk)? },
        _ => return Err(CodecError::Value("command")),
    })
}
