//! Calls to the leader: a pool of connections, and tries until the visible limit.
//!
//! A caller takes a connection for itself, writes, reads and puts it back: no other thread is involved. When another
//! master turns out to lead, its socket is shut down under it ([`watch`]), and it sends the same request, under the same
//! number, to the new one; so a frozen leader costs an election and not a time-out. After every [`SLICE`] without an
//! answer it asks the other masters whether it waits in vain.

mod belief;
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
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_types::{ClusterId, FsError, SessionId};

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::request_ids::RequestIds;
use crate::{ClientError, Result, lock, wire};

use belief::Believed;
pub(crate) use files::{Commit, Granted, Located, Placement};
use watch::Connection;
pub(crate) use watch::Watch;

/// How long a caller waits before it doubts that the one it asked still leads, and between two doubts.
const SLICE: Duration = Duration::from_millis(50);
/// How long one try may last.
const TRY_MAX: Duration = Duration::from_secs(10);
/// How long one try may last if no other master can be asked who leads.
const TRY_ALONE_MAX: Duration = Duration::from_secs(3);
/// Tries one after the other without a wait, when each of them had a reason to go elsewhere.
const HOPS_MAX: u32 = 2;
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle connections that are kept.
const IDLE_MAX: usize = 32;
/// Sessions that may expire under one operation; masters that know none at all are not to be asked for ever.
const RENEWALS_MAX: u32 = 4;
/// A stall of this length is told in the log.
const STALL: Duration = Duration::from_secs(1);

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
    name: String,
    instance: String,
    cluster: ClusterId,
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
        patience: Duration,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let mut client = Self {
            name: config.name.clone(),
            instance: config.instance.clone(),
            cluster: config.cluster(),
            retry: patience,
            watch: Watch::new(&config.masters),
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

    /// The hello of a connection that receives the session's pushes.
    pub(crate) fn control_hello(&self) -> pb::Hello {
        wire::hello(self.cluster, &self.name, self.session().id.raw(), self.watch.epoch())
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
        let mut client_id = [0; 16];
        self.entropy.fill(&mut client_id);
        let request = pb::OpenSessionRequest {
            client_id: client_id.to_vec().into(),
            name: if self.instance.is_empty() { self.name.clone() } else { self.instance.clone() },
            replaces: !self.instance.is_empty(),
        };
        let reply = self.tries("open a session", || request.clone(), None)?;
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
        for _ in 0..RENEWALS_MAX {
            let session = self.session();
            match self.tries(what, || make(session.id.raw()), None) {
                Err(error) if error.is(FsError::SessionExpired) => self.renew(session.id)?,
                other => return other,
            }
        }
        Err(FsError::SessionExpired.into())
    }

    /// A request that changes something: it is numbered, and every further try bears the same number.
    fn mutate<R: Rpc>(&self, what: &'static str, make: impl Fn(pb::RequestMeta) -> R) -> Result<R::Reply> {
        for _ in 0..RENEWALS_MAX {
            let session = self.session();
            let number = Number::begin(&session);
            let mut sent_in_doubt = false;
            match self.tries(what, || make(number.meta()), Some(&mut sent_in_doubt)) {
                // Sent once and refused: nothing was done, and it may be done under a new session. Otherwise the old
                // session may have done it already, and doing it again could be wrong.
                Err(error) if error.is(FsError::SessionExpired) => {
                    self.renew(session.id)?;
                    if sent_in_doubt {
                        let last = "the session has expired while the request was in doubt".to_owned();
                        return Err(ClientError::GaveUp { what, after_ms: 0, last });
                    }
                }
                other => return other,
            }
        }
        Err(FsError::SessionExpired.into())
    }

    /// Tries until there is an answer or `retry` has passed.
    fn tries<R: Rpc>(
        &self,
        what: &'static str,
        make: impl Fn() -> R,
        mut in_doubt: Option<&mut bool>,
    ) -> Result<R::Reply> {
        let start = self.clock.monotonic();
        let (mut away, mut held) = (Backoff::election(), Backoff::lease_held());
        let mut hops = 0;
        let mut stalled = false;
        loop {
            let believed = self.watch.believed();
            let (outcome, reused) = self.try_once(&believed, &make());
            let since = self.clock.monotonic().saturating_sub(start);
            let error = match outcome {
                Ok(reply) => {
                    if stalled {
                        tracing::info!(what, stall_ms = since.as_millis() as u64, "the masters answer again");
                    }
                    return Ok(reply);
                }
                Err(CallError::Refused(FsError::LeaseHeld)) if since < self.retry => {
                    self.clock.sleep(held.next(self.entropy.next_u64()));
                    continue;
                }
                Err(CallError::Refused(refusal)) => return Err(refusal.into()),
                Err(error) if !error.is_retryable() => {
                    return Err(ClientError::Rejected { what, message: error.to_string() });
                }
                Err(error) => error,
            };
            if let Some(doubt) = &mut in_doubt {
                **doubt |= !matches!(error, CallError::NotLeader { .. });
            }
            if since >= self.retry {
                let after_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                return Err(ClientError::GaveUp { what, after_ms, last: error.to_string() });
            }
            if since >= STALL && !stalled {
                stalled = true;
                tracing::warn!(what, %error, "waiting for the masters");
            }
            hops += 1;
            if !self.follow(&error, &believed, reused) || hops > HOPS_MAX {
                hops = 0;
                self.watch.wait(believed.news, away.next(self.entropy.next_u64()));
            }
        }
    }

    /// Moves on to where `error` points. Tells whether there is a reason to try again at once.
    fn follow(&self, error: &CallError, believed: &Believed, reused: bool) -> bool {
        let (now, term) = (self.clock.monotonic(), believed.term);
        match error {
            CallError::NotLeader { leader: Some(address) } => {
                if !self.watch.hinted(term, address, now) {
                    self.watch.pass(term, now);
                }
                true
            }
            CallError::NotLeader { leader: None } => {
                self.watch.pass(term, now);
                true
            }
            // A connection that was closed while idle says nothing about the master. The others of its kind are gone.
            CallError::Transport(error) if reused && !matches!(error, TransportError::TimedOut { .. }) => {
                true
            }
            CallError::Transport(_) => {
                // Not if the connection was shut down because the leader has changed.
                if self.watch.term() == term {
                    self.watch.silent(term, &believed.leader, now);
                }
                true
            }
            _ => self.watch.term() != term,
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
        let outcome = wire::call(stream, request, &[] as &[IoSlice<'_>], SLICE, keep_waiting);
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
        let hello = wire::hello(self.cluster, &self.name, 0, self.watch.epoch());
        let keep_waiting = || self.may_wait(believed.term, begun, CONNECT_TIMEOUT);
        let (stream, reply) = dial::dial(&believed.leader, &hello, SLICE, keep_waiting)?;
        if !self.watch.is_current(reply.epoch) {
            return Err(CallError::NotLeader { leader: None });
        }
        let named = Some(reply.leader_address).filter(|address| !address.is_empty());
        if named.is_some() {
            // It names another than itself, and would send the request there too.
            return Err(CallError::NotLeader { leader: named });
        }
        self.watch.adopt(&believed.leader, stream).map_err(|source| {
            TransportError::Io { action: "keep a connection to", peer: believed.leader.to_string(), source }
                .into()
        })
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
