//! Who waits for what was proposed.

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_protocol::frame::Header;
use mooseng_protocol::status::CallError;
use mooseng_types::CellId;

use super::requests::Context;
use crate::conn::ConnId;
use crate::group::{Ticket, Unready};
use crate::worker::WorkerId;

/// Somebody who waits.
#[derive(Debug)]
pub(super) enum Asker {
    /// For a reply over a connection.
    Client {
        /// The connection.
        conn: ConnId,
        /// Of the request.
        header: Header,
        /// What the reply needs.
        context: Context,
    },
    /// A worker of the leader of a cell's group.
    Worker(CellId, WorkerId),
}

impl Asker {
    /// How long it waits; zero if it does not say.
    pub(super) fn deadline(&self) -> Duration {
        match self {
            Self::Client { header, .. } => Duration::from_millis(header.deadline_ms.into()),
            Self::Worker(..) => Duration::ZERO,
        }
    }
}

/// All who wait, by their tickets. Bounded by what groups take in and by the parked requests.
#[derive(Debug, Default)]
pub(super) struct Askers {
    waiting: BTreeMap<Ticket, Asker>,
    last: u64,
}

impl Askers {
    /// Gives out a ticket.
    pub(super) fn enter(&mut self, asker: Asker) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.waiting.insert(ticket, asker);
        ticket
    }

    /// Takes a ticket back.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<Asker> {
        self.waiting.remove(&ticket)
    }

    /// Whether the holder of a ticket waits at `conn`.
    pub(super) fn is_at(&self, ticket: Ticket, conn: ConnId) -> bool {
        matches!(self.waiting.get(&ticket), Some(Asker::Client { conn: at, .. }) if *at == conn)
    }
}

impl From<Unready> for CallError {
    fn from(why: Unready) -> Self {
        match why {
            Unready::NotLeader { leader } => Self::NotLeader { leader },
            Unready::TooLong { .. } | Unready::OtherCell(_) => Self::Rejected { message: why.to_string() },
            Unready::Founding
            | Unready::NoMajority
            | Unready::LeaderChanged
            | Unready::Replaced
            | Unready::Overloaded(_)
            | Unready::MembershipChange(_) => Self::Unavailable { message: why.to_string() },
        }
    }
}
