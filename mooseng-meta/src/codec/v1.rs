//! Format 1: entries, answers and rows, a file for each.

pub(crate) mod entry;
pub(crate) mod response;
pub(crate) mod row;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use mooseng_types::{Attr, FileKind, InodeId, ServerId, SessionId, TimeNs};

use super::{CodecError, Reader, Writer};

/// The first byte of every value of this format.
pub(crate) const FORMAT: u8 = 1;

fn open(bytes: &[u8]) -> Result<Reader<'_>, CodecError> {
    match Reader::new(bytes)? {
        (FORMAT, reader) => Ok(reader),
        (other, _) => Err(CodecError::Format(other)),
    }
}

fn kind(r: &mut Reader<'_>) -> Result<FileKind, CodecError> {
    FileKind::from_raw(r.u8()?).ok_or(CodecError::Value("kind"))
}

fn inode(r: &mut Reader<'_>) -> Result<InodeId, CodecError> {
    r.var().map(InodeId::from_raw)
}

fn session(r: &mut Reader<'_>) -> Result<SessionId, CodecError> {
    r.var().map(SessionId::from_raw)
}

fn server(r: &mut Reader<'_>) -> Result<ServerId, CodecError> {
    r.narrow().map(ServerId::from_raw)
}

fn time(r: &mut Reader<'_>) -> Result<TimeNs, CodecError> {
    r.i64().map(TimeNs::from_raw)
}

fn put_servers(w: &mut Writer, servers: &[ServerId]) {
    w.list(servers, |w, server| w.var(server.raw().into()));
}

fn put_attr(w: &mut Writer, attr: &Attr) {
    w.var(attr.inode.raw());
    w.var(attr.generation);
    w.u8(attr.kind.raw());
    for number in [u32::from(attr.mode), attr.uid, attr.gid, attr.nlink, attr.rdev] {
        w.var(number.into());
    }
    w.var(attr.size);
    for time in [attr.atime, attr.mtime, attr.ctime, attr.btime] {
        w.i64(time.raw());
    }
    w.var(attr.content_version);
}

fn attr(r: &mut Reader<'_>) -> Result<Attr, CodecError> {
    Ok(Attr {
        inode: inode(r)?,
        generation: r.var()?,
        kind: kind(r)?,
        mode: r.narrow()?,
        uid: r.narrow()?,
        gid: r.narrow()?,
        nlink: r.narrow()?,
        rdev: r.narrow()?,
        size: r.var()?,
        atime: time(r)?,
        mtime: time(r)?,
        ctime: time(r)?,
        btime: time(r)?,
        content_version: r.var()?,
    })
}
