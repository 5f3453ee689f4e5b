//! What peers say to a whole master: beside consensus messages the wish to be let in, views of the group, hashes of
//! states, snapshots with their rows; and what an administrator asks for. Any sequence of them, with disks that answer
//! late, leaves it alive, and it never goes back to an older entry.
//!
//! Left out are snapshots that contradict what is committed.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mooseng_env::Entropy;
use mooseng_master::core::{ConnId, CoreConfig, DeskConfig, Effect, GroupConfig, Limits, MasterCore, Now};
use mooseng_master::group::{self, Peer};
use mooseng_master::raft::{HardState, Recovered};
use mooseng_master::wire;
use mooseng_meta::{Batch, ClusterCommand, Entry, Member, Membership, MemoryStore, MetaState, MetaStore};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Principal, Role};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::token::TokenKey;
use mooseng_types::{CellId, ClusterId, MasterId, TimeNs};
use prost::Message;

const MSG_SNAPSHOT: u32 = 7;
const OWN: MasterId = MasterId::new(1, 0);
const COMPACT: usize = 12;
const STEPS_MAX: usize = 200;
/// An administrator's connection.
const ADMIN: ConnId = ConnId::Framed(7);

#[derive(Debug)]
struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, into: &mut [u8]) {
        into.fill(0);
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn bytes<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(bytes)
    }

    fn some(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// Of few masters, in few lives.
fn id(byte: u8) -> MasterId {
    MasterId::new(u16::from(byte % 6), u32::from(byte / 6 % 3))
}

fn member(id: MasterId, voter: bool) -> Member {
    let name = format!("m{}", id.number());
    Member { id, address: format!("{name}:1"), name, voter, wants_vote: true }
}

/// Masters 1 to 5 as bits say: voters, learners.
fn group(voters: u8, learners: u8) -> Membership {
    let mut group = Membership { epoch: 1, members: Vec::new() };
    for number in 1..=5 {
        let of = |bits: u8| bits >> (number - 1) & 1 == 1;
        if of(voters) || of(learners) {
            group.put(member(MasterId::new(number, 0), of(voters)));
        }
    }
    group
}

/// A store as of an entry.
fn store_at(index: u64, term: u64, group: Membership) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let shared: Arc<dyn MetaStore> = Arc::<MemoryStore>::clone(&store);
    let mut state = MetaState::open(shared, CellId::ROOT).expect("an empty store");
    state.found(index.max(1), term, group);
    if let Some(batch) = state.freeze() {
        store.write(&batch);
    }
    store
}

/// A master with its disks.
struct World {
    core: MasterCore,
    mono: Duration,
    log: Vec<u64>,
    flushing: Option<(Arc<dyn MetaStore>, Arc<Batch>)>,
    receivers: Vec<MasterId>,
    applied: u64,
    over: bool,
}

impl World {
    /// In no group, in a group of three that has just been founded, or alone.
    fn new(kind: u8) -> Self {
        let peer = |id| Peer { id, name: format!("m{id}"), address: format!("m{id}:1") };
        let config = CoreConfig {
            group: GroupConfig {
                id: OWN,
                name: "m1".into(),
                address: "m1:1".into(),
                peers: (1..=3).map(peer).collect(),
                heartbeat: Duration::from_millis(50),
                election: Duration::from_millis(250),
                log_keep_bytes: 64,
                levels: mooseng_types::level::SUPPORTED,
                lost_group: false,
            },
            desk: DeskConfig {
                cluster: ClusterId::from_bytes([1; 16]),
                copies: 2,
                session_timeout: Duration::from_secs(5),
                repair: Limits::default(),
            },
        };
        let (store, recovered) = match kind % 3 {
            0 => (Arc::new(MemoryStore::new()), Recovered::default()),
            kind => {
                let voters = if kind == 1 { 0b111 } else { 0b1 };
                let hard_state = HardState { term: 1, vote: 0, commit: 1 };
                let recovered = Recovered { hard_state, purged: (1, 1), entries: Vec::new() };
                (store_at(1, 1, group(voters, 0)), recovered)
            }
        };
        let state = MetaState::open(store, CellId::ROOT).expect("a store of ours");
        let (applied, key) = (state.applied_index(), TokenKey::new(&[0; 32]));
        let entropy: Arc<dyn Entropy> = Arc::new(Zeros);
        let core = MasterCore::new(&config, key, (state, recovered), Vec::new(), Duration::ZERO, &entropy);
        let (mono, log, receivers) = (Duration::ZERO, Vec::new(), Vec::new());
        Self { core, mono, log, flushing: None, receivers, applied, over: false }
    }

    fn now(&self) -> Now {
        Now { mono: self.mono, wall: TimeNs::from_raw(1_700_000_000_000_000_000) }
    }

    fn settle(&mut self) {
        self.core.settle(self.now());
        let effects = self.core.take_effects();
        for effect in effects {
            match effect {
                Effect::Group(_, group::Effect::Persist(batch)) => self.log.push(batch.number),
                Effect::Group(_, group::Effect::Flush(store, batch)) => self.flushing = Some((store, batch)),
                Effect::Group(_, group::Effect::SendSnapshot(to, _)) => self.receivers.push(to),
                Effect::Send(to, _) => assert_ne!(to, OWN, "nobody writes to himself"),
                Effect::Group(_, group::Effect::OutOfService(_)) => self.over = true,
                _ => {}
            }
        }
        let applied = self.core.state().applied_index();
        assert!(applied >= self.applied, "from {} back to {applied}", self.applied);
        self.applied = applied;
        let commit = self.core.node().commit_index();
        // A founder begins its log once its store has the group.
        assert!(commit >= applied || commit == 0, "what is applied is committed");
    }

    fn persisted(&mut self) {
        for number in std::mem::take(&mut self.log) {
            self.core.persisted(CellId::ROOT, number);
        }
    }

    fn flushed(&mut self) {
        if let Some((store, batch)) = self.flushing.take() {
            store.write(&batch);
            self.core.flushed(self.now(), CellId::ROOT);
        }
    }

    /// Whether the message speaks of a snapshot that is not of this log.
    fn contradicts(&self, message: &pb::RaftMessage) -> bool {
        let node = self.core.node();
        let other = |index, term| index <= node.commit_index() && node.term_of(index) != Some(term);
        match message.kind {
            MSG_SNAPSHOT => message.snapshot.as_ref().is_some_and(|snapshot| {
                let known = node.term_of(snapshot.index).is_some_and(|term| term != 0);
                known && other(snapshot.index, snapshot.term)
            }),
            _ => false,
        }
    }

    /// Messages of a peer, but for those that would end the process.
    fn hear(&mut self, mut messages: pb::RaftMessages) {
        let all = std::mem::take(&mut messages.messages);
        let mut first = messages;
        for message in all {
            if !self.contradicts(&message) {
                let so_far = std::mem::take(&mut first);
                self.read(pb::RaftMessages { messages: vec![message], ..so_far });
            }
        }
        self.read(first);
    }

    fn read(&mut self, frame: pb::RaftMessages) {
        for said in wire::read(pb::RaftFrame { groups: vec![frame] }).unwrap_or_default() {
            self.core.peer_messages(self.now(), said);
        }
    }

    /// A snapshot with its rows, which may be of another entry or group than it says.
    fn snapshot(&mut self, bytes: &[u8; COMPACT]) {
        let mut message = compact(bytes);
        let [_, _, _, term, index, .., flags, voters, _, learners] = *bytes;
        let index = u64::from(index);
        message.kind = MSG_SNAPSHOT;
        message.snapshot = Some(pb::RaftSnapshot {
            index,
            term: term.into(),
            voters: (1..=5).filter(|id| voters >> (id - 1) & 1 == 1).collect(),
            learners: (1..=5).filter(|id| learners >> (id - 1) & 1 == 1).collect(),
        });
        message.entries.clear();
        if self.contradicts(&message) {
            return;
        }
        let (index, voters) = (index + u64::from(flags & 64 != 0), voters ^ u8::from(flags & 16 != 0) << 2);
        let store = store_at(index, term.into(), group(voters, learners));
        if let Ok(message) = wire::read_message(message) {
            self.core.snapshot_received(self.now(), CellId::ROOT, message, store);
        }
    }

    fn ask<R: Rpc>(&mut self, request: &R) {
        let header = Header { kind: R::KIND, ..Header::default() };
        let from = Principal { role: Role::Admin, name: "mooseng".into(), node: 0, client: None };
        self.core.request(self.now(), &from, ADMIN, header, request.encode_to_vec().into());
    }

    fn administer(&mut self, byte: u8) {
        let master = (byte / 4 % 6).to_string();
        match byte % 4 {
            0 => self.ask(&pb::AddMasterRequest { master, learner: byte > 127, dry_run: false }),
            1 => self.ask(&pb::RemoveMasterRequest { master, dry_run: false }),
            2 => self.ask(&pb::TransferLeaderRequest { master, dry_run: false }),
            _ => self.ask(&pb::ClusterStatusRequest::default()),
        }
    }
}

/// A message of small numbers; 255 stands for a huge one.
fn compact(bytes: &[u8; COMPACT]) -> pb::RaftMessage {
    let [kind, from, term, log_term, index, commit, entries, entry_term, flags, hint, who, request] = *bytes;
    let number = |byte: u8| if byte == u8::MAX { u64::MAX } else { u64::from(byte) };
    let told = member(id(who), true);
    let context = pb::GroupMember { id: told.id.raw(), name: told.name, address: told.address, voter: true };
    let change = pb::MembershipChange {
        kind: u32::from(hint % 3),
        node: told.id.raw(),
        context: context.encode_to_vec().into(),
        ..Default::default()
    };
    let uuid = [who; 16];
    let command =
        ClusterCommand::RegisterServer { uuid, name: "s".into(), address: "s:1".into(), place: None }.into();
    let entry = Entry { stamp: TimeNs::from_raw(1), request: None, command };
    let entry = |at: u64| pb::RaftEntry {
        kind: u32::from(flags & 4 != 0),
        term: number(entry_term).saturating_add(at & u64::from(flags) >> 3 & 1),
        index: number(index).wrapping_add(at),
        data: match flags & 20 {
            0 => entry.encode().into(),
            16 => Vec::new().into(),
            _ => change.encode_to_vec().into(),
        },
        context: Vec::new().into(),
    };
    let count = if flags & 2 == 0 { u64::from(entries % 4) } else { 0 };
    pb::RaftMessage {
        kind: u32::from(kind % 20),
        to: OWN.raw(),
        from: id(from).raw(),
        term: number(term),
        log_term: number(log_term),
        index: number(index),
        entries: (1..=count).map(entry).collect(),
        commit: number(commit),
        commit_term: number(entry_term),
        reject: flags & 1 == 1,
        reject_hint: number(hint),
        context: vec![kind; if flags & 64 == 0 { 0 } else { 16 }].into(),
        priority: 0,
        request_snapshot: if flags & 32 == 0 { 0 } else { number(request) },
        snapshot: None,
    }
}

fn join(bytes: &[u8; 2]) -> pb::RaftMessages {
    let joins = member(id(bytes[0]), false);
    let address = format!("{}{}", joins.address, bytes[1]);
    let lost_group = bytes[1] & 0x80 != 0;
    let join = Some(pb::JoinRequest { id: joins.id.raw(), name: joins.name, address, lost_group });
    pb::RaftMessages { join, ..Default::default() }
}

fn view(bytes: &[u8; 4]) -> pb::RaftMessages {
    let [epoch, index, voters, learners] = *bytes;
    let told = |member: &Member| pb::GroupMember {
        id: member.id.raw(),
        name: member.name.clone(),
        address: member.address.clone(),
        voter: member.voter,
    };
    let members = group(voters, learners).members.iter().map(told).collect();
    let group = Some(pb::GroupView { epoch: epoch.into(), index: index.into(), members });
    pb::RaftMessages { group, ..Default::default() }
}

/// A heartbeat's answer with a hash; or the order to leave.
fn digest(bytes: &[u8; 4]) -> pb::RaftMessages {
    let [from, index, digest, flags] = *bytes;
    let number = u64::from(digest);
    let index = u64::from(index) * 32;
    let member = if flags & 8 == 0 { OWN.raw() } else { id(from).raw() };
    let differs = (flags & 3 == 3).then_some(pb::DigestDiffers { index, yours: number, ours: 1, member });
    let answer =
        pb::RaftMessage { kind: 9, to: OWN.raw(), from: id(from).raw(), term: 1, ..Default::default() };
    let all_have = if flags & 4 == 0 { 0 } else { u64::from(flags) };
    let (messages, digest_index, digest) = (vec![answer], index, number);
    pb::RaftMessages { messages, all_have, digest_index, digest, differs, ..Default::default() }
}

fn step(world: &mut World, action: u8, input: &mut Input) -> Option<()> {
    match action & 15 {
        0 => world.persisted(),
        1 => {
            for _ in 0..input.byte()? % 32 {
                world.mono += Duration::from_millis(50);
                world.core.tick(world.now());
            }
        }
        2 => world.core.flush(world.mono),
        3 => world.flushed(),
        4 => {
            let peer = id(input.byte()?);
            world.core.peer_lost(world.now(), peer);
        }
        5 | 6 => {
            let messages = vec![compact(input.bytes()?)];
            world.hear(pb::RaftMessages { messages, ..Default::default() });
        }
        7 => world.hear(join(input.bytes()?)),
        8 => world.hear(view(input.bytes()?)),
        9 => world.hear(digest(input.bytes()?)),
        10 => world.snapshot(input.bytes()?),
        11 => world.administer(input.byte()?),
        12 => {
            if let Some(peer) = world.receivers.pop() {
                world.core.snapshot_sent(CellId::ROOT, peer, action & 64 == 0);
            }
        }
        13 => {
            let length = usize::from(input.byte()?);
            if let Ok(messages) = pb::RaftMessages::decode(input.some(length)) {
                world.hear(messages);
            }
        }
        _ => {
            // What a disk that is quick makes of everything so far.
            world.settle();
            world.persisted();
            world.settle();
            world.flushed();
        }
    }
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let Some(kind) = input.byte() else { return };
    let mut world = World::new(kind);
    for _ in 0..STEPS_MAX {
        let Some(action) = input.byte() else { break };
        if step(&mut world, action, &mut input).is_none() {
            break;
        }
        // Events that come together are settled together.
        if action & 128 == 0 {
            world.settle();
        }
        if world.over {
            return;
        }
    }
    world.settle();
    world.persisted();
    world.settle();
});
