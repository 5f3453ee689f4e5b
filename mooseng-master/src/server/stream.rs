//! The bytes of one connection of the loop, whoever has opened it: it reads and writes what can be had without waiting, and
//! keeps the rest until the poll says that there is more, or room.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use bytes::{Buf as _, BytesMut};
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use mooseng_protocol::frame::{self, Frame, FrameError};
use mooseng_protocol::transport::Socket;

/// Bytes taken from one connection in one turn, so that none starves the others.
pub(super) const READ_MAX: usize = 1 << 20;

/// What a connection has left to read when its share of a turn is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Nothing; the poll says when more has come.
    Nothing,
    /// Something, perhaps. The poll has said so once and does not say it again.
    More,
    /// Nothing will come any more.
    End,
}

#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    token: Token,
    input: BytesMut,
    output: BytesMut,
    /// As far as is known, there is a connection and room for more.
    may_write: bool,
    /// The poll has been asked to say when it may write.
    waits_to_write: bool,
    /// The poll has said that the peer sends no more than what is here.
    read_closed: bool,
}

impl Stream {
    /// Takes over a connected socket that does not block; the poll speaks of it as `token` from now on.
    pub(super) fn connected(socket: Socket, registry: &Registry, token: Token) -> io::Result<Self> {
        Self::new(socket, registry, token, true)
    }

    /// Takes over a dialled socket, of which the poll says first that it is connected or has failed.
    pub(super) fn dialled(socket: Socket, registry: &Registry, token: Token) -> io::Result<Self> {
        Self::new(socket, registry, token, false)
    }

    fn new(socket: Socket, registry: &Registry, token: Token, may_write: bool) -> io::Result<Self> {
        let waits_to_write = !may_write;
        registry.register(&mut SourceFd(&fd(&socket)), token, interest(waits_to_write))?;
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Ok(Self { socket, token, input, output, may_write, waits_to_write, read_closed: false })
    }

    /// The poll speaks of it no more.
    pub(super) fn deregister(&self, registry: &Registry) {
        // The socket is closed next, which takes it off the list in any case.
        drop(registry.deregister(&mut SourceFd(&fd(&self.socket))));
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Takes in what the poll says of it.
    pub(super) fn event(&mut self, event: &Event) {
        self.may_write |= event.is_writable();
        self.read_closed |= event.is_read_closed();
    }

    /// Reads what there is, `limit` bytes or a little more, by way of `scratch`.
    pub(super) fn fill(&mut self, scratch: &mut [u8], limit: usize) -> Rest {
        let mut taken = 0;
        while taken < limit {
            match (&self.socket).read(scratch) {
                Ok(0) => return Rest::End,
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    taken += count;
                    // A short read has emptied the socket; asking again would only cost a system call. But of an end that
                    // the poll has told of already it does not speak again.
                    if count < scratch.len() && !self.read_closed {
                        return Rest::Nothing;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Rest::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Rest::End,
            }
        }
        Rest::More
    }

    /// The next whole frame of what was read.
    pub(super) fn next_frame(&mut self, body_max: usize) -> Result<Option<Frame>, FrameError> {
        frame::decode_up_to(&mut self.input, body_max)
    }

    /// Queues bytes to be written by the next flush.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Bytes that wait to be written.
    pub(super) fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Whether a flush has something to do.
    pub(super) fn wants_flush(&self) -> bool {
        self.may_write && !self.output.is_empty()
    }

    /// Writes what the socket takes; where something is left, the poll says when there is room for it. After an error the
    /// connection is of no more use.
    pub(super) fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        while self.wants_flush() {
            match (&self.socket).write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.output.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.may_write = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.output.is_empty() {
            // A large listing must not keep its room for ever.
            self.output = BytesMut::new();
        }
        let waits = !self.may_write;
        if waits != self.waits_to_write {
            registry.reregister(&mut SourceFd(&fd(&self.socket)), self.token, interest(waits))?;
            self.waits_to_write = waits;
        }
        Ok(())
    }
}

fn fd(socket: &Socket) -> RawFd {
    socket.as_fd().as_raw_fd()
}

fn interest(waits_to_write: bool) -> Interest {
    if waits_to_write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A stream of the poll's, and its peer.
    fn pair(poll: &Poll) -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        let socket = Socket::accepted(listener.accept().unwrap().0);
        socket.set_nonblocking(true).unwrap();
        (Stream::connected(socket, poll.registry(), Token(0)).unwrap(), peer)
    }

    /// Lets the stream hear what the poll says next. Returns whether it may read.
    fn hear(poll: &mut Poll, stream: &mut Stream) -> bool {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(LIMIT)).unwrap();
        events.iter().for_each(|event| stream.event(event));
        events.iter().any(Event::is_readable)
    }

    #[test]
    fn what_exceeds_the_share_of_a_turn_is_said_to_be_left_until_it_is_read() {
        let mut poll = Poll::new().unwrap();
        let (mut stream, mut peer) = pair(&poll);
        let sent: Vec<u8> = (0..100).collect();
        peer.write_all(&sent).unwrap();
        assert!(hear(&mut poll, &mut stream));
        let mut fill = || stream.fill(&mut [0; 16], 48);
        assert_eq!([fill(), fill(), fill()], [Rest::More, Rest::More, Rest::Nothing]);
        drop(peer);
        while fill() != Rest::End {}
        assert_eq!(stream.input, sent);
    }

    #[test]
    fn an_end_of_which_the_poll_speaks_once_with_the_last_bytes_is_found_with_them() {
        let mut poll = Poll::new().unwrap();
        let (mut stream, mut peer) = pair(&poll);
        peer.write_all(&[1; 10]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        while !stream.read_closed {
            assert!(hear(&mut poll, &mut stream));
        }
        assert_eq!(stream.fill(&mut [0; 16], 48), Rest::End);
        assert_eq!(stream.input, [1; 10].as_slice());
    }

    #[test]
    fn what_a_peer_does_not_read_waits_until_it_does() {
        let mut poll = Poll::new().unwrap();
        let (mut stream, mut peer) = pair(&poll);
        let sent: Vec<u8> = (0..16_000_000u32).map(|i| (i % 251) as u8).collect();
        stream.send(&sent);
        stream.flush(poll.registry()).unwrap();
        assert!(stream.unsent() > 0 && stream.unsent() < sent.len(), "{}", stream.unsent());
        assert!(!stream.wants_flush(), "there is no room");
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 16_000_000];
            peer.read_exact(&mut got).map(|()| (got, peer)).unwrap()
        });
        while stream.unsent() > 0 {
            assert!(!hear(&mut poll, &mut stream));
            stream.flush(poll.registry()).unwrap();
        }
        let (got, mut peer) = reader.join().unwrap();
        assert!(got == sent);
        assert!(!stream.waits_to_write, "the poll is not to wake the loop for room that nobody needs");
        stream.send(b"more");
        stream.flush(poll.registry()).unwrap();
        peer.read_exact(&mut [0; 4]).unwrap();
    }

    #[test]
    fn a_dialled_stream_writes_once_the_poll_says_so() {
        let mut poll = Poll::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Socket::dial(listener.local_addr().unwrap()).unwrap();
        let mut stream = Stream::dialled(socket, poll.registry(), Token(0)).unwrap();
        stream.send(b"hello");
        stream.flush(poll.registry()).unwrap();
        assert_eq!(stream.unsent(), 5);
        while stream.unsent() > 0 {
            hear(&mut poll, &mut stream);
            stream.flush(poll.registry()).unwrap();
        }
        assert!(!stream.waits_to_write);
        let (mut peer, _) = listener.accept().unwrap();
        peer.read_exact(&mut [0; 5]).unwrap();
    }
}
