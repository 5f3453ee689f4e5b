//! One connected stream of bytes to another machine: everything else in MooseNG that speaks to one holds a [`Socket`].
//!
//! Today its bytes go out as they are. TLS will be in here: [`Socket::connect`], [`Socket::dial`] and [`Socket::accepted`]
//! will take the keys, reads and writes will be of plain bytes, and [`Socket::send_file`] will have no way. Whoever waits
//! for the kernel to call a socket readable will have to ask the socket too: it may hold plain bytes of which the kernel
//! knows nothing any more.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::unsent::unsent_bytes;

/// Silence after which the other machine is asked whether it still has the connection.
const IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer after which the connection has failed.
const UNANSWERED_MAX: u32 = 3;

/// A stream that is connected, or about to be. Reading and writing need no more than a reference, and may be done by two
/// threads at once; dropping it closes it.
#[derive(Debug)]
pub struct Socket(TcpStream);

impl Socket {
    /// Connects within `timeout`. The socket blocks.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, timeout).map(Self)
    }

    /// Begins to connect. The socket does not block; when it has become writable, [`Socket::is_connected`] says what came
    /// of it.
    pub fn dial(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self(socket.into())),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over what a listener has accepted, blocking or not.
    pub fn accepted(stream: impl Into<OwnedFd>) -> Self {
        Self(stream.into().into())
    }

    /// Whether a dialled socket is connected by now; an error if it will not be.
    pub fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.0.take_error()? {
            return Err(error);
        }
        match self.0.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The other side's address.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// Whether reads and writes return at once with `WouldBlock` where they would wait.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// A read that waits longer fails with `WouldBlock`; `None` waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(timeout)
    }

    /// A write that waits longer for room fails with `WouldBlock`, [`Socket::send_file`] too; `None` waits for ever.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(timeout)
    }

    /// Sends small writes at once (`TCP_NODELAY`).
    pub fn set_nodelay(&self) -> io::Result<()> {
        self.0.set_nodelay(true)
    }

    /// Lets the connection fail within a minute if the machine at its other end is gone (`tcp(7)`, `SO_KEEPALIVE`): whoever
    /// only waits, for a request or for an answer, sends nothing that would tell.
    pub fn keep_alive(&self) -> io::Result<()> {
        sockopt::set_tcp_keepidle(&self.0, IDLE)?;
        sockopt::set_tcp_keepintvl(&self.0, INTERVAL)?;
        sockopt::set_tcp_keepcnt(&self.0, UNANSWERED_MAX)?;
        Ok(sockopt::set_socket_keepalive(&self.0, true)?)
    }

    /// Lets the connection fail when the other machine has acknowledged nothing of what was sent for so long
    /// (`TCP_USER_TIMEOUT`).
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        Ok(sockopt::set_tcp_user_timeout(&self.0, timeout_ms)?)
    }

    /// Ends a direction or both. Whoever is blocked in it on another thread wakes up.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// Waits at most `timeout` until a write would be taken; also a socket that has failed takes one, to say so. The kernel
    /// calls a socket writable when a third of its buffer is free.
    pub fn wait_writable(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes on their way that the other machine has not acknowledged; 0 if the kernel does not say.
    #[must_use]
    pub fn unsent_bytes(&self) -> u64 {
        unsent_bytes(self.0.as_fd())
    }

    /// Sends at most `length` bytes of `file`, from `offset` on, from the page cache without passing through this process
    /// (`sendfile(2)`). Returns how many have gone: 0 at the end of the file. The socket refers to the file's own pages
    /// until they are acknowledged.
    ///
    /// `None` says that there is no such way out of this file or into this socket, and that nothing has gone: the caller
    /// reads the bytes and writes them.
    pub fn send_file(&self, file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Option<usize>> {
        let mut at = offset;
        match rustix::fs::sendfile(&self.0, file, Some(&mut at), length) {
            Ok(sent) => Ok(Some(sent)),
            // After which a program is told to read and write (`sendfile(2)`).
            Err(Errno::INVAL | Errno::NOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(into)
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.0).write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For a poll that waits for many.
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn pair() -> (Socket, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let calling = Socket::connect(listener.local_addr().unwrap(), LIMIT).unwrap();
        (calling, Socket::accepted(listener.accept().unwrap().0))
    }

    /// Sends until the other side, which does not read, has no more room. Returns how many bytes went.
    fn fill(socket: &Socket) -> usize {
        socket.set_nonblocking(true).unwrap();
        let sent = std::iter::from_fn(|| { socket }.write(&[0; 65_536]).ok()).sum();
        socket.set_nonblocking(false).unwrap();
        sent
    }

    #[test]
    fn a_dialled_socket_says_whether_it_is_connected_or_why_it_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dialled = Socket::dial(address).unwrap();
        assert!(dialled.wait_writable(LIMIT).unwrap());
        assert!(dialled.is_connected().unwrap());
        assert_eq!(dialled.peer_address().unwrap(), address);
        drop((listener, dialled));
        let refused = Socket::dial(address).and_then(|socket| {
            assert!(socket.wait_writable(LIMIT)?);
            socket.is_connected()
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_shutdown_ends_the_read_in_which_another_thread_is_blocked() {
        for how in [Shutdown::Read, Shutdown::Both] {
            let (socket, _peer) = pair();
            let socket = Arc::new(socket);
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            let (begins, begun) = sync_channel(0);
            let reader = Arc::clone(&socket);
            let thread = std::thread::spawn(move || {
                begins.send(()).unwrap();
                { &*reader }.read(&mut [0]).unwrap()
            });
            begun.recv().unwrap();
            socket.shutdown(how).unwrap();
            assert_eq!(thread.join().unwrap(), 0, "{how:?}");
        }
    }

    #[test]
    fn several_parts_go_out_with_one_write() {
        let (sender, receiver) = pair();
        let parts = [b"one".as_slice(), b"and", b"another"].map(IoSlice::new);
        assert_eq!({ &sender }.write_vectored(&parts).unwrap(), 13);
        let mut got = [0; 13];
        { &receiver }.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"oneandanother");
    }

    #[test]
    fn a_part_of_a_file_is_sent_and_a_file_out_of_which_there_is_no_way_is_told() {
        let (sender, receiver) = pair();
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create("content", flags).unwrap());
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        assert_eq!(sender.send_file(file.as_fd(), 70_001, 20_000).unwrap(), Some(20_000));
        assert_eq!(sender.send_file(file.as_fd(), 99_999, 20_000).unwrap(), Some(1), "the file ends");
        assert_eq!(sender.send_file(file.as_fd(), 100_000, 1).unwrap(), Some(0));
        let directory = File::open("/").unwrap();
        assert_eq!(sender.send_file(directory.as_fd(), 0, 1).unwrap(), None);
        drop(sender);
        let mut got = Vec::new();
        { &receiver }.read_to_end(&mut got).unwrap();
        assert!(got == [&bytes[70_001..90_001], &bytes[99_999..]].concat());
    }

    #[test]
    fn a_write_waits_for_room_no_longer_than_it_may() {
        let (sender, receiver) = pair();
        sender.set_write_timeout(Some(Duration::from_millis(5))).unwrap();
        let sent = fill(&sender);
        assert!(!sender.wait_writable(Duration::ZERO).unwrap());
        assert_eq!({ &sender }.write(&[0; 65_536]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        { &receiver }.read_exact(&mut vec![0; sent]).unwrap();
        assert!(sender.wait_writable(LIMIT).unwrap());
    }

    #[test]
    fn what_the_receiver_does_not_take_is_counted_until_it_does() {
        let (sender, receiver) = pair();
        let sent = fill(&sender);
        assert!(sender.unsent_bytes() > 0);
        { &receiver }.read_exact(&mut vec![0; sent]).unwrap();
        for _ in 0..1000 {
            if sender.unsent_bytes() == 0 {
                return;
            }
            std::thread::yield_now();
        }
        // The last acknowledgement may be late.
        assert!(sender.unsent_bytes() < sent as u64);
    }
}
