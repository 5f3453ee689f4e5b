//! Keeps the session alive, hears who leads, and gives back leases that nobody uses.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::Mux;
use mooseng_types::{FsError, SessionId};
use prost::Message as _;

use super::door::TimedDoor;
use super::inode::Inode;
use super::masters::MasterClient;
use super::recalls::{RecallEar, RecallQueue};
use crate::Result;
use crate::client::Client;

/// Events that wait for the thread.
const EVENTS_MAX: usize = 4096;
/// Closed files are told to the masters this often, or when many have gathered.
const TELL_CLOSED_EVERY: Duration = Duration::from_millis(200);
/// How often idle leases are looked for and lost connections are made again.
const TICK: Duration = Duration::from_secs(1);
/// A lease that is not used for this long is given back, and what is unsent for this long is sent.
const IDLE: Duration = Duration::from_secs(5);
/// How soon a control connection that was lost, or not made, is tried again: until then a master that has just been
/// started again can announce nothing to this client, and cannot be asked.
const RECONNECT: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the leader has to answer. While this thread waits for a frozen one it reconnects to nobody else.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a call that is not answered looks whether the leader has changed.
const SLICE: Duration = Duration::from_millis(50);

#[derive(Debug)]
enum Event {
    LeaderChanged,
    /// To this address; `None` if it was not reached.
    Connected(String, Option<Arc<Mux>>),
    ConnectionEnded,
    Stop,
}

/// Where events are told.
#[derive(Debug, Clone)]
pub(crate) struct Events(SyncSender<Event>);

/// Where the session's thread gets them.
pub(crate) struct EventReceiver(Receiver<Event>);

impl Events {
    pub(crate) fn new() -> (Self, EventReceiver) {
        let (sender, receiver) = sync_channel(EVENTS_MAX);
        (Self(sender), EventReceiver(receiver))
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        // An error means that it has ended already.
        drop(self.0.send(Event::Stop));
    }

    /// For what nobody finds out later. Fails only if the thread has ended.
    fn must_push(&self, event: Event) {
        drop(self.0.send(event));
    }

    fn push(&self, event: Event) {
        // With a full queue: what these tell is looked at every tick anyway.
        drop(self.0.try_send(event));
    }
}

/// The connections on which the masters may push; to all of them, because the next leader is one of them.
struct Control {
    address: String,
    mux: Option<Arc<Mux>>,
    /// Another thread is connecting: a machine that is off costs it the time-out, and nobody else.
    connecting: bool,
    /// One that was not reached is left alone until then.
    retry_at: Duration,
}

struct Keeper<'a> {
    masters: &'a Arc<MasterClient>,
    events: &'a Events,
    controls: Vec<Control>,
    /// Under which leader (by term) and session the open files were told.
    told: Option<(u64, SessionId)>,
    last_alive: Duration,
}

/// The thread's body; ends when it is told to, or when the client is gone.
pub(crate) fn run(
    client: &Weak<Client>,
    masters: &Arc<MasterClient>,
    events: &Events,
    receiver: &EventReceiver,
) {
    let mut keeper = Keeper { masters, events, controls: Vec::new(), told: None, last_alive: Duration::ZERO };
    let mut last_tick = Duration::ZERO;
    loop {
        let event = receiver.0.recv_timeout(TELL_CLOSED_EVERY);
        let Some(client) = client.upgrade() else { return };
        match event {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Event::Connected(address, mux)) => keeper.connected(&address, mux),
            Ok(Event::LeaderChanged | Event::ConnectionEnded) | Err(RecvTimeoutError::Timeout) => {}
        }
        let now = client.clock.monotonic();
        keeper.keep_alive(&client, now);
        client.tell_closed();
        commit_mapped(&client, now);
        if now.saturating_sub(last_tick) >= TICK {
            last_tick = now;
            give_back_idle(&client, now);
        }
    }
}

impl Keeper<'_> {
    fn connected(&mut self, address: &str, mux: Option<Arc<Mux>>) {
        let Some(control) = self.controls.iter_mut().find(|control| control.address == address) else {
            return;
        };
        control.connecting = false;
        if mux.is_some() {
            control.mux = mux;
        }
    }

    fn keep_alive(&mut self, client: &Client, now: Duration) {
        let session = self.masters.session();
        let (leader, term) = self.masters.leader();
        let masters = self.masters.watch().masters();
        self.controls.retain(|control| {
            *control.address == *leader || masters.iter().any(|master| **master == *control.address)
        });
        for master in masters.iter().chain([&leader]) {
            if !self.controls.iter().any(|control| *control.address == **master) {
                self.controls.push(Control::new(master));
            }
        }
        for control in &mut self.controls {
            control.keep_connected(client, self.masters, self.events, now);
        }
        let list = self.told != Some((term, session.id)) || !client.opens().list_holds();
        if !list && now.saturating_sub(self.last_alive) < session.timeout / 3 {
            return;
        }
        let mut request = pb::ResumeSessionRequest { session: session.id.raw(), ..Default::default() };
        if list {
            let open = client.list_open();
            request.open_inodes = open.inodes.iter().map(|inode| inode.raw()).collect();
            (request.list_follows, request.as_of) = (true, open.as_of);
        }
        // Whoever is believed to lead is asked first; if it is gone, another one may lead.
        self.controls.sort_by_key(|control| *control.address != *leader);
        for control in &self.controls {
            let Some(mux) = control.mux.as_ref().filter(|mux| !mux.is_closed()) else { continue };
            let leads = *control.address == *leader;
            match call(self.masters.door(), mux, &request, || self.masters.watch().term() == term) {
                Ok(reply) => {
                    self.masters.watch().told_masters(&reply.masters);
                    self.masters.watch().claimed_under(term, &control.address);
                    let (leader, term) = self.masters.leader();
                    // If the leader has changed meanwhile, that one is told next.
                    self.told = (*leader == *control.address).then_some((term, session.id));
                    self.last_alive = now;
                    return;
                }
                Err(CallError::Refused(FsError::SessionExpired)) => {
                    // The new session has nothing open yet: the next round tells it.
                    if let Err(error) = self.masters.renew(session.id) {
                        tracing::warn!(%error, "a new session could not be opened");
                    }
                    return;
                }
                // What another than the leader says of the leader may be old.
                Err(CallError::NotLeader { leader: Some(address) }) if leads => {
                    self.masters.watch().hinted(term, &address, now);
                    return;
                }
                // It leads, and cannot serve yet.
                Err(CallError::Unavailable { .. }) => return,
                Err(error) => tracing::debug!(%error, "keep-alive"),
            }
            if self.masters.watch().term() != term {
                return;
            }
        }
    }
}

/// Asks, and waits for the answer as long as `keep_waiting` says so.
fn call(
    door: &Arc<TimedDoor>,
    mux: &Arc<Mux>,
    request: &pb::ResumeSessionRequest,
    keep_waiting: impl Fn() -> bool,
) -> std::result::Result<pb::ResumeSessionReply, CallError> {
    let (sender, receiver) = sync_channel(1);
    door.start(mux, request, move |reply| {
        // Nobody waits any more.
        drop(sender.try_send(reply));
    });
    for _ in 0..CALL_TIMEOUT.as_millis() / SLICE.as_millis() {
        match receiver.recv_timeout(SLICE) {
            Ok(reply) => return reply,
            Err(RecvTimeoutError::Timeout) if keep_waiting() => {}
            Err(_) => break,
        }
    }
    let deadline_ms = u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    Err(TransportError::TimedOut { peer: mux.peer().to_owned(), deadline_ms }.into())
}

impl Control {
    fn new(address: &str) -> Self {
        Self { address: address.to_owned(), mux: None, connecting: false, retry_at: Duration::ZERO }
    }

    fn keep_connected(
        &mut self,
        client: &Client,
        masters: &Arc<MasterClient>,
        events: &Events,
        now: Duration,
    ) {
        let lost = self.mux.as_ref().is_none_or(|mux| mux.is_closed());
        if !lost || self.connecting || now < self.retry_at {
            return;
        }
        let (address, masters, events) = (self.address.clone(), Arc::clone(masters), events.clone());
        let recalls = Arc::clone(client.recallers.queue());
        self.connecting = client.connectors.try_submit(move || {
            let mux = connect(&address, &masters, &events, recalls);
            events.must_push(Event::Connected(address, mux));
        });
        self.retry_at = now + RECONNECT;
    }
}

fn connect(
    address: &str,
    masters: &Arc<MasterClient>,
    events: &Events,
    recalls: Arc<RecallQueue>,
) -> Option<Arc<Mux>> {
    let (events, watch) = (events.clone(), Arc::clone(masters.watch()));
    let back = Arc::new(OnceLock::new());
    let mut ear = RecallEar::new(recalls, Arc::clone(masters.door()), Arc::clone(&back));
    let on_push = move |kind, body: Bytes| match kind {
        0 => events.push(Event::ConnectionEnded),
        pb::Recall::KIND => ear.heard(body),
        pb::LeaderChanged::KIND => {
            if let Ok(push) = pb::LeaderChanged::decode(body) {
                // At once, for those who wait for the old leader; and the thread tells the new one what is open.
                watch.claimed(&push.leader_address);
                events.push(Event::LeaderChanged);
            }
        }
        _ => {}
    };
    let caller = masters.control_caller();
    let connect = || Mux::connect(address, &caller, CONNECT_TIMEOUT, on_push);
    match masters.door().pass::<pb::Hello, _>(connect) {
        Ok((_, reply)) if !masters.watch().is_current(reply.epoch) => {
            tracing::debug!(address, "a master of a group that was made anew without it");
            None
        }
        Ok((mux, _)) => {
            back.get_or_init(|| Arc::downgrade(&mux));
            masters.watch().listen(address, &mux);
            Some(mux)
        }
        Err(error) => {
            tracing::debug!(address, %error, "no control connection");
            None
        }
    }
}

fn given_back(inode: &Inode, outcome: Result<()>) {
    if let Err(error) = outcome {
        // The error is kept for the programs that have the file open.
        tracing::warn!(inode = %inode.id, %error, "a write lease was given back with an error");
    }
}

/// Commits what came through mappings a moment ago.
fn commit_mapped(client: &Arc<Client>, now: Duration) {
    for inode in client.take_mapped(now) {
        let for_job = Arc::clone(client);
        // With a full queue the next look for idle files finds it.
        client.tidiers.try_submit(move || {
            if let Err(error) = for_job.flush_and_commit(&inode, false) {
                tracing::warn!(inode = %inode.id, %error, "written data could not be saved");
            }
        });
    }
}

/// Sends what has been unsent for a while, and gives back leases that nobody has used.
fn give_back_idle(client: &Arc<Client>, now: Duration) {
    for inode in client.known_inodes() {
        let (idle, holds) = {
            let core = inode.enter(client);
            (now.saturating_sub(core.last_used) >= IDLE, core.file.holds_anything())
        };
        if !idle || !holds {
            continue;
        }
        let for_job = Arc::clone(client);
        let queued = client.tidiers.try_submit(move || {
            let client = for_job;
            if let Err(error) = client.flush_and_commit(&inode, false) {
                tracing::warn!(inode = %inode.id, %error, "written data could not be saved");
            }
            given_back(&inode, client.give_back(&inode));
        });
        if !queued {
            // The rest at the next tick.
            return;
        }
    }
}
