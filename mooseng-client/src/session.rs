//! Keeps the session alive, hears what the masters push, and gives back leases that nobody uses.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::Mux;
use mooseng_types::{ChunkIndex, FsError, InodeId, SessionId};
use prost::Message as _;

use crate::client::Client;
use crate::inode::Inode;
use crate::master_client::MasterClient;

/// Events that wait for the thread. A recall beyond them is pushed again by the masters.
const EVENTS_MAX: usize = 4096;
/// Closed files are told to the masters this often, or when many have gathered.
const TELL_CLOSED_EVERY: Duration = Duration::from_millis(200);
/// How often idle leases are looked for and lost connections are made again.
const TICK: Duration = Duration::from_secs(1);
/// A lease that is not used for this long is given back, and what is unsent for this long is sent.
const IDLE: Duration = Duration::from_secs(5);
/// How soon a control connection that was lost, or not made, is tried again.
const RECONNECT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug)]
enum Event {
    Recall(InodeId, ChunkIndex),
    LeaderChanged(String),
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

    fn push(&self, event: Event) {
        // A full queue: see `EVENTS_MAX`; all else is looked at every tick anyway.
        drop(self.0.try_send(event));
    }
}

/// The connections on which the masters may push; to all of them, because the next leader is one of them.
struct Control {
    address: String,
    mux: Option<Arc<Mux>>,
    /// One that was not reached is left alone until then: a machine that is off costs the time-out.
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
    let controls = masters.masters().iter().map(|address| Control::new(address)).collect();
    let mut keeper = Keeper { masters, events, controls, told: None, last_alive: Duration::ZERO };
    let mut last_tick = Duration::ZERO;
    loop {
        let event = receiver.0.recv_timeout(TELL_CLOSED_EVERY);
        let Some(client) = client.upgrade() else { return };
        match event {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Event::Recall(inode, index)) => recall(&client, inode, index),
            Ok(Event::LeaderChanged(address)) => masters.set_leader(&address),
            Ok(Event::ConnectionEnded) | Err(RecvTimeoutError::Timeout) => {}
        }
        let now = client.clock.monotonic();
        keeper.keep_alive(&client, now);
        client.tell_closed();
        if now.saturating_sub(last_tick) >= TICK {
            last_tick = now;
            give_back_idle(&client, now);
        }
    }
}

impl Keeper<'_> {
    fn keep_alive(&mut self, client: &Client, now: Duration) {
        for control in &mut self.controls {
            control.keep_connected(self.masters, self.events, now);
        }
        let session = self.masters.session();
        let (leader, term) = self.masters.leader();
        let list = self.told != Some((term, session.id));
        if !list && now.saturating_sub(self.last_alive) < session.timeout / 3 {
            return;
        }
        if !self.controls.iter().any(|control| *control.address == *leader) {
            self.controls.push(Control::new(&leader));
        }
        let request = pb::ResumeSessionRequest {
            session: session.id.raw(),
            open_inodes: if list { client.open_inodes() } else { Vec::new() },
            list_follows: list,
        };
        // Whoever is believed to lead is asked first; if it is gone, another one knows who does.
        self.controls.sort_by_key(|control| *control.address != *leader);
        for control in &mut self.controls {
            control.keep_connected(self.masters, self.events, now);
            let Some(mux) = &control.mux else { continue };
            match mux.call(&request, &[], CALL_TIMEOUT) {
                Ok(_) => {
                    self.masters.set_leader(&control.address);
                    self.told = Some((self.masters.leader().1, session.id));
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
                Err(CallError::NotLeader { leader: Some(address) }) => {
                    self.masters.set_leader(&address);
                    return;
                }
                Err(error) => tracing::debug!(%error, "keep-alive"),
            }
        }
    }
}

impl Control {
    fn new(address: &str) -> Self {
        Self { address: address.to_owned(), mux: None, retry_at: Duration::ZERO }
    }

    fn keep_connected(&mut self, masters: &Arc<MasterClient>, events: &Events, now: Duration) {
        let lost = self.mux.as_ref().is_none_or(|mux| mux.is_closed());
        if lost && now >= self.retry_at {
            self.mux = connect(&self.address, masters, events);
            self.retry_at = now + RECONNECT;
        }
    }
}

fn connect(address: &str, masters: &Arc<MasterClient>, events: &Events) -> Option<Arc<Mux>> {
    let (events, masters_of_push) = (events.clone(), Arc::clone(masters));
    let on_push = move |kind, body: Bytes| match kind {
        0 => events.push(Event::ConnectionEnded),
        pb::RecallLease::KIND => {
            if let Ok(push) = pb::RecallLease::decode(body) {
                let index = ChunkIndex::from_raw(push.index);
                events.push(Event::Recall(InodeId::from_raw(push.inode), index));
            }
        }
        pb::LeaderChanged::KIND => {
            if let Ok(push) = pb::LeaderChanged::decode(body) {
                // At once, for those who wait for the old leader; and the thread tells the new one what is open.
                masters_of_push.set_leader(&push.leader_address);
                events.push(Event::LeaderChanged(push.leader_address));
            }
        }
        _ => {}
    };
    match Mux::connect(address, &masters.control_hello(), CONNECT_TIMEOUT, on_push) {
        Ok((mux, _)) => Some(mux),
        Err(error) => {
            tracing::debug!(address, %error, "no control connection");
            None
        }
    }
}

fn recall(client: &Arc<Client>, inode: InodeId, index: ChunkIndex) {
    let queued = client.recallers.try_submit({
        let client = Arc::clone(client);
        move || match client.known(inode) {
            Some(inode) => give_back(&client, &inode, Some(index)),
            // Nothing is held that the masters believe is held.
            None => drop(client.masters.release_leases(inode, &[index])),
        }
    });
    if !queued {
        tracing::warn!(%inode, "too many leases are recalled at once; the masters will ask again");
    }
}

fn give_back(client: &Client, inode: &Arc<Inode>, only: Option<ChunkIndex>) {
    if let Err(error) = client.release_leases(inode, only) {
        // The error is kept for the programs that have the file open.
        tracing::warn!(inode = %inode.id, %error, "a write lease was given back with an error");
    }
}

/// Sends what has been unsent for a while, gives back leases that nobody has used, and closes files at the masters that
/// were kept open for their leases.
fn give_back_idle(client: &Arc<Client>, now: Duration) {
    for inode in client.known_inodes() {
        let (idle, holds, closed) = {
            let state = inode.state();
            let holds = !state.is_clean() || !state.leases.is_empty();
            (now.saturating_sub(state.last_used) >= IDLE, holds, state.handles == 0)
        };
        if !idle || !(holds || closed) {
            continue;
        }
        let for_job = Arc::clone(client);
        let queued = client.tidiers.try_submit(move || {
            let client = for_job;
            if holds {
                if let Err(error) = client.flush_and_commit(&inode, false) {
                    tracing::warn!(inode = %inode.id, %error, "written data could not be saved");
                }
                give_back(&client, &inode, None);
            }
            client.forget_if_unused(&inode);
        });
        if !queued {
            // The rest at the next tick.
            return;
        }
    }
}
