//! Format 1: entries, answers and rows, a file for each.

pub(crate) mod entry;
pub(crate) mod response;
pub(crate) mod row;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use mooseng_types::Attr;

use super::{CodecError, Reader, Writer};

/// The first byte of every value of this format.
pub(crate) const FORMAT: u8 = 1;

fn open(bytes: &[u8]) -> Result<Reader<'_>, CodecError> {
    match Reader::new(bytes)? {
        (FORMAT, reader) => Ok(reader),
        (other, _) => Err(CodecError::Format(other)),
    }
}

fn put_attr(w: &mut Writer, attr: &Attr) {
    w.inode(attr.inode);
    w.var(attr.generation);
    w.u8(attr.kind.raw());
    for number in [u32::from(attr.mode), attr.uid, attr.gid, attr.nlink, attr.rdev] {
        w.var(number.into());
    }
    w.var(attr.size);
    for time in [attr.atime, attr.mtime, attr.ctime, attr.btime] {
        w.time(time);
    }
    w.var(attr.content_version);
}

fn attr(r: &mut Reader<'_>) -> Result<Attr, CodecError> {
    Ok(Attr {
        inode: r.inode()?,
        generation: r.var()?,
        kind: r.kind()?,
        mode: r.narrow()?,
        uid: r.narrow()?,
        gid: r.narrow()?,
        nlink: r.narrow()?,
        rdev: r.narrow()?,
        size: r.var()?,
        atime: r.time()?,
        mtime: r.time()?,
        ctime: r.time()?,
        btime: r.time()?,
        content_version: r.var()?,
    })
}
