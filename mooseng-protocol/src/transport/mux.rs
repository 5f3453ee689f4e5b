//! One connection for many callers: requests are pipelined, answers come in any order, the peer may push.

use std::collections::HashMap;
use std::io::IoSlice;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::socket::Socket;
use super::stream::{FrameReader, FrameStream, FrameWriter, decode_reply};
use crate::frame::{FLAG_ONE_WAY, FLAG_REPLY, Frame, Header};
use crate::handshake::Caller;
use crate::pb;
use crate::rpc::Rpc;
use crate::status::{CallError, TransportError};

/// Requests that may wait for their answers on one connection; one more is refused as unavailable.
pub const CALLS_MAX: usize = 4096;

type Done = Box<dyn FnOnce(Result<Frame, CallError>) + Send>;

/// A connection shared by many callers. Dropping it closes the connection, answers every waiting call with an error,
/// and waits for the reader thread (unless dropped by that thread itself).
pub struct Mux {
    writer: Mutex<FrameWriter>,
    /// For closing while somebody is stuck in sending.
    socket: Arc<Socket>,
    waiting: Arc<Mutex<Waiting>>,
    next_request: AtomicU64,
    reader: Option<JoinHandle<()>>,
    peer: Arc<str>,
}

#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, Done>,
    closed: bool,
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mux").field("peer", &self.peer).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A callback that panics does so outside the locks; what they guard is never half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mux {
    /// Connects to `address` as [`FrameStream::connect`] does, and starts the reader thread. `on_push` is called
    /// there with the kind and body of every frame that is not a reply, and once with kind 0 when the connection ends;
    /// it must not wait for an answer on this connection.
    pub fn connect(
        address: &str,
        caller: &Caller,
        timeout: Duration,
        on_push: impl FnMut(u16, Bytes) + Send + 'static,
    ) -> Result<(Arc<Self>, pb::HelloReply), CallError> {
        let (stream, reply) = FrameStream::connect(address, caller, timeout)?;
        let (mut reader, writer) = stream.split();
        reader.set_timeout(None)?;
        let socket = Arc::clone(writer.socket());
        let peer: Arc<str> = reader.peer().into();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let for_thread = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("mux".into())
            .spawn(move || read_until_closed(reader, &for_thread, on_push))
            .map_err(|source| TransportError::Io {
                action: "start a reader for",
                peer: address.to_owned(),
                source,
            })?;
        let mux = Self {
            writer: Mutex::new(writer),
            socket,
            waiting,
            next_request: AtomicU64::new(1),
            reader: Some(thread),
            peer,
        };
        Ok((Arc::new(mux), reply))
    }

    /// Sends `request`; `done` is called exactly once: with the reply on the reader thread, or with an error on
    /// whichever thread finds the connection broken (this one included). It must not block.
    pub fn start<R: Rpc>(
        &self,
        request: &R,
        payload: &[IoSlice<'_>],
        done: impl FnOnce(Result<R::Reply, CallError>) + Send + 'static,
    ) {
        let peer = Arc::clone(&self.peer);
        self.start_raw(
            request,
            payload,
            Box::new(move |frame| done(frame.and_then(|f| decode_reply::<R>(&f, &peer)))),
        );
    }

    /// Sends `request` and waits for its reply, at most `timeout`. On a time-out it is not known whether the request
    /// was done; the connection stays usable.
    pub fn call<R: Rpc>(
        &self,
        request: &R,
        payload: &[IoSlice<'_>],
        timeout: Duration,
    ) -> Result<R::Reply, CallError> {
        let (sender, receiver) = sync_channel(1);
        let done: Done = Box::new(move |frame| {
            // The receiver is gone when the caller has stopped waiting.
            drop(sender.try_send(frame));
        });
        let id = self.start_raw(request, payload, done);
        match receiver.recv_timeout(timeout) {
            Ok(frame) => decode_reply::<R>(&frame?, &self.peer),
            Err(_) => {
                lock(&self.waiting).calls.remove(&id);
                let deadline_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                Err(TransportError::TimedOut { peer: self.peer.to_string(), deadline_ms }.into())
            }
        }
    }

    /// Sends `request`, to which no reply will come.
    pub fn send_one_way<R: Rpc>(&self, request: &R) -> Result<(), TransportError> {
        let header = Header { kind: R::KIND, flags: FLAG_ONE_WAY, ..Header::default() };
        let sent = lock(&self.writer).send(header, request, &[]);
        if sent.is_err() {
            self.close();
        }
        sent
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.waiting).closed
    }

    /// The other side's address.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Ends the connection: every waiting call gets an error.
    pub fn close(&self) {
        // An error means that it was closed already.
        drop(self.socket.shutdown(Shutdown::Both));
        fail_all(&self.waiting, &self.peer);
    }

    fn start_raw<R: Rpc>(&self, request: &R, payload: &[IoSlice<'_>], done: Done) -> u64 {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        {
            let mut waiting = lock(&self.waiting);
            if waiting.closed || waiting.calls.len() >= CALLS_MAX {
                let closed = waiting.closed;
                drop(waiting);
                done(Err(if closed {
                    TransportError::Closed { peer: self.peer.to_string() }.into()
                } else {
                    CallError::Unavailable { message: format!("{CALLS_MAX} requests wait for {}", self.peer) }
                }));
                return id;
            }
            waiting.calls.insert(id, done);
        }
        let header = Header { kind: R::KIND, flags: 0, request: id, deadline_ms: 0 };
        let sent = lock(&self.writer).send(header, request, payload);
        if sent.is_err() {
            self.close();
        }
        id
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.close();
        if let Some(reader) = self.reader.take()
            && reader.thread().id() != std::thread::current().id()
            && reader.join().is_err()
        {
            tracing::error!(peer = &*self.peer, "a connection's reader panicked");
        }
    }
}

fn read_until_closed(mut reader: FrameReader, waiting: &Mutex<Waiting>, mut on_push: impl FnMut(u16, Bytes)) {
    let error = loop {
        let frame = match reader.receive() {
            Ok(frame) => frame,
            Err(error) => break error,
        };
        if frame.header.flags & FLAG_REPLY == 0 {
            on_push(frame.header.kind, frame.body);
        } else if let Some(done) = { lock(waiting).calls.remove(&frame.header.request) } {
            done(Ok(frame));
        }
    };
    tracing::debug!(peer = reader.peer(), %error, "connection ended");
    fail_all(waiting, reader.peer());
    on_push(0, Bytes::new());
}

fn fail_all(waiting: &Mutex<Waiting>, peer: &str) {
    let calls = {
        let mut waiting = lock(waiting);
        waiting.closed = true;
        std::mem::take(&mut waiting.calls)
    };
    for done in calls.into_values() {
        done(Err(TransportError::Closed { peer: peer.to_owned() }.into()));
    }
}
