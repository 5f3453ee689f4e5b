//! What goes out on a connection. Whoever has a reply and finds the connection busy leaves it to the one who is sending;
//! so a slow receiver holds up one thread at most, and never a thread that has other connections to serve.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_protocol::frame::{FLAG_ERROR, FLAG_REPLY, Header};
use mooseng_protocol::pb;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::FrameWriter;

use crate::buffer::{Buffer, BufferPool};
use crate::store::FileBytes;
use crate::zero_copy::send_file;

/// Requests of one connection that may be at work at once. With more, its next one is not read.
const IN_FLIGHT_MAX: usize = 256;
/// How long a zero-copy reply waits for its turn before it is copied into memory and left to whoever is sending.
const TURN_TIMEOUT: Duration = Duration::from_millis(20);

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
    in_flight: usize,
}

/// A reply whose bytes are in memory.
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
    /// In place of a reply.
    Error(pb::ErrorReply),
}

impl Outbox {
    /// The sending side of a connection that has just begun.
    pub(crate) fn new(writer: FrameWriter) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), writer: Mutex::new(writer) }
    }

    /// Notes that a request is at work; waits while too many are. Each is ended by one of the replies below.
    pub(crate) fn begin_request(&self) {
        let full = |state: &mut State| state.in_flight >= IN_FLIGHT_MAX;
        let state = self.changed.wait_while(self.lock(), full);
        state.unwrap_or_else(PoisonError::into_inner).in_flight += 1;
    }

    /// Waits until every request has had its reply.
    pub(crate) fn wait_until_idle(&self) {
        let busy = |state: &mut State| state.in_flight > 0 || state.busy;
        drop(self.changed.wait_while(self.lock(), busy));
    }

    /// Sends the reply to `request`, now or by the thread that is sending.
    pub(crate) fn reply(&self, request: Header, reply: Reply) {
        let mut state = self.lock();
        if state.broken {
            self.end_request(state);
            return;
        }
        state.pending.push_back((request, reply));
        if state.busy {
            return;
        }
        state.busy = true;
        drop(state);
        self.send_pending();
    }

    /// Sends an error in place of a reply.
    pub(crate) fn refuse(&self, request: Header, error: &CallError) {
        self.reply(request, Reply::Error(error.to_reply()));
    }

    /// Sends the bytes of a file as the payload of a reply, without a copy if the connection's turn comes soon. Reads
    /// them into memory otherwise: a failure of that is returned, and no reply was sent.
    pub(crate) fn reply_with_file(
        &self,
        request: Header,
        reply: pb::ReadChunkReply,
        bytes: FileBytes,
        buffers: &std::sync::Arc<BufferPool>,
    ) -> io::Result<()> {
        let busy = |state: &mut State| state.busy && !state.broken;
        let turn = self.changed.wait_timeout_while(self.lock(), TURN_TIMEOUT, busy);
        let (mut state, _) = turn.unwrap_or_else(PoisonError::into_inner);
        if state.broken {
            self.end_request(state);
            return Ok(());
        }
        if state.busy {
            drop(state);
            let mut buffer = buffers.take(bytes.length);
            bytes.file.read_exact_at(&mut buffer, bytes.offset)?;
            let length = buffer.len();
            drop(bytes);
            self.reply(request, Reply::Read(reply, Some((buffer, 0, length))));
            return Ok(());
        }
        state.busy = true;
        drop(state);
        let sent = self.send_file(request, &reply, &bytes);
        drop(bytes);
        self.sent(sent);
        self.send_pending();
        Ok(())
    }

    fn send_pending(&self) {
        loop {
            let mut state = self.lock();
            let Some((request, reply)) = state.pending.pop_front() else {
                state.busy = false;
                drop(state);
                self.changed.notify_all();
                return;
            };
            drop(state);
            let sent = self.send(request, &reply);
            drop(reply);
            self.sent(sent);
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

    fn sent(&self, sent: Result<(), TransportError>) {
        let mut state = self.lock();
        if let Err(error) = sent
            && !std::mem::replace(&mut state.broken, true)
        {
            tracing::debug!(%error, "connection lost while replying");
            let dropped = std::mem::take(&mut state.pending);
            state.in_flight = state.in_flight.saturating_sub(dropped.len());
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            drop(writer.socket().shutdown(Shutdown::Both));
        }
        self.end_request(state);
    }

    fn end_request(&self, mut state: MutexGuard<'_, State>) {
        state.in_flight = state.in_flight.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer_to(request: Header, flags: u16) -> Header {
    Header { flags: FLAG_REPLY | flags, deadline_ms: 0, ..request }
}
