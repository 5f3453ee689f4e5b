//! `SIOCOUTQ` (`tcp(7)`), which no safe library offers.
#![expect(unsafe_code, reason = "one system call without a safe wrapper")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Bytes in the send queue of `socket` that the other machine has not acknowledged; 0 if the kernel does not say.
pub(super) fn unsent_bytes(socket: BorrowedFd<'_>) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the duration of the borrow, and the call writes one `int`, which outlives it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}
