//! The check finds what it is there to find.

use std::sync::Arc;

use bytes::Bytes;
use mooseng_types::{CellId, ChunkId, ClassId, FileKind, InodeId, Level, Part, ServerId, SessionId};

use super::{Checked, check, check_view};
use crate::codec::v1::row::chunk::DeadChunk;
use crate::command::ClusterCommand;
use crate::key;
use crate::settings::Totals;
use crate::store::MetaStore as _;
use crate::testing::World;

/// Damages a world that has a bit of everything; the check must say something with `expected` in it.
fn found(expected: &str, damage: impl FnOnce(&mut World, InodeId)) {
    let mut world = World::new();
    let dir = world.make(InodeId::ROOT, "dir", FileKind::Directory);
    let file = world.make(dir, "file", FileKind::File);
    world.make(dir, "link", FileKind::Symlink);
    world.grant(file, 0);
    assert_eq!(check(&world.state), []);
    damage(&mut world, file);
    let violations = check(&world.state);
    assert!(
        violations.iter().any(|v| v.to_string().contains(expected)),
        "{expected:?} not in {violations:?}"
    );
}

#[test]
fn an_entry_that_leads_nowhere_is_found() {
    found("is None", |world, file| world.state.tables.rows.delete(&key::inode(file)));
}

#[test]
fn a_file_without_an_entry_is_found() {
    found("0 entries", |world, file| {
        let dir = world.lookup(InodeId::ROOT, "dir").unwrap().inode;
        let _ = file;
        world.state.tables.rows.delete(&key::dentry(dir, &World::name("file")));
    });
}

#[test]
fn a_wrong_link_count_is_found() {
    found("has 2 links", |world, file| {
        let mut row = world.state.tables.inode(file).unwrap();
        row.nlink = 2;
        world.state.tables.put_inode(file, &row);
    });
}

#[test]
fn a_directory_that_is_its_own_parent_is_found() {
    found("cannot be reached", |world, _| {
        let dir = world.lookup(InodeId::ROOT, "dir").unwrap().inode;
        let mut row = world.state.tables.inode(dir).unwrap();
        row.parent = dir;
        world.state.tables.put_inode(dir, &row);
    });
}

#[test]
fn a_chunk_that_is_dead_and_alive_is_found() {
    found("dead and alive", |world, _| {
        let dead = DeadChunk(Vec::new()).encode(Level::FIRST);
        world.state.tables.rows.put(&key::dead_chunk(ChunkId::from_raw(1)), dead.into());
    });
}

#[test]
fn a_lease_that_is_not_listed_and_one_that_is_not_held_are_found() {
    let chunk = ChunkId::from_raw(1);
    found("is not listed", |world, _| {
        let session = world.session;
        world.state.tables.rows.delete(&key::lease(session, chunk));
    });
    found("does not hold", |world, _| {
        let key = key::lease(SessionId::from_raw(99), chunk);
        world.state.tables.rows.put(&key, Bytes::from_static(&[1]));
    });
}

#[test]
fn what_a_servers_table_has_too_much_or_too_little_is_found() {
    let held = |server| key::held(ServerId::from_raw(server), Part::whole(ChunkId::from_raw(1)));
    let index = ClusterCommand::IndexChunks { from: ChunkId::from_raw(0), count: 9 };
    found("no chunk has", |world, _| {
        world.state.tables.rows.put(&held(1), Bytes::from_static(&[1]));
    });
    found("no chunk has", |world, _| {
        world.done(ClusterCommand::RaiseLevel { level: Level::IDENTITY });
        world.state.tables.rows.put(&held(4), Bytes::from_static(&[1]));
    });
    found("c1 is missing in the table of s2", |world, _| {
        world.done(ClusterCommand::RaiseLevel { level: Level::IDENTITY });
        world.done(index);
        assert_eq!(check(&world.state), []);
        world.state.tables.rows.delete(&held(2));
    });
}

#[test]
fn a_lost_place_of_a_chunk_is_found() {
    found("is not in", |world, file| {
        let place = key::file_chunk(file, mooseng_types::ChunkIndex::from_raw(0));
        world.state.tables.rows.delete(&place);
    });
}

#[test]
fn wrong_totals_are_found() {
    found("the total says", |world, _| world.state.tables.counters.totals.inodes += 1);
    found("the total says", |world, _| world.state.tables.counters.totals.chunks += 1);
    found("the total says", |world, _| world.state.tables.counters.totals.used_bytes += 1);
}

#[test]
fn inline_content_of_a_directory_and_a_lost_target_are_found() {
    found("no small file", |world, _| {
        world.state.tables.rows.put(&key::inline(InodeId::ROOT), Bytes::from_static(b"x"));
    });
    found("targets do not match", |world, _| {
        let link = world.state.tables.counters.next_inode - 1;
        world.state.tables.rows.delete(&key::target(InodeId::from_raw(link)));
    });
}

#[test]
fn an_orphan_with_a_name_is_found() {
    found("has names", |world, file| {
        world.state.tables.rows.put(&key::orphan(file), Bytes::from_static(&[1]));
    });
}

#[test]
fn a_view_is_checked_as_it_was_when_it_was_taken() {
    let mut world = World::new();
    let dir = world.make(InodeId::ROOT, "dir", FileKind::Directory);
    let file = world.make(dir, "file", FileKind::File);
    world.grant(file, 0);
    let flush = |world: &mut World| {
        let batch = world.state.freeze().unwrap();
        world.store.write(&batch);
        world.state.flushed();
        Arc::from(world.store.view())
    };
    let whole = flush(&mut world);
    world.make(dir, "other", FileKind::File);
    world.state.tables.rows.delete(&key::inode(file));
    let damaged = flush(&mut world);
    let totals = |inodes| Totals { inodes, chunks: 1, ..Totals::default() };
    assert_eq!(check_view(whole, CellId::ROOT), Ok(Checked { violations: Vec::new(), totals: totals(3) }));
    let found = check_view(damaged, CellId::ROOT).unwrap();
    assert_eq!(found.totals, totals(4));
    assert_eq!(found.violations, check(&world.state));
    assert!(!found.violations.is_empty());
}

#[test]
fn a_class_that_does_not_exist_and_a_wrong_count_are_found() {
    let raise = |world: &mut World| world.done(ClusterCommand::RaiseLevel { level: Level::CLASSES });
    found("has class9, which does not exist", |world, file| {
        raise(world);
        let mut row = world.state.tables.inode(file).unwrap();
        row.class = ClassId::from_raw(9);
        world.state.tables.put_inode(file, &row);
    });
    found("classes are had by {} objects", |world, _| {
        raise(world);
        world.state.tables.join_class(ClassId::from_raw(1));
    });
    found("there is no default class", |world, _| {
        raise(world);
        world.state.tables.rows.delete(&key::class(ClassId::from_raw(0)));
    });
}
