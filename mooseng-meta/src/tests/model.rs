//! The machine beside the naive model, and beside itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mooseng_types::{
    CHUNK_SIZE, CellId, ChunkId, ChunkIndex, ChunkVersion, ClassId, ClassName, FileKind, FsError, Goal,
    InodeId, Level, RequestId, SessionId, SetAttr, StorageClass, TimeNs,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::check::check;
use crate::command::{
    AttrCommand, ClassCommand, ClusterCommand, Command, CommandBatch, CommittedChunk, ContentCommand, Entry,
    MovesLeases, NameCommand, RenameMode, RepairCommand, Request, XattrMode,
};
use crate::model::{Model, Op};
use crate::op::index::INDEX_MAX;
use crate::response::Response;
use crate::state::MetaState;
use crate::store::{Batch, MetaStore};
use crate::testing::World;

const CLIENTS: [u8; 2] = [11, 12];

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

/// The first, one among many, and the last.
fn cells() -> impl Strategy<Value = CellId> {
    prop::sample::select(vec![0, 3, u16::MAX]).prop_map(CellId::from_raw)
}

/// Few objects, so that commands meet.
fn inodes() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(1u64), 7 => 1u64..12]
}

fn sizes() -> impl Strategy<Value = u64> {
    let sizes = vec![0, 3, 10, 5000, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE];
    prop::sample::select(sizes)
}

fn kinds() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        4 => Just(FileKind::Directory),
        5 => Just(FileKind::File),
        1 => Just(FileKind::Symlink),
        1 => Just(FileKind::Fifo),
    ]
}

fn name_ops() -> impl Strategy<Value = Op> {
    let modes = prop_oneof![
        3 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange)
    ];
    prop_oneof![
        5 => (inodes(), names(), kinds()).prop_map(|(parent, name, kind)| Op::Create { parent, name, kind }),
        2 => (inodes(), inodes(), names()).prop_map(|(inode, parent, name)| Op::Link { inode, parent, name }),
        2 => (inodes(), names()).prop_map(|(parent, name)| Op::Unlink { parent, name }),
        2 => (inodes(), names()).prop_map(|(parent, name)| Op::Rmdir { parent, name }),
        5 => (inodes(), names(), inodes(), names(), modes)
            .prop_map(|(a, b, c, d, mode)| Op::Rename { from: (a, b), to: (c, d), mode }),
    ]
}

fn file_ops() -> impl Strategy<Value = Op> {
    let modes = prop_oneof![Just(XattrMode::Any), Just(XattrMode::Create), Just(XattrMode::Replace)];
    let session = || 0usize..2;
    prop_oneof![
        1 => (inodes(), 0u16..0o1000).prop_map(|(inode, mode)| Op::Chmod { inode, mode }),
        3 => (inodes(), sizes(), prop::option::of(session()))
            .prop_map(|(inode, size, session)| Op::Truncate { inode, size, session }),
        1 => (inodes(), names(), modes).prop_map(|(inode, name, mode)| Op::SetXattr { inode, name, mode }),
        1 => (inodes(), names()).prop_map(|(inode, name)| Op::RemoveXattr { inode, name }),
        6 => (session(), inodes(), 0u32..3)
            .prop_map(|(session, inode, index)| Op::Grant { session, inode, index }),
        5 => ((session(), inodes(), 0u32..3), sizes(), any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |((session, inode, index), size, release, stale)| {
                Op::Commit { session, inode, index, size, release, stale }
            }
        ),
        3 => (inodes(), 0u32..4100, 0usize..50)
            .prop_map(|(inode, offset, length)| Op::Inline { inode, offset, length }),
        2 => (session(), inodes(), 0u32..3)
            .prop_map(|(session, inode, index)| Op::Release { session, inode, index }),
        1 => session().prop_map(|session| Op::Close { session }),
        1 => inodes().prop_map(|inode| Op::Reap { inode }),
        1 => (2u16..4).prop_map(|level| Op::Raise { level }),
        1 => prop::sample::select(vec!["x", "y"]).prop_map(|name| Op::CreateClass { name }),
        1 => (0u16..6).prop_map(|id| Op::RemoveClass { id }),
        2 => (0u16..5, [inodes(), inodes()]).prop_map(|(id, inodes)| Op::SetClass { id, inodes }),
        2 => Just(Op::Index),
    ]
}

/// Those beside names that a batch may hold.
fn small_ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (inodes(), 0u16..0o1000).prop_map(|(inode, mode)| Op::Chmod { inode, mode }),
        1 => (inodes(), sizes()).prop_map(|(inode, size)| Op::Truncate { inode, size, session: None }),
        1 => (inodes(), names()).prop_map(|(inode, name)| Op::RemoveXattr { inode, name }),
        1 => (inodes(), 0u32..4100, 0usize..50)
            .prop_map(|(inode, offset, length)| Op::Inline { inode, offset, length }),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // A tree to begin with, so that most commands find something.
    let begin = vec((prop::sample::select(vec![1u64, 2]), names(), kinds()), 4..8);
    let begin = begin.prop_map(|list| {
        list.into_iter().map(|(parent, name, kind)| Op::Create { parent, name, kind }).collect::<Vec<_>>()
    });
    (begin, vec(prop_oneof![3 => name_ops(), 2 => file_ops()], 0..80))
        .prop_map(|(begin, more)| [begin, more].concat())
}

/// The model's object with this number.
fn object(world: &World, number: u64) -> InodeId {
    InodeId::of_cell(world.state.cell(), number).unwrap()
}

/// The command for an op, with what only the state knows: chunk ids and versions.
fn command(world: &World, sessions: &[SessionId; 2], op: &Op) -> Command {
    let id = |number| object(world, number);
    match *op {
        Op::Create { parent, name, kind } => World::create(id(parent), name, kind).into(),
        Op::Link { inode, parent, name } => {
            NameCommand::Link { inode: id(inode), new_parent: id(parent), new_name: World::name(name) }.into()
        }
        Op::Unlink { parent, name } => World::unlink(id(parent), name).into(),
        Op::Rmdir { parent, name } => {
            NameCommand::Rmdir { parent: id(parent), name: World::name(name) }.into()
        }
        Op::Rename { from, to, mode } => NameCommand::Rename {
            parent: id(from.0),
            name: World::name(from.1),
            new_parent: id(to.0),
            new_name: World::name(to.1),
            mode,
        }
        .into(),
        Op::Chmod { inode, mode } => {
            let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
            AttrCommand::SetAttr { inode: id(inode), change, session: None }.into()
        }
        Op::Truncate { inode, size, session } => {
            World::truncate(id(inode), size, session.map(|session| sessions[session])).into()
        }
        Op::SetXattr { inode, name, mode } => {
            let (name, value) = (Bytes::from_static(name.as_bytes()), Bytes::from_static(b"value"));
            AttrCommand::SetXattr { inode: id(inode), name, value, mode }.into()
        }
        Op::RemoveXattr { inode, name } => {
            AttrCommand::RemoveXattr { inode: id(inode), name: Bytes::from_static(name.as_bytes()) }.into()
        }
        Op::Grant { session, inode, index } => {
            World::grant_by(sessions[session], id(inode), index, &[]).into()
        }
        Op::Commit { session, inode, index, size, release, stale } => {
            let index = ChunkIndex::from_raw(index);
            let found = world.state.tables.chunk_at(id(inode), index);
            let (chunk, granted) = found.map_or((0, 0), |(chunk, row)| (chunk.raw(), row.granted.raw()));
            let version = ChunkVersion::from_raw(granted + u32::from(stale));
            let chunk = CommittedChunk { index, chunk: ChunkId::from_raw(chunk), version, release };
            let (session, inode) = (sessions[session], id(inode));
            ContentCommand::CommitWrite {
                session,
                inode,
                size_at_least: size,
                mtime: None,
                chunks: vec![chunk],
            }
            .into()
        }
        Op::Inline { inode, offset, length } => ContentCommand::WriteInline {
            inode: id(inode),
            offset,
            append: false,
            data: vec![b'x'; length].into(),
        }
        .into(),
        Op::Release { session, inode, index } => {
            let (session, indexes) = (sessions[session], vec![ChunkIndex::from_raw(index)]);
            ContentCommand::ReleaseLease { session, inode: id(inode), indexes }.into()
        }
        Op::Close { session } => ClusterCommand::CloseSession { session: sessions[session] }.into(),
        Op::Reap { inode } => RepairCommand::ReapOrphans { inodes: vec![id(inode)] }.into(),
        Op::Raise { level } => ClusterCommand::RaiseLevel { level: Level::from_raw(level) }.into(),
        Op::CreateClass { .. } | Op::RemoveClass { .. } | Op::SetClass { .. } => {
            class_command(world, op).into()
        }
        Op::Index => ClusterCommand::IndexChunks { from: ChunkId::from_raw(0), count: INDEX_MAX }.into(),
    }
}

fn class_command(world: &World, op: &Op) -> ClassCommand {
    match *op {
        Op::CreateClass { name } => {
            let class = StorageClass::new(ClassName::parse(name).unwrap(), Goal::any(2));
            ClassCommand::Create { class: Box::new(class) }
        }
        Op::RemoveClass { id } => ClassCommand::Remove { id: ClassId::from_raw(id) },
        Op::SetClass { id, inodes } => ClassCommand::Set {
            id: ClassId::from_raw(id),
            inodes: inodes.map(|inode| object(world, inode)).to_vec(),
        },
        _ => unreachable!("{op:?} is not about a class"),
    }
}

fn compare(world: &World, model: &Model) -> Result<(), TestCaseError> {
    let state = &world.state;
    for (&inode, node) in &model.nodes {
        let id = object(world, inode);
        let attr = state.getattr(id).map_err(|error| TestCaseError::fail(format!("{id}: {error}")))?;
        prop_assert_eq!((attr.kind, attr.mode), (node.kind, node.mode));
        prop_assert_eq!(attr.nlink as usize, model.nlink(inode), "links of {}", id);
        prop_assert_eq!(attr.size, model.size(inode), "size of {}", id);
        prop_assert_eq!(state.is_orphan(id), model.orphan(inode));
        prop_assert_eq!(state.class_of(id).unwrap().raw(), node.class);
        prop_assert_eq!(state.inline(id).unwrap_or_default(), Bytes::from(node.inline.clone()));
        let xattrs: BTreeSet<Bytes> =
            node.xattrs.iter().map(|name| Bytes::from_static(name.as_bytes())).collect();
        prop_assert_eq!(state.listxattr(id).unwrap().into_iter().collect::<BTreeSet<_>>(), xattrs);
        if node.kind == FileKind::Directory {
            let listing = state.readdir(id, 0, usize::MAX).unwrap();
            let listed: BTreeSet<_> =
                listing.entries.iter().map(|entry| (entry.name.clone(), entry.inode)).collect();
            let wanted = node.entries.iter().map(|(name, &to)| (World::name(name), object(world, to)));
            prop_assert_eq!(listed, wanted.collect::<BTreeSet<_>>());
        }
        if node.kind == FileKind::File {
            let located = state.locate(id, ChunkIndex::from_raw(0), u32::MAX).unwrap();
            let places: Vec<_> =
                located.iter().map(|(index, _, row)| (index.raw(), row.lease.is_some())).collect();
            let wanted: Vec<_> = node.chunks.iter().map(|(&index, lease)| (index, lease.is_some())).collect();
            prop_assert_eq!(places, wanted);
        }
    }
    prop_assert_eq!(state.totals().inodes, model.nodes.len() as u64);
    let classes: Vec<_> = state.classes().into_iter().map(|(id, class)| (id.raw(), class.name)).collect();
    let wanted = model.classes.iter().map(|(id, name)| (*id, ClassName::parse(name).unwrap()));
    prop_assert_eq!(classes, wanted.collect::<Vec<_>>());
    prop_assert_eq!(state.is_indexed(), model.indexed);
    Ok(())
}

/// All leases.
fn holders(world: &World) -> Vec<(InodeId, ChunkId, SessionId)> {
    let chunks = world.state.chunks(ChunkId::from_raw(0), usize::MAX);
    chunks.into_iter().filter_map(|(chunk, row)| Some((row.inode, chunk, row.lease?))).collect()
}

/// Runs the ops in a world of this cell and in the model, and gives the commands back.
fn run_beside_model(cell: CellId, ops: &[Op]) -> Result<Vec<Command>, TestCaseError> {
    let mut world = World::of(cell);
    let mut sessions = CLIENTS.map(|client| world.open(client));
    let mut model = Model::new();
    let mut commands = Vec::new();
    for op in ops {
        let command = command(&world, &sessions, op);
        commands.push(command.clone());
        let expected = model.apply(op);
        let before = world.rows();
        let (in_the_way, moves) = (world.state.lease_in_the_way(&command), command.moves_leases());
        let leases = holders(&world);
        let response = world.run(command);
        prop_assert_eq!(
            in_the_way.is_some(),
            response == Response::Refused(FsError::LeaseHeld),
            "{:?}: {:?}",
            op,
            in_the_way
        );
        let moved = |inode: &InodeId| match moves {
            MovesLeases::None => false,
            MovesLeases::Of(named) => named == *inode,
            MovesLeases::Any => true,
        };
        let after = holders(&world);
        let ended = leases.iter().filter(|lease| !after.contains(lease));
        prop_assert!(ended.clone().all(|(inode, ..)| moved(inode)), "{:?} ended leases untold", op);
        let outcome = match response {
            Response::Refused(error) => Err(error),
            _ => Ok(()),
        };
        prop_assert_eq!(outcome, expected, "{:?}", op);
        if outcome.is_err() {
            prop_assert_eq!(world.rows(), before, "{:?} left a trace", op);
        }
        if let Op::Close { session } = *op {
            sessions[session] = world.open(CLIENTS[session]);
            commands.push(
                ClusterCommand::OpenSession { client: [CLIENTS[session]; 16], name: "mount".to_owned() }
                    .into(),
            );
        }
    }
    compare(&world, &model)?;
    let violations = check(&world.state);
    prop_assert!(violations.is_empty(), "{:?}", violations);
    Ok(commands)
}

/// What happens to a replica besides the commands.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Freeze,
    Flushed,
    SentAgain,
    Restart,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Nothing),
        2 => Just(Event::Freeze),
        2 => Just(Event::Flushed),
        1 => Just(Event::SentAgain),
        1 => Just(Event::Restart),
    ]
}

/// A replica that may be busy with more than the commands.
struct Replica {
    world: World,
    out: Option<Arc<Batch>>,
}

impl Replica {
    fn new(cell: CellId) -> Self {
        let mut world = World::of(cell);
        for client in CLIENTS {
            world.open(client);
        }
        Self { world, out: None }
    }

    fn apply(&mut self, entry: &Entry) -> Response {
        let index = self.world.state.applied_index() + 1;
        self.world.state.apply(index, entry)
    }

    fn land(&mut self) {
        if let Some(batch) = self.out.take() {
            self.world.store.write(&batch);
            self.world.state.flushed();
        }
    }

    /// Lets something happen after `entry` was applied and answered.
    fn suffer(&mut self, event: Event, entry: &Entry, response: &Response) -> Result<(), TestCaseError> {
        match event {
            Event::Nothing => {}
            Event::Freeze => self.out = self.world.state.freeze().or(self.out.take()),
            Event::Flushed => self.land(),
            Event::SentAgain => {
                let again = self.apply(entry);
                prop_assert_eq!(&again, response);
            }
            Event::Restart => {
                self.land();
                self.world.flush();
                let store = Arc::clone(&self.world.store);
                self.world.state = MetaState::open(store, self.world.state.cell()).unwrap();
            }
        }
        Ok(())
    }

    /// Everything that replicas must agree on.
    fn end(mut self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.land();
        self.world.flush();
        self.world.stored()
    }
}

fn entries(commands: Vec<Command>, session: SessionId) -> Vec<Entry> {
    let with = |(i, command)| {
        let seq = i as u64 + 1;
        let id = RequestId { session, seq };
        let request = Some(Request { id, acked_below: seq.saturating_sub(3) });
        Entry { stamp: TimeNs::from_raw(seq as i64), request, command }
    };
    commands.into_iter().enumerate().map(with).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn the_machine_does_what_the_model_does(cell in cells(), ops in ops()) {
        run_beside_model(cell, &ops)?;
    }

    /// As a list of commands of their own, with the same stamp, up to the first that is refused.
    #[test]
    fn a_batch_is_its_changes_one_after_the_other_up_to_the_first_that_is_refused(
        cell in cells(),
        ops in ops(),
        changes in vec(prop_oneof![3 => name_ops(), 1 => small_ops()], 1..8),
    ) {
        let prepared = || {
            let mut world = World::of(cell);
            let sessions = CLIENTS.map(|client| world.open(client));
            world.done(ClusterCommand::RaiseLevel { level: Level::IDENTITY });
            for op in ops.iter().filter(|op| !matches!(op, Op::Close { .. })) {
                let command = command(&world, &sessions, op);
                world.run(command);
            }
            (world, sessions)
        };
        let (mut alone, sessions) = prepared();
        let (mut together, _) = prepared();
        let commands: Vec<Command> = changes.iter().map(|op| command(&alone, &sessions, op)).collect();
        let entry = |command| Entry { stamp: TimeNs::from_raw(7_000), request: None, command };
        let mut answers = Vec::new();
        for command in &commands {
            let answer = alone.state.apply(alone.state.applied_index() + 1, &entry(command.clone()));
            let refused = matches!(answer, Response::Refused(_));
            answers.push(answer);
            if refused {
                break;
            }
        }
        let batch = CommandBatch::new(commands).unwrap().into();
        let answer = together.state.apply(together.state.applied_index() + 1, &entry(batch));
        prop_assert_eq!(answer, Response::Batch(answers));
        // But for what the store says of itself: how many entries it has applied, and their hash.
        let rows = |world: &World| {
            let mut rows = world.rows().0;
            rows.retain(|key, _| !key.starts_with(b"m"));
            rows
        };
        prop_assert_eq!(rows(&alone), rows(&together));
    }

    /// One replica only applies. The other freezes and flushes now and then, is restarted, and gets entries twice.
    #[test]
    fn replicas_come_to_the_same_rows_whatever_else_happens_to_them(
        cell in cells(),
        ops in ops(),
        events in vec(events(), 100),
    ) {
        let commands = run_beside_model(cell, &ops)?;
        let (mut calm, mut busy) = (Replica::new(cell), Replica::new(cell));
        for (entry, &event) in entries(commands, calm.world.session).iter().zip(events.iter().cycle()) {
            let response = calm.apply(entry);
            let other = busy.apply(entry);
            prop_assert_eq!(&response, &other);
            if response != Response::Refused(FsError::LeaseHeld) {
                let stored = busy.world.state.stored_response(entry.request.unwrap().id);
                prop_assert_eq!(stored, Some(response.clone()));
            }
            busy.suffer(event, entry, &response)?;
            if matches!(event, Event::SentAgain) {
                // The second time is an entry too, one that changes nothing.
                calm.world.state.skip(calm.world.state.applied_index() + 1);
            }
            prop_assert_eq!(calm.world.state.digest(), busy.world.state.digest());
        }
        let violations = check(&busy.world.state);
        prop_assert!(violations.is_empty(), "{:?}", violations);
        prop_assert_eq!(calm.end(), busy.end());
    }
}
