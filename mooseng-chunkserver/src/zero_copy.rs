//! From the page cache to the socket without passing through this process, where the socket has such a way; else copied
//! through memory.

use std::io::{self, Write as _};

use mooseng_env::DiskFile;
use mooseng_protocol::transport::Socket;
use rustix::io::Errno;

/// Bytes that are copied at once.
const COPIED_MAX: usize = 256 << 10;

/// Which side failed. In either case it is not known how many bytes went out: the connection is of no more use.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The file did not give its bytes; `UnexpectedEof` where it is too short.
    File(io::Error),
    /// The socket did not take them; `TimedOut` where its send time-out ended first.
    Socket(io::Error),
}

/// Sends `length` bytes of `file`, from `offset` on.
pub(crate) fn send_file(
    socket: &Socket,
    file: &dyn DiskFile,
    offset: u64,
    length: usize,
) -> Result<(), Failed> {
    let mut sent = 0;
    while sent < length {
        let (at, rest) = (offset + sent as u64, length - sent);
        match file.fd().map_or(Ok(None), |fd| socket.send_file(fd, at, rest)) {
            Ok(Some(0)) => return Err(Failed::File(io::ErrorKind::UnexpectedEof.into())),
            Ok(Some(more)) => sent += more,
            Ok(None) => return copy(socket, file, at, rest),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_of_socket(&error) => return Err(refused(error)),
            Err(error) => return Err(Failed::File(error)),
        }
    }
    Ok(())
}

fn copy(socket: &Socket, file: &dyn DiskFile, offset: u64, length: usize) -> Result<(), Failed> {
    let mut socket = socket;
    let mut buffer = vec![0; length.min(COPIED_MAX)];
    let mut sent = 0;
    while sent < length {
        buffer.truncate(length - sent);
        file.read_exact_at(&mut buffer, offset + sent as u64).map_err(Failed::File)?;
        socket.write_all(&buffer).map_err(refused)?;
        sent += buffer.len();
    }
    Ok(())
}

/// The socket did not take bytes.
fn refused(error: io::Error) -> Failed {
    match error.kind() {
        io::ErrorKind::WouldBlock => Failed::Socket(io::ErrorKind::TimedOut.into()),
        _ => Failed::Socket(error),
    }
}

/// Whether sending a file fails with this for the sake of the socket, or of the machine: what says nothing about the file.
fn is_of_socket(error: &io::Error) -> bool {
    let of_socket = [
        Errno::AGAIN,
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
    ];
    Errno::from_io_error(error).is_some_and(|error| of_socket.contains(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::sync::Arc;

    use mooseng_env::disk::OpenMode;
    use mooseng_env::{Disk, FsDisk, MemoryDisk};

    /// A receiver, and the socket that leads to it.
    fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (receiver, Socket::accepted(listener.accept().unwrap().0))
    }

    fn parts_arrive_and_a_file_that_is_too_short_is_noticed(file: Arc<dyn DiskFile>) {
        let (mut receiver, sender) = pair();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let thread = std::thread::spawn(move || {
            send_file(&sender, &*file, 1_000, 2_000_000).unwrap();
            send_file(&sender, &*file, 2_999_999, 2).unwrap_err()
        });
        let mut got = vec![0; 2_000_000];
        receiver.read_exact(&mut got).unwrap();
        assert!(got == bytes[1_000..2_001_000]);
        let short = thread.join().unwrap();
        assert!(matches!(&short, Failed::File(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn a_part_of_a_file_arrives_and_a_file_that_is_too_short_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = FsDisk.open(&dir.path().join("file"), OpenMode::CreateNew).unwrap();
        parts_arrive_and_a_file_that_is_too_short_is_noticed(file);
    }

    #[test]
    fn where_there_is_no_way_without_a_copy_the_same_bytes_are_copied() {
        let file = MemoryDisk::new(16 << 20).open(Path::new("/file"), OpenMode::CreateNew).unwrap();
        assert!(file.fd().is_none());
        parts_arrive_and_a_file_that_is_too_short_is_noticed(file);
    }

    #[test]
    fn a_receiver_that_went_away_says_nothing_about_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(16 << 20).open(Path::new("/file"), OpenMode::CreateNew).unwrap();
        for file in [FsDisk.open(&dir.path().join("file"), OpenMode::CreateNew).unwrap(), memory] {
            file.set_len(8 << 20).unwrap();
            let (receiver, sender) = pair();
            drop(receiver);
            let gone = (0..2).find_map(|_| send_file(&sender, &*file, 0, 8 << 20).err());
            assert!(matches!(gone, Some(Failed::Socket(_))), "{gone:?}");
        }
    }
}
