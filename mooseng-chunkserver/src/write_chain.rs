//! The way down a chain: each server forwards what it gets to the next one while it writes itself, and answers when
//! both are done. One connection to each next server is shared by all chains that lead there.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mooseng_env::Clock;
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::Mux;
use mooseng_types::FsError;

use crate::outbox::{Outbox, Reply};
use crate::store::DAMAGED_ON_THE_WAY;

/// Servers behind the first of a chain.
pub(crate) const CHAIN_MAX: usize = 15;
/// Servers to which connections are kept.
const LINKS_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// A server that was not reached is not tried again for this long: each try costs the connection that waits for it.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A server that answers nothing for this long while something waits is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The beginning of the message that tells a client which server to leave out.
const CHAIN_BROKEN: &str = "chain broken at server";

/// The connections to the servers that come next.
#[derive(Debug)]
pub(crate) struct WriteChain {
    links: Mutex<HashMap<String, Arc<Link>>>,
    hello: pb::Hello,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Link {
    mux: Mutex<Option<Arc<Mux>>>,
    /// When the last try to connect failed, in ms of the monotonic clock; 0 for never.
    failed_ms: AtomicU64,
    progress: Arc<Progress>,
}

/// Whether a link is alive: how many answers are due, and when the last one came.
#[derive(Debug, Default)]
struct Progress {
    due: AtomicU64,
    last_ms: AtomicU64,
}

impl WriteChain {
    /// No connections yet.
    pub(crate) fn new(hello: pb::Hello, clock: Arc<dyn Clock>) -> Self {
        Self { links: Mutex::default(), hello, clock }
    }

    /// Forwards `request` to `next`; `done` is called once, with an error that names the server at fault. It must not
    /// block. May wait for the connection and for the socket, so it is called by the thread that reads the upstream.
    pub(crate) fn forward<R: Rpc>(
        &self,
        next: &pb::ServerAddress,
        request: &R,
        payload: &[IoSlice<'_>],
        done: impl FnOnce(Result<(), CallError>) + Send + 'static,
    ) {
        let server = next.server;
        let link = self.link(&next.address);
        let mux = match self.connected(&link, &next.address) {
            Ok(mux) => mux,
            Err(error) => return done(Err(blame(server, error))),
        };
        let progress = Arc::clone(&link.progress);
        if progress.due.fetch_add(1, Ordering::AcqRel) == 0 {
            progress.last_ms.store(self.now_ms(), Ordering::Release);
        }
        let clock = Arc::clone(&self.clock);
        mux.start(request, payload, move |reply| {
            progress.due.fetch_sub(1, Ordering::AcqRel);
            progress.last_ms.store(to_ms(clock.monotonic()), Ordering::Release);
            done(reply.map(drop).map_err(|error| blame(server, error)));
        });
    }

    /// Ends the connections to servers that have fallen silent; everything that waits for them fails.
    pub(crate) fn cut_silent_links(&self) {
        let now = self.now_ms();
        let silent = |link: &Arc<Link>| {
            let since = now.saturating_sub(link.progress.last_ms.load(Ordering::Acquire));
            link.progress.due.load(Ordering::Acquire) > 0 && u128::from(since) > SILENCE_MAX.as_millis()
        };
        let links: Vec<_> = lock(&self.links).values().filter(|link| silent(link)).cloned().collect();
        for link in links {
            // Whoever has the lock is connecting anew.
            let mux = link.mux.try_lock().ok().and_then(|mux| mux.clone());
            if let Some(mux) = mux {
                tracing::warn!(peer = mux.peer(), "next server of a chain has fallen silent, connection cut");
                mux.close();
            }
        }
    }

    /// Ends every connection.
    pub(crate) fn close(&self) {
        let links = std::mem::take(&mut *lock(&self.links));
        for link in links.into_values() {
            let mux = lock(&link.mux).take();
            drop(mux);
        }
    }

    fn link(&self, address: &str) -> Arc<Link> {
        let mut links = lock(&self.links);
        if let Some(link) = links.get(address) {
            return Arc::clone(link);
        }
        if links.len() >= LINKS_MAX {
            links.retain(|_, link| link.progress.due.load(Ordering::Acquire) > 0);
        }
        let link = Arc::<Link>::default();
        links.insert(address.to_owned(), Arc::clone(&link));
        link
    }

    fn connected(&self, link: &Link, address: &str) -> Result<Arc<Mux>, CallError> {
        let mut slot = lock(&link.mux);
        if let Some(mux) = slot.as_ref().filter(|mux| !mux.is_closed()) {
            return Ok(Arc::clone(mux));
        }
        let failed = link.failed_ms.load(Ordering::Acquire);
        if failed != 0 && u128::from(self.now_ms().saturating_sub(failed)) < RETRY_AFTER.as_millis() {
            return Err(CallError::Unavailable { message: "not reached a moment ago".into() });
        }
        match Mux::connect(address, &self.hello, CONNECT_TIMEOUT, |_, _| {}) {
            Ok((mux, _)) => {
                link.failed_ms.store(0, Ordering::Release);
                *slot = Some(Arc::clone(&mux));
                Ok(mux)
            }
            Err(error) => {
                link.failed_ms.store(self.now_ms().max(1), Ordering::Release);
                *slot = None;
                Err(error)
            }
        }
    }

    fn now_ms(&self) -> u64 {
        to_ms(self.clock.monotonic())
    }
}

fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the client is told of a failure behind this server: who is to be left out, unless nobody is.
fn blame(server: u32, error: CallError) -> CallError {
    match error {
        // Somebody else has the lease: true of every copy.
        CallError::Refused(FsError::LeaseLost) => error,
        CallError::Unavailable { message } if message.starts_with(CHAIN_BROKEN) => {
            CallError::Unavailable { message }
        }
        CallError::Rejected { message } if message.starts_with(DAMAGED_ON_THE_WAY) => {
            CallError::Unavailable { message: format!("{message} (before server {server})") }
        }
        other => {
            let why = match &other {
                CallError::Unavailable { message } => message.clone(),
                CallError::Transport(transport) => with_source(transport),
                _ => other.to_string(),
            };
            CallError::Unavailable { message: format!("{CHAIN_BROKEN} {server}: {why}") }
        }
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_source(source)),
        None => error.to_string(),
    }
}

/// The answer to a request that is done in two places.
#[derive(Debug)]
pub(crate) struct Completion {
    outbox: Arc<Outbox>,
    request: Header,
    state: Mutex<(Parts, Option<Reply>)>,
}

#[derive(Debug)]
struct Parts {
    left: u8,
    here: Option<CallError>,
    behind: Option<CallError>,
}

impl Completion {
    /// An answer to `request` that is `reply` once it is done here and, with `forwarded`, behind this server as well.
    pub(crate) fn new(outbox: Arc<Outbox>, request: Header, reply: Reply, forwarded: bool) -> Arc<Self> {
        let parts = Parts { left: 1 + u8::from(forwarded), here: None, behind: None };
        Arc::new(Self { outbox, request, state: Mutex::new((parts, Some(reply))) })
    }

    /// This server is done.
    pub(crate) fn done_here(&self, result: Result<(), CallError>) {
        self.part_done(|parts| parts.here = result.err());
    }

    /// The servers behind this one are done.
    pub(crate) fn done_behind(&self, result: Result<(), CallError>) {
        self.part_done(|parts| parts.behind = result.err());
    }

    fn part_done(&self, note: impl FnOnce(&mut Parts)) {
        let mut state = lock(&self.state);
        let (parts, reply) = &mut *state;
        note(parts);
        parts.left = parts.left.saturating_sub(1);
        if parts.left > 0 {
            return;
        }
        // The refusal of this server first: with a new lease the client meets the other one again.
        let error = parts.here.take().or_else(|| parts.behind.take());
        let reply = reply.take();
        drop(state);
        match (error, reply) {
            (Some(error), _) => self.outbox.refuse(self.request, &error),
            (None, Some(reply)) => self.outbox.reply(self.request, reply),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_at_fault_is_named_and_only_that_one() {
        let say = |error| blame(3, error).to_string();
        assert_eq!(
            say(CallError::Refused(FsError::NoSpace)),
            "unavailable: chain broken at server 3: no space left on device"
        );
        let further = CallError::Unavailable { message: "chain broken at server 5: gone".into() };
        assert_eq!(say(further), "unavailable: chain broken at server 5: gone");
        assert!(matches!(
            blame(3, CallError::Refused(FsError::LeaseLost)),
            CallError::Refused(FsError::LeaseLost)
        ));
        let damaged = CallError::Rejected { message: format!("{DAMAGED_ON_THE_WAY}: c1, send it again") };
        assert!(!say(damaged).contains(CHAIN_BROKEN));
    }
}
