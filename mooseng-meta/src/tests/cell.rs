//! Ids say the cell that has given them out, and none is given out twice.

use std::sync::Arc;

use mooseng_types::{CellId, ChunkIndex, FileKind, FsError, ID_COUNT_MAX, InodeId, ServerId};

use crate::check::check;
use crate::command::{ClusterCommand, ContentCommand, NameCommand, RenameMode};
use crate::response::Response;
use crate::state::{FormatError, MetaState};
use crate::store::MetaStore;
use crate::testing::World;

const CELL: CellId = CellId::from_raw(0xabcd);

#[test]
fn what_a_cell_makes_is_its_own_below_its_own_root() {
    let mut world = World::of(CELL);
    let file = world.make(CELL.root(), "f", FileKind::File);
    let grant = world.grant(file, 0);
    assert_eq!((file.raw(), grant.chunk.raw()), (0xabcd_0000_0000_0002, 0xabcd_0000_0000_0001));
    assert_eq!(world.session.raw(), 0xabcd_0000_0000_0001);
    assert_eq!(world.state.getattr(InodeId::ROOT), Err(FsError::NotFound));
    assert_eq!(world.state.parent_of(CELL.root()), Ok(CELL.root()));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_directory_does_not_move_into_itself_under_any_root() {
    let mut world = World::of(CELL);
    let above = world.make(CELL.root(), "above", FileKind::Directory);
    let below = world.make(above, "below", FileKind::Directory);
    let to = |new_parent| NameCommand::Rename {
        parent: CELL.root(),
        name: World::name("above"),
        new_parent,
        new_name: World::name("moved"),
        mode: RenameMode::Replace,
    };
    world.refused(FsError::Invalid, to(below));
    world.done(to(CELL.root()));
}

#[test]
fn a_cell_whose_numbers_are_used_up_refuses_and_never_begins_again() {
    let mut world = World::of(CELL);
    let counters = &mut world.state.tables.counters;
    (counters.next_inode, counters.next_chunk, counters.next_session) =
        (ID_COUNT_MAX, ID_COUNT_MAX, ID_COUNT_MAX);
    let file = world.make(CELL.root(), "last", FileKind::File);
    assert_eq!((file.cell(), file.count()), (CELL, ID_COUNT_MAX));
    world.refused(FsError::NoSpace, World::create(CELL.root(), "more", FileKind::File));
    let grant = world.grant(file, 0);
    assert_eq!((grant.chunk.cell(), grant.chunk.count()), (CELL, ID_COUNT_MAX));
    world.refused(FsError::NoSpace, World::grant_by(world.session, file, 1, &[]));
    let open = |client| ClusterCommand::OpenSession { client: [client; 16], name: String::new() };
    assert!(matches!(world.run(open(8)), Response::Session(last) if last.count() == ID_COUNT_MAX));
    world.refused(FsError::NoSpace, open(9));
    assert!(matches!(world.run(open(8)), Response::Session(_)), "one that is open needs no new id");
}

#[test]
fn a_chunk_is_not_given_up_while_there_is_no_id_for_one_in_its_place() {
    let mut world = World::of(CELL);
    let file = world.make(CELL.root(), "f", FileKind::File);
    world.state.tables.counters.next_chunk = ID_COUNT_MAX;
    world.grant(file, 0);
    let servers = |list: &[u32]| list.iter().copied().map(ServerId::from_raw).collect();
    let anew = ContentCommand::GrantWrite {
        session: world.session,
        inode: file,
        index: ChunkIndex::from_raw(0),
        candidates: servers(&[2, 3, 4]),
        failed: servers(&[1]),
        up: servers(&[2, 3, 4]),
        nothing_written: true,
        renew: false,
    };
    world.refused(FsError::NoSpace, anew);
    assert_eq!(check(&world.state), []);
}

#[test]
fn the_store_of_another_cell_is_not_opened() {
    let mut world = World::of(CELL);
    world.flush();
    let store = Arc::clone(&world.store) as Arc<dyn MetaStore>;
    let refused = MetaState::open(store, CellId::ROOT).unwrap_err();
    assert_eq!(refused, FormatError::Cell { found: CELL, wanted: CellId::ROOT });
    assert_eq!(refused.to_string(), "the store is of cell43981, not of cell0");
}
