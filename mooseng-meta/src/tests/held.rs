//! The table from servers to chunks beside the naive answer, which looks at every chunk.

use std::collections::BTreeSet;
use std::sync::Arc;

use mooseng_types::{
    CHUNK_SIZE, ChunkId, ChunkIndex, ChunkVersion, FileKind, FsError, InodeId, Level, Part, ServerId,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::check::check;
use crate::chunk::ChunkRow;
use crate::command::{ClusterCommand, Command, CommittedChunk, ContentCommand, RepairCommand};
use crate::layout::{Layout, Stripe};
use crate::response::Response;
use crate::state::MetaState;
use crate::store::MetaStore;
use crate::testing::World;

const RAISE: ClusterCommand = ClusterCommand::RaiseLevel { level: Level::IDENTITY };
const FILES: [&str; 3] = ["a", "b", "c"];

type Place = (usize, u32);

/// What changes which servers a chunk is on, or might.
#[derive(Clone, Debug)]
enum Op {
    Grant {
        at: Place,
        failed: Vec<u32>,
        nothing_written: bool,
    },
    Commit {
        at: Place,
        release: bool,
    },
    Release {
        at: Place,
    },
    Truncate {
        file: usize,
        chunks: u64,
    },
    AddReplica {
        at: Place,
        server: u32,
    },
    RemoveReplica {
        at: Place,
        server: u32,
    },
    /// What nothing does yet.
    Stripe {
        at: Place,
        first: u32,
    },
    Unlink {
        file: usize,
    },
    CloseSession,
    Raise,
    Index {
        count: u32,
    },
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = || (0..FILES.len(), 0u32..4);
    let server = || 1u32..8;
    let op = prop_oneof![
        8 => (at(), vec(server(), 0..4), any::<bool>())
            .prop_map(|(at, failed, nothing_written)| Op::Grant { at, failed, nothing_written }),
        4 => (at(), any::<bool>()).prop_map(|(at, release)| Op::Commit { at, release }),
        2 => at().prop_map(|at| Op::Release { at }),
        1 => (0..FILES.len(), 0u64..4).prop_map(|(file, chunks)| Op::Truncate { file, chunks }),
        4 => (at(), server()).prop_map(|(at, server)| Op::AddReplica { at, server }),
        4 => (at(), server()).prop_map(|(at, server)| Op::RemoveReplica { at, server }),
        1 => (at(), server()).prop_map(|(at, first)| Op::Stripe { at, first }),
        1 => (0..FILES.len()).prop_map(|file| Op::Unlink { file }),
        1 => Just(Op::CloseSession),
        1 => Just(Op::Restart),
    ];
    let index = (1u32..4).prop_map(|count| Op::Index { count });
    // The raise is somewhere in the middle, and the table is entered while things go on.
    let later = vec(prop_oneof![5 => op.clone(), 1 => index], 0..40);
    (vec(op, 0..40), later).prop_map(|(before, after)| [before, vec![Op::Raise], after].concat())
}

fn server(raw: u32) -> ServerId {
    ServerId::from_raw(raw)
}

/// The world with its files, and the session that writes.
struct Busy {
    world: World,
    files: [InodeId; 3],
}

impl Busy {
    fn new() -> Self {
        let mut world = World::new();
        let files = FILES.map(|name| world.make(InodeId::ROOT, name, FileKind::File));
        Self { world, files }
    }

    fn found(&self, (file, index): Place) -> Option<(ChunkId, ChunkRow)> {
        self.world.state.tables.chunk_at(self.files[file], ChunkIndex::from_raw(index))
    }

    fn command(&self, op: &Op) -> Option<Command> {
        let session = self.world.session;
        Some(match *op {
            Op::Grant { at, ref failed, nothing_written } => ContentCommand::GrantWrite {
                session,
                inode: self.files[at.0],
                index: ChunkIndex::from_raw(at.1),
                candidates: (1..8).map(server).filter(|id| !failed.contains(&id.raw())).take(4).collect(),
                failed: failed.iter().copied().map(server).collect(),
                up: (1..6).map(server).collect(),
                nothing_written,
                renew: false,
            }
            .into(),
            Op::Commit { at, release } => {
                let (chunk, row) = self.found(at)?;
                let (index, version) = (row.index, row.granted);
                ContentCommand::CommitWrite {
                    session,
                    inode: row.inode,
                    size_at_least: index.start() + 1,
                    mtime: None,
                    chunks: vec![CommittedChunk { index, chunk, version, release }],
                }
                .into()
            }
            Op::Release { at } => {
                let indexes = vec![ChunkIndex::from_raw(at.1)];
                ContentCommand::ReleaseLease { session, inode: self.files[at.0], indexes }.into()
            }
            Op::Truncate { file, chunks } => {
                World::truncate(self.files[file], chunks * CHUNK_SIZE, Some(session)).into()
            }
            Op::AddReplica { at, server: to } => {
                let (chunk, row) = self.found(at)?;
                RepairCommand::AddReplica { chunk, version: row.committed, server: server(to) }.into()
            }
            Op::RemoveReplica { at, server: from } => {
                RepairCommand::RemoveReplica { chunk: self.found(at)?.0, server: server(from) }.into()
            }
            Op::CloseSession => ClusterCommand::CloseSession { session }.into(),
            Op::Raise => RAISE.into(),
            Op::Index { count } => {
                ClusterCommand::IndexChunks { from: self.world.state.next_to_index()?, count }.into()
            }
            Op::Stripe { .. } | Op::Unlink { .. } | Op::Restart => return None,
        })
    }

    fn run(&mut self, op: &Op) {
        if let Some(command) = self.command(op) {
            self.world.run(command);
        }
        match *op {
            Op::Stripe { at, first } => {
                let Some((chunk, mut row)) = self.found(at) else { return };
                let stripe = Stripe::new(2, 1, (first..first + 3).map(server).collect());
                row.layout = Layout::Striped(stripe.unwrap());
                self.world.state.tables.put_chunk(chunk, &row);
            }
            Op::Unlink { file } => {
                self.world.done(World::unlink(InodeId::ROOT, FILES[file]));
                self.world.done(RepairCommand::ReapOrphans { inodes: vec![self.files[file]] });
                self.files[file] = self.world.make(InodeId::ROOT, FILES[file], FileKind::File);
            }
            Op::CloseSession => self.world.session = self.world.open(1),
            Op::Restart => {
                self.world.flush();
                let store = Arc::clone(&self.world.store) as Arc<dyn MetaStore>;
                self.world.state = MetaState::open(store, self.world.state.cell()).unwrap();
            }
            _ => {}
        }
    }

    /// The naive answer.
    fn scan(&self, of: ServerId) -> Vec<Part> {
        let chunks = self.world.state.chunks(ChunkId::from_raw(0), usize::MAX);
        let parts = chunks.iter().flat_map(|(chunk, row)| row.layout.parts(*chunk));
        let parts: BTreeSet<Part> = parts.filter(|(server, _)| *server == of).map(|(_, part)| part).collect();
        parts.into_iter().collect()
    }

    /// The table's answer, in pages.
    fn held(&self, of: ServerId, page: usize) -> Option<Vec<Part>> {
        let mut all: Vec<Part> = Vec::new();
        loop {
            let more = self.world.state.held_by(of, all.last().copied(), page)?;
            if more.is_empty() {
                return Some(all);
            }
            all.extend(more);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn the_table_says_what_a_look_at_every_chunk_says(ops in ops(), page in 1usize..5) {
        let mut busy = Busy::new();
        for op in &ops {
            busy.run(op);
            let violations = check(&busy.world.state);
            prop_assert!(violations.is_empty(), "after {:?}: {:?}", op, violations);
        }
        while busy.world.state.next_to_index().is_some() {
            prop_assert_eq!(busy.held(server(1), page), None, "nobody asks before it is complete");
            busy.run(&Op::Index { count: 3 });
        }
        for of in (0..12).map(server) {
            prop_assert_eq!(busy.held(of, page), Some(busy.scan(of)), "{}", of);
        }
    }
}

/// A file with a chunk at each of so many places, on servers 1, 2 and 3.
fn world(chunks: u32) -> (World, InodeId) {
    let mut world = World::new();
    let file = world.make(InodeId::ROOT, "f", FileKind::File);
    (0..chunks).for_each(|index| drop(world.grant(file, index)));
    (world, file)
}

fn rows(world: &World) -> usize {
    world.rows().0.keys().filter(|key| key.starts_with(b"h")).count()
}

#[test]
fn no_row_of_the_table_is_written_before_its_level_and_what_comes_after_it_is_there_at_once() {
    let (mut world, file) = world(2);
    assert_eq!((rows(&world), world.state.next_to_index(), world.state.is_indexed()), (0, None, false));
    world.done(RAISE);
    assert_eq!((rows(&world), world.state.next_to_index()), (0, Some(ChunkId::from_raw(0))));
    world.grant(file, 2);
    assert_eq!(rows(&world), 3);
    assert_eq!(world.state.held_by(server(1), None, 9), None);
    let dropped = world.granted(World::grant_by(world.session, file, 0, &[2]));
    assert_eq!(dropped.version, ChunkVersion::from_raw(2));
    world.done(ClusterCommand::IndexChunks { from: ChunkId::from_raw(0), count: 9 });
    let whole = |raw| Part::whole(ChunkId::from_raw(raw));
    assert_eq!(world.state.held_by(server(1), None, 9), Some(vec![whole(1), whole(2), whole(3)]));
    assert_eq!(world.state.held_by(server(2), None, 9), Some(vec![whole(2), whole(3)]));
    assert_eq!(world.state.held_by(server(2), Some(whole(2)), 9), Some(vec![whole(3)]));
    assert_eq!(world.state.held_by(server(4), None, 9), Some(Vec::new()));
}

#[test]
fn the_table_is_entered_step_by_step_and_each_step_once() {
    let (mut world, _) = world(4);
    let index = |from, count| ClusterCommand::IndexChunks { from: ChunkId::from_raw(from), count };
    world.refused(FsError::Invalid, index(0, 2));
    world.done(RAISE);
    for count in [0, 1025, u32::MAX] {
        world.refused(FsError::Invalid, index(0, count));
    }
    world.refused(FsError::Stale, index(1, 2));
    world.done(index(0, 2));
    world.refused(FsError::Stale, index(0, 2));
    assert_eq!((rows(&world), world.state.next_to_index()), (6, Some(ChunkId::from_raw(3))));
    world.done(index(3, 2));
    assert_eq!((rows(&world), world.state.next_to_index()), (12, Some(ChunkId::from_raw(5))));
    assert_eq!(world.run(index(5, 2)), Response::Done);
    assert!(world.state.is_indexed());
    world.refused(FsError::Stale, index(5, 2));
}
