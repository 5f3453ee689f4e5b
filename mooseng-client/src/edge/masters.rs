//! Calls to the leader: a pool of connections, and tries until the visible limit.
//!
//! A caller takes a connection for itself, writes, reads and puts it back: no other thread is involved. When another
//! master turns out to lead, its socket is shut down under it ([`watch`]), and it sends the same request, under the same
//! number, to the new one; so a frozen leader costs an election and not a time-out. After every [`SLICE`] without an
//! answer it asks the other masters whether it waits in vain.

mod dial;
mod files;
mod names;
mod watch;

#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use mooseng_env::{Clock, Entropy};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::{FsError, SessionId};

use super::door::TimedDoor;
use super::wire::{self, Own};
use crate::config::ClientConfig;
use crate::session::{Believed, Kind, Next, RequestIds, Retry};
use crate::{Result, lock};

use watch::Connection;
pub(crate) use watch::Watch;

/// How long a caller waits before it doubts that the one it asked still leads, and between two doubts.
const SLICE: Duration = Duration::from_millis(50);
/// How long one try may last.
const TRY_MAX: Duration = Duration::from_secs(10);
/// How long one try may last if no other master can be asked who leads.
const TRY_ALONE_MAX: Duration = Duration::from_secs(3);
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle connections that are kept.
const IDLE_MAX: usize = 32;
/// Sessions that may expire under one operation; masters that know none at all are not to be asked for ever.
const RENEWALS_MAX: u32 = 4;

/// What a session is to its requests.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its number.
    pub(crate) id: SessionId,
    /// How long it lives without a word.
    pub(crate) timeout: Duration,
    ids: Mutex<RequestIds>,
}

/// The way to the leader, shared by all threads.
#[derive(Debug)]
pub(crate) struct MasterClient {
    own: Own,
    door: Arc<TimedDoor>,
    instance: String,
    retry: Duration,
    watch: Arc<Watch>,
    idle: Mutex<Vec<Connection>>,
    session: RwLock<Arc<Session>>,
    renewing: Mutex<()>,
    sessions_lost: AtomicU64,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl MasterClient {
    /// Opens a session at the first leader found. Tries for at most `patience`.
    pub(crate) fn connect(
        config: &ClientConfig,
        own: Own,
        patience: Duration,
        door: Arc<TimedDoor>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let mut client = Self {
            own,
            instance: config.instance.clone(),
            retry: patience,
            watch: Watch::new(&config.masters, Arc::clone(&door)),
            door,
            idle: Mutex::new(Vec::new()),
            session: RwLock::new(Arc::new(Session {
                id: SessionId::from_raw(0),
                timeout: Duration::ZERO,
                ids: Mutex::default(),
            })),
            renewing: Mutex::new(()),
            sessions_lost: AtomicU64::new(0),
            clock,
            entropy,
        };
        client.open_session()?;
        client.retry = Duration::from_millis(config.retry_ms);
        Ok(client)
    }

    /// The session of now.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// How many sessions have expired under this client; leases of one do not outlive it.
    pub(crate) fn sessions_lost(&self) -> u64 {
        self.sessions_lost.load(Ordering::Acquire)
    }

    /// What every request passes.
    pub(crate) fn door(&self) -> &Arc<TimedDoor> {
        &self.door
    }

    /// The caller of a connection that receives the session's pushes.
    pub(crate) fn control_caller(&self) -> Caller {
        self.own.caller_of_masters(self.session().id.raw(), self.watch.epoch())
    }

    /// The believed leader, with a number that rises with each change.
    pub(crate) fn leader(&self) -> (Arc<str>, u64) {
        let believed = self.watch.believed();
        (believed.leader, believed.term)
    }

    /// Where the belief about the leader is kept.
    pub(crate) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Opens a new session in place of one that has expired; once, however many callers notice.
    pub(crate) fn renew(&self, expired: SessionId) -> Result<()> {
        let _renewing = lock(&self.renewing);
        if self.session().id != expired {
            return Ok(());
        }
        tracing::warn!(session = %expired, "the session has expired; leases are lost");
        self.sessions_lost.fetch_add(1, Ordering::AcqRel);
        self.open_session()
    }

    fn open_session(&self) -> Result<()> {
        let request = pb::OpenSessionRequest {
            client_id: self.own.client_id.to_vec().into(),
            name: if self.instance.is_empty() { self.own.name.clone() } else { self.instance.clone() },
            replaces: !self.instance.is_empty(),
            cell: 0,
        };
        let reply = self.tries("open a session", || request.clone()).0?;
        let session = Session {
            id: SessionId::from_raw(reply.session),
            timeout: Duration::from_millis(reply.timeout_ms.max(300).into()),
            ids: Mutex::default(),
        };
        tracing::info!(session = %session.id, timeout_ms = reply.timeout_ms, "session opened");
        *self.session.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(session);
        Ok(())
    }

    /// A request that changes nothing.
    fn query<R: Rpc>(&self, what: &'static str, make: impl Fn(u64) -> R) -> Result<R::Reply> {
        self.request(Kind::Query, what, |session| self.tries(what, || make(session.id.raw())))
    }

    /// A request that changes something: it is numbered, and every further try bears the same number.
    fn mutate<R: Rpc>(&self, what: &'static str, make: impl Fn(pb::RequestMeta) -> R) -> Result<R::Reply> {
        self.numbered(Kind::Change, what, make)
    }

    /// A change that is never made again under another session.
    fn mutate_bound<R: Rpc>(
        &self,
        what: &'static str,
        make: impl Fn(pb::RequestMeta) -> R,
    ) -> Result<R::Reply> {
        self.numbered(Kind::Bound, what, make)
    }

    fn numbered<R: Rpc>(
        &self,
        kind: Kind,
        what: &'static str,
        make: impl Fn(pb::RequestMeta) -> R,
    ) -> Result<R::Reply> {
        self.request(kind, what, |session| {
            let number = Number::begin(session);
            self.tries(what, || make(number.meta()))
        })
    }

    /// Makes a request under the session of now, and under the next ones as far as its kind permits.
    fn request<T>(
        &self,
        kind: Kind,
        what: &'static str,
        make: impl Fn(&Session) -> (Result<T>, bool),
    ) -> Result<T> {
        for _ in 0..RENEWALS_MAX {
            let session = self.session();
            match make(&session) {
                (Err(error), in_doubt) if error.is(FsError::SessionExpired) => {
                    self.renew(session.id)?;
                    if let Some(error) = kind.expired(what, in_doubt) {
                        return Err(error);
                    }
                }
                (other, _) => return other,
            }
        }
        Err(FsError::SessionExpired.into())
    }

    /// Tries until there is an answer or the limit has passed. Tells also whether a try may have been done unanswered.
    fn tries<R: Rpc>(&self, what: &'static str, make: impl Fn() -> R) -> (Result<R::Reply>, bool) {
        let start = self.clock.monotonic();
        let mut retry = Retry::new(what, start, self.retry);
        loop {
            let believed = self.watch.believed();
            let (outcome, reused) = self.try_once(&believed, &make());
            let now = self.clock.monotonic();
            let error = match outcome {
                Ok(reply) => {
                    if retry.has_stalled() {
                        let stall_ms = now.saturating_sub(start).as_millis() as u64;
                        tracing::info!(what, stall_ms, "the masters answer again");
                    }
                    return (Ok(reply), retry.is_in_doubt());
                }
                Err(error) => error,
            };
            let had_stalled = retry.has_stalled();
            let next =
                self.watch.failed(&mut retry, &believed, &error, reused, (now, self.entropy.next_u64()));
            if retry.has_stalled() && !had_stalled {
                tracing::warn!(what, %error, "waiting for the masters");
            }
            match next {
                Next::Again => {}
                Next::Pause(time) => self.clock.sleep(time),
                Next::Await(time) => self.watch.wait(believed.news, time),
                Next::End(error) => return (Err(error), retry.is_in_doubt()),
            }
        }
    }

    /// One try on one connection. Tells also whether the connection had been used before.
    fn try_once<R: Rpc>(
        &self,
        believed: &Believed,
        request: &R,
    ) -> (std::result::Result<R::Reply, CallError>, bool) {
        let begun = (self.clock.monotonic(), self.watch.answers());
        let keep_waiting = || self.may_wait(believed.term, begun, TRY_MAX);
        let idle = self.take_idle(&believed.leader);
        let reused = idle.is_some();
        let mut connection = match idle.map_or_else(|| self.dial(believed, begun), Ok) {
            Ok(connection) => connection,
            Err(error) => return (Err(error), false),
        };
        let stream = &mut connection.stream;
        let outcome = wire::call(&self.door, stream, request, &[] as &[IoSlice<'_>], SLICE, keep_waiting);
        match &outcome {
            Err(CallError::Transport(_)) => {
                // One that was closed while idle is seldom alone.
                if reused {
                    lock(&self.idle).retain(|idle| idle.address != connection.address);
                }
            }
            _ => self.put_idle(connection),
        }
        (outcome, reused)
    }

    /// Whether a caller that has waited since `begun` (and what number of answers) may go on. One in doubt asks around.
    fn may_wait(&self, term: u64, begun: (Duration, u64), longest: Duration) -> bool {
        let now = self.clock.monotonic();
        let waited = now.saturating_sub(begun.0);
        if waited >= longest || self.watch.term() != term {
            return false;
        }
        self.watch.ask_around(self.session().id, term, now);
        waited < TRY_ALONE_MAX || self.watch.masters().len() == 1 || self.watch.answers() != begun.1
    }

    fn dial(
        &self,
        believed: &Believed,
        begun: (Duration, u64),
    ) -> std::result::Result<Connection, CallError> {
        let caller = self.own.caller_of_masters(0, self.watch.epoch());
        let keep_waiting = || self.may_wait(believed.term, begun, CONNECT_TIMEOUT);
        let (stream, reply) =
            self.door.pass::<pb::Hello, _>(|| dial::dial(&believed.leader, &caller, SLICE, keep_waiting))?;
        if !self.watch.is_current(reply.epoch) {
            return Err(CallError::NotLeader { leader: None });
        }
        let named = Some(reply.leader_address).filter(|address| !address.is_empty());
        if named.is_some() {
            // It names another than itself, and would send the request there too.
            return Err(CallError::NotLeader { leader: named });
        }
        Ok(self.watch.adopt(&believed.leader, stream))
    }

    fn take_idle(&self, leader: &str) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        let at = idle.iter().rposition(|connection| *connection.address == *leader)?;
        Some(idle.remove(at))
    }

    /// The most recently used is taken first; the longest unused goes when there are too many, or the leader has
    /// changed.
    fn put_idle(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        if idle.first().is_some_and(|first| idle.len() >= IDLE_MAX || first.address != connection.address) {
            drop(idle.remove(0));
        }
        idle.push(connection);
    }
}

/// The number of one request; it counts as answered when this goes.
struct Number<'a> {
    session: &'a Session,
    seq: u64,
}

impl<'a> Number<'a> {
    fn begin(session: &'a Session) -> Self {
        let seq = lock(&session.ids).begin();
        Self { session, seq }
    }

    fn meta(&self) -> pb::RequestMeta {
        let acked_below = lock(&self.session.ids).acked_below();
        pb::RequestMeta { session: self.session.id.raw(), seq: self.seq, acked_below }
    }
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        lock(&self.session.ids).end(self.seq);
    }
}
