//! From the page cache to the socket without passing through this process: `sendfile(2)`. Its wrapper in `rustix` is
//! safe, so there is nothing unsafe here.

use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// Which side failed. In either case it is not known how many bytes went out: the connection is of no more use.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The file did not give its bytes; `UnexpectedEof` where it is too short.
    File(io::Error),
    /// The socket did not take them; `TimedOut` where its send time-out ended first.
    Socket(io::Error),
}

/// Sends `length` bytes of the file behind `fd`, from `offset` on.
pub(crate) fn send_file(
    socket: &TcpStream,
    fd: BorrowedFd<'_>,
    offset: u64,
    length: usize,
) -> Result<(), Failed> {
    let mut at = offset;
    let end = offset + length as u64;
    while at < end {
        let rest = usize::try_from(end - at).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(socket, fd, Some(&mut at), rest) {
            Ok(0) => return Err(Failed::File(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(Failed::Socket(io::ErrorKind::TimedOut.into())),
            Err(error) if is_of_socket(error) => return Err(Failed::Socket(error.into())),
            Err(error) => return Err(Failed::File(error.into())),
        }
    }
    Ok(())
}

/// Whether `sendfile` fails with this for the sake of the socket, or of the machine: what says nothing about the file.
fn is_of_socket(error: Errno) -> bool {
    [
        Errno::PIPE,
        Errno::CONNRESET,
        Errno::CONNABORTED,
        Errno::NOTCONN,
        Errno::TIMEDOUT,
        Errno::HOSTUNREACH,
        Errno::HOSTDOWN,
        Errno::NETUNREACH,
        Errno::NETDOWN,
        Errno::NETRESET,
        Errno::SHUTDOWN,
        Errno::NOBUFS,
        Errno::NOMEM,
    ]
    .contains(&error)
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
            send_file(&sender, file.as_fd(), 2_999_999, 2).unwrap_err()
        });
        let mut got = vec![0; 2_000_000];
        receiver.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes[1_000..2_001_000]);
        let short = thread.join().unwrap();
        assert!(matches!(&short, Failed::File(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn a_receiver_that_went_away_says_nothing_about_the_file() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (sender, _) = listener.accept().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        drop(receiver);
        let gone = (0..2).find_map(|_| send_file(&sender, file.as_fd(), 0, 8 << 20).err());
        assert!(matches!(gone, Some(Failed::Socket(_))), "{gone:?}");
    }
}
