//! The way down a chain: each server forwards what it gets to the next one while it writes itself, and answers when
//! both are done. One connection to each next server is shared by all chains that lead there.
//!
//! When is the next server dead? Not when it is slow: a disk may take long over a sync, and a copy would be lost for it.
//! A link on which answers are due and none has come for [`ASK_AFTER`] is asked on a connection of its own whether the
//! other process lives: its hello is answered without any disk and behind no queue. Only if that, too, is not answered
//! within [`ASK_TIMEOUT`], and no answer has come meanwhile, the server is silent: known after 3 s. Besides, no single
//! request waits for ever: after [`Limits`] a disk hangs. Both lie well below a client's time-outs (10 s for a write, 60 s
//! for a sync), and a server waits the longer the more servers are behind the next one, so that the one in front of the
//! hanging one speaks first.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mooseng_env::{Clock, Threads};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::{FrameStream, Mux};
use mooseng_types::{ChunkCause, ServerId};

use crate::completion::{blame, fault};
use crate::request::Request;

/// Servers to which connections are kept.
const LINKS_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that was not reached is not tried again for this long: each try costs the connection that waits for it.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Time without an answer after which the next server is asked whether it lives, and again after each answer to that.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// How long it has for the answer to that.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one request waits for a server that lives.
struct Limits {
    one: Duration,
    /// For each server behind the next one.
    each_behind: Duration,
    most: Duration,
}

const WRITE_LIMITS: Limits = Limits {
    one: Duration::from_secs(7),
    each_behind: Duration::from_millis(500),
    most: Duration::from_secs(9),
};
const SYNC_LIMITS: Limits = Limits {
    one: Duration::from_secs(45),
    each_behind: Duration::from_secs(1),
    most: Duration::from_secs(55),
};

impl Limits {
    fn of(request: &Request) -> Duration {
        let (limits, behind) = match request {
            Request::Write(it) if it.sync => (SYNC_LIMITS, it.chain.len()),
            Request::Write(it) => (WRITE_LIMITS, it.chain.len()),
            Request::Sync(it) => (SYNC_LIMITS, it.chain.len()),
            // What it cuts off is gone for good before it is answered.
            Request::Truncate(it) => (SYNC_LIMITS, it.chain.len()),
            Request::Read(_) => (WRITE_LIMITS, 0),
        };
        (limits.one + limits.each_behind * u32::try_from(behind).unwrap_or(u32::MAX)).min(limits.most)
    }
}

/// The connections to the servers that come next.
#[derive(Debug)]
pub(crate) struct WriteChain {
    links: Mutex<HashMap<String, Arc<Link>>>,
    caller: Caller,
    clock: Arc<dyn Clock>,
    /// Those that ask whether a server lives.
    asking: Threads,
}

#[derive(Debug, Default)]
struct Link {
    connected: Mutex<Option<Arc<Connected>>>,
    /// When the last try to connect failed, in ms of the monotonic clock; 0 for never.
    failed_ms: AtomicU64,
}

type Done = Box<dyn FnOnce(Result<(), CallError>) + Send>;

/// A connection with what waits for answers on it.
#[derive(Debug)]
struct Connected {
    mux: Arc<Mux>,
    waiting: Arc<Waiting>,
}

/// What waits for answers on a connection. Kept by each of them: it outlives the connection until all are told.
struct Waiting {
    due: Mutex<Due>,
    last_answer_ms: AtomicU64,
    /// Somebody is asking whether the server lives.
    asking: AtomicBool,
}

#[derive(Default)]
struct Due {
    next: u64,
    /// Until when each is waited for, and who is told.
    requests: HashMap<u64, (u64, Done)>,
    /// The server is silent: what is still due fails for this.
    silent: bool,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("due", &lock(&self.due).requests.len()).finish_non_exhaustive()
    }
}

impl Waiting {
    fn new(now_ms: u64) -> Self {
        Self { due: Mutex::default(), last_answer_ms: AtomicU64::new(now_ms), asking: AtomicBool::new(false) }
    }

    /// Notes a request; it is given up at `until_ms`.
    fn begin(&self, now_ms: u64, until_ms: u64, done: Done) -> u64 {
        let mut due = lock(&self.due);
        if due.requests.is_empty() {
            self.last_answer_ms.store(now_ms, Ordering::Release);
        }
        due.next += 1;
        let id = due.next;
        due.requests.insert(id, (until_ms, done));
        id
    }

    /// Ends a request, unless it was given up before.
    fn end(&self, id: u64, result: Result<(), CallError>, now_ms: u64) {
        let mut due = lock(&self.due);
        if !matches!(result, Err(CallError::Transport(_))) {
            self.last_answer_ms.store(now_ms, Ordering::Release);
        }
        let silent = due.silent;
        let Some((_, done)) = due.requests.remove(&id) else { return };
        drop(due);
        done(match result {
            Err(CallError::Transport(_)) if silent => Err(silence("the server has fallen silent")),
            other => other,
        });
    }

    fn give_up_overdue(&self, now_ms: u64) {
        let mut due = lock(&self.due);
        let overdue: Vec<u64> =
            due.requests.iter().filter(|(_, (until, _))| *until <= now_ms).map(|(id, _)| *id).collect();
        let given_up: Vec<_> = overdue.iter().filter_map(|id| due.requests.remove(id)).collect();
        drop(due);
        for (_, done) in given_up {
            done(Err(silence("the server lives and does not answer this request in time")));
        }
    }

    /// Whether answers are due and none has come for [`ASK_AFTER`].
    fn is_quiet(&self, now_ms: u64) -> bool {
        let since = now_ms.saturating_sub(self.last_answer_ms.load(Ordering::Acquire));
        u128::from(since) >= ASK_AFTER.as_millis() && !lock(&self.due).requests.is_empty()
    }
}

impl Connected {
    /// Asks whether the server lives; cuts the connection if it does not.
    fn ask(&self, address: &str, caller: &Caller, clock: &dyn Clock) {
        let last_answer = &self.waiting.last_answer_ms;
        let before = last_answer.load(Ordering::Acquire);
        let answer = FrameStream::connect(address, caller, ASK_TIMEOUT);
        let dead = answer.err().and_then(|error| death(&error));
        match dead.filter(|_| last_answer.load(Ordering::Acquire) == before) {
            Some(death) => {
                tracing::warn!(
                    peer = self.mux.peer(),
                    ?death,
                    "next server of a chain is dead, connection cut"
                );
                lock(&self.waiting.due).silent = death == Death::Silent;
                self.mux.close();
            }
            None => last_answer.store(to_ms(clock.monotonic()), Ordering::Release),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    Silent,
    Gone,
}

/// Whether a server that answered so is dead. Whoever answers anything lives, and this process may be out of files.
fn death(error: &CallError) -> Option<Death> {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    match error {
        CallError::Transport(TransportError::TimedOut { .. }) => Some(Death::Silent),
        CallError::Transport(TransportError::Io { source, .. }) => match source.kind() {
            TimedOut | HostUnreachable | NetworkUnreachable => Some(Death::Silent),
            ConnectionRefused => Some(Death::Gone),
            _ => None,
        },
        _ => None,
    }
}

impl WriteChain {
    /// No connections yet.
    pub(crate) fn new(caller: Caller, clock: Arc<dyn Clock>) -> Self {
        Self { links: Mutex::default(), caller, clock, asking: Threads::default() }
    }

    /// Forwards `request` to `next`; `done` is called once, with an error that names the server at fault. It must not
    /// block. May wait for the connection and for the socket, so it is called by the thread that reads the upstream.
    pub(crate) fn forward(
        &self,
        next: &pb::ServerAddress,
        request: &Request,
        payload: &[IoSlice<'_>],
        done: impl FnOnce(Result<(), CallError>) + Send + 'static,
    ) {
        let server = ServerId::from_raw(next.server);
        let done: Done = Box::new(move |result| done(result.map_err(|error| blame(server, error))));
        let link = self.link(&next.address);
        let connected = match self.connected(&link, &next.address) {
            Ok(connected) => connected,
            Err(error) => return done(Err(error)),
        };
        let now = self.now_ms();
        let id = connected.waiting.begin(now, now + to_ms(Limits::of(request)), done);
        match request {
            Request::Write(it) => self.start(&connected, id, it, payload),
            Request::Sync(it) => self.start(&connected, id, it, &[]),
            Request::Truncate(it) => self.start(&connected, id, it, &[]),
            Request::Read(it) => self.start(&connected, id, it, &[]),
        }
    }

    fn start<R: Rpc>(&self, connected: &Connected, id: u64, request: &R, payload: &[IoSlice<'_>]) {
        let (waiting, clock) = (Arc::clone(&connected.waiting), Arc::clone(&self.clock));
        connected.mux.start(request, payload, move |reply| {
            waiting.end(id, reply.map(drop), to_ms(clock.monotonic()));
        });
    }

    /// Looks after what is due: gives up requests that hang, asks servers that are quiet whether they live. To be called
    /// every quarter of a second; waits for nothing.
    pub(crate) fn look_after(&self) {
        let now = self.now_ms();
        let links: Vec<_> =
            lock(&self.links).iter().map(|(to, link)| (to.clone(), Arc::clone(link))).collect();
        for (address, link) in links {
            // Whoever has the lock is connecting anew.
            let connected = link.connected.try_lock().ok().and_then(|slot| slot.clone());
            let Some(connected) = connected else { continue };
            connected.waiting.give_up_overdue(now);
            if !connected.waiting.is_quiet(now) || connected.waiting.asking.swap(true, Ordering::AcqRel) {
                continue;
            }
            let (caller, clock, asked) =
                (self.caller.clone(), Arc::clone(&self.clock), Arc::clone(&connected));
            let spawned = self.asking.spawn("ask", move || {
                asked.ask(&address, &caller, &*clock);
                asked.waiting.asking.store(false, Ordering::Release);
            });
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread to ask whether a server lives");
                connected.waiting.asking.store(false, Ordering::Release);
            }
        }
    }

    /// Ends every connection.
    pub(crate) fn close(&self) {
        let links = std::mem::take(&mut *lock(&self.links));
        for link in links.into_values() {
            let connected = lock(&link.connected).take();
            if let Some(connected) = connected {
                connected.mux.close();
            }
        }
        self.asking.join();
    }

    fn link(&self, address: &str) -> Arc<Link> {
        let mut links = lock(&self.links);
        if let Some(link) = links.get(address) {
            return Arc::clone(link);
        }
        if links.len() >= LINKS_MAX {
            let in_use = |link: &Arc<Link>| match link.connected.try_lock() {
                Ok(slot) => slot.as_ref().is_some_and(|it| !lock(&it.waiting.due).requests.is_empty()),
                Err(_) => true,
            };
            links.retain(|_, link| in_use(link));
        }
        let link = Arc::<Link>::default();
        links.insert(address.to_owned(), Arc::clone(&link));
        link
    }

    fn connected(&self, link: &Link, address: &str) -> Result<Arc<Connected>, CallError> {
        let mut slot = lock(&link.connected);
        if let Some(connected) = slot.as_ref().filter(|connected| !connected.mux.is_closed()) {
            return Ok(Arc::clone(connected));
        }
        let failed = link.failed_ms.load(Ordering::Acquire);
        if failed != 0 && u128::from(self.now_ms().saturating_sub(failed)) < RETRY_AFTER.as_millis() {
            return Err(fault(ChunkCause::Unreachable, "not reached a moment ago"));
        }
        match Mux::connect(address, &self.caller, CONNECT_TIMEOUT, |_, _| {}) {
            Ok((mux, _)) => {
                link.failed_ms.store(0, Ordering::Release);
                let waiting = Arc::new(Waiting::new(self.now_ms()));
                let connected = Arc::new(Connected { mux, waiting });
                *slot = Some(Arc::clone(&connected));
                Ok(connected)
            }
            Err(error) => {
                link.failed_ms.store(self.now_ms().max(1), Ordering::Release);
                *slot = None;
                Err(match error {
                    // It refuses the connection, not the request.
                    CallError::Rejected { message } => fault(ChunkCause::Unreachable, message),
                    // A machine that is gone and a process that hangs look alike from here.
                    CallError::Transport(error @ TransportError::TimedOut { .. }) => {
                        fault(ChunkCause::Unreachable, error.to_string())
                    }
                    other => other,
                })
            }
        }
    }

    fn now_ms(&self) -> u64 {
        to_ms(self.clock.monotonic())
    }
}

fn silence(message: &str) -> CallError {
    fault(ChunkCause::Silent, message)
}

fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_in_front_of_one_that_hangs_gives_up_first_and_before_the_client_does() {
        let limit = |sync, behind| {
            let chain = vec![pb::ServerAddress::default(); behind];
            Limits::of(&Request::Write(pb::WriteChunkRequest { sync, chain, ..Default::default() }))
        };
        for behind in 0..4 {
            assert!(limit(false, behind) < limit(false, behind + 1));
            assert!(limit(true, behind) < limit(true, behind + 1));
        }
        assert!(limit(false, 15) < Duration::from_secs(10));
        assert!(limit(true, 15) < Duration::from_secs(60));
        assert!(ASK_AFTER + ASK_TIMEOUT < WRITE_LIMITS.one);
    }

    #[test]
    fn what_waits_for_a_disk_has_the_time_of_a_sync() {
        let write = |sync| Request::Write(pb::WriteChunkRequest { sync, ..Default::default() });
        let cut = Request::Truncate(pb::TruncateChunkRequest::default());
        assert!(Limits::of(&write(false)) < Limits::of(&cut), "a slow disk is no silent server");
        assert_eq!(Limits::of(&cut), Limits::of(&write(true)));
        assert_eq!(Limits::of(&cut), Limits::of(&Request::Sync(pb::SyncChunkRequest::default())));
    }
}
