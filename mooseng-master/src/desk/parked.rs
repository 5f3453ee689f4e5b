//! Requests that wait for a lease of another session. The leader asks its state before it proposes, has the lease recalled,
//! and proposes the request when the lease is gone: the refusal is no entry of the log, and nobody polls for the lease.

use std::time::Duration;

use mooseng_meta::{LeaseInTheWay, MetaState, MovesLeases};
use mooseng_protocol::status::CallError;
use mooseng_types::{FsError, InodeId};

use super::Desk;
use super::askers::Askers;
use super::recalls::is_held;
use crate::conn::ConnId;
use crate::group::{Group, Proposal, Ticket};

/// A request waits no longer than this, and no longer than half of what its sender waits; then it is refused, and its sender
/// asks again.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether leases are still in the way, and their recalls still wanted.
const LOOK: Duration = Duration::from_millis(250);
/// Requests that wait. One more is refused at once.
const PARKED_MAX: usize = 1024;

/// The requests that wait, those that came first in front.
#[derive(Debug, Default)]
pub(super) struct Parked {
    requests: Vec<Waiting>,
    looked: Duration,
}

#[derive(Debug)]
struct Waiting {
    proposal: Proposal,
    lease: LeaseInTheWay,
    until: Duration,
}

impl Parked {
    /// Keeps a request until the lease is gone; `false` if too many wait. Its sender waits for `deadline`, if that is not
    /// zero.
    pub(super) fn park(
        &mut self,
        proposal: Proposal,
        lease: LeaseInTheWay,
        now: Duration,
        deadline: Duration,
    ) -> bool {
        let patience = if deadline.is_zero() { PATIENCE } else { PATIENCE.min(deadline / 2) };
        let room = self.requests.len() < PARKED_MAX;
        if room {
            self.requests.push(Waiting { proposal, lease, until: now + patience });
        }
        room
    }

    /// A connection ended: nobody waits for the answers to its requests.
    pub(super) fn forget(&mut self, askers: &mut Askers, conn: ConnId) {
        self.requests.retain(|it| {
            let gone = askers.is_at(it.proposal.ticket, conn);
            if gone {
                drop(askers.leave(it.proposal.ticket));
            }
            !gone
        });
    }

    /// All tickets: this master leads no more.
    pub(super) fn take_all(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.requests).into_iter().map(|it| it.proposal.ticket).collect()
    }
}

/// The lease that keeps a command from being proposed. A request that was answered before has the same answer again.
pub(super) fn lease_in_the_way(state: &MetaState, proposal: &Proposal) -> Option<LeaseInTheWay> {
    let id = proposal.request?.id;
    if !state.session_exists(id.session) || state.stored_response(id).is_some() {
        return None;
    }
    state.lease_in_the_way(&proposal.command)
}

impl Desk {
    /// An entry was applied. Of the requests that wait for a lease of the same file, the first one that can be proposed is;
    /// the others wait for what comes of it.
    pub(super) fn leases_moved(&mut self, group: &mut Group, moved: MovesLeases, now: Duration) {
        if moved == MovesLeases::None {
            return;
        }
        self.end_recalls(group, moved);
        let cell = group.cell();
        let mut proposed: Vec<InodeId> = Vec::new();
        for mut waiting in std::mem::take(&mut self.cell(cell).parked.requests) {
            let inode = waiting.lease.inode;
            let touched = moved == MovesLeases::Any || moved == MovesLeases::Of(inode);
            if !touched || proposed.contains(&inode) || is_held(group.state(), waiting.lease) {
                self.cell(cell).parked.requests.push(waiting);
                continue;
            }
            match lease_in_the_way(group.state(), &waiting.proposal) {
                None => {
                    proposed.push(inode);
                    group.gather(waiting.proposal);
                }
                Some(lease) => {
                    if lease != waiting.lease {
                        self.recall(group.state(), lease.inode, lease.index, now);
                    }
                    waiting.lease = lease;
                    self.cell(cell).parked.requests.push(waiting);
                }
            }
        }
    }

    /// Time has passed: what has waited for too long is refused, and leases that are still in the way are still wanted.
    pub(super) fn look_after_parked(&mut self, group: &mut Group, now: Duration) {
        let parked = &mut self.cell(group.cell()).parked;
        if parked.requests.is_empty() {
            return;
        }
        let over: Vec<Waiting> = parked.requests.extract_if(.., |it| it.until <= now).collect();
        let look = now.saturating_sub(parked.looked) >= LOOK;
        if look {
            parked.looked = now;
        }
        for waiting in over {
            self.fail(waiting.proposal.ticket, &CallError::Refused(FsError::LeaseHeld));
        }
        if !look {
            return;
        }
        // One that was proposed and refused, or could not be proposed, woke nobody.
        self.leases_moved(group, MovesLeases::Any, now);
        let requests = &self.cell(group.cell()).parked.requests;
        let mut leases: Vec<_> = requests.iter().map(|it| it.lease).collect();
        leases.sort_unstable_by_key(|lease| (lease.inode, lease.index));
        leases.dedup();
        for lease in leases {
            self.recall(group.state(), lease.inode, lease.index, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_protocol::frame::{Frame, Header};
    use mooseng_protocol::pb;
    use mooseng_protocol::rpc::Rpc;
    use mooseng_types::CellId;

    use super::*;
    use crate::core::testing::{Leader, number};
    use crate::desk::tests::leases::{grant, held, meta, release};

    /// Who was asked to give a lease back since the last look.
    fn recalled(leader: &mut Leader) -> Vec<u64> {
        let pushed = std::mem::take(&mut leader.pushed).into_iter();
        pushed
            .filter(|(_, frame)| frame.header.kind == pb::Recall::KIND)
            .map(|(conn, _)| number(conn))
            .collect()
    }

    /// The connections that were answered, and which of their requests.
    fn answered(answers: &[(ConnId, Frame)]) -> Vec<(u64, u64)> {
        answers.iter().map(|(conn, frame)| (number(*conn), frame.header.request)).collect()
    }

    fn log_end(leader: &Leader) -> u64 {
        leader.core.state().applied_index()
    }

    #[test]
    fn a_request_for_a_lease_that_another_holds_waits_and_the_log_does_not_hear_of_it() {
        let (mut leader, inode, first) = held();
        let before = log_end(&leader);
        assert_eq!(leader.send(2, 7, &grant(2, 1, inode)), []);
        assert_eq!(leader.send(3, 8, &grant(3, 1, inode)), []);
        assert_eq!(log_end(&leader), before);
        assert_eq!(recalled(&mut leader), [1], "once");

        let answers = leader.send(1, 9, &release(1, 3, inode));
        assert_eq!(answered(&answers), [(1, 9), (2, 7)], "the first one to ask has it");
        let reply = Leader::read::<pb::GrantWriteRequest>(&answers[1].1).unwrap();
        assert_eq!((reply.chunk, reply.version), (first.chunk, first.version + 1));
        assert_eq!(log_end(&leader), before + 2);
        assert_eq!(recalled(&mut leader), [2], "now that one is in the way");

        let answers = leader.send(2, 10, &release(2, 2, inode));
        assert_eq!(answered(&answers), [(2, 10), (3, 8)]);
    }

    #[test]
    fn truncations_and_small_writes_wait_for_leases_too_and_the_end_of_a_session_ends_the_wait() {
        let (mut leader, inode, chunk) = held();
        let committed =
            pb::CommittedChunk { index: 0, chunk: chunk.chunk, version: chunk.version, release: false };
        let commit = pb::CommitWriteRequest {
            meta: meta(1, 3),
            inode,
            size_at_least: 10,
            chunks: vec![committed],
            mtime_ns: None,
        };
        leader.ask(1, &commit).unwrap();
        let truncate = pb::SetAttrRequest { meta: meta(2, 1), inode, size: Some(5), ..Default::default() };
        let small = pb::WriteInlineRequest {
            meta: meta(3, 1),
            inode,
            data: b"x".as_ref().into(),
            ..Default::default()
        };
        assert_eq!(leader.send(2, 7, &truncate), []);
        assert_eq!(leader.send(3, 8, &small), []);
        let close = pb::CloseSessionRequest { meta: meta(1, 4) };
        let answers = leader.send(1, 9, &close);
        assert_eq!(answered(&answers), [(1, 9), (2, 7), (3, 8)]);
        assert_eq!(Leader::read::<pb::SetAttrRequest>(&answers[1].1).unwrap().attr.unwrap().size, 5);
        let refused = Leader::read::<pb::WriteInlineRequest>(&answers[2].1);
        assert!(matches!(refused, Err(CallError::Refused(FsError::Invalid))), "the file has a chunk");
    }

    #[test]
    fn a_lease_that_does_not_come_back_is_recalled_again_and_then_the_asker_is_told() {
        let (mut leader, inode, _) = held();
        let before = log_end(&leader);
        assert_eq!(leader.send(2, 7, &grant(2, 1, inode)), []);
        leader.pass(PATIENCE / 2);
        let recalls = recalled(&mut leader);
        assert!((2..=4).contains(&recalls.len()) && recalls.iter().all(|conn| *conn == 1), "{recalls:?}");
        let answers = leader.pass(PATIENCE);
        let [(ConnId::Framed(2), frame)] = &answers[..] else { panic!("{answers:?}") };
        let told = Leader::read::<pb::GrantWriteRequest>(frame);
        assert!(matches!(told, Err(CallError::Refused(FsError::LeaseHeld))));
        assert_eq!(log_end(&leader), before);
        leader.send(1, 9, &release(1, 3, inode));
        assert!(leader.ask(2, &grant(2, 1, inode)).is_ok(), "the same request, sent again");
    }

    #[test]
    fn a_request_waits_no_longer_than_half_the_time_that_its_sender_does() {
        let (mut leader, inode, _) = held();
        let header =
            Header { kind: pb::GrantWriteRequest::KIND, request: 7, deadline_ms: 100, ..Header::default() };
        assert_eq!(leader.send_with(2, header, &grant(2, 1, inode)), []);
        assert_eq!(leader.pass(Duration::from_millis(40)), []);
        assert_eq!(leader.pass(Duration::from_millis(20)).len(), 1);
    }

    #[test]
    fn a_request_that_was_answered_has_its_answer_again_whoever_holds_the_lease_now() {
        let (mut leader, inode, _) = held();
        leader.send(1, 9, &release(1, 3, inode));
        let unacknowledged = |seq| Some(pb::RequestMeta { session: 2, seq, acked_below: 1 });
        let ask = pb::GrantWriteRequest { meta: unacknowledged(1), inode, ..Default::default() };
        let first = leader.ask(2, &ask).unwrap();
        let give = pb::ReleaseLeaseRequest { meta: unacknowledged(2), inode, indexes: vec![0] };
        leader.ask(2, &give).unwrap();
        leader.ask(3, &grant(3, 1, inode)).unwrap();
        assert_eq!(leader.ask(2, &ask).unwrap().version, first.version);
    }

    #[test]
    fn a_request_whose_connection_has_ended_is_forgotten() {
        let (mut leader, inode, _) = held();
        assert_eq!(leader.send(2, 7, &grant(2, 1, inode)), []);
        let now = leader.now;
        leader.core.closed(now, ConnId::Framed(2));
        assert_eq!(leader.core.desk.cell(CellId::ROOT).parked.requests.len(), 0);
        assert_eq!(leader.send(1, 9, &release(1, 3, inode)).len(), 1);
    }

    #[test]
    fn requests_beyond_the_bound_are_refused_at_once() {
        let (mut leader, inode, _) = held();
        for request in 0..PARKED_MAX as u64 {
            assert_eq!(leader.send(2, request, &grant(2, 1, inode)), []);
        }
        let answers = leader.send(3, 7, &grant(3, 1, inode));
        let [(ConnId::Framed(3), frame)] = &answers[..] else { panic!("{answers:?}") };
        assert!(Leader::read::<pb::GrantWriteRequest>(frame).is_err());
        // All of them are one request, which is done once and answered as often as it was sent.
        let answers = leader.send(1, 9, &release(1, 3, inode));
        assert_eq!(answers.len(), 1 + PARKED_MAX);
    }
}
