//! The consensus core: a value that is told the time, and performs no I/O.
//!
//! ```text
//! tick, step, propose, persisted, applied  ->  Node  ->  Output { persist, messages, committed }
//! ```
//!
//! What has a theory of its own is in `node/`: [`lease`] (when a leader may answer reads, and when a voter may help to
//! replace one) and [`group`] (membership, and handing leadership over).

mod group;
mod lease;
mod purge;
mod snapshot;
#[cfg(test)]
mod testing;

pub use group::{ChangeError, MembershipChange};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mooseng_env::Entropy;
use mooseng_protocol::convert::BadMessage;
use mooseng_types::MasterId;
use raft::eraftpb::{self, MessageType};
use raft::{Config, RawNode, StateRole};

use super::admit;
use super::convert::{conf_state, from_library, from_log, to_library, to_log};
use super::memory_log::MemoryLog;
use super::{HardState, LogEntry, Message, Recovered};
use lease::Lease;

/// How long one tick of the core's clock is.
const TICK: Duration = Duration::from_millis(10);
/// Entries proposed and not yet committed, in bytes; beyond it proposals are refused.
const UNCOMMITTED_MAX: u64 = 64 << 20;
/// Bytes of entries in one message to a peer.
pub(crate) const MESSAGE_MAX: u64 = 1 << 20;

/// Who takes part, and how patient they are.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This master.
    pub id: MasterId,
    /// All voters as of the last entry applied. None of a master that is in no group yet.
    pub voters: Vec<MasterId>,
    /// All learners as of then.
    pub learners: Vec<MasterId>,
    /// Time between a leader's heartbeats.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a voter stands for election; the longest is twice that.
    pub election: Duration,
    /// What the state machine has applied durably.
    pub applied: u64,
    /// Bytes of commands kept for members that lag behind; one that lags further gets a snapshot.
    pub keep_bytes: usize,
}

/// What a master is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    /// The role's name in status output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// What must be made durable before [`Node::persisted`] is called with its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persist {
    /// Rises with every output that needs persisting.
    pub number: u64,
    /// A snapshot has taken the place of all that the log held: it begins anew behind this index and term.
    pub snapshot: Option<(u64, u64)>,
    /// To be appended, replacing what is there from the first one's index on.
    pub entries: Vec<LogEntry>,
    /// The voter's new state.
    pub hard_state: HardState,
}

/// What the core wants done. Order matters only within `persist` and `committed`.
#[derive(Debug, Default)]
pub struct Output {
    /// To the log; [`Node::persisted`] follows.
    pub persist: Option<Persist>,
    /// To peers, at once.
    pub messages: Vec<Message>,
    /// To peers that are too far behind for the log, with the rows of the state machine as of the snapshot's index;
    /// [`Node::snapshot_sent`] follows.
    pub snapshots: Vec<Message>,
    /// The snapshot at this index takes the place of the state machine, before anything committed is applied.
    pub install: Option<u64>,
    /// To the state machine, in order; [`Node::applied`] follows.
    pub committed: Vec<LogEntry>,
}

/// A proposal that was not accepted, and surely is not in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader proposes.
    #[error("not the leader")]
    NotLeader,
    /// Too much is waiting for the disks of a majority.
    #[error("too many operations wait for a majority of the masters")]
    Overloaded,
}

/// The consensus core of one master.
pub struct Node {
    raw: RawNode<MemoryLog>,
    entropy: Arc<dyn Entropy>,
    heartbeat: Duration,
    election: Duration,
    last_tick: Duration,
    silent_until: Duration,
    lease: Lease,
    /// When each of the other members was last heard.
    heard: BTreeMap<u64, Duration>,
    /// The term in which this leader has asked another master to take over.
    handed_over: Option<u64>,
    election_timeout_ticks: usize,
    /// Number of the last output handed out for persisting, and of the last output at all.
    submitted: u64,
    last_number: u64,
    persisted: u64,
    /// The first output that is not durable yet, and since when it is known to wait.
    stalled: Option<(u64, Duration)>,
    /// The term of the last output handed out for persisting, with that output's number.
    term_submitted: (u64, u64),
    /// The output that carried a snapshot, and that snapshot's index: applied as soon as it is durable.
    installing: Option<(u64, u64)>,
    told_all_have: u64,
    /// Of whom, in which term, a message was refused last: that is said once.
    refused: (u64, u64),
    /// Messages that wait for the output with this number to be durable.
    after_persist: VecDeque<(u64, Vec<eraftpb::Message>)>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("role", &self.role()).field("term", &self.term()).finish_non_exhaustive()
    }
}

impl Node {
    /// A node that goes on where `recovered` left off. `now` is the time on the clock that all later calls use.
    ///
    /// # Panics
    /// If the log does not reach back to what is applied, or holds entries of a kind that this release does not know:
    /// the caller opened it with the store it belongs to.
    #[must_use]
    pub fn new(config: &NodeConfig, recovered: Recovered, now: Duration, entropy: Arc<dyn Entropy>) -> Self {
        let alone = config.voters == [config.id];
        let restarted = recovered.hard_state != HardState::default();
        let last = recovered.entries.last().map_or(recovered.purged.0, |entry| entry.index);
        assert!(
            recovered.purged.0 <= config.applied && config.applied <= last,
            "the log holds entries {}..={last}, but the store is at {}",
            recovered.purged.0 + 1,
            config.applied
        );
        let entries: Option<Vec<_>> = recovered.entries.into_iter().map(from_log).collect();
        let Some(entries) = entries else {
            panic!("the log holds an entry of a kind that this release does not know")
        };
        let mut hard_state = eraftpb::HardState::default();
        hard_state.term = recovered.hard_state.term;
        hard_state.vote = recovered.hard_state.vote;
        hard_state.commit = recovered.hard_state.commit.clamp(config.applied, last);
        let raw_ids = |ids: &[MasterId]| ids.iter().map(|id| id.raw()).collect();
        let members = conf_state(raw_ids(&config.voters), raw_ids(&config.learners));
        let mut log = MemoryLog::new(hard_state, members, recovered.purged, entries);
        log.keep_bytes = config.keep_bytes;
        let term = log.hard_state.term;
        let mut raw = match RawNode::new(
            &library_config(config),
            log,
            &slog::Logger::root(slog::Discard, slog::o!()),
        ) {
            Ok(raw) => raw,
            Err(error) => panic!("the consensus core refuses its configuration: {error}"),
        };
        // A voter that has forgotten whom it heard from must let every lease run out that it has helped to renew.
        let silence = if restarted && !alone { config.election * 2 } else { Duration::ZERO };
        if alone {
            // It needs nobody's vote, so it need not wait for anybody either.
            drop(raw.campaign());
        }
        Self {
            raw,
            entropy,
            heartbeat: config.heartbeat,
            election: config.election,
            last_tick: now,
            silent_until: now + silence,
            lease: Lease::new(config.election),
            heard: BTreeMap::new(),
            handed_over: None,
            election_timeout_ticks: 0,
            submitted: 0,
            last_number: 0,
            persisted: 0,
            stalled: None,
            term_submitted: (term, 0),
            installing: None,
            told_all_have: 0,
            refused: (0, 0),
            after_persist: VecDeque::new(),
        }
    }

    /// Lets time pass. To be called at least once every 10 ms; late calls are made up for, up to one heartbeat, so that
    /// a process that was stopped does not stand for election at once.
    pub fn tick(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.last_tick);
        let ticks =
            (passed.as_millis() / TICK.as_millis()).min(self.heartbeat.as_millis() / TICK.as_millis());
        if ticks == 0 {
            return;
        }
        self.last_tick = now;
        for _ in 0..ticks {
            if self.role() != Role::Leader && !self.may_stand(now) {
                break;
            }
            self.randomise();
            self.raw.tick();
        }
        self.replace_lost_leader(now);
        self.give_up_stalled_disk(now);
        self.end_failed_handover();
        self.beat(now);
    }

    /// A peer's message. Messages that make no sense, and requests for a vote in the silent time after a restart, are
    /// dropped: the peer repeats what matters.
    pub fn step(&mut self, now: Duration, message: Message) {
        let Ok(message) = to_library(message) else {
            tracing::warn!("dropped a malformed message of a peer");
            return;
        };
        if message.to != self.raw.raft.id {
            // For an earlier life of this master, as long as the group has that one.
            return;
        }
        let checked = admit::check(&message, self.raw.raft.id)
            .and_then(|()| admit::check_against(&message, self.term(), self.last_index()));
        if let Err(error) = checked {
            self.refuse(&message, error);
            return;
        }
        match message.msg_type {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote if now < self.silent_until => return,
            // Only whoever leads may ask to be replaced.
            MessageType::MsgTimeoutNow
                if message.from != self.raw.raft.leader_id
                    || message.term != self.term()
                    || !self.can_stand() =>
            {
                return;
            }
            // It asks for votes when all it has is durable, so an answer before that is to nothing it has asked.
            MessageType::MsgRequestVoteResponse if !self.is_log_durable() => return,
            _ => {}
        }
        self.step_checked(now, message);
    }

    fn refuse(&mut self, message: &eraftpb::Message, error: BadMessage) {
        let whose = (message.from, message.term);
        if std::mem::replace(&mut self.refused, whose) != whose {
            tracing::warn!(%error, from = message.from, term = message.term, "dropped a message that no peer sends");
        }
    }

    /// Whether this master may stand for election now.
    fn may_stand(&self, now: Duration) -> bool {
        now >= self.silent_until && self.can_stand()
    }

    /// With a snapshot that is not durable yet no master can be elected; with entries that are not, the only voter
    /// cannot, which is elected as soon as it stands.
    fn can_stand(&self) -> bool {
        let alone = self.raw.store().conf_state.voters == [self.raw.raft.id];
        let snapshot = self.has_accepted_snapshot() || self.installing.is_some();
        !snapshot && (!alone || self.is_log_durable())
    }

    fn is_log_durable(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        log.last_index() == log.persisted
    }

    fn step_checked(&mut self, now: Duration, message: eraftpb::Message) {
        let leads = matches!(
            message.msg_type,
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        let (from, term) = (message.from, message.term);
        self.note_heard(now, from);
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(%error, "dropped a message of a peer");
        }
        if leads && from == self.raw.raft.leader_id && term == self.term() {
            self.lease.heard_from_leader(now);
        }
        self.beat(now);
    }

    /// Proposes a command; returns the index it will have if it is committed by this leader.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, ProposeError> {
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader);
        }
        match self.raw.propose(Vec::new(), data) {
            Ok(()) => Ok(self.raw.raft.raft_log.last_index()),
            Err(raft::Error::ProposalDropped) if !self.is_handing_over() => Err(ProposeError::Overloaded),
            Err(_) => Err(ProposeError::NotLeader),
        }
    }

    /// What is to be done now; `None` if nothing.
    pub fn output(&mut self) -> Option<Output> {
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let number = ready.number();
        self.last_number = number;
        let mut output = Output::default();
        self.take_lease(&ready.take_read_states());
        let (snapshots, messages): (Vec<_>, Vec<_>) =
            ready.take_messages().into_iter().partition(|m| m.msg_type == MessageType::MsgSnapshot);
        output.snapshots.extend(snapshots.into_iter().map(from_library));
        output.committed = ready.committed_entries().iter().map(to_log).collect();
        let mut after = ready.take_persisted_messages();
        let snapshot = self.take_snapshot(&ready);
        if let Some((index, _)) = snapshot {
            output.install = Some(index);
            self.installing = Some((number, index));
        }
        let entries = ready.take_entries();
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().hard_state = hard_state.clone();
        }
        self.raw.mut_store().append(&entries);
        if ready.must_sync() {
            self.submitted = number;
            let state = &self.raw.store().hard_state;
            let hard_state = HardState { term: state.term, vote: state.vote, commit: state.commit };
            if state.term != self.term_submitted.0 {
                self.term_submitted = (state.term, number);
            }
            let entries = entries.iter().map(to_log).collect();
            output.persist = Some(Persist { number, snapshot, entries, hard_state });
        }
        // The only voter leads at once. Learners must not hear of it before its term is durable: after a crash it would
        // lead in the same term again, with other entries.
        if self.role() == Role::Leader && self.term_submitted.1 > self.persisted {
            after.extend(messages);
        } else {
            output.messages.extend(messages.into_iter().map(from_library));
        }
        // That it has heard a leader whose term it has on disk, a follower may say while the disk is busy: a heartbeat
        // must not wait behind a slow disk.
        if self.term_submitted.1 <= self.persisted {
            let beats = after.extract_if(.., |m| m.msg_type == MessageType::MsgHeartbeatResponse);
            output.messages.extend(beats.map(from_library));
        }
        self.raw.advance_append_async(ready);
        if !after.is_empty() {
            self.after_persist.push_back((number, after));
        }
        if !self.is_persisting() {
            output.messages.extend(self.settle(number));
        }
        Some(output)
    }

    /// All that was handed out up to `number` is durable; returns the messages that waited for that.
    pub fn persisted(&mut self, number: u64) -> Vec<Message> {
        self.persisted = self.persisted.max(number);
        // What came after the last thing to persist had nothing to persist itself.
        let settled = if self.is_persisting() { number } else { self.last_number };
        self.settle(settled)
    }

    fn settle(&mut self, number: u64) -> Vec<Message> {
        self.raw.on_persist_ready(number);
        if let Some((_, index)) = self.installing.take_if(|(waits_for, _)| *waits_for <= number) {
            self.raw.advance_apply_to(index);
        }
        let mut out = Vec::new();
        while let Some((_, messages)) = self.after_persist.pop_front_if(|(waits_for, _)| *waits_for <= number)
        {
            out.extend(messages.into_iter().map(from_library));
        }
        out
    }

    /// Whether something handed out is not durable yet.
    #[must_use]
    pub fn is_persisting(&self) -> bool {
        self.persisted < self.submitted
    }

    /// The state machine has applied everything up to `index`.
    pub fn applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
    }

    /// What this master is.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    /// Who leads, as far as this master knows.
    #[must_use]
    pub fn leader(&self) -> Option<MasterId> {
        Some(self.raw.raft.leader_id).filter(|id| *id != 0).map(MasterId::from_raw)
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// The last index known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// The last entry of the log, on disk or on its way there.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// The term of an entry still kept, or of the last one purged.
    #[must_use]
    pub fn term_of(&self, index: u64) -> Option<u64> {
        self.raw.raft.raft_log.term(index).ok()
    }

    /// Draws the election time-out from our own entropy, so that a simulation repeats itself.
    fn randomise(&mut self) {
        let raft = &mut self.raw.raft;
        if raft.election_elapsed == 0 || self.election_timeout_ticks == 0 {
            let (low, high) = (ticks(self.election), 2 * ticks(self.election));
            let spread = u64::try_from(high - low).unwrap_or(1).max(1);
            self.election_timeout_ticks =
                low + usize::try_from(self.entropy.next_u64() % spread).unwrap_or(0);
        }
        raft.set_randomized_election_timeout(self.election_timeout_ticks);
    }
}

fn ticks(duration: Duration) -> usize {
    usize::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(usize::MAX).max(1)
}

fn library_config(config: &NodeConfig) -> Config {
    Config {
        election_tick: ticks(config.election),
        // The heartbeats are sent by `Node::beat`, and the library's own are as rare as they may be.
        heartbeat_tick: ticks(config.election).saturating_sub(1).max(1),
        applied: config.applied,
        max_size_per_msg: MESSAGE_MAX,
        max_inflight_msgs: 256,
        check_quorum: true,
        pre_vote: true,
        max_uncommitted_size: UNCOMMITTED_MAX,
        // Followers learn of a commit with the next entries or heartbeat: a message of its own would be answered, and
        // nobody waits for a follower to apply.
        skip_bcast_commit: true,
        ..Config::new(config.id.raw())
    }
}
