//! What runs in steps of its own: clients, and the links of chunkservers to masters. Written as straight async code and
//! driven by the world: a task is polled when something has arrived for it or its time has come, and never otherwise.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use mooseng_chunkserver::{BytesRead, Request};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::{CallError, TransportError};
use prost::Message as _;

use crate::entropy::Rng;

/// What is asked of a chunkserver.
#[derive(Clone, Debug)]
pub(crate) struct ChunkRequest {
    pub(crate) what: Request,
    /// Of a write.
    pub(crate) payload: Bytes,
}

impl ChunkRequest {
    /// One without a payload.
    pub(crate) fn new(what: Request) -> Self {
        Self { what, payload: Bytes::new() }
    }

    /// For people.
    pub(crate) fn brief(&self) -> String {
        match &self.what {
            Request::Write(it) => {
                let (chunk, version, offset, count) = (it.chunk, it.version, it.offset, self.payload.len());
                format!("write c{chunk} v{version} {count} bytes at {offset}, sync {}", it.sync)
            }
            Request::Sync(it) => format!("sync c{} v{}", it.chunk, it.version),
            Request::Truncate(it) => format!("truncate c{} v{} to {}", it.chunk, it.version, it.length),
            Request::Read(it) => format!("read c{} v{}", it.chunk, it.version),
        }
    }
}

/// What has come for a task.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The body of a master's reply.
    Master(Bytes),
    /// A chunkserver's reply; bytes only for a read.
    Server(Option<BytesRead>),
}

/// What a task wants done.
#[derive(Debug)]
pub(crate) enum Order {
    ToMaster {
        call: u64,
        master: u64,
        kind: u16,
        body: Vec<u8>,
    },
    ToServer {
        call: u64,
        address: String,
        request: ChunkRequest,
    },
    HangUp(u64),
    WakeAt(Duration),
    /// A line for people who look at one world in detail.
    Note(String),
}

#[derive(Debug)]
struct Mail {
    now: Duration,
    rng: Rng,
    /// Somebody reads the notes.
    detail: bool,
    next_call: u64,
    answers: BTreeMap<u64, Result<Answer, CallError>>,
    orders: Vec<Order>,
    /// What masters have pushed, and which.
    pushes: VecDeque<(u64, u16, Bytes)>,
    last_failure: String,
}

/// A task's way to the world. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Port(Rc<RefCell<Mail>>);

impl Port {
    pub(crate) fn new(rng: Rng, detail: bool) -> Self {
        Self(Rc::new(RefCell::new(Mail {
            now: Duration::ZERO,
            rng,
            detail,
            next_call: 1,
            answers: BTreeMap::new(),
            orders: Vec::new(),
            pushes: VecDeque::new(),
            last_failure: String::new(),
        })))
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.borrow().now
    }

    pub(crate) fn rng<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.0.borrow_mut().rng)
    }

    pub(crate) fn deliver(&self, call: u64, answer: Result<Answer, CallError>) {
        self.0.borrow_mut().answers.insert(call, answer);
    }

    pub(crate) fn push(&self, master: u64, kind: u16, body: Bytes) {
        self.0.borrow_mut().pushes.push_back((master, kind, body));
    }

    pub(crate) fn next_push(&self) -> Option<(u64, u16, Bytes)> {
        self.0.borrow_mut().pushes.pop_front()
    }

    pub(crate) fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut self.0.borrow_mut().orders)
    }

    fn order(&self, order: Order) {
        self.0.borrow_mut().orders.push(order);
    }

    /// Why the last call that had no result had none, for people.
    pub(crate) fn last_failure(&self) -> String {
        self.0.borrow().last_failure.clone()
    }

    fn new_call(&self) -> u64 {
        let mut mail = self.0.borrow_mut();
        mail.next_call += 1;
        mail.next_call
    }

    /// Says what a client does, for people who look at one world in detail.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        if self.0.borrow().detail {
            self.order(Order::Note(line()));
        }
    }

    /// Gives up the connection to a master.
    pub(crate) fn hang_up(&self, master: u64) {
        self.order(Order::HangUp(master));
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        self.order(Order::WakeAt(until));
        std::future::poll_fn(|_| if self.now() >= until { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    async fn answer(&self, call: u64, timeout: Duration) -> Result<Answer, CallError> {
        let until = self.now() + timeout;
        self.order(Order::WakeAt(until));
        std::future::poll_fn(|_| {
            let mut mail = self.0.borrow_mut();
            if let Some(answer) = mail.answers.remove(&call) {
                if let Err(error) = &answer {
                    mail.last_failure = format!("{:.3?} {error}", mail.now);
                }
                return Poll::Ready(answer);
            }
            if mail.now < until {
                return Poll::Pending;
            }
            mail.last_failure = format!("{:.3?} no answer", mail.now);
            let deadline_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            let peer = "peer".into();
            Poll::Ready(Err(CallError::Transport(TransportError::TimedOut { peer, deadline_ms })))
        })
        .await
    }

    /// Tells a master something, and waits for no answer.
    pub(crate) fn tell_master<R: Rpc>(&self, master: u64, request: &R) {
        let call = self.new_call();
        self.order(Order::ToMaster { call, master, kind: R::KIND, body: request.encode_to_vec() });
    }

    pub(crate) async fn ask_master<R: Rpc>(
        &self,
        master: u64,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Reply, CallError> {
        let call = self.new_call();
        self.order(Order::ToMaster { call, master, kind: R::KIND, body: request.encode_to_vec() });
        match self.answer(call, timeout).await? {
            Answer::Master(body) => R::Reply::decode(body)
                .map_err(|error| CallError::Rejected { message: format!("reply to {}: {error}", R::NAME) }),
            Answer::Server(_) => Err(CallError::Rejected { message: "a reply of the wrong kind".into() }),
        }
    }

    pub(crate) async fn ask_server(
        &self,
        address: &str,
        request: ChunkRequest,
        timeout: Duration,
    ) -> Result<Option<BytesRead>, CallError> {
        let call = self.new_call();
        self.order(Order::ToServer { call, address: address.to_owned(), request });
        match self.answer(call, timeout).await? {
            Answer::Server(piece) => Ok(piece),
            Answer::Master(_) => Err(CallError::Rejected { message: "a reply of the wrong kind".into() }),
        }
    }
}

/// A task.
pub(crate) struct Task {
    pub(crate) port: Port,
    body: Pin<Box<dyn Future<Output = ()>>>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Task {
    pub(crate) fn new(port: Port, body: impl Future<Output = ()> + 'static) -> Self {
        Self { port, body: Box::pin(body) }
    }

    /// Goes on as far as possible; `true` at the end.
    pub(crate) fn poll(&mut self, now: Duration) -> bool {
        self.port.0.borrow_mut().now = now;
        self.body.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}
