//! Which bytes a reader may see, with clients and copies that do as the grants tell them.
//!
//! The file has one chunk and the chunk one copy. For every byte the test knows which values are allowed: the one
//! committed last, and those written since under a lease that was not committed; beyond the file's end only zero, also
//! after the file has grown again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mooseng_types::{ChunkId, ChunkIndex, FileKind, FsError, InodeId, SessionId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::check::check;
use crate::command::{ClusterCommand, ContentCommand};
use crate::response::{Grant, Response};
use crate::testing::World;

const LENGTH: usize = 48;
const FIRST: ChunkIndex = ChunkIndex::from_raw(0);

#[derive(Clone, Debug)]
enum Op {
    Write { client: usize, at: usize, length: usize },
    Commit { client: usize, release: bool },
    Release { client: usize },
    Die { client: usize },
    Truncate { client: Option<usize>, size: usize },
    Inline { at: usize, length: usize },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let client = || 0usize..2;
    let range = || (0..LENGTH, 1usize..20);
    let op = prop_oneof![
        6 => (client(), range()).prop_map(|(client, (at, length))| Op::Write { client, at, length }),
        3 => (client(), any::<bool>()).prop_map(|(client, release)| Op::Commit { client, release }),
        2 => client().prop_map(|client| Op::Release { client }),
        1 => client().prop_map(|client| Op::Die { client }),
        4 => (prop::option::of(client()), 0..LENGTH).prop_map(|(client, size)| Op::Truncate { client, size }),
        2 => range().prop_map(|(at, length)| Op::Inline { at, length }),
    ];
    vec(op, 1..60)
}

struct Client {
    session: SessionId,
    /// The lease it believes to have.
    grant: Option<Grant>,
    /// Bytes written to the copy and not committed.
    pending: BTreeMap<usize, u8>,
}

struct Scene {
    world: World,
    file: InodeId,
    clients: Vec<Client>,
    copies: BTreeMap<ChunkId, Vec<u8>>,
    allowed: Vec<BTreeSet<u8>>,
    last_value: u8,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new();
        let file = world.make(InodeId::ROOT, "f", FileKind::File);
        let clients = (11..13)
            .map(|id| Client { session: world.open(id), grant: None, pending: BTreeMap::new() })
            .collect();
        let allowed = vec![BTreeSet::from([0]); LENGTH];
        Self { world, file, clients, copies: BTreeMap::new(), allowed, last_value: 0 }
    }

    fn size(&self) -> usize {
        self.world.state.getattr(self.file).unwrap().size as usize
    }

    fn value(&mut self) -> u8 {
        self.last_value = self.last_value.wrapping_add(1).max(1);
        self.last_value
    }

    fn lease(&self) -> Option<SessionId> {
        self.world.state.tables.chunk_at(self.file, FIRST).and_then(|(_, row)| row.lease)
    }

    /// What a lease that is gone leaves behind: a client without it, and nothing beyond the file's end.
    fn settle(&mut self) {
        let (lease, size) = (self.lease(), self.size());
        for client in self.clients.iter_mut().filter(|client| lease != Some(client.session)) {
            client.grant = None;
            client.pending.clear();
        }
        if lease.is_none() {
            self.allowed[size..].fill(BTreeSet::from([0]));
        }
    }

    fn write(&mut self, client: usize, at: usize, length: usize) {
        let session = self.clients[client].session;
        let grant = match self.world.run(World::grant_by(session, self.file, 0, &[])) {
            Response::Grant(grant) => grant,
            other => return assert_eq!(other, Response::Refused(FsError::LeaseHeld)),
        };
        let copy = self.copies.entry(grant.chunk).or_default();
        if self.clients[client].grant.as_ref().is_none_or(|held| held.version != grant.version) {
            copy.truncate(grant.valid_length as usize);
            let inline = grant.inline.clone().unwrap_or_default();
            copy.resize(copy.len().max(inline.len()), 0);
            copy[..inline.len()].copy_from_slice(&inline);
        }
        let end = (at + length).min(LENGTH);
        copy.resize(copy.len().max(end), 0);
        self.clients[client].grant = Some(grant.clone());
        let value = self.value();
        self.copies.entry(grant.chunk).or_default()[at..end].fill(value);
        for at in at..end {
            self.clients[client].pending.insert(at, value);
            self.allowed[at].insert(value);
        }
    }

    fn commit(&mut self, client: usize, release: bool) {
        let Some(grant) = self.clients[client].grant.clone() else { return };
        self.world.session = self.clients[client].session;
        let pending = std::mem::take(&mut self.clients[client].pending);
        let size = pending.keys().last().map_or(0, |last| last + 1);
        self.world.attr(self.world.commit(self.file, size as u64, 0, &grant, release));
        for (at, value) in pending {
            self.allowed[at] = BTreeSet::from([value]);
        }
    }

    fn truncate(&mut self, client: Option<usize>, size: usize) {
        let (session, old) = (client.map(|client| self.clients[client].session), self.size());
        match self.world.run(World::truncate(self.file, size as u64, session)) {
            Response::Attr(_) if size < old => self.allowed[size..].fill(BTreeSet::from([0])),
            Response::Attr(_) => {}
            other => assert_eq!(other, Response::Refused(FsError::LeaseHeld)),
        }
    }

    fn inline(&mut self, at: usize, length: usize) {
        let (value, end) = (self.value(), (at + length).min(LENGTH));
        let data = Bytes::from(vec![value; end - at]);
        let write = ContentCommand::WriteInline { inode: self.file, offset: at as u32, append: false, data };
        if let Response::Attr(_) = self.world.run(write) {
            self.allowed[at..end].fill(BTreeSet::from([value]));
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Write { client, at, length } => self.write(client, at, length),
            Op::Commit { client, release } => self.commit(client, release),
            Op::Release { client } => {
                let (session, inode) = (self.clients[client].session, self.file);
                self.world.done(ContentCommand::ReleaseLease { session, inode, indexes: vec![FIRST] });
            }
            Op::Die { client } => {
                self.world.done(ClusterCommand::CloseSession { session: self.clients[client].session });
                self.clients[client].session = self.world.open(11 + client as u8);
            }
            Op::Truncate { client, size } => self.truncate(client, size),
            Op::Inline { at, length } => self.inline(at, length),
        }
        self.settle();
    }

    /// The byte as a reader sees it.
    fn read(&self, at: usize) -> u8 {
        let inline = self.world.state.inline(self.file).unwrap_or_default();
        if let Some(&byte) = inline.get(at) {
            return byte;
        }
        let located = self.world.state.locate(self.file, FIRST, 1).unwrap();
        let readable = located.first().filter(|(_, _, row)| row.committed.raw() > 0);
        let Some((_, chunk, _)) = readable.filter(|(_, _, row)| at < row.valid_length as usize) else {
            return 0;
        };
        self.copies[chunk].get(at).copied().unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_reader_sees_what_was_written_and_zero_beyond_any_end(ops in ops()) {
        let mut scene = Scene::new();
        for op in ops {
            let what = format!("{op:?}");
            scene.run(op);
            for at in 0..scene.size() {
                let byte = scene.read(at);
                let allowed = &scene.allowed[at];
                prop_assert!(allowed.contains(&byte), "byte {} is {} and not {:?} after {}", at, byte, allowed, what);
            }
        }
        prop_assert_eq!(check(&scene.world.state), []);
    }
}
