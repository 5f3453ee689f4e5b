//! What the leader wants back from sessions. However many requests wait for a lease, it is recalled once: the holder
//! acknowledges the recall, and hears of it again only if it has been silent, or has not given the lease back for a while. A
//! recall is over when the lease has moved, or when nobody asks for it any more.

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_meta::{LeaseInTheWay, MetaState, MovesLeases};
use mooseng_protocol::pb;
use mooseng_protocol::principal::Principal;
use mooseng_protocol::recall::{Recall, Recalled};
use mooseng_protocol::status::CallError;
use mooseng_types::{CellId, ChunkIndex, InodeId, SessionId};

use super::requests::{Answer, answer};
use super::{Desk, changes};
use crate::conn::ConnId;
use crate::group::{Group, Groups};

/// A recall that was not acknowledged is sent again after this time: the holder has no room, or speaks over another
/// connection now.
const AGAIN: Duration = Duration::from_millis(250);
/// One that was acknowledged is sent again after this time, if the lease is still held: giving back may have failed. One that
/// nobody has asked for in this time is forgotten.
const AGAIN_ACKNOWLEDGED: Duration = Duration::from_secs(2);
/// Recalls that are out. Whoever waits for one more asks for it again.
const RECALLS_MAX: usize = 4096;
/// Leases that stand in one request's way and are recalled at once.
const AT_ONCE_MAX: u32 = 64;

/// The recalls that are out in a cell.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    out: BTreeMap<Recalled, Out>,
    last: u64,
}

#[derive(Debug)]
struct Out {
    number: u64,
    holder: SessionId,
    /// When somebody asked for it last.
    wanted: Duration,
    /// Over which connection it was sent last, and when.
    sent: Option<(ConnId, Duration)>,
    acknowledged: bool,
}

impl Out {
    fn is_due(&self, conn: ConnId, now: Duration) -> bool {
        let Some((over, sent)) = self.sent else { return true };
        let passed = now.saturating_sub(sent);
        if self.acknowledged { passed >= AGAIN_ACKNOWLEDGED } else { over != conn || passed >= AGAIN }
    }
}

impl Recalls {
    /// This master leads, in this term: its numbers are above those of earlier leaders.
    pub(super) fn begin(&mut self, term: u64) {
        self.last = self.last.max(term << 32);
    }

    /// This master leads no more.
    pub(super) fn end(&mut self) {
        self.out.clear();
    }

    /// Somebody waits for what `holder` has. Whether that was not known yet.
    fn want(&mut self, what: Recalled, holder: SessionId, now: Duration) -> bool {
        if let Some(out) = self.out.get_mut(&what).filter(|out| out.holder == holder) {
            out.wanted = now;
            return false;
        }
        if self.out.len() >= RECALLS_MAX {
            return false;
        }
        self.last += 1;
        let out = Out { number: self.last, holder, wanted: now, sent: None, acknowledged: false };
        self.out.insert(what, out);
        true
    }

    /// What is to be sent now, in the order in which it was asked for; `conn` tells where a session is.
    fn due(&mut self, now: Duration, conn: impl Fn(SessionId) -> Option<ConnId>) -> Vec<(ConnId, Recall)> {
        let mut due = Vec::new();
        for (what, out) in &mut self.out {
            let Some(conn) = conn(out.holder).filter(|conn| out.is_due(*conn, now)) else { continue };
            (out.sent, out.acknowledged) = (Some((conn, now)), false);
            due.push((conn, Recall { session: out.holder, number: out.number, what: *what }));
        }
        due.sort_unstable_by_key(|(_, recall)| recall.number);
        due
    }

    /// The holder has it in its queue, and says so over the connection by which it was told.
    fn acknowledged(&mut self, holder: SessionId, number: u64, over: ConnId) {
        let mut out = self.out.values_mut();
        let out = out.find(|out| (out.number, out.holder) == (number, holder));
        if let Some(out) = out.filter(|out| out.sent.is_some_and(|(conn, _)| conn == over)) {
            out.acknowledged = true;
        }
    }

    /// Leases have moved: what is not held any more is not recalled any more.
    fn moved(&mut self, moved: MovesLeases, is_held: impl Fn(Recalled, SessionId) -> bool) {
        let touches = |inode| moved == MovesLeases::Any || moved == MovesLeases::Of(inode);
        self.out.retain(|what, out| !touches(what.inode()) || is_held(*what, out.holder));
    }

    /// Forgets what nobody has asked for in a while.
    fn forget_unwanted(&mut self, now: Duration) {
        self.out.retain(|_, out| now.saturating_sub(out.wanted) < AGAIN_ACKNOWLEDGED);
    }
}

/// Whether a lease is still as it was: a look at one row, where a truncation would look at all behind its end.
pub(super) fn is_held(state: &MetaState, lease: LeaseInTheWay) -> bool {
    let found = state.locate(lease.inode, lease.index, 1).unwrap_or_default();
    found.iter().any(|(_, _, row)| row.lease == Some(lease.holder))
}

impl Desk {
    /// Asks the holders of leases on this chunk of the file, and on those after it, to give them back.
    pub(super) fn recall(&mut self, state: &MetaState, inode: InodeId, from: ChunkIndex, now: Duration) {
        let recalls = &mut self.cell(state.cell()).recalls;
        let mut news = false;
        for (index, _, row) in state.locate(inode, from, AT_ONCE_MAX).unwrap_or_default() {
            if let Some(holder) = row.lease {
                news |= recalls.want(Recalled::Chunk { inode, index }, holder, now);
            }
        }
        if news {
            self.send_recalls(state.cell(), now);
        }
    }

    /// Sends the recalls of a cell that are due.
    pub(super) fn send_recalls(&mut self, cell: CellId, now: Duration) {
        let Some(cell) = self.cells.get_mut(&cell) else { return };
        for (conn, recall) in cell.recalls.due(now, |session| cell.sessions.conn(session)) {
            self.out.push(conn, &pb::Recall::from(recall));
        }
    }

    /// Time has passed.
    pub(super) fn look_after_recalls(&mut self, cell: CellId, now: Duration) {
        self.cell(cell).recalls.forget_unwanted(now);
        self.send_recalls(cell, now);
    }

    /// An entry was applied: recalls of what has moved are over.
    pub(super) fn end_recalls(&mut self, group: &Group, moved: MovesLeases) {
        let state = group.state();
        self.cell(group.cell()).recalls.moved(moved, |what, holder| {
            let Recalled::Chunk { inode, index } = what;
            is_held(state, LeaseInTheWay { inode, index, holder })
        });
    }

    /// A session says that it has a recall in its queue.
    pub(super) fn acknowledge_recall(
        &mut self,
        groups: &Groups,
        from: &Principal,
        conn: ConnId,
        it: pb::AcknowledgeRecallRequest,
    ) -> Result<Answer, CallError> {
        let session = changes::session(it.session);
        let cell = groups.of_session(session)?.cell();
        self.may_use(from, session)?;
        self.cell(cell).recalls.acknowledged(session, it.number, conn);
        answer(&pb::Empty {})
    }
}

#[cfg(test)]
mod tests;
