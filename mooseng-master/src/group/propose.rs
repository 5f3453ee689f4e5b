//! Commands on their way into the log.

use mooseng_meta::{Command, Entry, Member, Request};

use super::flush::UNFLUSHED_MAX;
use super::{Group, News, Now, Unready};
use crate::raft::{MembershipChange, ProposeError, Role};

/// Bytes of one command in the log. Each request's parts are bounded far below; this makes sure that whatever is proposed
/// can be sent to the other masters, too.
pub(crate) const ENTRY_MAX: usize = 256 << 10;

/// Names what was proposed to whoever proposed it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ticket(pub(crate) u64);

/// A command to be proposed with the next batch.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) request: Option<Request>,
    pub(crate) command: Command,
    pub(crate) ticket: Ticket,
}

impl Group {
    /// Takes a command. News of it follow under its ticket.
    pub(crate) fn gather(&mut self, proposal: Proposal) {
        self.gathered.push(proposal);
    }

    /// Proposes a change of the group. News of it follow under `ticket`, unless it is refused at once.
    pub(crate) fn propose_change(
        &mut self,
        change: MembershipChange,
        member: &Member,
        ticket: Option<Ticket>,
    ) -> Result<(), Unready> {
        let index = self.node.propose_change(change, &super::change::note(member).encode())?;
        self.waiting.insert(index, (self.node.term(), ticket));
        Ok(())
    }

    /// Proposes what has gathered, once the log is free.
    pub(super) fn propose_gathered(&mut self, now: Now) {
        let busy = self.node.role() == Role::Leader && self.node.is_persisting();
        if self.gathered.is_empty() || busy || self.awaits_successor(now.mono) {
            return;
        }
        for Proposal { request, command, ticket } in std::mem::take(&mut self.gathered) {
            let entry = Entry { stamp: now.wall, request, command }.encode();
            match self.propose(entry) {
                Ok(index) => drop(self.waiting.insert(index, (self.node.term(), Some(ticket)))),
                Err(error) => self.news.push(News::Refused(ticket, error)),
            }
        }
    }

    fn propose(&mut self, entry: Vec<u8>) -> Result<u64, Unready> {
        if entry.len() > ENTRY_MAX {
            return Err(Unready::TooLong { bytes: entry.len() });
        }
        let proposed = match self.state.unflushed_bytes() {
            0..=UNFLUSHED_MAX => self.node.propose(entry),
            _ => Err(ProposeError::Overloaded),
        };
        proposed.map_err(|error| match error {
            ProposeError::NotLeader => self.not_leader(),
            ProposeError::Overloaded => Unready::Overloaded(error),
        })
    }
}
