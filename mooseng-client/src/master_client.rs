//! Calls to the leader: a pool of connections, and tries until the visible limit.
//!
//! A caller takes a connection for itself, writes, reads and puts it back: no other thread is involved. While it waits
//! it looks up every [`SLICE`] whether the leader has changed; if so it sends the same request, under the same number,
//! to the new one, so that a frozen leader costs an election and not a time-out.

mod files;
mod names;

use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use mooseng_env::{Clock, Entropy};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::{ClusterId, FsError, SessionId};

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::request_ids::RequestIds;
use crate::{ClientError, Result, lock, wire};

pub(crate) use files::{Commit, Granted, Located, Placement};

/// How often a waiting caller looks whether the leader has changed.
const SLICE: Duration = Duration::from_millis(100);
/// How long one try may last.
const TRY_MAX: Duration = Duration::from_secs(10);
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

/// Where the leader is believed to be.
#[derive(Debug, Clone)]
struct Leader {
    address: Arc<str>,
    /// Rises with each change, so that waiting callers notice.
    term: u64,
}

/// The way to the leader, shared by all threads.
#[derive(Debug)]
pub(crate) struct MasterClient {
    masters: Vec<String>,
    name: String,
    instance: String,
    cluster: ClusterId,
    retry: Duration,
    leader: Mutex<Leader>,
    idle: Mutex<Vec<(u64, FrameStream)>>,
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
        let first = config.masters.first().cloned().unwrap_or_default();
        let mut client = Self {
            masters: config.masters.clone(),
            name: config.name.clone(),
            instance: config.instance.clone(),
            cluster: config.cluster(),
            retry: patience,
            leader: Mutex::new(Leader { address: first.into(), term: 1 }),
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

    /// All masters, as configured.
    pub(crate) fn masters(&self) -> &[String] {
        &self.masters
    }

    /// The hello of a connection that receives the session's pushes.
    pub(crate) fn control_hello(&self) -> pb::Hello {
        wire::hello(self.cluster, &self.name, self.session().id.raw())
    }

    /// The believed leader, with a number that rises with each change.
    pub(crate) fn leader(&self) -> (Arc<str>, u64) {
        let leader = lock(&self.leader).clone();
        (leader.address, leader.term)
    }

    /// Somebody who should know has named the leader. An address that is the known one changes nothing.
    pub(crate) fn set_leader(&self, address: &str) {
        let mut leader = lock(&self.leader);
        if !address.is_empty() && *leader.address != *address {
            tracing::info!(address, "the masters have a new leader");
            *leader = Leader { address: address.into(), term: leader.term + 1 };
            drop(leader);
            lock(&self.idle).clear();
        }
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
        let (mut away, mut held) = (Backoff::unavailable(), Backoff::lease_held());
        let mut tried = 0u32;
        let mut stalled = false;
        loop {
            let (leader, term) = self.leader();
            let outcome = self.try_once(&leader, term, &make());
            let since = self.clock.monotonic().saturating_sub(start);
            tried += 1;
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
            let followed = self.follow(&error, term);
            if tried > 1 || !followed {
                self.clock.sleep(away.next(self.entropy.next_u64()));
            }
        }
    }

    /// Moves on to where `error` points. Tells whether the next try goes to another place than the last.
    fn follow(&self, error: &CallError, term: u64) -> bool {
        match error {
            CallError::NotLeader { leader: Some(address) } => {
                self.set_leader(address);
                self.leader().1 != term
            }
            // The one that was asked is there, but leads nobody, or is not reached: ask the next.
            CallError::NotLeader { leader: None } | CallError::Transport(_) => {
                let mut leader = lock(&self.leader);
                if leader.term == term {
                    let at = self.masters.iter().position(|master| **master == *leader.address);
                    let next = at.map_or(0, |at| (at + 1) % self.masters.len());
                    if let Some(address) = self.masters.get(next) {
                        *leader = Leader { address: address.as_str().into(), term: term + 1 };
                    }
                }
                true
            }
            _ => false,
        }
    }

    /// One try on one connection.
    fn try_once<R: Rpc>(
        &self,
        leader: &str,
        term: u64,
        request: &R,
    ) -> std::result::Result<R::Reply, CallError> {
        let idle = take_idle(&self.idle, term);
        let reused = idle.is_some();
        let mut stream = match idle {
            Some(stream) => stream,
            None => self.dial(leader)?,
        };
        let begun = self.clock.monotonic();
        let keep_waiting =
            || self.leader().1 == term && self.clock.monotonic().saturating_sub(begun) < TRY_MAX;
        let outcome = wire::call(&mut stream, request, &[] as &[IoSlice<'_>], SLICE, keep_waiting);
        match &outcome {
            Err(CallError::Transport(_)) => {
                // One that was closed while idle is seldom alone.
                if reused {
                    lock(&self.idle).clear();
                }
            }
            _ => put_idle(&self.idle, term, stream),
        }
        outcome
    }

    fn dial(&self, address: &str) -> std::result::Result<FrameStream, CallError> {
        let hello = wire::hello(self.cluster, &self.name, 0);
        let (stream, _) = FrameStream::connect(address, &hello, CONNECT_TIMEOUT)?;
        Ok(stream)
    }
}

fn take_idle(idle: &Mutex<Vec<(u64, FrameStream)>>, term: u64) -> Option<FrameStream> {
    let mut idle = lock(idle);
    while let Some((of, stream)) = idle.pop() {
        if of == term {
            return Some(stream);
        }
    }
    None
}

fn put_idle(idle: &Mutex<Vec<(u64, FrameStream)>>, term: u64, stream: FrameStream) {
    let mut idle = lock(idle);
    if idle.len() < IDLE_MAX {
        idle.push((term, stream));
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
