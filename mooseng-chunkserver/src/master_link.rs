//! The links to the masters: connections, threads and waiting. What is said on them is in `talk.rs`. Only the leader
//! orders. Which masters there are the leader says; the configuration only says where to look first.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Threads;
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::Mux;

use crate::epoch::Epoch;
use crate::orders::Orders;
use crate::talk::{Say, Talk, Teller};

/// Masters of a cluster, at most.
const MASTERS_MAX: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// A master of another cluster will not change its mind soon.
const FOREIGN_BACK_OFF: Duration = Duration::from_secs(15);

/// What every link works with.
#[derive(Debug)]
pub(crate) struct LinkContext {
    pub(crate) teller: Teller,
    pub(crate) orders: Orders,
    pub(crate) caller: Caller,
    pub(crate) heartbeat: Duration,
    /// Those of the configuration.
    pub(crate) configured: BTreeSet<String>,
    /// Those that the leader has told of last.
    pub(crate) told: Mutex<BTreeSet<String>>,
    pub(crate) epoch: Epoch,
}

impl LinkContext {
    fn wanted(&self) -> BTreeSet<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.configured.union(&told).cloned().collect()
    }
}

/// Keeps a link to every master until the end is near.
pub(crate) fn keep_links(context: &Arc<LinkContext>) {
    let threads = Threads::default();
    let mut running = BTreeSet::new();
    while !context.teller.events.stopping() {
        let wanted = context.wanted();
        running.retain(|master| wanted.contains(master));
        for master in wanted {
            if !running.insert(master.clone()) {
                continue;
            }
            let for_link = Arc::clone(context);
            let name = master.clone();
            if let Err(error) = threads.spawn("master-link", move || run(&for_link, &name)) {
                tracing::error!(%error, "no thread for a link to a master");
                running.remove(&master);
            }
        }
        context.teller.events.wait_for_stop(context.heartbeat);
    }
    threads.join();
}

/// Keeps the link to `master` until the end is near, or the master is none any more.
fn run(context: &Arc<LinkContext>, master: &str) {
    let mut back_off = BACK_OFF.0;
    let mut said = false;
    while !context.teller.events.stopping() && context.wanted().contains(master) {
        let reason = match connect(context, master) {
            Ok(mux) => {
                tracing::info!(master, "master reached");
                (back_off, said) = (BACK_OFF.0, false);
                let ended = talk(context, &mux);
                mux.close();
                ended
            }
            Err(error) => Err(error),
        };
        let Err(error) = reason else { continue };
        let foreign = matches!(error, CallError::Rejected { .. });
        if !std::mem::replace(&mut said, true) {
            if foreign {
                tracing::error!(master, %error, "master refuses this server: correct masters, cluster_id or key_file");
            } else {
                tracing::warn!(master, %error, "master not reached, trying on");
            }
        }
        context.teller.events.wait_for_stop(if foreign { FOREIGN_BACK_OFF } else { back_off });
        back_off = (back_off * 2).min(BACK_OFF.1);
    }
}

fn connect(context: &Arc<LinkContext>, master: &str) -> Result<Arc<Mux>, CallError> {
    let for_orders = Arc::clone(context);
    let on_push = move |kind: u16, body: Bytes| for_orders.orders.take(kind, &body);
    let own = &context.caller.hello;
    let caller = context.caller.saying(pb::Hello { epoch: context.epoch.highest(), ..own.clone() });
    let (mux, reply) = Mux::connect(master, &caller, CONNECT_TIMEOUT, on_push)?;
    if reply.cluster_id != own.cluster_id {
        let message = "the master belongs to another cluster".to_owned();
        return Err(CallError::Rejected { message });
    }
    context.epoch.hear(reply.epoch)?;
    Ok(mux)
}

/// Says what is to be said until the connection ends.
fn talk(context: &LinkContext, mux: &Mux) -> Result<(), CallError> {
    let (mut talk, teller) = (Talk::default(), &context.teller);
    while !teller.events.stopping() {
        match talk.next(teller) {
            Say::Register(request) => talk.registered(teller, mux.call(&request, &[], CALL_TIMEOUT))?,
            Say::Beat(request) => {
                let mut reply = mux.call(&request, &[], CALL_TIMEOUT)?;
                context.epoch.hear(reply.epoch)?;
                talk.beaten(teller, &reply);
                if reply.leader {
                    let masters = reply.masters.drain(..).take(MASTERS_MAX).collect();
                    *context.told.lock().unwrap_or_else(PoisonError::into_inner) = masters;
                }
            }
            Say::Report(request) => {
                let told = mux.call(&request, &[], CALL_TIMEOUT);
                talk.reported(told.is_ok());
                told?;
            }
            Say::Wait => {
                talk.wait(teller, context.heartbeat);
                if mux.is_closed() {
                    return Err(CallError::Unavailable {
                        message: "the master closed the connection".into(),
                    });
                }
                talk.woken();
            }
        }
    }
    Ok(())
}
