//! What all threads of a client know of the leader, and how they learn at once when it changes.
//!
//! A caller that waits for an answer, or between two tries, is woken by news: its socket is shut down under it, or the
//! condition is notified. News comes by itself (every master to which the session has a connection announces that it
//! leads). Because an announcement can be missed, a caller in doubt also asks the others, on the same connections.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::{FrameStream, Mux, Socket};
use mooseng_types::SessionId;

use crate::edge::door::TimedDoor;
use crate::lock;
use crate::session::{Belief, Believed, Next, Retry};

/// Between two rounds of questions, however many callers are in doubt.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The belief, who waits for it to change, and whom to ask.
#[derive(Debug)]
pub(crate) struct Watch {
    belief: Mutex<Belief>,
    news: Condvar,
    /// Connections that a caller holds or may take, by number.
    sockets: Mutex<BTreeMap<u64, Watched>>,
    next_socket: AtomicU64,
    ears: Mutex<Vec<Ear>>,
    asked_at: Mutex<Duration>,
    door: Arc<TimedDoor>,
    answers: AtomicU64,
}

/// The master that a connection leads to, and what ends it.
type Watched = (Arc<str>, Arc<Socket>);

/// A connection on which a master can be asked by anybody.
#[derive(Debug)]
struct Ear {
    address: Arc<str>,
    mux: Weak<Mux>,
    /// A question is on its way: one that does not answer is asked nothing more.
    asked: Arc<AtomicBool>,
}

/// A connection to a master for one caller at a time, which is shut down when another master turns out to lead.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: FrameStream,
    pub(super) address: Arc<str>,
    number: u64,
    watch: Arc<Watch>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.watch.sockets).remove(&self.number);
    }
}

impl Watch {
    pub(super) fn new(masters: &[String], door: Arc<TimedDoor>) -> Arc<Self> {
        Arc::new(Self {
            belief: Mutex::new(Belief::new(masters)),
            news: Condvar::new(),
            sockets: Mutex::default(),
            next_socket: AtomicU64::new(0),
            ears: Mutex::default(),
            asked_at: Mutex::default(),
            door,
            answers: AtomicU64::new(0),
        })
    }

    /// The leader says where all masters are.
    pub(crate) fn told_masters(&self, told: &[String]) {
        lock(&self.belief).told_masters(told);
    }

    /// All masters, as far as is known.
    pub(crate) fn masters(&self) -> Vec<Arc<str>> {
        lock(&self.belief).masters().to_vec()
    }

    /// The highest epoch of the masters' group that was heard of.
    pub(crate) fn epoch(&self) -> u64 {
        lock(&self.belief).epoch()
    }

    /// Whether a master that says this epoch is of the present group.
    pub(crate) fn is_current(&self, epoch: u64) -> bool {
        lock(&self.belief).is_current(epoch)
    }

    pub(super) fn believed(&self) -> Believed {
        lock(&self.belief).now()
    }

    pub(crate) fn term(&self) -> u64 {
        lock(&self.belief).term()
    }

    /// `address` says itself that it leads.
    pub(crate) fn claimed(&self, address: &str) {
        let new = lock(&self.belief).claimed(address);
        self.tell(new, address);
    }

    /// `address` has answered as only a leader does, to a question that was asked under `term`: an answer that comes
    /// late must not undo what has been learnt since.
    pub(crate) fn claimed_under(&self, term: u64, address: &str) {
        let new = {
            let mut belief = lock(&self.belief);
            belief.term() == term && belief.claimed(address)
        };
        self.tell(new, address);
    }

    /// The one that was asked as the leader of `term` names another.
    pub(crate) fn hinted(&self, term: u64, address: &str, now: Duration) {
        let new = lock(&self.belief).hinted(term, address, now);
        self.tell(new, address);
    }

    /// A try under `believed` failed: what follows from it. Others who wait hear of the leader that it named.
    pub(super) fn failed(
        &self,
        retry: &mut Retry,
        believed: &Believed,
        error: &CallError,
        reused: bool,
        at: (Duration, u64),
    ) -> Next {
        let (next, leads) = retry.failed(&mut lock(&self.belief), believed, error, reused, at.0, at.1);
        if let Some(leader) = leads {
            self.tell(true, &leader);
        }
        next
    }

    /// Waits for `time`, or until there is news other than `known`.
    pub(super) fn wait(&self, known: u64, time: Duration) {
        let belief = lock(&self.belief);
        let waited = self.news.wait_timeout_while(belief, time, |belief| belief.news() == known);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Wakes all who wait for a master that is not `leader`.
    fn tell(&self, new: bool, leader: &str) {
        if !new {
            return;
        }
        tracing::info!(address = leader, "the masters have a new leader");
        self.news.notify_all();
        for (address, socket) in lock(&self.sockets).values() {
            if **address != *leader {
                // An error means that it is closed already.
                drop(socket.shutdown(Shutdown::Both));
            }
        }
    }

    /// From now on the connection is shut down when another master leads.
    pub(super) fn adopt(self: &Arc<Self>, address: &Arc<str>, mut stream: FrameStream) -> Connection {
        let socket = Arc::clone(stream.writer().socket());
        let number = self.next_socket.fetch_add(1, Ordering::Relaxed);
        lock(&self.sockets).insert(number, (Arc::clone(address), socket));
        Connection { stream, address: Arc::clone(address), number, watch: Arc::clone(self) }
    }

    /// A master can be asked on this connection.
    pub(crate) fn listen(&self, address: &str, mux: &Arc<Mux>) {
        let mut ears = lock(&self.ears);
        ears.retain(|ear| *ear.address != *address && ear.mux.strong_count() > 0);
        ears.push(Ear { address: address.into(), mux: Arc::downgrade(mux), asked: Arc::default() });
    }

    /// How many answers other masters have given to questions in doubt.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Asks every master but the leader of `term` whether it leads. Waits for no answer; it comes as a claim.
    pub(super) fn ask_around(self: &Arc<Self>, session: SessionId, term: u64, now: Duration) {
        {
            let mut asked_at = lock(&self.asked_at);
            if now.saturating_sub(*asked_at) < ASK_EVERY {
                return;
            }
            *asked_at = now;
        }
        let leader = self.believed().leader;
        let ears: Vec<_> = lock(&self.ears)
            .iter()
            .filter(|ear| ear.address != leader)
            .filter_map(|ear| Some((Arc::clone(&ear.address), ear.mux.upgrade()?, Arc::clone(&ear.asked))))
            .collect();
        for (address, mux, asked) in ears {
            if mux.is_closed() || asked.swap(true, Ordering::AcqRel) {
                continue;
            }
            let request = pb::ResumeSessionRequest { session: session.raw(), ..Default::default() };
            let watch = Arc::downgrade(self);
            self.door.start(&mux, &request, move |reply| {
                asked.store(false, Ordering::Release);
                let Some(watch) = watch.upgrade() else { return };
                watch.answered(term, &address, &reply);
            });
        }
    }

    fn answered(&self, term: u64, address: &str, reply: &Result<pb::ResumeSessionReply, CallError>) {
        match reply {
            Ok(_) | Err(CallError::Refused(_)) => self.claimed_under(term, address),
            Err(CallError::Transport(_)) => return,
            Err(_) => {}
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
    }
}
