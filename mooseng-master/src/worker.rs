//! What the leader does without being asked, one [`Worker`] for each kind, all under one [`Supervisor`].
//!
//! A worker finds what is to be done again from the state, so a new leader goes on where the old one stopped. It proposes
//! commands and gives orders to chunkservers; what it has proposed must be applied before it finds more of the same.

mod delete_dead_chunks;
mod end_maintenance;
mod expire_sessions;
mod found_state;
mod heal;
mod index_chunks;
mod reap_orphans;
mod supervisor;
#[cfg(test)]
mod tests;

use std::time::Duration;

use mooseng_meta::{Command, MetaState, Response};
use mooseng_types::{ChunkId, ChunkVersion, Part, ServerId, TimeNs};

pub(crate) use self::supervisor::{Supervisor, WorkerId, WorkerStatus};

use crate::callers::Callers;
use crate::group::Group;
use crate::registry::Registry;
use crate::repair::Ledger;
use crate::sessions::Sessions;

/// An order that has no effect after this time is given again: the server may have been too busy for it.
const REPEAT_ORDERS: Duration = Duration::from_secs(10);

/// Background work of one kind.
pub(crate) trait Worker: std::fmt::Debug {
    /// What it does, in a word or two, for `cluster status`.
    fn name(&self) -> &'static str;

    /// Whether there must be a state before it works.
    fn needs_state(&self) -> bool {
        true
    }

    /// Does what is to be done now, a bounded part of it.
    fn work(&mut self, round: &mut Round<'_>);

    /// This master has begun to lead: what an earlier time as leader has left does not count.
    fn begin(&mut self) {}

    /// A chunkserver could not carry out an order about this chunk.
    fn failed(&mut self, now: Duration, chunk: ChunkId) {
        let _ = (now, chunk);
    }
}

/// What workers go by, beside the group, and what they keep for others to see.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) callers: &'a Callers,
    pub(crate) registry: &'a mut Registry,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) ledger: &'a mut Ledger,
}

/// What a worker sees and may do in one round.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    pub(crate) now: Duration,
    pub(crate) wall: TimeNs,
    pub(crate) group: &'a Group,
    pub(crate) callers: &'a Callers,
    pub(crate) registry: &'a mut Registry,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) ledger: &'a mut Ledger,
    /// What the supervisor is told to do.
    jobs: Jobs,
}

/// What is to be proposed and ordered.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    commands: Vec<Command>,
    orders: Vec<Order>,
}

/// An order to a chunkserver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Its copies and parts of chunks are to go.
    Delete(ServerId, Vec<Part>),
    /// A copy is to be fetched from a server that has it whole.
    Fetch(ServerId, Fetch),
    /// Of copies that may differ its own is chosen, and takes on this version.
    Settle(ServerId, Part, ChunkVersion),
    /// Every block of its copies is to be read and checked.
    Verify(ServerId, Vec<Part>),
    /// Its copies, as of these versions, are to be set aside for so many seconds before they are deleted.
    Quarantine(ServerId, Vec<(Part, ChunkVersion)>, u64),
}

impl Order {
    /// To whom.
    pub(crate) fn server(&self) -> ServerId {
        match self {
            Self::Delete(server, _)
            | Self::Fetch(server, _)
            | Self::Settle(server, ..)
            | Self::Verify(server, _)
            | Self::Quarantine(server, ..) => *server,
        }
    }
}

/// A copy to be fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fetch {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    /// The address of the server that has it.
    pub(crate) source: String,
    /// The copy that it has is in doubt: the fetched one takes its place, though of the same version.
    pub(crate) replace: bool,
}

impl Round<'_> {
    fn state(&self) -> &MetaState {
        self.group.state()
    }

    fn propose(&mut self, command: impl Into<Command>) {
        self.jobs.commands.push(command.into());
    }

    fn order(&mut self, order: Order) {
        self.jobs.orders.push(order);
    }
}

/// Why what a worker has proposed did not happen, for people.
fn refusal(response: &Response) -> Option<String> {
    match response {
        Response::Refused(error) => Some(error.to_string()),
        _ => None,
    }
}
