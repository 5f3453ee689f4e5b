//! Snapshots on their way, out and in: threads of their own, so that no heartbeat ever waits behind one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use mio::Token;
use mooseng_env::{Clock, Threads};
use mooseng_meta::{MetaStore, StoreView, applied_index_of};
use mooseng_protocol::frame::Header;
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::{CellId, Levels, MasterId};

use super::Inbox;
use super::outgoing::{Outgoing, Wanted};
use crate::cache_enhanced::RowCache;
use crate::core::MasterCore;
use crate::raft::Message;
use crate::snapshot::{Receiving, SnapshotError, SnapshotFrame};
use crate::store::{IncomingStore, StorePlace};
use crate::wire;

/// Frames that wait for the receiving thread. Each is answered before the next one comes, so one a sender is enough.
const QUEUE_MAX: usize = 16;
/// Snapshots that are received at the same time. Each master sends one at a time.
const RECEIVING_MAX: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of rows sent in a second at most: a snapshot is not to be in the way of the writes that go on meanwhile.
const BYTES_PER_SECOND: f64 = 128e6;

/// A snapshot whose rows are all there, in a store of its own.
pub(crate) struct Arrived {
    pub(crate) cell: CellId,
    pub(crate) message: Message,
    pub(crate) store: Arc<dyn MetaStore>,
    pub(crate) dir: PathBuf,
}

impl std::fmt::Debug for Arrived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrived").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A frame of a snapshot, or the end of the connection that it came over.
enum News {
    Frame(Token, Header, Bytes),
    Closed(Token),
}

/// The way to the threads.
pub(super) struct Snapshots {
    threads: Arc<Threads>,
    inbox: Arc<Inbox>,
    clock: Arc<dyn Clock>,
    caller: Caller,
    pieces: SyncSender<News>,
    outgoing: Outgoing,
}

impl Snapshots {
    /// Starts the receiving thread.
    pub(super) fn start(
        threads: &Arc<Threads>,
        inbox: &Arc<Inbox>,
        clock: &Arc<dyn Clock>,
        caller: Caller,
        incoming: Incoming,
    ) -> io::Result<Self> {
        let (pieces, taken) = sync_channel(QUEUE_MAX);
        let answers = Arc::clone(inbox);
        threads.spawn("snapshot-receiver", move || incoming.receive(&taken, &answers))?;
        let (threads, inbox, clock) = (Arc::clone(threads), Arc::clone(inbox), Arc::clone(clock));
        Ok(Self { threads, inbox, clock, caller, pieces, outgoing: Outgoing::default() })
    }

    /// Whether frames of this kind belong here.
    pub(super) fn takes(kind: u16) -> bool {
        [pb::SnapshotBegin::KIND, pb::SnapshotRows::KIND, pb::SnapshotEnd::KIND].contains(&kind)
    }

    /// Hands a frame to the receiving thread, which answers it by way of the inbox.
    pub(super) fn take(&self, token: Token, header: Header, body: Bytes) -> Result<(), CallError> {
        let busy = |_| CallError::Unavailable { message: "too many snapshots at once".into() };
        self.pieces.try_send(News::Frame(token, header, body)).map_err(busy)
    }

    /// The connection has ended, and with it what it was about to bring.
    pub(super) fn closed(&self, token: Token) {
        // With a full queue, what the connection has begun gives way to what is begun later.
        drop(self.pieces.try_send(News::Closed(token)));
    }

    /// A group wants a snapshot sent to another master.
    pub(super) fn want(&mut self, core: &mut MasterCore, to: MasterId, cell: CellId, message: Message) {
        let first = self.outgoing.want(to, cell, message);
        self.send_first(core, to, first);
    }

    /// The one on its way to this master has arrived, or will not: the next one follows.
    pub(super) fn gone(&mut self, core: &mut MasterCore, to: MasterId) {
        let next = self.outgoing.next(to);
        self.send_first(core, to, next);
    }

    /// Sends this one, or where it cannot be sent, the first one behind it that can.
    fn send_first(&mut self, core: &mut MasterCore, to: MasterId, mut next: Option<Wanted>) {
        while let Some((cell, message)) = next {
            if self.try_send(core, to, cell, message) {
                return;
            }
            core.snapshot_sent(cell, to, false);
            next = self.outgoing.next(to);
        }
    }

    /// Returns whether it is on its way.
    fn try_send(&self, core: &MasterCore, to: MasterId, cell: CellId, message: Message) -> bool {
        let Some(group) = core.groups().get(cell) else { return false };
        // While it waited, another master may have come to lead, and nobody would take it from this one.
        let leads = group.leads() && group.node().term() == message.term;
        let view = group.state().store().view();
        // The store may have gone on since the core chose the entry.
        if !leads || applied_index_of(&*view) != message.snapshot_index() {
            return false;
        }
        let Some(address) = core.links().remove(&to) else { return false };
        self.send(cell, to, address, view, message)
    }

    /// Sends all rows of `view`, a cell's, to the master at `address`. Returns whether a thread has begun to: it says by the
    /// inbox when they have arrived, or that they will not.
    fn send(
        &self,
        cell: CellId,
        to: MasterId,
        address: String,
        view: Box<dyn StoreView>,
        message: Message,
    ) -> bool {
        let (inbox, clock, caller) = (Arc::clone(&self.inbox), Arc::clone(&self.clock), self.caller.clone());
        let started = self.threads.spawn("snapshot-sender", move || {
            let index = message.snapshot_index();
            tracing::info!(%to, %cell, index, "sending a snapshot");
            let begun = clock.monotonic();
            let sent = FrameStream::connect(&address, &caller, CONNECT_TIMEOUT)
                .map_err(|source| SnapshotError::Call { rows: 0, source })
                .and_then(|(mut stream, _)| {
                    wire::snapshot::send(&mut stream, cell, &*view, message, &|bytes| {
                        pace(&*clock, bytes);
                        !inbox.stopping()
                    })
                });
            match &sent {
                Ok(sent) => {
                    let ms = clock.monotonic().saturating_sub(begun).as_millis() as u64;
                    tracing::info!(%to, %cell, index, rows = sent.rows, bytes = sent.bytes, ms, "a snapshot has arrived");
                }
                Err(error) => tracing::warn!(%to, %cell, index, %error, "a snapshot was not sent; it is tried again"),
            }
            inbox.snapshot_sent(cell, to, sent.is_ok());
        });
        started.inspect_err(|error| tracing::error!(%error, "no thread for a snapshot")).is_ok()
    }
}

fn pace(clock: &dyn Clock, bytes: usize) {
    clock.sleep(Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND));
}

/// Where received rows go.
pub(super) struct Incoming {
    pub(super) place: StorePlace,
    pub(super) cache: RowCache,
    pub(super) levels: Levels,
}

/// What one connection is about to bring.
struct UnderWay {
    token: Token,
    cell: CellId,
    receiving: Receiving<IncomingStore>,
    dir: PathBuf,
}

impl Incoming {
    fn receive(&self, news: &Receiver<News>, inbox: &Inbox) {
        let mut under_way = Vec::new();
        while let Ok(news) = news.recv() {
            match news {
                News::Closed(token) => drop(take(&mut under_way, token)),
                News::Frame(token, header, body) => {
                    let done = self.frame(&mut under_way, token, header.kind, body, inbox);
                    inbox.answer(token, header, done);
                }
            }
        }
    }

    /// Takes a frame in. The one that has brought something last is the last of those under way.
    fn frame(
        &self,
        under_way: &mut Vec<UnderWay>,
        token: Token,
        kind: u16,
        body: Bytes,
        inbox: &Inbox,
    ) -> Result<(), CallError> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "a snapshot is not received");
            CallError::Unavailable { message: error.to_string() }
        };
        let before = take(under_way, token);
        let none = || CallError::Rejected { message: "no snapshot was begun on this connection".into() };
        match wire::snapshot::read(kind, body)? {
            SnapshotFrame::Begin(cell, begin) => {
                drop(before);
                if under_way.len() == RECEIVING_MAX {
                    under_way.remove(0);
                }
                let dir = self.place.of(cell).fresh().map_err(|error| failed(&error))?;
                let sink = IncomingStore::begin(&dir).map_err(|error| failed(&error))?;
                let receiving = Receiving::begin(begin, sink, self.levels).map_err(|error| failed(&error))?;
                under_way.push(UnderWay { token, cell, receiving, dir });
            }
            SnapshotFrame::Rows(rows) => {
                let mut it = before.ok_or_else(none)?;
                it.receiving.rows(rows).map_err(|error| failed(&error))?;
                under_way.push(it);
            }
            SnapshotFrame::End(end) => {
                let it = before.ok_or_else(none)?;
                let received = it.receiving.end(end).map_err(|error| failed(&error))?;
                let store = Arc::new(self.cache.before(received.store));
                let (cell, message) = (it.cell, received.message);
                inbox.snapshot_arrived(Arrived { cell, message, store, dir: it.dir });
            }
        }
        Ok(())
    }
}

/// What this connection is about to bring.
fn take(under_way: &mut Vec<UnderWay>, token: Token) -> Option<UnderWay> {
    let at = under_way.iter().position(|it| it.token == token)?;
    Some(under_way.remove(at))
}

/// The store in `dir` takes the place of the one in use, which is closed and goes.
pub(super) fn put_in_place(place: &StorePlace, dir: &Path) -> io::Result<()> {
    let replaced = place.switch(dir)?;
    // What cannot be removed now is at the next start.
    if replaced != dir
        && let Err(error) = std::fs::remove_dir_all(&replaced)
    {
        tracing::warn!(%error, dir = %replaced.display(), "the store that a snapshot has replaced is still there");
    }
    Ok(())
}
