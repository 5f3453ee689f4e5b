//! From the page cache to the socket without passing through this process: `sendfile(2)`. Its wrapper in `rustix` is
//! safe, so there is nothing unsafe here.

use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;

/// Sends `length` bytes of the file behind `fd`, from `offset` on.
///
/// Fails with `UnexpectedEof` where the file is too short, and with `TimedOut` where the socket's send time-out ends
/// first. After an error it is not known how many bytes went out: the connection is of no more use.
pub(crate) fn send_file(
    socket: &TcpStream,
    fd: BorrowedFd<'_>,
    offset: u64,
    length: usize,
) -> io::Result<()> {
    let mut at = offset;
    let end = offset + length as u64;
    while at < end {
        let rest = usize::try_from(end - at).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(socket, fd, Some(&mut at), rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn a_part_of_a_file_arrives_and_a_file_that_is_too_short_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut receiver = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (sender, _) = listener.accept().unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let thread = std::thread::spawn(move || {
            send_file(&sender, file.as_fd(), 1_000, 2_000_000).unwrap();
            send_file(&sender, file.as_fd(), 2_999_999, 2).unwrap_err().kind()
        });
        let mut got = vec![0; 2_000_000];
        receiver.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes[1_000..2_001_000]);
        assert_eq!(thread.join().unwrap(), io::ErrorKind::UnexpectedEof);
    }
}
