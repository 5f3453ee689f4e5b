//! Storage classes: what every cluster begins with, who may have which, and how they end.

use std::sync::Arc;

use mooseng_types::{
    CLASSES_MAX, CellId, ClassId, ClassName, ClusterId, DESCRIPTION_MAX, FileKind, FsError, Goal, InodeId,
    Labels, Level, ServerId, StorageClass,
};

use crate::check::check;
use crate::command::{ClassCommand, ClusterCommand, Command, RepairCommand, SET_CLASS_MAX};
use crate::key;
use crate::response::Response;
use crate::server::{ServerMode, ServerPlace};
use crate::state::MetaState;
use crate::store::{MemoryStore, MetaStore};
use crate::testing::World;

const RAISE: ClusterCommand = ClusterCommand::RaiseLevel { level: Level::CLASSES };

fn class(name: &str, goal: &str) -> Box<StorageClass> {
    Box::new(StorageClass::new(ClassName::parse(name).unwrap(), goal.parse().unwrap()))
}

fn id(raw: u16) -> ClassId {
    ClassId::from_raw(raw)
}

fn raised() -> World {
    let mut world = World::new();
    world.done(RAISE);
    world
}

fn names(state: &MetaState) -> Vec<String> {
    state
        .classes()
        .into_iter()
        .map(|(id, class)| format!("{} {}: {}", id.raw(), class.name, class.keep))
        .collect()
}

#[test]
fn every_cluster_begins_with_the_same_classes_whichever_came_first() {
    let world = raised();
    let wanted = ["0 default: 2", "1 2CP: 2", "2 3CP: 3"];
    assert_eq!(names(&world.state), wanted);
    let mut world = World::new();
    let empty = Arc::new(MemoryStore::new()) as Arc<dyn MetaStore>;
    world.state = MetaState::open(empty, CellId::ROOT).unwrap();
    world.done(RAISE);
    assert_eq!(names(&world.state), [""; 0]);
    world.done(ClusterCommand::Bootstrap { cluster: ClusterId::from_bytes([7; 16]), copies: 3 });
    assert_eq!(names(&world.state)[0], "0 default: 3");
    assert_eq!(check(&world.state), []);
}

#[test]
fn below_the_level_of_classes_there_are_none_and_the_settings_say_what_is_wanted() {
    let mut world = World::new();
    world.refused(FsError::NotSupported, ClassCommand::Create { class: class("x", "2") });
    world.refused(FsError::NotFound, ClassCommand::Set { id: id(0), inodes: vec![InodeId::ROOT] });
    assert_eq!(world.state.class_for(InodeId::ROOT).unwrap().keep, Goal::any(2));
    let command = Command::from(ClassCommand::Remove { id: id(1) });
    assert_eq!(command.level(), Level::CLASSES);
}

#[test]
fn what_is_made_in_a_directory_has_its_class_and_what_is_there_keeps_its_own() {
    let mut world = raised();
    let dir = world.make(InodeId::ROOT, "dir", FileKind::Directory);
    let before = world.make(dir, "before", FileKind::File);
    assert_eq!(world.run(ClassCommand::Create { class: class("gold", "A,B") }), Response::Class(id(3)));
    let set = ClassCommand::Set { id: id(3), inodes: vec![dir, dir, InodeId::from_raw(99)] };
    assert_eq!(world.run(set.clone()), Response::Changed(1));
    assert_eq!(world.run(set), Response::Changed(0));
    let after = world.make(dir, "after", FileKind::File);
    let classes = [dir, before, after].map(|inode| world.state.class_of(inode).unwrap());
    assert_eq!(classes, [id(3), id(0), id(3)]);
    assert_eq!(world.state.class_for(after).unwrap().keep.to_string(), "A,B");
    assert_eq!((world.state.objects_of(id(3)), world.state.objects_of(id(0))), (Some(2), None));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_class_can_be_removed_once_nothing_has_it() {
    let mut world = raised();
    let file = world.make(InodeId::ROOT, "file", FileKind::File);
    world.run(ClassCommand::Set { id: id(1), inodes: vec![file] });
    world.refused(FsError::InUse, ClassCommand::Remove { id: id(1) });
    world.done(World::unlink(InodeId::ROOT, "file"));
    world.refused(FsError::InUse, ClassCommand::Remove { id: id(1) });
    world.done(RepairCommand::ReapOrphans { inodes: vec![file] });
    assert_eq!(world.run(ClassCommand::Remove { id: id(1) }), Response::Class(id(1)));
    world.refused(FsError::NotFound, ClassCommand::Remove { id: id(1) });
    world.refused(FsError::NotPermitted, ClassCommand::Remove { id: id(0) });
    assert_eq!(world.run(ClassCommand::Create { class: class("new", "2") }), Response::Class(id(1)));
}

#[test]
fn names_are_unique_and_the_default_class_keeps_its_own() {
    let mut world = raised();
    world.refused(FsError::Exists, ClassCommand::Create { class: class("2CP", "2") });
    world.refused(FsError::Exists, ClassCommand::Change { id: id(2), class: class("2CP", "2") });
    world.refused(FsError::NotFound, ClassCommand::Change { id: id(9), class: class("x", "2") });
    world.refused(FsError::NotPermitted, ClassCommand::Change { id: id(0), class: class("x", "2") });
    let changed = ClassCommand::Change { id: id(0), class: class("default", "3") };
    assert_eq!(world.run(changed), Response::Class(id(0)));
    let renamed = ClassCommand::Change { id: id(1), class: class("two", "2") };
    assert_eq!(world.run(renamed), Response::Class(id(1)));
    assert_eq!(names(&world.state), ["0 default: 3", "1 two: 2", "2 3CP: 3"]);
    assert_eq!(world.state.class_named(&ClassName::parse("two").unwrap()).unwrap().0, id(1));
}

#[test]
fn there_are_so_many_classes_and_no_more() {
    let mut world = raised();
    for number in 3..CLASSES_MAX {
        world.run(ClassCommand::Create { class: class(&format!("c{number}"), "2") });
    }
    assert_eq!(world.state.classes().len(), CLASSES_MAX);
    world.refused(FsError::NoSpace, ClassCommand::Create { class: class("more", "2") });
}

#[test]
fn what_is_too_long_is_never_proposed() {
    let long = StorageClass { description: "x".repeat(DESCRIPTION_MAX + 1), ..*class("x", "2") };
    let command = |command: ClassCommand| Command::from(command).check();
    assert_eq!(command(ClassCommand::Create { class: Box::new(long) }), Err(FsError::Invalid));
    let inodes = vec![InodeId::ROOT; SET_CLASS_MAX + 1];
    assert_eq!(command(ClassCommand::Set { id: id(1), inodes }), Err(FsError::Invalid));
}

#[test]
fn a_servers_place_is_kept_from_the_level_of_classes_on() {
    let place = ServerPlace { labels: Labels::parse(&["A"]).unwrap(), region: "eu".into(), rack: "r".into() };
    let register = |place| ClusterCommand::RegisterServer {
        uuid: [1; 16],
        name: "cs".to_owned(),
        address: "h:1".to_owned(),
        place,
    };
    let mut world = World::new();
    let server = Response::Server(ServerId::from_raw(1));
    assert_eq!(world.run(register(None)), server);
    let format = |world: &World| world.rows().0[&key::server(ServerId::from_raw(1))[..]][0];
    assert_eq!(format(&world), 1);
    world.done(RAISE);
    assert_eq!((format(&world), world.state.servers()[0].place.clone()), (1, ServerPlace::default()));
    assert_eq!(world.run(register(Some(place.clone()))), server);
    assert_eq!((format(&world), world.state.servers()[0].place.clone()), (2, place.clone()));
    assert_eq!(Command::from(register(Some(place))).level(), Level::CLASSES);
    assert_eq!(Command::from(register(None)).level(), Level::FIRST);
}

#[test]
fn a_servers_mode_stays_when_it_registers_again() {
    let mut world = raised();
    let mode = |world: &World| world.state.servers()[0].mode;
    let register = ClusterCommand::RegisterServer {
        uuid: [1; 16],
        name: "cs".to_owned(),
        address: "h:1".to_owned(),
        place: Some(ServerPlace::default()),
    };
    let server = ServerId::from_raw(1);
    world.refused(FsError::NotFound, ClusterCommand::SetServerMode { server, mode: ServerMode::Draining });
    assert_eq!(world.run(register.clone()), Response::Server(server));
    assert_eq!(mode(&world), ServerMode::Normal);
    world.done(ClusterCommand::SetServerMode { server, mode: ServerMode::Draining });
    assert_eq!(world.run(register), Response::Server(server));
    assert_eq!(mode(&world), ServerMode::Draining);
    world.done(ClusterCommand::SetServerMode { server, mode: ServerMode::Normal });
    assert_eq!(mode(&world), ServerMode::Normal);
}

#[test]
fn a_server_is_forgotten_once_no_row_counts_a_copy_of_its_and_then_it_is_a_new_one() {
    let mut world = raised();
    let register = |uuid: u8| ClusterCommand::RegisterServer {
        uuid: [uuid; 16],
        name: "cs".to_owned(),
        address: "h:1".to_owned(),
        place: Some(ServerPlace::default()),
    };
    let first = ServerId::from_raw(1);
    let forget = ClusterCommand::ForgetServer { server: first };
    world.refused(FsError::NotFound, forget.clone());
    let servers = [1, 2, 3].map(ServerId::from_raw);
    assert_eq!([1, 2, 3].map(|uuid| world.run(register(uuid))), servers.map(Response::Server));
    let file = world.make(InodeId::ROOT, "f", FileKind::File);
    let grant = world.grant(file, 0);
    assert_eq!(grant.servers, servers);
    let commit = world.commit(file, 10, 0, &grant, true);
    world.attr(commit);
    world.refused(FsError::NotEmpty, forget.clone());
    world.done(RepairCommand::RemoveReplica { chunk: grant.chunk, server: first });
    if let Some(from) = world.state.next_to_index() {
        world.refused(FsError::NotEmpty, forget.clone());
        world.run(ClusterCommand::IndexChunks { from, count: 9 });
    }
    world.done(forget);
    let known: Vec<ServerId> = world.state.servers().into_iter().map(|row| row.server).collect();
    assert_eq!(known, servers[1..]);
    assert_eq!(
        world.run(register(1)),
        Response::Server(ServerId::from_raw(4)),
        "its number is not used again"
    );
    assert_eq!(check(&world.state), []);
}
