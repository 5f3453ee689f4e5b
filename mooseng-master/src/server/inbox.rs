//! How other threads reach the loop: what is durable as of now, requests of the gRPC facade, snapshots that have come
//! or gone, what a check has found, the order to stop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use mio::{Token, Waker};
use mooseng_meta::Checked;
use mooseng_protocol::frame::{self, FLAG_ERROR, Header};
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{CellId, MasterId};
use prost::Message;

use super::snapshots::Arrived;
use crate::raft::log::Written;

/// Facade requests that may wait for the loop.
const REQUESTS_MAX: usize = 1024;

/// Where a facade request's answer goes: the reply's body.
pub type FacadeReply = tokio::sync::oneshot::Sender<Result<Bytes, CallError>>;

type FacadeRequest = (u16, Bytes, FacadeReply);

/// What the loop finds when it is woken.
#[derive(Debug)]
pub struct Inbox {
    waker: Waker,
    written: Mutex<Written>,
    flushed: Mutex<Vec<CellId>>,
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
    pub(super) sent: Vec<(CellId, MasterId, bool)>,
    /// The last one of each cell that came.
    pub(super) arrived: BTreeMap<CellId, Arrived>,
}

impl Inbox {
    pub(super) fn new(waker: Waker) -> Self {
        let (requests, taken) = sync_channel(REQUESTS_MAX);
        Self {
            waker,
            written: Mutex::default(),
            flushed: Mutex::default(),
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

    pub(super) fn written(&self, written: Written) {
        let Written { batches, holders } = written;
        let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        all.batches.extend(batches);
        all.holders = holders;
        drop(all);
        self.wake();
    }

    pub(super) fn flushed(&self, cell: CellId) {
        self.flushed.lock().unwrap_or_else(PoisonError::into_inner).push(cell);
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

    pub(super) fn snapshot_sent(&self, cell: CellId, to: MasterId, arrived: bool) {
        self.snapshot_news(|news| news.sent.push((cell, to, arrived)));
    }

    pub(super) fn snapshot_arrived(&self, arrived: Arrived) {
        self.snapshot_news(|news| {
            news.arrived.insert(arrived.cell, arrived);
        });
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

    /// What has become durable in the log since the last call.
    pub(super) fn take_written(&self) -> Written {
        std::mem::take(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The cells whose stores have what was handed to them since the last call.
    pub(super) fn take_flushed(&self) -> Vec<CellId> {
        std::mem::take(&mut self.flushed.lock().unwrap_or_else(PoisonError::into_inner))
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
