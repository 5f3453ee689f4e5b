//! Nothing of a higher level is written before the cluster has it, and what was written before is read as it is.

use std::sync::Arc;

use mooseng_types::{CellId, ClassId, FileKind, InodeId, Level, SetAttr, TimeNs};

use crate::codec::CodecError;
use crate::codec::v1::row::Number;
use crate::command::{AttrCommand, ClusterCommand, Entry};
use crate::key;
use crate::landmark::{Landmark, landmark};
use crate::state::{FormatError, MetaState};
use crate::store::{Batch, MetaStore};
use crate::testing::World;

const RAISE: ClusterCommand = ClusterCommand::RaiseLevel { level: Level::IDENTITY };

fn format_of(world: &World, inode: InodeId) -> u8 {
    world.rows().0[&key::inode(inode)[..]][0]
}

fn touch(world: &mut World, inode: InodeId) {
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    world.attr(AttrCommand::SetAttr { inode, change, session: None });
}

#[test]
fn rows_are_of_the_clusters_level_and_old_ones_stay_until_they_change() {
    let mut world = World::new();
    let before = world.make(InodeId::ROOT, "before", FileKind::File);
    assert_eq!((world.state.level(), format_of(&world, before)), (Level::FIRST, 1));
    world.done(RAISE);
    assert_eq!((world.state.level(), format_of(&world, before)), (Level::IDENTITY, 1));
    let after = world.make(InodeId::ROOT, "after", FileKind::File);
    assert_eq!((format_of(&world, after), format_of(&world, InodeId::ROOT)), (2, 2));
    touch(&mut world, before);
    assert_eq!(format_of(&world, before), 2);
}

#[test]
fn a_level_only_rises() {
    let mut world = World::new();
    world.done(RAISE);
    let rows = world.rows();
    world.done(ClusterCommand::RaiseLevel { level: Level::FIRST });
    world.done(RAISE);
    assert_eq!((world.state.level(), world.rows()), (Level::IDENTITY, rows));
}

#[test]
fn a_new_object_has_the_class_of_its_directory_once_the_level_has_classes() {
    let mut world = World::new();
    world.done(RAISE);
    let class = ClassId::from_raw(7);
    let mut root = world.state.tables.inode(InodeId::ROOT).unwrap();
    root.class = class;
    world.state.tables.put_inode(InodeId::ROOT, &root);
    let file = world.make(InodeId::ROOT, "file", FileKind::File);
    assert_eq!(world.state.tables.inode(file).unwrap().class, class);
}

#[test]
fn a_state_opened_again_has_its_level_and_one_of_a_later_level_is_not_opened() {
    let mut world = World::new();
    world.done(RAISE);
    world.flush();
    let store = Arc::clone(&world.store) as Arc<dyn MetaStore>;
    assert_eq!(MetaState::open(Arc::clone(&store), CellId::ROOT).unwrap().level(), Level::IDENTITY);
    let row = (key::LEVEL.to_vec(), Some(Number(4).encode().into()));
    store.write(&Batch { applied_index: world.state.applied_index(), rows: [row].into() });
    let refused = MetaState::open(store, CellId::ROOT).unwrap_err();
    assert_eq!(refused, FormatError::Level { found: 4 });
    assert_eq!(refused.to_string(), "the store has level 4, this release knows levels 1 to 3: upgrade it");
}

#[test]
fn an_entry_that_raises_the_level_beyond_what_is_known_cannot_be_read() {
    let entry = Entry { stamp: TimeNs::from_raw(0), request: None, command: RAISE.into() };
    let mut bytes = entry.encode();
    assert_eq!(bytes.last(), Some(&2));
    *bytes.last_mut().unwrap() = 4;
    assert_eq!(Entry::decode(&bytes), Err(CodecError::Value("level")));
}

#[test]
fn a_level_is_a_landmark() {
    let row = Number(2).encode();
    assert_eq!(landmark(&key::LEVEL, &row), Ok(Some(Landmark::Level(Level::IDENTITY))));
    assert_eq!(landmark(&key::LEVEL, &Number(1 << 16).encode()), Err(CodecError::Value("level")));
}
