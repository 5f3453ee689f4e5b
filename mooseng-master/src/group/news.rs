//! What a group tells the desk.

use mooseng_meta::{Command, Response};
use mooseng_types::ChunkId;

#[cfg(doc)]
use super::Group;
use super::{Ticket, Unready};

/// Something has happened to the state, or to what was proposed. In the order in which it happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all news are of the large kind, and none is kept")]
pub(crate) enum News {
    /// A command was applied.
    Applied {
        /// The command.
        command: Command,
        /// What the state says to it.
        response: Response,
        /// What it was proposed with, if this master has proposed it.
        ticket: Option<Ticket>,
        /// The chunks whose rows it has changed or removed.
        chunks: Vec<ChunkId>,
    },
    /// A change of the masters' group that this master has proposed was applied.
    Changed(Ticket),
    /// What was proposed with this ticket was not, or may not have been.
    Refused(Ticket, Unready),
    /// A snapshot has taken the place of the state.
    Installed,
    /// The store has what was handed to it.
    Flushed,
    /// This master leads from now on.
    Leads,
    /// It led until now.
    LeadsNoMore,
}
