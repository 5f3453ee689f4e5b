//! `sync_file_range(2)`, which no safe library offers.
#![expect(unsafe_code, reason = "one system call without a safe wrapper")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Begins to write back a range of `file`. A failure will show at the next `fdatasync`, and only that one counts.
pub(super) fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: the descriptor is open for the duration of the borrow, and the call touches no memory of ours.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}
