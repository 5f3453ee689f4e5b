//! The end of a file system as a power cut has it, by the one call for which there is no safe wrapper.
#![expect(unsafe_code, reason = "one system call without a safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// `FS_IOC_SHUTDOWN`, which ext4 and XFS have.
const SHUTDOWN: libc::c_ulong = 0x8004_587D;

/// What of its own log a file system still writes when it is shut down (`EXT4_GOING_FLAGS_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastWords {
    /// The log, and no data: names and lengths may be there without what they are names and lengths of.
    Log,
    /// Nothing: what no sync has covered, and nobody has happened to write back, is gone.
    None,
}

/// Ends the file system at `point`: what is in memory only will never reach the disk, and every call fails from here on.
/// It can then be unmounted and mounted again. Only root may.
pub(super) fn shut_down(point: &Path, last_words: LastWords) -> io::Result<()> {
    let top = File::open(point)?;
    let flags: u32 = match last_words {
        LastWords::Log => 1,
        LastWords::None => 2,
    };
    // SAFETY: the call reads one u32 behind the pointer, which outlives it.
    match unsafe { libc::ioctl(top.as_raw_fd(), SHUTDOWN as _, &raw const flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
