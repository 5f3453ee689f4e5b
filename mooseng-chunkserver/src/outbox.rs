//! What goes out on a connection. A short reply is sent by the thread that has it, as long as the socket has room for
//! it; everything else is left to the connection's own sending thread. So a receiver that takes nothing holds up no
//! thread that has others to serve. Requests begin here too, so here is the server's door: it counts each when it comes in
//! and when its reply has gone.
//!
//! A reply of `sendfile(2)` leaves the socket referring to the file's own pages: a later write would change what is still
//! on its way. So the permit of such a read is kept until the receiver has taken the bytes: it sends its next request, or
//! its machine has acknowledged them and had a moment ([`TAKEN_AFTER`]) to copy them. What a receiver on the same machine
//! has not read by then may still change; its checksums tell it, and it asks again to have the read verified here.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mooseng_env::Clock;
use mooseng_protocol::door::{Door, Entered, Outcome};
use mooseng_protocol::frame::{FLAG_ERROR, FLAG_REPLY, Header};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::FrameWriter;

use crate::buffer::{Buffer, BufferPool};
use crate::store::{FileBytes, StoreError};
use crate::zero_copy::{Failed, send_file};

/// Requests of one connection that may be at work at once. With more, its next one is not read.
const IN_FLIGHT_MAX: usize = 256;
/// Reads among them: a receiver that takes nothing holds so many buffers of a disk at most.
const READS_IN_FLIGHT_MAX: usize = 16;
/// Zero-copy replies that wait to be sent; with more, the receiver counts as slow.
const FILES_PENDING_MAX: usize = 4;
/// A receiver whose machine has acknowledged the bytes has read them after this long.
const TAKEN_AFTER: Duration = Duration::from_millis(20);
/// A receiver that has not taken its bytes after this long holds up no writer any more.
const TAKEN_AT_LATEST: Duration = Duration::from_secs(5);
/// Replies that wait to be taken.
const UNTAKEN_MAX: usize = 256;
/// The longest payload that is sent by the thread that has it, in bytes.
const SHORT_MAX: usize = 64 << 10;

/// The sending side of a connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    writer: Mutex<FrameWriter>,
    door: Arc<Door>,
    clock: Arc<dyn Clock>,
}

/// A request at work. It is to be answered once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    header: Header,
    entered: Entered,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<(Asked, Reply)>,
    /// Somebody is sending, and will look at `pending` before ending.
    busy: bool,
    broken: bool,
    closed: bool,
    in_flight: usize,
    reads_in_flight: usize,
    /// Payload bytes that went out, for the order among them.
    sent_bytes: u64,
    /// Sent with `sendfile`, and not known to be taken.
    untaken: VecDeque<Untaken>,
}

/// Bytes of a file to which the socket may still refer.
#[derive(Debug)]
struct Untaken {
    _bytes: FileBytes,
    /// How many payload bytes had gone out with its last one.
    end: u64,
    sent: Instant,
}

/// A reply.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To a write.
    Write,
    /// To a sync.
    Sync,
    /// To a truncate.
    Truncate,
    /// To an administrator's request that has nothing to tell.
    Done,
    /// To one for what is in quarantine.
    Quarantine(pb::ListQuarantineReply),
    /// To a read: this part of the buffer is the payload.
    Read(pb::ReadChunkReply, Option<(Buffer, usize, usize)>),
    /// To a read: these bytes of a file are the payload.
    File(pb::ReadChunkReply, FileBytes),
    /// In place of a reply.
    Error(pb::ErrorReply),
}

impl Outbox {
    /// The sending side of a connection that has just begun.
    pub(crate) fn new(writer: FrameWriter, door: Arc<Door>, clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), writer: Mutex::new(writer), door, clock }
    }

    /// Notes that a request is at work; waits while too many are. Each is ended by one of the replies below.
    pub(crate) fn begin_request(&self, header: Header) -> Asked {
        let request = Asked { header, entered: self.door.enter(header.kind, self.clock.monotonic()) };
        self.let_go_of_taken(true);
        let read = usize::from(is_read(request));
        let full = |state: &mut State| {
            state.in_flight >= IN_FLIGHT_MAX || state.reads_in_flight + read > READS_IN_FLIGHT_MAX
        };
        let waited = self.changed.wait_while(self.lock(), full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.in_flight += 1;
        state.reads_in_flight += read;
        request
    }

    /// Waits until every request has had its reply.
    pub(crate) fn wait_until_idle(&self) {
        let busy = |state: &mut State| state.in_flight > 0 || state.busy;
        drop(self.changed.wait_while(self.lock(), busy));
    }

    /// Sends the reply to `request`: at once if it is short and the socket has room, else by the sending thread.
    pub(crate) fn reply(&self, request: Asked, reply: Reply) {
        let mut state = self.lock();
        if state.broken {
            self.end_request(state, request, Outcome::Lost);
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
    pub(crate) fn refuse(&self, request: Asked, error: &CallError) {
        self.reply(request, Reply::Error(error.to_reply()));
    }

    /// Sends the bytes of a file as the payload of a reply, without a copy unless the receiver is slow: then they are
    /// read into memory, so that no writer of the file has to wait for it. A failure of that is returned, and no reply
    /// was sent.
    pub(crate) fn reply_with_file(
        &self,
        request: Asked,
        reply: pb::ReadChunkReply,
        bytes: FileBytes,
        buffers: &Arc<BufferPool>,
    ) -> Result<(), StoreError> {
        let is_file = |(_, reply): &&(Asked, Reply)| matches!(reply, Reply::File(..));
        let pending = self.lock().pending.iter().filter(is_file).count();
        if pending < FILES_PENDING_MAX {
            self.reply(request, Reply::File(reply, bytes));
            return Ok(());
        }
        let mut buffer = buffers.take(bytes.length);
        if let Err(source) = bytes.file.read_exact_at(&mut buffer, bytes.offset) {
            return Err(bytes.failed(source));
        }
        let length = buffer.len();
        drop(bytes);
        self.reply(request, Reply::Read(reply, Some((buffer, 0, length))));
        Ok(())
    }

    /// The sending thread: everything that may take its time goes out from here. Returns after [`Outbox::close`].
    pub(crate) fn send_until_closed(&self) {
        loop {
            let idle = |state: &mut State| state.busy || state.pending.is_empty() && !state.closed;
            let state = self.lock();
            let mut state = if state.untaken.is_empty() {
                self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.changed.wait_timeout_while(state, TAKEN_AFTER, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
            if state.pending.is_empty() && state.closed && !state.busy {
                return;
            }
            if state.busy || state.pending.is_empty() {
                drop(state);
                self.let_go_of_taken(false);
                continue;
            }
            state.busy = true;
            drop(state);
            self.send_pending(false);
        }
    }

    /// Ends the permits of the replies that the receiver has taken; `asked_anew`: it has just sent a request.
    fn let_go_of_taken(&self, asked_anew: bool) {
        let mut state = self.lock();
        if state.untaken.is_empty() {
            return;
        }
        // A receiver that waits for its answers and asks anew has taken all.
        let all = state.broken || asked_anew && state.in_flight == 0;
        // Nobody sends meanwhile, or it is looked at again later.
        let unsent = match self.writer.try_lock() {
            Ok(writer) if !all => writer.socket().unsent_bytes(),
            _ => u64::MAX,
        };
        let acknowledged = state.sent_bytes.saturating_sub(unsent);
        let mut taken = Vec::new();
        while let Some(first) = state.untaken.front() {
            let age = first.sent.elapsed();
            let gone = all
                || first.end <= acknowledged && age >= TAKEN_AFTER
                || age >= TAKEN_AT_LATEST
                || state.untaken.len() > UNTAKEN_MAX;
            if !gone {
                break;
            }
            taken.extend(state.untaken.pop_front());
        }
        drop(state);
        // The end of a permit takes the lock of its chunk.
        drop(taken);
    }

    /// Lets the sending thread end when nothing is left to send.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether the first reply is short and goes into the socket without waiting.
    fn front_is_quick(&self, state: &State) -> bool {
        let short = match state.pending.front() {
            Some((_, Reply::File(..))) | None => false,
            Some((_, Reply::Read(_, Some((_, _, length))))) => *length <= SHORT_MAX,
            Some(_) => true,
        };
        if !short {
            return false;
        }
        self.lock_writer().socket().wait_writable(Duration::ZERO).unwrap_or(false)
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
            let outcome = reply.outcome();
            let sent = self.send(request.header, reply);
            self.sent(request, outcome, sent);
        }
    }

    fn send(&self, request: Header, reply: Reply) -> Result<(), TransportError> {
        let header = answer_to(request, 0);
        match reply {
            Reply::Write => self.lock_writer().send(header, &pb::WriteChunkReply {}, &[]),
            Reply::Sync => self.lock_writer().send(header, &pb::SyncChunkReply {}, &[]),
            Reply::Truncate => self.lock_writer().send(header, &pb::TruncateChunkReply {}, &[]),
            Reply::Done => self.lock_writer().send(header, &pb::Empty {}, &[]),
            Reply::Quarantine(reply) => self.lock_writer().send(header, &reply, &[]),
            Reply::Read(reply, None) => self.lock_writer().send(header, &reply, &[]),
            Reply::Read(reply, Some((buffer, from, length))) => {
                self.lock_writer().send(header, &reply, &[IoSlice::new(&buffer[from..from + length])])
            }
            Reply::File(reply, bytes) => self.send_file(header, &reply, bytes),
            Reply::Error(error) => self.lock_writer().send(answer_to(request, FLAG_ERROR), &error, &[]),
        }
    }

    fn send_file(
        &self,
        header: Header,
        reply: &pb::ReadChunkReply,
        bytes: FileBytes,
    ) -> Result<(), TransportError> {
        let (mut writer, length) = (self.lock_writer(), bytes.length);
        writer.send_before_payload(header, reply, length)?;
        let sent = send_file(writer.socket(), &*bytes.file, bytes.offset, length);
        let peer = writer.peer().to_owned();
        drop(writer);
        // Half a payload cannot be taken back: after a failure the connection has to go, and the client asks again.
        let source = match sent {
            Ok(()) => {
                let mut state = self.lock();
                state.sent_bytes += length as u64;
                let end = state.sent_bytes;
                state.untaken.push_back(Untaken { _bytes: bytes, end, sent: Instant::now() });
                return Ok(());
            }
            Err(Failed::Socket(source)) => source,
            Err(Failed::File(source)) => io::Error::other(bytes.failed(source)),
        };
        Err(TransportError::Io { action: "send to", peer, source })
    }

    fn sent(&self, request: Asked, outcome: Outcome, sent: Result<(), TransportError>) {
        let outcome = if sent.is_ok() { outcome } else { Outcome::Lost };
        let mut state = self.lock();
        if let Err(error) = sent
            && !std::mem::replace(&mut state.broken, true)
        {
            tracing::debug!(%error, "connection lost while replying");
            for (dropped, _) in std::mem::take(&mut state.pending) {
                state.end(dropped);
                self.left(dropped, Outcome::Lost);
            }
            let writer = self.lock_writer();
            drop(writer.socket().shutdown(Shutdown::Both));
        }
        self.end_request(state, request, outcome);
    }

    fn end_request(&self, mut state: MutexGuard<'_, State>, request: Asked, outcome: Outcome) {
        // Before anybody can find that nothing is at work any more.
        self.left(request, outcome);
        state.end(request);
        drop(state);
        self.changed.notify_all();
    }

    fn left(&self, request: Asked, outcome: Outcome) {
        self.door.leave(request.entered, outcome, self.clock.monotonic());
    }

    fn lock_writer(&self) -> MutexGuard<'_, FrameWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, request: Asked) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.reads_in_flight = self.reads_in_flight.saturating_sub(usize::from(is_read(request)));
    }
}

impl Reply {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Error(error) => Outcome::of_reply(error),
            Self::Write
            | Self::Sync
            | Self::Truncate
            | Self::Done
            | Self::Quarantine(_)
            | Self::Read(..)
            | Self::File(..) => Outcome::Done,
        }
    }
}

fn is_read(request: Asked) -> bool {
    request.header.kind == pb::ReadChunkRequest::KIND
}

fn answer_to(request: Header, flags: u16) -> Header {
    Header { flags: FLAG_REPLY | flags, deadline_ms: 0, ..request }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;

    use mooseng_env::{Disk, FsDisk, SystemClock, SystemEntropy};
    use mooseng_protocol::checksum;
    use mooseng_protocol::token::Token;
    use mooseng_protocol::transport::{FrameStream, Socket};
    use mooseng_types::{ChunkId, ChunkVersion, ClusterId, Part, SessionId};

    use super::*;
    use crate::identity::mark_disk;
    use crate::store::{Follows, ReadBytes, ReadRequest, Store};

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn token() -> Token {
        Token {
            part: Part::whole(ChunkId::from_raw(1)),
            base_version: ChunkVersion::from_raw(1),
            version: ChunkVersion::from_raw(1),
            read: true,
            write: true,
            create: true,
            session: SessionId::from_raw(1),
            expiry_unix_s: u64::MAX,
        }
    }

    /// The bytes of a copy on a real disk, to be sent from its file.
    fn file_bytes(root: &Path) -> FileBytes {
        let disk: Arc<dyn Disk> = Arc::new(FsDisk);
        mark_disk(&*disk, &SystemEntropy, root, CLUSTER, CLUSTER).unwrap();
        let store = Store::open(vec![(disk, root.to_owned())], CLUSTER, 0, Arc::default()).unwrap();
        let chunk = store.find_or_place(token().part).unwrap();
        let (bytes, begun) = ([7; 100_000], Duration::from_secs(1));
        let sums = checksum::of_range(chunk.id(), 0, &bytes);
        chunk.write(begun, &token(), Follows::Nothing, 0, &bytes, &sums).unwrap();
        let whole = ReadRequest {
            oldest: ChunkVersion::from_raw(1),
            offset: 0,
            length: 100_000,
            verify: false,
            intact: false,
            whole: false,
        };
        match chunk.read(begun * 10, &whole, &BufferPool::new(0)).unwrap().bytes {
            ReadBytes::File(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn untaken(outbox: &Outbox) -> usize {
        outbox.lock().untaken.len()
    }

    #[test]
    fn bytes_of_a_file_are_held_until_their_receiver_asks_anew_or_its_machine_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut receiver = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_, writer) = FrameStream::new(Socket::accepted(listener.accept().unwrap().0)).unwrap().split();
        let door = Arc::<Door>::default();
        let outbox = Arc::new(Outbox::new(writer, Arc::clone(&door), Arc::new(SystemClock::default())));
        let read = Header { kind: pb::ReadChunkRequest::KIND, ..Header::default() };
        let send = |name: &str| {
            let root = dir.path().join(name);
            std::fs::create_dir(&root).unwrap();
            let read = outbox.begin_request(read);
            outbox.reply(read, Reply::File(pb::ReadChunkReply::default(), file_bytes(&root)));
            // Nobody else sends in this test.
            outbox.lock().busy = true;
            outbox.send_pending(false);
        };
        send("a");
        assert_eq!(untaken(&outbox), 1, "the socket refers to the file's pages");
        outbox.let_go_of_taken(false);
        assert_eq!(untaken(&outbox), 1, "it had no time to read them");
        outbox.let_go_of_taken(true);
        assert_eq!(untaken(&outbox), 0, "it asks anew");
        send("b");
        let sent = Instant::now();
        // All but what its machine can keep for it.
        receiver.read_exact(&mut vec![0; 180_000]).unwrap();
        while untaken(&outbox) > 0 {
            outbox.let_go_of_taken(false);
            assert!(sent.elapsed() < TAKEN_AT_LATEST, "its machine has them");
        }
        assert!(sent.elapsed() >= TAKEN_AFTER);
        let passed = &door.snapshot().requests[0];
        assert_eq!((passed.requests, passed.under_way(), passed.errors()), (2, 0, 0));
    }

    #[test]
    fn a_request_leaves_once_with_its_answer_or_with_its_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_, writer) = FrameStream::new(Socket::accepted(listener.accept().unwrap().0)).unwrap().split();
        let door = Arc::<Door>::default();
        let outbox = Outbox::new(writer, Arc::clone(&door), Arc::new(SystemClock::default()));
        let counts = || {
            let row = &door.snapshot().requests[0];
            (row.requests, row.refused, row.failed, row.lost, row.under_way())
        };
        let begin = || outbox.begin_request(Header { kind: pb::SyncChunkRequest::KIND, ..Header::default() });
        let (done, failed, late) = (begin(), begin(), begin());
        outbox.reply(done, Reply::Sync);
        outbox.refuse(failed, &CallError::Unavailable { message: String::new() });
        outbox.send_pending(false);
        assert_eq!(counts(), (3, 0, 1, 0, 1));
        // One waits to be sent when the connection turns out to be gone, one has its answer later.
        outbox.lock_writer().socket().shutdown(Shutdown::Both).unwrap();
        let (sent, waits) = (begin(), begin());
        outbox.lock().busy = true;
        outbox.reply(sent, Reply::Sync);
        outbox.reply(waits, Reply::Sync);
        outbox.send_pending(false);
        assert_eq!(counts(), (5, 0, 1, 2, 1));
        outbox.reply(late, Reply::Sync);
        assert_eq!(counts(), (5, 0, 1, 3, 0));
        drop(peer);
    }
}
