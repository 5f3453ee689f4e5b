//! fuser's values from and to ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use mooseng_types::{Attr, FileKind, FsError, InodeId, SetTime, TimeNs};

use crate::{ClientError, Result};

/// What programs are advised to read and write at a time (`st_blksize`), in bytes.
const IO_SIZE: u32 = 64 << 10;

pub(super) fn errno(error: &ClientError) -> Errno {
    Errno::from_i32(error.errno())
}

pub(super) fn id(ino: INodeNo) -> InodeId {
    InodeId::from_raw(ino.0)
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::Directory => FileType::Directory,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::File => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Socket => FileType::Socket,
    }
}

/// The kind in an `st_mode`; a mode without one is a regular file, as `mknod(2)` has it.
pub(super) fn kind_of_mode(mode: u32) -> Result<FileKind> {
    if mode & libc::S_IFMT == 0 {
        return Ok(FileKind::File);
    }
    Ok(FileKind::of_mode(mode).ok_or(FsError::Invalid)?)
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.inode.raw()),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: IO_SIZE,
        flags: 0,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(time_ns(at)),
    }
}

fn system_time(time: TimeNs) -> SystemTime {
    let ns = Duration::from_nanos(time.raw().unsigned_abs());
    if time.raw() >= 0 { UNIX_EPOCH + ns } else { UNIX_EPOCH - ns }
}

/// Times beyond the span of [`TimeNs`] are clamped to its ends.
fn time_ns(time: SystemTime) -> TimeNs {
    TimeNs::from_raw(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_the_epoch_pass_unchanged() {
        for ns in [0, 1, -1, 1_700_000_000_123_456_789, -5_000_000_001] {
            let time = TimeNs::from_raw(ns);
            assert_eq!(time_ns(system_time(time)), time);
        }
    }

    #[test]
    fn a_mode_without_a_type_is_a_regular_file() {
        assert_eq!(kind_of_mode(0o644).unwrap(), FileKind::File);
        assert_eq!(kind_of_mode(libc::S_IFIFO | 0o600).unwrap(), FileKind::Fifo);
        assert!(kind_of_mode(0o030_000).is_err());
    }
}
