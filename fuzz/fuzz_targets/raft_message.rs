//! What peers say to a consensus core: any sequence of messages, with time passing and disks answering in between,
//! leaves it alive, and what it has committed it never takes back.
//!
//! Left out are messages that contradict the core's own log in a way that only a lost log or a second leader explains:
//! on those it stops on purpose (`raft/admit.rs`).
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mooseng_env::Entropy;
use mooseng_master::raft::{Node, NodeConfig, Output, Recovered, Role};
use mooseng_protocol::pb;
use mooseng_types::MasterId;
use prost::Message;

const MSG_APPEND: u32 = 3;
const MSG_HEARTBEAT: u32 = 8;
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
}

impl World {
    fn new(voters: u64) -> Self {
        let config = NodeConfig {
            id: MasterId::from_raw(1),
            voters: (1..=voters).map(MasterId::from_raw).collect(),
            heartbeat: Duration::from_millis(50),
            election: Duration::from_millis(250),
            applied: 0,
        };
        let node = Node::new(&config, Recovered::default(), Duration::ZERO, Arc::new(Zeros));
        Self { node, now: Duration::ZERO, committed: Vec::new(), waiting: Vec::new() }
    }

    /// Whether the message says that something is committed which this log does not have.
    fn contradicts(&self, message: &pb::RaftMessage) -> bool {
        let last = self.last_index();
        match message.kind {
            MSG_HEARTBEAT => message.commit > last,
            MSG_APPEND => message.entries.iter().any(|entry| {
                entry.index <= self.node.commit_index() && self.node.term_of(entry.index) != Some(entry.term)
            }),
            _ => false,
        }
    }

    fn last_index(&self) -> u64 {
        let mut last = self.node.commit_index();
        while self.node.term_of(last + 1).is_some_and(|term| term != 0) {
            last += 1;
        }
        last
    }

    fn drain(&mut self) {
        while let Some(Output { persist, messages, committed }) = self.node.output() {
            assert!(messages.iter().all(|message| message.from == 1 && message.to != 1));
            for entry in committed {
                let last = self.committed.last().map_or(0, |(index, _)| *index);
                assert_eq!(entry.index, last + 1, "committed entries follow each other");
                self.committed.push((entry.index, entry.term));
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
    let entry = |at: u64| pb::RaftEntry {
        kind: u32::from(flags & 4 != 0),
        term: entry_term.saturating_add(at & flags >> 3),
        index: index.wrapping_add(at),
        data: if flags & 16 == 0 { vec![1; 3].into() } else { Vec::new().into() },
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
        priority: priority.cast_signed(),
        request_snapshot: request,
        snapshot: (flags & 128 != 0).then(|| pb::RaftSnapshot {
            index,
            term: log_term,
            ..Default::default()
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
        match action % 8 {
            0 => world.persist(),
            1 => {
                world.now += Duration::from_millis(u64::from(action));
                world.node.tick(world.now);
            }
            2 => world.node.leader_lost(world.now),
            3 => drop(world.node.propose(vec![action; 3])),
            4 => drop(world.node.purge(u64::from(action))),
            5 | 6 => {
                let Some((bytes, after)) = rest.split_first_chunk::<COMPACT>() else { break };
                rest = after;
                let message = compact(bytes);
                if !world.contradicts(&message) {
                    world.node.step(world.now, message);
                }
            }
            _ => {
                // A length, then a message as it comes off the wire.
                let Some((&length, after)) = rest.split_first() else { break };
                let (bytes, after) = after.split_at(usize::from(length).min(after.len()));
                rest = after;
                let Ok(message) = pb::RaftMessage::decode(bytes) else { continue };
                if !world.contradicts(&message) {
                    world.node.step(world.now, message);
                }
            }
        }
        world.drain();
        assert!(world.node.term() >= term, "terms never fall");
        term = world.node.term();
        assert!(world.node.commit_index() >= world.committed.last().map_or(0, |(index, _)| *index));
    }
    world.persist();
    if first & 1 == 1 && world.node.role() == Role::Leader {
        assert!(world.node.propose(b"alone".to_vec()).is_ok());
    }
});
