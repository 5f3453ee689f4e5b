//! What goes out on a connection. A short reply is sent by the thread that has it, as long as the socket has room for
//! it; everything else is left to the connection's own sending thread. So a receiver that takes nothing holds up no
//! thread that has others to serve.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mooseng_protocol::frame::{FLAG_ERROR, FLAG_REPLY, Header};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::FrameWriter;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::buffer::{Buffer, BufferPool};
use crate::store::FileBytes;
use crate::zero_copy::send_file;

/// Requests of one connection that may be at work at once. With more, its next one is not read.
const IN_FLIGHT_MAX: usize = 256;
/// Reads among them: a receiver that takes nothing holds so many buffers of a disk at most.
const READS_IN_FLIGHT_MAX: usize = 16;
/// Zero-copy replies that wait to be sent; with more, the receiver counts as slow.
const FILES_PENDING_MAX: usize = 4;
/// The longest payload that is sent by the thread that has it, in bytes.
const SHORT_MAX: usize = 64 << 10;

/// The sending side of a connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    writer: Mutex<FrameWriter>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<(Header, Reply)>,
    /// Somebody is sending, and will look at `pending` before ending.
    busy: bool,
    broken: bool,
    closed: bool,
    in_flight: usize,
    reads_in_flight: usize,
}

/// A reply.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To the hello.
    Hello(pb::HelloReply),
    /// To a write.
    Write,
    /// To a sync.
    Sync,
    /// To a truncate.
    Truncate,
    /// To a read: this part of the buffer is the payload.
    Read(pb::ReadChunkReply, Option<(Buffer, usize, usize)>),
    /// To a read: these bytes of a file are the payload.
    File(pb::ReadChunkReply, FileBytes),
    /// In place of a reply.
    Error(pb::ErrorReply),
}

impl Outbox {
    /// The sending side of a connection that has just begun.
    pub(crate) fn new(writer: FrameWriter) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), writer: Mutex::new(writer) }
    }

    /// Notes that a request is at work; waits while too many are. Each is ended by one of the replies below.
    pub(crate) fn begin_request(&self, request: Header) {
        let read = usize::from(is_read(request));
        let full = |state: &mut State| {
            state.in_flight >= IN_FLIGHT_MAX || state.reads_in_flight + read > READS_IN_FLIGHT_MAX
        };
        let waited = self.changed.wait_while(self.lock(), full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.in_flight += 1;
        state.reads_in_flight += read;
    }

    /// Waits until every request has had its reply.
    pub(crate) fn wait_until_idle(&self) {
        let busy = |state: &mut State| state.in_flight > 0 || state.busy;
        drop(self.changed.wait_while(self.lock(), busy));
    }

    /// Sends the reply to `request`: at once if it is short and the socket has room, else by the sending thread.
    pub(crate) fn reply(&self, request: Header, reply: Reply) {
        let mut state = self.lock();
        if state.broken {
            self.end_request(state, request);
            return;
        }
        state.pending.push_back((request, reply));
        if state.busy {
            return;
        }
        if !self.front_is_quick(&state) {
            drop(state);
            self.changed.notify_all();
            return;
        }
        state.busy = true;
        drop(state);
        self.send_pending(true);
    }

    /// Sends an error in place of a reply.
    pub(crate) fn refuse(&self, request: Header, error: &CallError) {
        self.reply(request, Reply::Error(error.to_reply()));
    }

    /// Sends the bytes of a file as the payload of a reply, without a copy unless the receiver is slow: then they are
    /// read into memory, so that no writer of the file has to wait for it. A failure of that is returned, and no reply
    /// was sent.
    pub(crate) fn reply_with_file(
        &self,
        request: Header,
        reply: pb::ReadChunkReply,
        bytes: FileBytes,
        buffers: &Arc<BufferPool>,
    ) -> io::Result<()> {
        let is_file = |(_, reply): &&(Header, Reply)| matches!(reply, Reply::File(..));
        if self.lock().pending.iter().filter(is_file).count() < FILES_PENDING_MAX {
            self.reply(request, Reply::File(reply, bytes));
            return Ok(());
        }
        let mut buffer = buffers.take(bytes.length);
        bytes.file.read_exact_at(&mut buffer, bytes.offset)?;
        let length = buffer.len();
        drop(bytes);
        self.reply(request, Reply::Read(reply, Some((buffer, 0, length))));
        Ok(())
    }

    /// The sending thread: everything that may take its time goes out from here. Returns after [`Outbox::close`].
    pub(crate) fn send_until_closed(&self) {
        loop {
            let idle = |state: &mut State| state.busy || state.pending.is_empty() && !state.closed;
            let waited = self.changed.wait_while(self.lock(), idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.pending.is_empty() {
                return;
            }
            state.busy = true;
            drop(state);
            self.send_pending(false);
        }
    }

    /// Lets the sending thread end when nothing is left to send.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether the first reply is short and goes into the socket without waiting: the kernel calls a socket writable
    /// when a third of its buffer is free.
    fn front_is_quick(&self, state: &State) -> bool {
        let short = match state.pending.front() {
            Some((_, Reply::File(..))) | None => false,
            Some((_, Reply::Read(_, Some((_, _, length))))) => *length <= SHORT_MAX,
            Some(_) => true,
        };
        if !short {
            return false;
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut poll = [PollFd::new(writer.socket(), PollFlags::OUT)];
        rustix::event::poll(&mut poll, Some(&Timespec::default())) == Ok(1)
    }

    /// Sends what is pending; with `only_quick`, stops before what may take its time.
    fn send_pending(&self, only_quick: bool) {
        loop {
            let mut state = self.lock();
            if state.pending.is_empty() || only_quick && !self.front_is_quick(&state) {
                state.busy = false;
                drop(state);
                self.changed.notify_all();
                return;
            }
            let Some((request, reply)) = state.pending.pop_front() else { continue };
            drop(state);
            let sent = self.send(request, &reply);
            drop(reply);
            self.sent(request, sent);
        }
    }

    fn send(&self, request: Header, reply: &Reply) -> Result<(), TransportError> {
        let header = answer_to(request, 0);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match reply {
            Reply::Hello(reply) => writer.send(header, reply, &[]),
            Reply::Write => writer.send(header, &pb::WriteChunkReply {}, &[]),
            Reply::Sync => writer.send(header, &pb::SyncChunkReply {}, &[]),
            Reply::Truncate => writer.send(header, &pb::TruncateChunkReply {}, &[]),
            Reply::Read(reply, None) => writer.send(header, reply, &[]),
            Reply::Read(reply, Some((buffer, from, length))) => {
                writer.send(header, reply, &[IoSlice::new(&buffer[*from..from + length])])
            }
            Reply::File(reply, bytes) => {
                drop(writer);
                self.send_file(request, reply, bytes)
            }
            Reply::Error(error) => writer.send(answer_to(request, FLAG_ERROR), error, &[]),
        }
    }

    fn send_file(
        &self,
        request: Header,
        reply: &pb::ReadChunkReply,
        bytes: &FileBytes,
    ) -> Result<(), TransportError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.send_before_payload(answer_to(request, 0), reply, bytes.length)?;
        let sent = match bytes.file.fd() {
            Some(fd) => send_file(writer.socket(), fd, bytes.offset, bytes.length),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        sent.map_err(|source| {
            // Half a payload cannot be taken back: the connection has to go, and the client asks again.
            let peer = writer.peer().to_owned();
            TransportError::Io { action: "send to", peer, source }
        })
    }

    fn sent(&self, request: Header, sent: Result<(), TransportError>) {
        let mut state = self.lock();
        if let Err(error) = sent
            && !std::mem::replace(&mut state.broken, true)
        {
            tracing::debug!(%error, "connection lost while replying");
            for (dropped, _) in std::mem::take(&mut state.pending) {
                state.end(dropped);
            }
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            drop(writer.socket().shutdown(Shutdown::Both));
        }
        self.end_request(state, request);
    }

    fn end_request(&self, mut state: MutexGuard<'_, State>, request: Header) {
        state.end(request);
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, request: Header) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.reads_in_flight = self.reads_in_flight.saturating_sub(usize::from(is_read(request)));
    }
}

fn is_read(request: Header) -> bool {
    request.kind == pb::ReadChunkRequest::KIND
}

fn answer_to(request: Header, flags: u16) -> Header {
    Header { flags: FLAG_REPLY | flags, deadline_ms: 0, ..request }
}
