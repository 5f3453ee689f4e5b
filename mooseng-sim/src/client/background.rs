//! What a client process does beside its program: it keeps the session alive, tells what is open, serves recalls, gives
//! idle leases back and closed files too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mooseng_client::file::{Flush, GiveBack};
use mooseng_protocol::pb;
use mooseng_protocol::recall::{Recall, Recalled};
use mooseng_protocol::rpc::Rpc as _;
use mooseng_protocol::status::CallError;
use mooseng_types::FsError;
use prost::Message as _;

use super::process::Process;
use crate::plant::Plant;

const KEEP: Duration = Duration::from_millis(60);
const LOOK: Duration = Duration::from_millis(30);
const RESUME_TIMEOUT: Duration = Duration::from_millis(300);

/// Several futures as one, which ends with the first.
pub(super) struct Together(Vec<Pin<Box<dyn Future<Output = ()>>>>);

impl Together {
    pub(super) fn new(parts: Vec<Pin<Box<dyn Future<Output = ()>>>>) -> Self {
        Self(parts)
    }
}

impl Future for Together {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        for part in &mut self.0 {
            if part.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl Process {
    /// Tells whoever leads that the session lives, and what is open, for ever.
    pub(super) async fn keep_session(self) {
        loop {
            self.port.sleep(KEEP).await;
            let session = self.session();
            if session == 0 {
                continue;
            }
            let believed = self.memory().belief.now();
            let list = {
                let mut memory = self.memory();
                let due = memory.told != Some((believed.term, session)) || !memory.opens.list_holds();
                due.then(|| memory.opens.list())
            };
            let request = pb::ResumeSessionRequest {
                session,
                open_inodes: list
                    .iter()
                    .flat_map(|list| list.inodes.iter().map(|inode| inode.raw()))
                    .collect(),
                list_follows: list.is_some(),
                as_of: list.as_ref().map_or(0, |list| match self.plant {
                    Some(Plant::ListTooMuch) => u64::MAX,
                    _ => list.as_of,
                }),
            };
            let master =
                believed.leader.strip_prefix('m').and_then(|digits| digits.parse().ok()).unwrap_or(1);
            self.port.note(|| format!("to master {master}: {request:?}"));
            match self.port.ask_master(master, &request, RESUME_TIMEOUT).await {
                Ok(_) => {
                    let mut memory = self.memory();
                    if memory.belief.term() == believed.term {
                        memory.belief.claimed(&believed.leader);
                    }
                    let term = memory.belief.term();
                    if list.is_some() {
                        memory.told = Some((term, session));
                    }
                }
                Err(CallError::Refused(FsError::SessionExpired)) => {
                    // Without one the next request tries again.
                    drop(self.renew(session).await);
                }
                Err(CallError::NotLeader { leader: Some(address) }) => {
                    self.memory().belief.hinted(believed.term, &address, self.port.now());
                }
                Err(_) => self.memory().told = None,
            }
        }
    }

    /// Takes in what is recalled, for ever, and acknowledges it.
    pub(super) async fn hear_recalls(self) {
        loop {
            self.port.sleep(LOOK).await;
            while let Some((master, kind, body)) = self.port.next_push() {
                if kind == pb::Recall::KIND
                    && let Ok(recall) = pb::Recall::decode(body)
                    && let Ok(recall) = Recall::try_from(recall)
                    && self.memory().recalls.take_in(recall)
                {
                    let Recall { session, number, .. } = recall;
                    let request = pb::AcknowledgeRecallRequest { session: session.raw(), number };
                    self.port.tell_master(master, &request);
                }
            }
        }
    }

    /// Gives back what is recalled, for ever. Apart from the rest: another client waits for it, and must not wait for
    /// what this one waits for.
    pub(super) async fn serve_recalls(self) {
        loop {
            self.port.sleep(LOOK).await;
            while let Some(what) = self.next_recall() {
                let served = self.recalled(what).await;
                let mut memory = self.memory();
                if served {
                    memory.recalls.served(what);
                } else {
                    memory.recalls.put_off(what, self.port.now());
                }
            }
        }
    }

    fn next_recall(&self) -> Option<Recalled> {
        self.memory().recalls.next(self.port.now())
    }

    /// Gives back now and then what is idle, and closes what no program has open.
    pub(super) async fn tidy(self) {
        let mut until_idle = self.port.rng(|rng| rng.ms(300, 2500));
        loop {
            self.port.sleep(LOOK).await;
            // An error is told to the programs that have written.
            drop(self.tell_closed().await);
            until_idle = until_idle.saturating_sub(LOOK);
            if until_idle.is_zero() {
                until_idle = self.port.rng(|rng| rng.ms(300, 2500));
                self.give_back_some().await;
            }
        }
    }

    /// `false` if it cannot be given back yet.
    async fn recalled(&self, what: Recalled) -> bool {
        let Recalled::Chunk { inode, index } = what;
        let now = self.port.now();
        if !self.known().contains(&inode) {
            drop(self.release_leases(inode, &[index]).await);
            return true;
        }
        let give_back = self.with(inode, |file| GiveBack::recalled(file, index, now));
        let Some(give_back) = give_back else { return false };
        drop(self.run(inode, give_back).await);
        true
    }

    async fn give_back_some(&self) {
        let known = self.known();
        let Some(inode) = self.port.rng(|rng| rng.pick(&known).copied()) else { return };
        let now = self.port.now();
        let flush = self.with(inode, |file| Flush::new(file, false, now));
        if self.run(inode, flush).await.is_err() {
            return;
        }
        let give_back = self.with(inode, |file| GiveBack::new(file, None, now));
        drop(self.run(inode, give_back).await);
    }
}
