//! `SIOCOUTQ` (`tcp(7)`), which no safe library offers.
#![expect(unsafe_code, reason = "one system call without a safe wrapper")]

use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Bytes in the send queue of `socket` that the other machine has not acknowledged; 0 if the kernel does not say.
pub(crate) fn unsent_bytes(socket: &TcpStream) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the duration of the borrow, and the call writes one `int`, which outlives it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    #[test]
    fn what_the_receiver_does_not_take_is_counted_until_it_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut receiver = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut sender, _) = listener.accept().unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(bytes) = sender.write(&[0; 65_536]) {
            sent += bytes;
        }
        assert!(unsent_bytes(&sender) > 0);
        let mut all = vec![0; sent];
        receiver.read_exact(&mut all).unwrap();
        for _ in 0..1000 {
            if unsent_bytes(&sender) == 0 {
                return;
            }
            std::thread::yield_now();
        }
        // The last acknowledgement may be late.
        assert!(unsent_bytes(&sender) < sent as u64);
    }
}
