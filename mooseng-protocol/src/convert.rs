//! Messages from and to the vocabulary of `mooseng-types`. Validation is the receiving side's: everything that comes
//! off the wire passes through a `TryFrom` here or a checked constructor.

mod class;

pub use class::BadClass;

use mooseng_types::{Attr, ChunkId, FileKind, InodeId, Part, RequestId, SessionId, SetAttr, SetTime, TimeNs};

use crate::pb;
use crate::status::CallError;

/// A message that is well-formed protobuf and still makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("bad {field} in message")]
pub struct BadMessage {
    /// Which field.
    pub field: &'static str,
}

impl From<BadMessage> for CallError {
    fn from(bad: BadMessage) -> Self {
        Self::Rejected { message: bad.to_string() }
    }
}

/// A message that names a part which no chunk has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{chunk} has no part {index}: 0 is a whole copy, parts have numbers from 1 to {}", Part::INDEX_MAX)]
pub struct BadPart {
    /// Of which chunk.
    pub chunk: ChunkId,
    /// What was taken for its number.
    pub index: u32,
}

impl From<BadPart> for CallError {
    fn from(bad: BadPart) -> Self {
        Self::Rejected { message: bad.to_string() }
    }
}

/// A copy or part off the wire; index 0 is a whole copy.
pub fn part(chunk: u64, index: u32) -> Result<Part, BadPart> {
    let chunk = ChunkId::from_raw(chunk);
    u8::try_from(index).ok().and_then(|index| Part::new(chunk, index)).ok_or(BadPart { chunk, index })
}

impl From<Part> for pb::PartRef {
    fn from(part: Part) -> Self {
        Self { chunk: part.chunk().raw(), index: part.index().into() }
    }
}

impl TryFrom<pb::PartRef> for Part {
    type Error = BadPart;

    fn try_from(named: pb::PartRef) -> Result<Self, BadPart> {
        part(named.chunk, named.index)
    }
}

impl From<Attr> for pb::Attr {
    fn from(attr: Attr) -> Self {
        Self {
            inode: attr.inode.raw(),
            generation: attr.generation,
            kind: attr.kind.raw().into(),
            mode: attr.mode.into(),
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            rdev: attr.rdev,
            size: attr.size,
            atime_ns: attr.atime.raw(),
            mtime_ns: attr.mtime.raw(),
            ctime_ns: attr.ctime.raw(),
            btime_ns: attr.btime.raw(),
            content_version: attr.content_version,
        }
    }
}

impl TryFrom<pb::Attr> for Attr {
    type Error = BadMessage;

    fn try_from(attr: pb::Attr) -> Result<Self, BadMessage> {
        Ok(Self {
            inode: InodeId::from_raw(attr.inode),
            generation: attr.generation,
            kind: kind(attr.kind)?,
            mode: mode(attr.mode)?,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            rdev: attr.rdev,
            size: attr.size,
            atime: TimeNs::from_raw(attr.atime_ns),
            mtime: TimeNs::from_raw(attr.mtime_ns),
            ctime: TimeNs::from_raw(attr.ctime_ns),
            btime: TimeNs::from_raw(attr.btime_ns),
            content_version: attr.content_version,
        })
    }
}

/// The attributes in a reply that must have them.
pub fn attr(attr: Option<pb::Attr>) -> Result<Attr, BadMessage> {
    attr.ok_or(BadMessage { field: "attr" })?.try_into()
}

/// A kind off the wire.
pub fn kind(raw: u32) -> Result<FileKind, BadMessage> {
    u8::try_from(raw).ok().and_then(FileKind::from_raw).ok_or(BadMessage { field: "kind" })
}

/// Permission bits off the wire.
pub fn mode(raw: u32) -> Result<u16, BadMessage> {
    u16::try_from(raw).ok().filter(|mode| *mode <= 0o7777).ok_or(BadMessage { field: "mode" })
}

/// Sixteen bytes off the wire: a cluster's or a client's id.
pub fn id16(bytes: &[u8], field: &'static str) -> Result<[u8; 16], BadMessage> {
    bytes.try_into().map_err(|_| BadMessage { field })
}

/// Who asks for the nth time; a session and a sequence number of 0 are nobody's.
pub fn request_id(meta: Option<&pb::RequestMeta>) -> Result<(RequestId, u64), BadMessage> {
    let meta = meta.ok_or(BadMessage { field: "meta" })?;
    if meta.session == 0 || meta.seq == 0 || meta.acked_below > meta.seq {
        return Err(BadMessage { field: "meta" });
    }
    Ok((RequestId { session: SessionId::from_raw(meta.session), seq: meta.seq }, meta.acked_below))
}

impl From<SetTime> for pb::SetTime {
    fn from(time: SetTime) -> Self {
        match time {
            SetTime::Now => Self { now: true, at_ns: 0 },
            SetTime::At(at) => Self { now: false, at_ns: at.raw() },
        }
    }
}

impl From<pb::SetTime> for SetTime {
    fn from(time: pb::SetTime) -> Self {
        if time.now { Self::Now } else { Self::At(TimeNs::from_raw(time.at_ns)) }
    }
}

impl TryFrom<&pb::SetAttrRequest> for SetAttr {
    type Error = BadMessage;

    fn try_from(request: &pb::SetAttrRequest) -> Result<Self, BadMessage> {
        Ok(Self {
            mode: request.mode.map(mode).transpose()?,
            uid: request.uid,
            gid: request.gid,
            size: request.size,
            atime: request.atime.map(Into::into),
            mtime: request.mtime.map(Into::into),
        })
    }
}

impl pb::SetAttrRequest {
    /// The request that makes `change` to `inode`.
    #[must_use]
    pub fn new(meta: pb::RequestMeta, inode: InodeId, change: SetAttr) -> Self {
        Self {
            meta: Some(meta),
            inode: inode.raw(),
            mode: change.mode.map(Into::into),
            uid: change.uid,
            gid: change.gid,
            size: change.size,
            atime: change.atime.map(Into::into),
            mtime: change.mtime.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn attributes_read_back(inode: u64, size: u64, mode in 0u16..=0o7777, times: [i64; 4], ids: [u32; 4]) {
            let attr = Attr {
                inode: InodeId::from_raw(inode), generation: size ^ 5, kind: FileKind::Symlink, mode, size,
                uid: ids[0], gid: ids[1], nlink: ids[2], rdev: ids[3],
                atime: TimeNs::from_raw(times[0]), mtime: TimeNs::from_raw(times[1]),
                ctime: TimeNs::from_raw(times[2]), btime: TimeNs::from_raw(times[3]),
                content_version: size ^ 9,
            };
            prop_assert_eq!(Attr::try_from(pb::Attr::from(attr)), Ok(attr));
        }
    }

    #[test]
    fn a_part_reads_back_and_one_that_no_chunk_has_is_refused_by_name() {
        for index in 0..=Part::INDEX_MAX {
            let one = part(7, index.into()).unwrap();
            assert_eq!((one.chunk(), one.index()), (ChunkId::from_raw(7), index));
            assert_eq!(Part::try_from(pb::PartRef::from(one)), Ok(one));
        }
        for index in [49, 256, u32::MAX] {
            let bad = part(7, index).unwrap_err();
            let sentence =
                format!("c7 has no part {index}: 0 is a whole copy, parts have numbers from 1 to 48");
            assert_eq!(bad.to_string(), sentence);
        }
    }

    #[test]
    fn nonsense_is_refused_field_by_field() {
        assert_eq!(kind(3), Err(BadMessage { field: "kind" }));
        assert_eq!(mode(0o10000), Err(BadMessage { field: "mode" }));
        let meta = pb::RequestMeta { session: 1, seq: 2, acked_below: 3 };
        assert_eq!(request_id(Some(&meta)), Err(BadMessage { field: "meta" }));
        assert_eq!(request_id(None), Err(BadMessage { field: "meta" }));
    }
}
