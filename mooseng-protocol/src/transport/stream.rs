//! One connection, used by one caller at a time: what is sent and received passes through no other thread.

use std::io::{IoSlice, Read, Write};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use prost::Message;

use mooseng_types::level::SUPPORTED;
use mooseng_types::{Level, Levels};

use crate::frame::{self, BODY_MAX, FLAG_ERROR, FLAG_ONE_WAY, FLAG_REPLY, Frame, FrameError, Header};
use crate::handshake::{Caller, HANDSHAKE_MAX, Heard, Nonce, OPENING_MAX, Opening};
use crate::pb;
use crate::principal::{Keyring, Principal};
use crate::rpc::Rpc;
use crate::status::{CallError, TransportError};
use crate::transport::Socket;

/// How much is asked of the socket at once while looking for a header.
const READ_AHEAD: usize = 16 << 10;
/// A peer that takes no bytes for this long is dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The receiving half.
#[derive(Debug)]
pub struct FrameReader {
    socket: Arc<Socket>,
    peer: Arc<str>,
    input: BytesMut,
    payload_left: usize,
    timeout: Option<Duration>,
    body_max: usize,
}

impl FrameReader {
    /// Waits at most this long for each piece of what comes; `None` waits for ever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), TransportError> {
        if self.timeout != timeout {
            self.socket.set_read_timeout(timeout).map_err(|source| self.io(source))?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// The next frame. What is left of the payload of the one before is dropped.
    pub fn receive(&mut self) -> Result<Frame, TransportError> {
        self.skip_payload()?;
        loop {
            if let Some(frame) = self.decode()? {
                return Ok(frame);
            }
            self.fill(READ_AHEAD)?;
        }
    }

    fn decode(&mut self) -> Result<Option<Frame>, TransportError> {
        let decoded =
            frame::decode_up_to(&mut self.input, self.body_max).map_err(|source| self.bad_frame(source))?;
        if let Some(frame) = &decoded {
            self.payload_left = frame.payload_length;
        }
        Ok(decoded)
    }

    /// The next frame, if all of it comes within `total`, in however many pieces.
    pub fn receive_within(&mut self, total: Duration) -> Result<Frame, TransportError> {
        let begun = Instant::now();
        loop {
            let left = total.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let deadline_ms = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
                return Err(TransportError::TimedOut { peer: self.peer.to_string(), deadline_ms });
            }
            self.set_timeout(Some(left))?;
            if let Some(frame) = self.decode()? {
                return Ok(frame);
            }
            self.fill(READ_AHEAD)?;
        }
    }

    /// Bytes of the last frame's payload that have not been read.
    #[must_use]
    pub fn payload_left(&self) -> usize {
        self.payload_left
    }

    /// Fills `into` with the next bytes of the last frame's payload.
    ///
    /// # Panics
    /// If the payload has fewer bytes left.
    pub fn read_payload(&mut self, into: &mut [u8]) -> Result<(), TransportError> {
        assert!(into.len() <= self.payload_left, "read past the end of a payload");
        self.payload_left -= into.len();
        let buffered = self.input.len().min(into.len());
        let (first, rest) = into.split_at_mut(buffered);
        first.copy_from_slice(&self.input.split_to(buffered));
        if rest.is_empty() {
            return Ok(());
        }
        let mut socket = &*self.socket;
        socket.read_exact(rest).map_err(|source| self.io(source))
    }

    /// The other side's address.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    fn skip_payload(&mut self) -> Result<(), TransportError> {
        while self.payload_left > 0 {
            if self.input.is_empty() {
                self.fill(self.payload_left.min(READ_AHEAD))?;
            }
            let skipped = self.input.len().min(self.payload_left);
            drop(self.input.split_to(skipped));
            self.payload_left -= skipped;
        }
        Ok(())
    }

    fn fill(&mut self, want: usize) -> Result<(), TransportError> {
        let have = self.input.len();
        self.input.resize(have + want, 0);
        let mut socket = &*self.socket;
        let read = loop {
            match socket.read(&mut self.input[have..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.input.truncate(have + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(TransportError::Closed { peer: self.peer.to_string() }),
            Ok(_) => Ok(()),
            Err(source) => Err(self.io(source)),
        }
    }

    fn io(&self, source: std::io::Error) -> TransportError {
        use std::io::ErrorKind::{TimedOut, UnexpectedEof, WouldBlock};
        let peer = self.peer.to_string();
        match source.kind() {
            WouldBlock | TimedOut => {
                let deadline_ms =
                    self.timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
                TransportError::TimedOut { peer, deadline_ms }
            }
            UnexpectedEof => TransportError::Closed { peer },
            _ => TransportError::Io { action: "receive from", peer, source },
        }
    }

    fn bad_frame(&self, source: FrameError) -> TransportError {
        TransportError::Frame { peer: self.peer.to_string(), source }
    }
}

/// The sending half.
#[derive(Debug)]
pub struct FrameWriter {
    socket: Arc<Socket>,
    peer: Arc<str>,
    scratch: Vec<u8>,
}

impl FrameWriter {
    /// Sends one frame, its payload gathered from `payload` without a copy.
    pub fn send(
        &mut self,
        header: Header,
        body: &impl Message,
        payload: &[IoSlice<'_>],
    ) -> Result<(), TransportError> {
        let length = payload.iter().map(|part| part.len()).sum();
        self.send_head(header, body, length)?;
        if payload.is_empty() { self.flush_head() } else { self.flush_with(payload) }
    }

    /// Sends header and body; the caller sends exactly `payload_length` bytes on the socket itself (`sendfile(2)`).
    pub fn send_before_payload(
        &mut self,
        header: Header,
        body: &impl Message,
        payload_length: usize,
    ) -> Result<(), TransportError> {
        self.send_head(header, body, payload_length)?;
        self.flush_head()
    }

    /// The socket, for a caller that sends a payload itself, or is to shut it down under another.
    #[must_use]
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// The other side's address.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    fn send_head(
        &mut self,
        header: Header,
        body: &impl Message,
        payload: usize,
    ) -> Result<(), TransportError> {
        self.scratch.clear();
        frame::encode_into(&mut self.scratch, header, payload, |out| body.encode_raw(out))
            .map_err(|source| TransportError::TooLong { peer: self.peer.to_string(), source })
    }

    fn flush_head(&mut self) -> Result<(), TransportError> {
        let mut socket = &*self.socket;
        socket.write_all(&self.scratch).map_err(|source| self.io(source))
    }

    fn flush_with(&mut self, payload: &[IoSlice<'_>]) -> Result<(), TransportError> {
        let mut parts = Vec::with_capacity(payload.len() + 1);
        parts.push(IoSlice::new(&self.scratch));
        parts.extend_from_slice(payload);
        let mut rest = &mut parts[..];
        let mut socket = &*self.socket;
        while !rest.is_empty() {
            match socket.write_vectored(rest) {
                Ok(0) => return Err(TransportError::Closed { peer: self.peer.to_string() }),
                Ok(sent) => IoSlice::advance_slices(&mut rest, sent),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.io(source)),
            }
        }
        Ok(())
    }

    fn io(&self, source: std::io::Error) -> TransportError {
        TransportError::Io { action: "send to", peer: self.peer.to_string(), source }
    }
}

/// Both halves in one hand.
#[derive(Debug)]
pub struct FrameStream {
    reader: FrameReader,
    writer: FrameWriter,
    next_request: u64,
}

impl FrameStream {
    /// Takes over a connected socket; nothing is sent.
    pub fn new(socket: impl Into<Arc<Socket>>) -> std::io::Result<Self> {
        let socket = socket.into();
        socket.set_nodelay()?;
        socket.keep_alive()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let peer: Arc<str> = socket.peer_address()?.to_string().into();
        Ok(Self {
            reader: FrameReader {
                socket: Arc::clone(&socket),
                peer: Arc::clone(&peer),
                input: BytesMut::new(),
                payload_left: 0,
                timeout: None,
                body_max: BODY_MAX,
            },
            writer: FrameWriter { socket, peer, scratch: Vec::new() },
            next_request: 1,
        })
    }

    /// Connects to `address` ("host:port"), and both sides prove that they belong together, within `timeout` for each step.
    pub fn connect(
        address: &str,
        caller: &Caller,
        timeout: Duration,
    ) -> Result<(Self, pb::HelloReply), CallError> {
        let failed = |source| TransportError::Io { action: "connect to", peer: address.to_owned(), source };
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        for candidate in address.to_socket_addrs().map_err(failed)? {
            match Socket::connect(candidate, timeout) {
                Ok(socket) => {
                    let mut stream = Self::new(socket).map_err(failed)?;
                    let asking = caller.begin();
                    let challenge = stream.call(asking.hello(), &[], timeout)?;
                    let proving = asking.challenged(&challenge)?;
                    let welcome = stream.call(&proving.proof(), &[], timeout)?;
                    return Ok((stream, proving.welcomed(&welcome)?));
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last).into())
    }

    /// Hears out whoever has opened this connection, for [`HANDSHAKE_MAX`] at most, and welcomes it with what `greet` says.
    /// After an error, of which the caller has been told, the connection is of no use.
    pub fn welcome(
        &mut self,
        keys: &Keyring,
        nonce: Nonce,
        greet: impl FnOnce(&pb::Hello) -> Result<pb::HelloReply, CallError>,
    ) -> Result<Principal, NotWelcome> {
        let begun = Instant::now();
        let mut opening = Opening::new(Duration::ZERO, nonce);
        self.reader.body_max = OPENING_MAX;
        loop {
            let left = HANDSHAKE_MAX.saturating_sub(begun.elapsed());
            let frame =
                self.reader.receive_within(left).map_err(|error| NotWelcome::Stranger(error.into()))?;
            let reply = Header { flags: FLAG_REPLY, deadline_ms: 0, ..frame.header };
            match opening.hear(keys, frame.header.kind, &frame.body) {
                Ok(Heard::Challenge(challenge)) => {
                    self.writer.send(reply, &challenge, &[]).map_err(|e| NotWelcome::Stranger(e.into()))?;
                }
                Ok(Heard::Proven(proven)) => {
                    let welcome = greet(proven.hello()).map(|reply| proven.welcome(&reply));
                    let welcome = welcome.map_err(|error| NotWelcome::Known(self.refuse(reply, error)))?;
                    self.writer.send(reply, &welcome, &[]).map_err(|e| NotWelcome::Known(e.into()))?;
                    self.reader.body_max = BODY_MAX;
                    self.reader.set_timeout(None).map_err(|error| NotWelcome::Known(error.into()))?;
                    return Ok(proven.principal().clone());
                }
                Err(error) => return Err(NotWelcome::Stranger(self.refuse(reply, error))),
            }
        }
    }

    fn refuse(&mut self, reply: Header, error: CallError) -> CallError {
        let header = Header { flags: reply.flags | FLAG_ERROR, ..reply };
        // The other side may have gone; nothing is lost by it.
        drop(self.writer.send(header, &error.to_reply(), &[]));
        error
    }

    /// Sends `request` and waits for its reply, at most `timeout` for each piece of it. A payload of the reply is to be
    /// read next, by [`FrameReader::read_payload`] of [`FrameStream::reader`]. After a transport's error the stream is
    /// of no more use.
    pub fn call<R: Rpc>(
        &mut self,
        request: &R,
        payload: &[IoSlice<'_>],
        timeout: Duration,
    ) -> Result<R::Reply, CallError> {
        let id = self.send(request, payload, timeout)?;
        self.receive_reply::<R>(id, timeout)
    }

    /// Sends `request` without waiting; the answer is fetched by [`FrameStream::receive_reply`] with the id returned.
    pub fn send<R: Rpc>(
        &mut self,
        request: &R,
        payload: &[IoSlice<'_>],
        deadline: Duration,
    ) -> Result<u64, TransportError> {
        let id = self.next_request;
        self.next_request += 1;
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        self.writer.send(Header { kind: R::KIND, flags: 0, request: id, deadline_ms }, request, payload)?;
        Ok(id)
    }

    /// Sends `request`, to which no reply will come.
    pub fn send_one_way<R: Rpc>(&mut self, request: &R) -> Result<(), TransportError> {
        self.writer.send(Header { kind: R::KIND, flags: FLAG_ONE_WAY, ..Header::default() }, request, &[])
    }

    /// Waits for the reply to request `id`, which must be the next one to come.
    pub fn receive_reply<R: Rpc>(&mut self, id: u64, timeout: Duration) -> Result<R::Reply, CallError> {
        self.reader.set_timeout(Some(timeout))?;
        let frame = self.reader.receive()?;
        if frame.header.flags & FLAG_REPLY == 0 || frame.header.request != id {
            let what = format!("frame of kind {:#x} instead of a reply to {}", frame.header.kind, R::NAME);
            return Err(TransportError::Unexpected { peer: self.reader.peer.to_string(), what }.into());
        }
        decode_reply::<R>(&frame, &self.reader.peer)
    }

    /// The receiving half.
    pub fn reader(&mut self) -> &mut FrameReader {
        &mut self.reader
    }

    /// The sending half.
    pub fn writer(&mut self) -> &mut FrameWriter {
        &mut self.writer
    }

    /// Parts the halves, for two threads.
    #[must_use]
    pub fn split(self) -> (FrameReader, FrameWriter) {
        (self.reader, self.writer)
    }
}

/// Reads a reply's body, or the error in its place.
pub(super) fn decode_reply<R: Rpc>(frame: &Frame, peer: &str) -> Result<R::Reply, CallError> {
    let bad = |_| TransportError::Unexpected {
        peer: peer.to_owned(),
        what: format!("body in a reply to {}", R::NAME),
    };
    if frame.header.flags & FLAG_ERROR != 0 {
        let reply = pb::ErrorReply::decode(frame.body.clone()).map_err(bad)?;
        return Err(CallError::from_reply(reply));
    }
    Ok(R::Reply::decode(frame.body.clone()).map_err(bad)?)
}

/// Why a connection does not go on.
#[derive(Debug, thiserror::Error)]
pub enum NotWelcome {
    /// Nobody has proved a role on it.
    #[error(transparent)]
    Stranger(CallError),
    /// The caller has proved its role, and does not fit, or is gone.
    #[error(transparent)]
    Known(CallError),
}

/// What the accepting side finds in the hello of a caller that has proved its role: that the two fit together, or the
/// rejection that closes the connection. A hello with an all-zero cluster id comes from a part that has yet to learn it, and
/// passes.
pub fn greet(hello: &pb::Hello, mine: &pb::HelloReply) -> Result<(), CallError> {
    let unknown = hello.cluster_id.iter().all(|byte| *byte == 0);
    if !unknown && hello.cluster_id != mine.cluster_id {
        let message = format!(
            "{} belongs to another cluster: point it at its own masters, or give it an empty data directory",
            hello.name
        );
        return Err(CallError::Rejected { message });
    }
    share_a_level(hello, mine)
}

/// Refuses a part that cannot read what this one may write, or the other way round.
fn share_a_level(hello: &pb::Hello, mine: &pb::HelloReply) -> Result<(), CallError> {
    let reject = |message| Err(CallError::Rejected { message });
    let (name, own) = (&hello.name, Levels::said(mine.level_lowest, mine.level_highest).unwrap_or(SUPPORTED));
    let Some(theirs) = Levels::said(hello.level_lowest, hello.level_highest) else {
        let (lowest, highest) = (hello.level_lowest, hello.level_highest);
        return reject(format!("{name} says that it knows levels {lowest} to {highest}, which is no range"));
    };
    if !theirs.overlap(own) {
        let older = if theirs.highest() < own.lowest() { name } else { &mine.name };
        return reject(format!("{name} knows {theirs}, {} knows {own}: upgrade {older}", mine.name));
    }
    let level = u16::try_from(mine.level).map(Level::from_raw).ok().filter(|level| level.raw() > 0);
    match level {
        Some(level) if level > theirs.highest() => {
            reject(format!("the cluster has level {level}, and {name} knows {theirs}: upgrade {name}"))
        }
        Some(level) if level < theirs.lowest() => reject(format!(
            "the cluster has level {level}, and {name} knows {theirs}: raise the cluster first (mooseng cluster upgrade)"
        )),
        _ => Ok(()),
    }
}
