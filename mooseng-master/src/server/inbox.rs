//! How other threads reach the loop: what is durable as of now, requests of the gRPC facade, snapshots that have come
//! or gone, what a check has found, the order to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use mio::{Token, Waker};
use mooseng_meta::Checked;
use mooseng_protocol::frame::{self, FLAG_ERROR, Header};
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::MasterId;
use prost::Message;

use super::snapshots::Arrived;

/// Facade requests that may wait for the loop.
const REQUESTS_MAX: usize = 1024;

/// Where a facade request's answer goes: the reply's body.
pub type FacadeReply = tokio::sync::oneshot::Sender<Result<Bytes, CallError>>;

type FacadeRequest = (u16, Bytes, FacadeReply);

/// What the loop finds when it is woken.
#[derive(Debug)]
pub struct Inbox {
    waker: Waker,
    persisted: AtomicU64,
    flushed: AtomicBool,
    stop: AtomicBool,
    requests: SyncSender<FacadeRequest>,
    taken: Mutex<Receiver<FacadeRequest>>,
    snapshots: Mutex<SnapshotNews>,
    checked: Mutex<Option<CheckOutcome>>,
}

/// What a check has found, or why it could not be made.
type CheckOutcome = Result<Checked, CallError>;

/// What the snapshots' threads have to say. Bounded by what is under way: one frame a connection, one sender a peer.
#[derive(Debug, Default)]
pub(super) struct SnapshotNews {
    /// Frames that are taken, or not.
    pub(super) answers: Vec<(Token, Header, Result<(), CallError>)>,
    /// To whom one was sent, and whether it arrived.
    pub(super) sent: Vec<(MasterId, bool)>,
    /// The last one that came.
    pub(super) arrived: Option<Arrived>,
}

impl Inbox {
    pub(super) fn new(waker: Waker) -> Self {
        let (requests, taken) = sync_channel(REQUESTS_MAX);
        Self {
            waker,
            persisted: AtomicU64::new(0),
            flushed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            requests,
            taken: Mutex::new(taken),
            snapshots: Mutex::default(),
            checked: Mutex::default(),
        }
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the loop cannot be woken");
        }
    }

    pub(super) fn persisted(&self, number: u64) {
        self.persisted.store(number, Ordering::Release);
        self.wake();
    }

    pub(super) fn flushed(&self) {
        self.flushed.store(true, Ordering::Release);
        self.wake();
    }

    /// Ends the loop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Hands a request to the loop; refused as unavailable where too many wait.
    pub fn request(&self, kind: u16, body: Bytes, reply: FacadeReply) -> Result<(), CallError> {
        let busy = |_| CallError::Unavailable { message: "too many gRPC requests wait".into() };
        self.requests.try_send((kind, body, reply)).map_err(busy)?;
        self.wake();
        Ok(())
    }

    fn snapshot_news(&self, tell: impl FnOnce(&mut SnapshotNews)) {
        tell(&mut self.snapshots.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake();
    }

    pub(super) fn answer(&self, token: Token, header: Header, done: Result<(), CallError>) {
        self.snapshot_news(|news| news.answers.push((token, header, done)));
    }

    pub(super) fn snapshot_sent(&self, to: MasterId, arrived: bool) {
        self.snapshot_news(|news| news.sent.push((to, arrived)));
    }

    pub(super) fn snapshot_arrived(&self, arrived: Arrived) {
        self.snapshot_news(|news| news.arrived = Some(arrived));
    }

    pub(super) fn take_snapshot_news(&self) -> SnapshotNews {
        std::mem::take(&mut self.snapshots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn checked(&self, found: CheckOutcome) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        self.wake();
    }

    pub(super) fn take_checked(&self) -> Option<CheckOutcome> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The number of the last durable batch, if there is a later one than at the last call.
    pub(super) fn take_persisted(&self) -> Option<u64> {
        Some(self.persisted.swap(0, Ordering::AcqRel)).filter(|number| *number != 0)
    }

    pub(super) fn take_flushed(&self) -> bool {
        self.flushed.swap(false, Ordering::AcqRel)
    }

    pub(super) fn take_request(&self) -> Option<FacadeRequest> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }
}

/// Turns the frame that would have gone over a connection into the facade's answer.
pub(super) fn answer_facade(reply: FacadeReply, bytes: &[u8]) {
    let broken = || CallError::Rejected { message: "the reply cannot be read".into() };
    let answer = match frame::decode(&mut BytesMut::from(bytes)) {
        Ok(Some(frame)) if frame.header.flags & FLAG_ERROR == 0 => Ok(frame.body),
        Ok(Some(frame)) => {
            Err(pb::ErrorReply::decode(frame.body).map_or_else(|_| broken(), CallError::from_reply))
        }
        _ => Err(broken()),
    };
    // The caller may have gone away.
    drop(reply.send(answer));
}
