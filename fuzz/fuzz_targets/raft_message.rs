//! What peers say to a consensus core: any sequence of messages, with time passing and disks answering in between,
//! leaves it alive, and what it has committed it never takes back.
//!
//! Changes of the group are among what gets committed, and snapshots arrive and are asked for.
//!
//! Left out are snapshots that contradict what is committed: their rows come on a way of their own.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mooseng_env::Entropy;
use mooseng_master::raft::{MembershipChange, Node, NodeConfig, Output, Recovered, Role};
use mooseng_master::wire;
use mooseng_protocol::pb;
use mooseng_types::MasterId;
use prost::Message;

const MSG_SNAPSHOT: u32 = 7;
/// Bytes of commands that are kept for whoever lags.
const KEEP_BYTES: usize = 16;
/// Bytes of a message of small numbers.
const COMPACT: usize = 12;
const STEPS_MAX: usize = 200;

#[derive(Debug)]
struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, into: &mut [u8]) {
        into.fill(0);
    }
}

/// A core with the log that has been committed, which must only grow.
struct World {
    node: Node,
    now: Duration,
    committed: Vec<(u64, u64)>,
    waiting: Vec<u64>,
    /// Peers that a snapshot is on its way to.
    receivers: Vec<MasterId>,
}

impl World {
    fn new(voters: u64) -> Self {
        let config = NodeConfig {
            id: MasterId::from_raw(1),
            voters: (1..=voters).map(MasterId::from_raw).collect(),
            learners: Vec::new(),
            heartbeat: Duration::from_millis(50),
            election: Duration::from_millis(250),
            applied: 0,
            keep_bytes: KEEP_BYTES,
        };
        let node = Node::new(&config, Recovered::default(), Duration::ZERO, Arc::new(Zeros));
        Self { node, now: Duration::ZERO, committed: Vec::new(), waiting: Vec::new(), receivers: Vec::new() }
    }

    /// Whether the message speaks of a snapshot that is not of this log.
    fn contradicts(&self, message: &pb::RaftMessage) -> bool {
        match message.kind {
            MSG_SNAPSHOT => message.snapshot.as_ref().is_some_and(|snapshot| {
                snapshot.index <= self.node.commit_index()
                    && self.node.term_of(snapshot.index).is_some_and(|term| term != snapshot.term)
            }),
            _ => false,
        }
    }

    fn step(&mut self, message: pb::RaftMessage) {
        if !self.contradicts(&message)
            && let Ok(message) = wire::read_message(message)
        {
            self.node.step(self.now, message);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.output() {
            let Output { persist, messages, snapshots, install, committed } = output;
            assert!(messages.iter().chain(&snapshots).all(|message| message.from == 1 && message.to != 1));
            self.receivers.extend(snapshots.iter().map(|message| MasterId::from_raw(message.to)));
            if let Some(index) = install {
                let last = self.committed.last().map_or(0, |(index, _)| *index);
                assert!(index >= last, "a snapshot takes nothing back");
                self.committed = vec![(index, 0)];
            }
            for entry in committed {
                let last = self.committed.last().map_or(0, |(index, _)| *index);
                assert_eq!(entry.index, last + 1, "committed entries follow each other");
                self.committed.push((entry.index, entry.term));
                // One that cannot be read ends the process on purpose.
                if let Some((change, _)) = MembershipChange::of_entry(&entry).filter(|_| entry.kind == 1) {
                    self.node.apply_change(entry.index, change);
                }
                self.node.applied(entry.index);
            }
            self.waiting.extend(persist.map(|persist| persist.number));
        }
    }

    fn persist(&mut self) {
        for number in std::mem::take(&mut self.waiting) {
            drop(self.node.persisted(number));
        }
        self.drain();
    }
}

/// A message of small numbers, one byte to a field, which a mutation changes one at a time; 255 stands for a huge number.
fn compact(bytes: &[u8; COMPACT]) -> pb::RaftMessage {
    let [kind, from, term, log_term, index, commit, entries, entry_term, flags, hint, priority, request] =
        bytes.map(|byte| if byte == u8::MAX { u64::MAX } else { u64::from(byte) });
    let count = if flags & 2 == 0 { entries % 4 } else { 0 };
    let change = pb::MembershipChange { kind: (hint % 4) as u32, node: priority % 6, ..Default::default() };
    let entry = |at: u64| pb::RaftEntry {
        kind: u32::from(flags & 4 != 0),
        term: entry_term.saturating_add(at & flags >> 3),
        index: index.wrapping_add(at),
        data: match flags & 20 {
            0 => vec![1; 3].into(),
            4 => change.encode_to_vec().into(),
            _ => Vec::new().into(),
        },
        context: Vec::new().into(),
    };
    pb::RaftMessage {
        kind: (kind % 20) as u32,
        to: if flags & 32 == 0 { 1 } else { 2 },
        from,
        term,
        log_term,
        index,
        entries: (1..=count).map(entry).collect(),
        commit,
        commit_term: entry_term,
        reject: flags & 1 == 1,
        reject_hint: hint,
        context: vec![kind as u8; if flags & 64 == 0 { 0 } else { 16 }].into(),
        priority: if flags & 4 == 0 { priority.cast_signed() } else { 0 },
        request_snapshot: request,
        snapshot: (flags & 128 != 0).then(|| pb::RaftSnapshot {
            index,
            term: log_term,
            voters: (1..=5).filter(|id| hint >> (id - 1) & 1 == 1).collect(),
            learners: (1..=5).filter(|id| request >> (id - 1) & 1 == 1).collect(),
        }),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, mut rest)) = data.split_first() else { return };
    let mut world = World::new(if first & 1 == 0 { 3 } else { 1 });
    let mut term = 0;
    for _ in 0..STEPS_MAX {
        let Some((&action, after)) = rest.split_first() else { break };
        rest = after;
        match action % 12 {
            0 => world.persist(),
            1 => {
                world.now += Duration::from_millis(u64::from(action));
                world.node.tick(world.now);
            }
            2 => world.node.peer_lost(world.now, MasterId::from_raw(u64::from(action / 12 % 4))),
            3 => drop(world.node.propose(vec![action; 3])),
            4 => {
                let applied = world.committed.last().map_or(0, |(index, _)| *index);
                let _ = world.node.purge(applied.min(u64::from(action)), u64::from(action % 16));
            }
            7 => {
                let changed = match action / 12 % 3 {
                    0 => MembershipChange::Voter(MasterId::from_raw(4)),
                    1 => MembershipChange::Learner(MasterId::from_raw(5)),
                    _ => MembershipChange::Remove(MasterId::from_raw(u64::from(action / 36 + 1))),
                };
                let _ = world.node.propose_change(changed, b"");
            }
            8 => world.node.hand_over(MasterId::from_raw(u64::from(action / 12 % 5))),
            9 => {
                let durable = world.committed.last().map(|(index, _)| *index);
                world.node.set_snapshot_point(durable.filter(|_| action < 128));
                if let Some(peer) = world.receivers.pop() {
                    world.node.snapshot_sent(peer, action & 64 == 0);
                }
            }
            10 => {
                let Some((bytes, after)) = rest.split_first_chunk::<COMPACT>() else { break };
                rest = after;
                let message = pb::RaftMessage { kind: MSG_SNAPSHOT, ..compact(bytes) };
                if !world.contradicts(&message)
                    && let Ok(message) = wire::read_message(message)
                {
                    world.node.snapshot_received(world.now, message);
                }
            }
            5 | 6 => {
                let Some((bytes, after)) = rest.split_first_chunk::<COMPACT>() else { break };
                rest = after;
                let message = compact(bytes);
                world.step(message);
            }
            _ => {
                // A length, then a message as it comes off the wire.
                let Some((&length, after)) = rest.split_first() else { break };
                let (bytes, after) = after.split_at(usize::from(length).min(after.len()));
                rest = after;
                let Ok(message) = pb::RaftMessage::decode(bytes) else { continue };
                world.step(message);
            }
        }
        world.drain();
        assert!(world.node.term() >= term, "terms never fall");
        term = world.node.term();
        assert!(world.node.commit_index() >= world.committed.last().map_or(0, |(index, _)| *index));
    }
    world.persist();
    if first & 1 == 1 && world.node.role() == Role::Leader && !world.node.is_handing_over() {
        assert!(world.node.propose(b"alone".to_vec()).is_ok());
    }
});
