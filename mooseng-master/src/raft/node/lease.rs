//! Leader leases, and what they ask of voters.
//!
//! With each heartbeat the leader asks its peers for a confirmation (the read-index protocol, Ongaro §6.4) that carries
//! the time at which it asked. Once a majority has answered, no other leader can be elected before that time plus the
//! lease's length, because
//! - a voter gives no vote for so long after it has heard from a leader: for the shortest election time-out (§6.4.1),
//!   or for the length of a lease if its connection to the leader broke, which alone says nothing about the leader;
//! - a restarted voter is silent for the longest election time-out;
//! - a leader that asks another to take over, whose election no voter refuses, gives up its lease for good in that term.
//!
//! The leader takes its lease for over a tenth before it is, for clocks that run at different speeds.

use std::time::Duration;

use mooseng_types::MasterId;

use super::{Node, Role};

/// After a leader was lost, those who might follow it stand for election one after the other.
const STAGGER: Duration = Duration::from_millis(20);
/// A round of that which has elected nobody is repeated after this time.
const ROUND: Duration = Duration::from_millis(80);

/// What a master knows about the present leader's right to answer reads, its own or another's.
#[derive(Debug)]
pub(super) struct Lease {
    length: Duration,
    /// As leader: good until then, in this term.
    until: Duration,
    term: u64,
    /// The term in which it was last asked for.
    asked_in: u64,
    /// The last beat, counted from the beginning of the clock.
    beat: u128,
    /// As voter: when the leader was last heard.
    heard: Duration,
    lost: Option<Lost>,
}

/// A leader whose connection broke.
#[derive(Clone, Copy, Debug)]
struct Lost {
    leader: u64,
    term: u64,
    at: Duration,
    /// When to stand for election next, once its lease is over.
    stand_at: Option<Duration>,
}

impl Lease {
    pub(super) fn new(election: Duration) -> Self {
        Self {
            length: election * 3 / 5,
            until: Duration::ZERO,
            term: 0,
            asked_in: 0,
            beat: 0,
            heard: Duration::ZERO,
            lost: None,
        }
    }

    pub(super) fn heard_from_leader(&mut self, now: Duration) {
        self.heard = now;
        self.lost = None;
    }
}

impl Node {
    /// Whether this master leads, has applied everything of former leaders, and may be sure until some time after `now`
    /// that nobody else leads: what it has applied is then the truth.
    #[must_use]
    pub fn may_serve_reads(&self, now: Duration) -> bool {
        self.role() == Role::Leader
            && self.lease.term == self.term()
            && now < self.lease.until
            && self.handed_over != Some(self.term())
            && self.raw.raft.apply_to_current_term()
    }

    /// The connection to `peer` broke. If that one leads, a new leader is sought as soon as its lease is over: there is
    /// no need to wait for the election time-out. The first round only asks (pre-vote), so it disturbs no leader whom
    /// the others still hear.
    pub fn peer_lost(&mut self, now: Duration, peer: MasterId) {
        self.raw.report_unreachable(peer.raw());
        let leads = self.raw.raft.leader_id == peer.raw() && self.role() == Role::Follower;
        if leads && self.lease.lost.is_none() {
            self.lease.lost = Some(Lost { leader: peer.raw(), term: self.term(), at: now, stand_at: None });
        }
    }

    pub(super) fn replace_lost_leader(&mut self, now: Duration) {
        let Some(mut lost) = self.lease.lost else { return };
        let replaced = self.raw.raft.leader_id != 0 && self.raw.raft.leader_id != lost.leader;
        // After that time the usual way has taken over.
        let late = now.saturating_sub(lost.at) > self.election * 4;
        if replaced || late || self.role() == Role::Leader || !self.raw.raft.promotable() {
            self.lease.lost = None;
            return;
        }
        if !self.may_stand(now) || now < self.lease.heard + self.lease.length {
            return;
        }
        let stand_at = match lost.stand_at {
            None => {
                // Its lease is over. Forgetting it makes this voter listen to others who want to replace it.
                if self.term() == lost.term && self.role() == Role::Follower {
                    self.raw.raft.become_follower(lost.term, 0);
                }
                now + self.place_after(lost.leader)
            }
            Some(at) if now >= at => {
                drop(self.raw.campaign());
                now + ROUND
            }
            Some(at) => at,
        };
        lost.stand_at = Some(stand_at);
        self.lease.lost = Some(lost);
    }

    /// How long this voter lets others go first.
    fn place_after(&self, lost: u64) -> Duration {
        let own = self.raw.raft.id;
        let voters = &self.raw.store().conf_state.voters;
        let before = voters.iter().filter(|voter| **voter != lost && **voter < own).count();
        STAGGER * u32::try_from(before).unwrap_or(0)
    }

    /// Sends a heartbeat if it is time for one, and asks for the lease with it. A new leader asks as soon as it has committed
    /// an entry of its own, before which nobody would answer: until the answers are there its clients stand still.
    ///
    /// All groups of a process have their heartbeats at the same times, so that those for one master go together.
    pub(super) fn beat(&mut self, now: Duration) {
        if self.role() != Role::Leader {
            return;
        }
        let beat = now.as_nanos() / self.heartbeat.as_nanos().max(1);
        let (term, may_ask) = (self.term(), self.raw.raft.commit_to_current_term());
        let is_first = may_ask && self.lease.asked_in != term;
        if !is_first && self.lease.beat == beat {
            return;
        }
        self.lease.beat = beat;
        if !may_ask {
            return self.raw.ping();
        }
        self.lease.asked_in = term;
        let context = [term.to_be_bytes(), u64::try_from(now.as_nanos()).unwrap_or(0).to_be_bytes()].concat();
        self.raw.read_index(context);
    }

    pub(super) fn take_lease(&mut self, confirmed: &[raft::ReadState]) {
        let Some(context) =
            confirmed.last().and_then(|state| <[u8; 16]>::try_from(&state.request_ctx[..]).ok())
        else {
            return;
        };
        let number = |at: usize| context[at..at + 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        self.lease.term = number(0);
        self.lease.until = Duration::from_nanos(number(8)) + self.lease.length * 9 / 10;
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use raft::eraftpb::MessageType;

    use super::super::testing::{NOW, from, node, settle, stand};
    use super::*;
    use crate::raft::Message;

    /// The heartbeats among what a node has to send to master 3.
    fn beats(node: &mut Node) -> usize {
        let mut beats = 0;
        while let Some(output) = node.output() {
            let is_beat = |it: &&Message| it.to == 3 && it.kind == MessageType::MsgHeartbeat as u32;
            beats += output.messages.iter().filter(is_beat).count();
            output.committed.iter().for_each(|entry| node.applied(entry.index));
            output.persist.iter().for_each(|persist| drop(node.persisted(persist.number)));
        }
        beats
    }

    #[test]
    fn one_heartbeat_goes_out_for_each_beat_of_the_clock_whenever_the_leader_was_elected() {
        let mut node = node(3);
        stand(&mut node);
        node.step(NOW, from(3, MessageType::MsgRequestVoteResponse, 1));
        settle(&mut node);
        assert_eq!(node.role(), Role::Leader);
        let heartbeat = node.heartbeat;
        let pass = |node: &mut Node, times: Range<u64>| -> Vec<u64> {
            let beat_at = |ms: u64| {
                let now = Duration::from_millis(ms);
                node.tick(now);
                // The followers are there, or the leader would step down.
                node.step(now, from(3, MessageType::MsgHeartbeatResponse, 1));
                (beats(node) > 0).then_some(ms)
            };
            times.step_by(10).filter_map(beat_at).collect()
        };
        let ms = u64::try_from(heartbeat.as_millis()).unwrap();
        assert_eq!(pass(&mut node, 20..4 * ms), [ms, 2 * ms, 3 * ms], "nothing is committed yet");
        let now = Duration::from_millis(4 * ms + 10);
        node.step(now, Message { index: 1, ..from(3, MessageType::MsgAppendResponse, 1) });
        assert_eq!(beats(&mut node), 1, "it asks for its lease");
        // Here the library sends one of its own, as it does once in an election time-out.
        pass(&mut node, 4 * ms + 20..5 * ms + 10);
        assert_eq!(pass(&mut node, 5 * ms + 10..8 * ms), [6 * ms, 7 * ms]);
    }

    #[test]
    fn a_new_leader_asks_for_its_lease_as_soon_as_it_has_committed_and_not_a_heartbeat_later() {
        let mut node = node(3);
        stand(&mut node);
        node.step(NOW, from(3, MessageType::MsgRequestVoteResponse, 1));
        node.tick(Duration::from_millis(10));
        settle(&mut node);
        assert_eq!(node.role(), Role::Leader);
        let now = Duration::from_millis(12);
        node.step(now, Message { index: 1, ..from(3, MessageType::MsgAppendResponse, 1) });
        let output = node.output().unwrap();
        let asked = output.messages.iter().find(|it| it.to == 3 && !it.context.is_empty()).unwrap();
        assert_eq!(asked.kind, MessageType::MsgHeartbeat as u32);
        assert!(!node.may_serve_reads(now));
        output.committed.iter().for_each(|entry| node.applied(entry.index));
        let context = asked.context.clone();
        node.step(now, Message { context, ..from(3, MessageType::MsgHeartbeatResponse, 1) });
        settle(&mut node);
        assert!(node.may_serve_reads(now));
    }
}
