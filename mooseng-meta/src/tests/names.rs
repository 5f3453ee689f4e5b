//! What POSIX says of names, links and times.

use bytes::Bytes;
use mooseng_types::{FileKind, FileName, FsError, InodeId, SetAttr, SetTime, TimeNs};

use crate::check::check;
use crate::command::{AttrCommand, ClusterCommand, NameCommand, RenameMode, RepairCommand, XattrMode};
use crate::testing::World;

const ROOT: InodeId = InodeId::ROOT;
const DIR: FileKind = FileKind::Directory;
const FILE: FileKind = FileKind::File;

fn rename(parent: InodeId, name: &str, new_parent: InodeId, new_name: &str, mode: RenameMode) -> NameCommand {
    NameCommand::Rename { parent, name: World::name(name), new_parent, new_name: World::name(new_name), mode }
}

fn rmdir(parent: InodeId, name: &str) -> NameCommand {
    NameCommand::Rmdir { parent, name: World::name(name) }
}

fn link(inode: InodeId, new_parent: InodeId, new_name: &str) -> NameCommand {
    NameCommand::Link { inode, new_parent, new_name: World::name(new_name) }
}

#[test]
fn a_new_object_changes_its_directory_and_has_the_entrys_time() {
    let mut world = World::new();
    let before = world.state.getattr(ROOT).unwrap();
    let dir = world.attr(World::create(ROOT, "d", DIR));
    let after = world.state.getattr(ROOT).unwrap();
    assert_eq!((dir.nlink, dir.size, dir.mtime, dir.btime), (2, 0, after.mtime, after.ctime));
    assert_eq!((after.nlink, after.size), (before.nlink + 1, before.size + 1));
    assert!(after.mtime > before.mtime && after.atime == before.atime);
    let file = world.attr(World::create(dir.inode, "f", FILE));
    assert_eq!((file.nlink, file.size, file.mode, file.uid, file.gid), (1, 0, 0o755, 1, 2));
    assert_eq!(world.state.getattr(dir.inode).unwrap().nlink, 2);
    assert_eq!(world.state.parent_of(dir.inode), Ok(ROOT));
    assert_eq!(world.state.parent_of(ROOT), Ok(ROOT));
    assert_eq!(world.state.parent_of(file.inode), Err(FsError::NotDirectory));
    world.refused(FsError::Exists, World::create(dir.inode, "f", DIR));
    world.refused(FsError::NotDirectory, World::create(file.inode, "x", FILE));
    world.refused(FsError::NotFound, World::create(InodeId::from_raw(99), "x", FILE));
}

#[test]
fn a_set_gid_directory_passes_on_its_group() {
    let mut world = World::new();
    let dir = world.make(ROOT, "d", DIR);
    let change = SetAttr { mode: Some(0o2755), gid: Some(42), ..SetAttr::default() };
    world.attr(AttrCommand::SetAttr { inode: dir, change, session: None });
    let file = world.attr(World::create(dir, "f", FILE));
    let sub = world.attr(World::create(dir, "s", DIR));
    assert_eq!((file.gid, file.mode), (42, 0o755));
    assert_eq!((sub.gid, sub.mode), (42, 0o2755));
}

#[test]
fn a_symbolic_link_has_a_target_of_1_to_4095_bytes() {
    let mut world = World::new();
    let with = |kind, target: Vec<u8>| {
        let (parent, name, mode) = (ROOT, World::name("l"), 0o600);
        NameCommand::Create { parent, name, kind, mode, uid: 0, gid: 0, rdev: 0, target: target.into() }
    };
    world.refused(FsError::Invalid, with(FileKind::Symlink, vec![]));
    world.refused(FsError::Invalid, with(FILE, vec![b'a']));
    world.refused(FsError::Invalid, with(FileKind::Symlink, vec![b'a', 0]));
    world.refused(FsError::NameTooLong, with(FileKind::Symlink, vec![b'a'; 4096]));
    let link = world.attr(with(FileKind::Symlink, vec![b'a'; 4095]));
    assert_eq!((link.size, link.mode), (4095, 0o777));
    assert_eq!(world.state.readlink(link.inode).unwrap(), vec![b'a'; 4095]);
    assert_eq!(world.state.readlink(ROOT), Err(FsError::Invalid));
}

#[test]
fn a_file_lives_as_long_as_one_of_its_names_and_then_as_an_orphan() {
    let mut world = World::new();
    let file = world.make(ROOT, "a", FILE);
    assert_eq!(world.attr(link(file, ROOT, "b")).nlink, 2);
    world.refused(FsError::Exists, link(file, ROOT, "b"));
    world.refused(FsError::NotPermitted, link(ROOT, ROOT, "c"));
    world.done(World::unlink(ROOT, "a"));
    assert!(!world.state.is_orphan(file));
    world.done(World::unlink(ROOT, "b"));
    let attr = world.state.getattr(file).unwrap();
    assert_eq!((attr.nlink, attr.ctime), (0, world.state.getattr(ROOT).unwrap().mtime));
    assert_eq!(world.state.orphans(9), [file]);
    world.refused(FsError::NotFound, link(file, ROOT, "c"));
    world.refused(FsError::NotFound, World::unlink(ROOT, "b"));
    assert_eq!(check(&world.state), []);
    world.done(RepairCommand::ReapOrphans { inodes: vec![file, ROOT] });
    assert_eq!(world.state.getattr(file), Err(FsError::NotFound));
    assert_eq!(world.state.totals().inodes, 1);
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_file_has_at_most_65000_names() {
    let mut world = World::new();
    let file = world.make(ROOT, "a", FILE);
    let mut row = world.state.tables.inode(file).unwrap();
    row.nlink = 65_000;
    world.state.tables.put_inode(file, &row);
    world.refused(FsError::TooManyLinks, link(file, ROOT, "b"));
}

#[test]
fn only_an_empty_directory_is_removed_and_nothing_is_made_in_it_afterwards() {
    let mut world = World::new();
    let dir = world.make(ROOT, "d", DIR);
    world.make(dir, "f", FILE);
    world.refused(FsError::NotEmpty, rmdir(ROOT, "d"));
    world.refused(FsError::NotDirectory, rmdir(dir, "f"));
    world.refused(FsError::IsDirectory, World::unlink(ROOT, "d"));
    world.done(World::unlink(dir, "f"));
    world.done(rmdir(ROOT, "d"));
    assert_eq!(world.state.getattr(ROOT).unwrap().nlink, 2);
    assert!(world.state.is_orphan(dir));
    assert_eq!(world.state.readdir(dir, 0, 9).unwrap().entries, []);
    world.refused(FsError::NotFound, World::create(dir, "x", FILE));
    let file = world.make(ROOT, "g", FILE);
    world.refused(FsError::NotFound, link(file, dir, "x"));
    world.refused(FsError::NotFound, rename(ROOT, "g", dir, "x", RenameMode::Replace));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_rename_replaces_like_by_like() {
    let mut world = World::new();
    let (a, b) = (world.make(ROOT, "a", DIR), world.make(ROOT, "b", DIR));
    let inner = world.make(b, "inner", DIR);
    let file = world.make(ROOT, "f", FILE);
    let old = world.make(ROOT, "g", FILE);
    let go = |name, to, mode| rename(ROOT, name, ROOT, to, mode);
    world.refused(FsError::NotEmpty, go("a", "b", RenameMode::Replace));
    world.refused(FsError::NotDirectory, go("a", "f", RenameMode::Replace));
    world.refused(FsError::IsDirectory, go("f", "a", RenameMode::Replace));
    world.refused(FsError::NotFound, go("x", "a", RenameMode::Replace));
    world.refused(FsError::Exists, go("f", "g", RenameMode::NoReplace));
    world.refused(FsError::NotFound, go("f", "x", RenameMode::Exchange));
    world.done(go("f", "g", RenameMode::Replace));
    assert_eq!(world.lookup(ROOT, "g").unwrap().inode, file);
    assert!(world.state.is_orphan(old));
    world.done(rename(ROOT, "a", b, "inner", RenameMode::Replace));
    assert!(world.state.is_orphan(inner));
    assert_eq!(world.state.parent_of(a), Ok(b));
    assert_eq!(world.state.getattr(ROOT).unwrap().nlink, 3);
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_directory_does_not_move_below_itself() {
    let mut world = World::new();
    let a = world.make(ROOT, "a", DIR);
    let b = world.make(a, "b", DIR);
    let c = world.make(ROOT, "c", DIR);
    for mode in [RenameMode::Replace, RenameMode::NoReplace] {
        world.refused(FsError::Invalid, rename(ROOT, "a", a, "x", mode));
        world.refused(FsError::Invalid, rename(ROOT, "a", b, "x", mode));
    }
    world.refused(FsError::NotEmpty, rename(a, "b", ROOT, "a", RenameMode::Replace));
    world.refused(FsError::Invalid, rename(ROOT, "a", a, "b", RenameMode::Exchange));
    world.refused(FsError::Invalid, rename(a, "b", ROOT, "a", RenameMode::Exchange));
    world.done(rename(ROOT, "a", c, "x", RenameMode::Replace));
    assert_eq!(check(&world.state), []);
}

#[test]
fn two_names_change_places() {
    let mut world = World::new();
    let a = world.make(ROOT, "a", DIR);
    let (dir, file) = (world.make(ROOT, "d", DIR), world.make(a, "f", FILE));
    world.done(rename(ROOT, "d", a, "f", RenameMode::Exchange));
    assert_eq!(world.lookup(a, "f").unwrap().inode, dir);
    assert_eq!(world.lookup(ROOT, "d").unwrap().inode, file);
    assert_eq!(world.state.parent_of(dir), Ok(a));
    assert_eq!((world.state.getattr(a).unwrap().nlink, world.state.getattr(ROOT).unwrap().nlink), (3, 3));
    assert_eq!(check(&world.state), []);
}

#[test]
fn renaming_one_name_of_an_object_over_another_leaves_both() {
    let mut world = World::new();
    let file = world.make(ROOT, "a", FILE);
    world.attr(link(file, ROOT, "b"));
    let before = world.rows();
    world.done(rename(ROOT, "a", ROOT, "b", RenameMode::Replace));
    world.done(rename(ROOT, "a", ROOT, "a", RenameMode::Replace));
    assert_eq!(world.rows(), before);
}

#[test]
fn attributes_change_as_asked() {
    let mut world = World::new();
    let file = world.make(ROOT, "a", FILE);
    let set = |inode, change| AttrCommand::SetAttr { inode, change, session: None };
    let (at, mtime) = (TimeNs::from_raw(-5), TimeNs::from_raw(77));
    let change = SetAttr { atime: Some(SetTime::At(at)), mtime: Some(SetTime::Now), ..SetAttr::default() };
    let attr = world.attr(set(file, change));
    assert_eq!((attr.atime, attr.mtime), (at, attr.ctime));
    let change = SetAttr { size: Some(10), mtime: Some(SetTime::At(mtime)), ..SetAttr::default() };
    let attr = world.attr(set(file, change));
    assert_eq!((attr.size, attr.mtime, attr.mode), (10, mtime, 0o755));
    assert_eq!(world.state.totals().used_bytes, 10);
    world.refused(FsError::IsDirectory, World::truncate(ROOT, 0, None));
    world.refused(FsError::FileTooLarge, World::truncate(file, u64::MAX, None));
    let fifo = world.make(ROOT, "p", FileKind::Fifo);
    world.refused(FsError::Invalid, World::truncate(fifo, 0, None));
    assert_eq!(world.attr(set(file, SetAttr::default())).ctime, attr.ctime);
}

#[test]
fn extended_attributes_are_set_listed_and_removed() {
    let mut world = World::new();
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let set = |name: Bytes, value: Bytes, mode| AttrCommand::SetXattr { inode: ROOT, name, value, mode };
    world.refused(FsError::NoAttribute, set(text("user.a"), text("1"), XattrMode::Replace));
    world.done(set(text("user.b"), text("1"), XattrMode::Create));
    world.refused(FsError::Exists, set(text("user.b"), text("2"), XattrMode::Create));
    world.done(set(text("user.b"), text("2"), XattrMode::Replace));
    world.done(set(text("user.a"), vec![0; 65536].into(), XattrMode::Any));
    world.refused(FsError::AttributeTooBig, set(text("user.c"), vec![0; 65537].into(), XattrMode::Any));
    world.refused(FsError::NameTooLong, set(vec![b'a'; 256].into(), text("1"), XattrMode::Any));
    world.refused(FsError::Invalid, set(text("user.\0"), text("1"), XattrMode::Any));
    world.refused(FsError::Invalid, set(Bytes::new(), text("1"), XattrMode::Any));
    assert_eq!(world.state.getxattr(ROOT, b"user.b"), Ok(text("2")));
    assert_eq!(world.state.listxattr(ROOT), Ok(vec![text("user.a"), text("user.b")]));
    world.done(AttrCommand::RemoveXattr { inode: ROOT, name: text("user.b") });
    world.refused(FsError::NoAttribute, AttrCommand::RemoveXattr { inode: ROOT, name: text("user.b") });
    assert_eq!(world.state.getxattr(ROOT, &[b'a'; 4000]), Err(FsError::NoAttribute));
    assert_eq!(world.state.getxattr(InodeId::from_raw(9), b"user.b"), Err(FsError::NotFound));
}

#[test]
fn the_names_of_an_objects_attributes_fit_into_64_kib() {
    let mut world = World::new();
    let name = |number: u32| Bytes::from(format!("user.{number:0>250}"));
    let set =
        |name: Bytes| AttrCommand::SetXattr { inode: ROOT, name, value: Bytes::new(), mode: XattrMode::Any };
    for number in 0..256 {
        world.done(set(name(number)));
    }
    world.refused(FsError::NoSpace, set(Bytes::from_static(b"a")));
    world.done(set(name(0)));
    world.done(AttrCommand::RemoveXattr { inode: ROOT, name: name(7) });
    world.done(set(Bytes::from(vec![b'a'; 254])));
    world.refused(FsError::NoSpace, set(Bytes::from_static(b"a")));
    let names = world.state.listxattr(ROOT).unwrap();
    assert_eq!(names.iter().map(|name| name.len() + 1).sum::<usize>(), 65_535);
    assert_eq!(crate::check::check(&world.state), []);
}

#[test]
fn a_listing_in_parts_shows_each_entry_once_and_goes_on_where_it_stopped() {
    let mut world = World::new();
    let names: Vec<String> = (0..50).map(|i| format!("f{i}")).collect();
    for name in &names {
        world.make(ROOT, name, FILE);
    }
    let (mut seen, mut cookie) = (Vec::new(), 0);
    loop {
        let part = world.state.readdir(ROOT, cookie, 7).unwrap();
        assert!(part.entries.len() <= 7 && part.parent == ROOT);
        cookie = part.entries.last().map_or(cookie, |entry| entry.cookie);
        // What is removed behind the reader's back shifts nothing.
        let first: Option<FileName> = part.entries.first().map(|entry| entry.name.clone());
        seen.extend(
            part.entries.into_iter().map(|entry| String::from_utf8_lossy(entry.name.as_bytes()).into_owned()),
        );
        if let Some(name) = first {
            world.done(NameCommand::Unlink { parent: ROOT, name });
        }
        if part.end {
            break;
        }
    }
    seen.sort();
    let mut names = names;
    names.sort();
    assert_eq!(seen, names);
}

#[test]
fn entries_of_one_cookie_are_not_parted() {
    use crate::inode::Dentry;
    let mut world = World::new();
    // No two names with one hash are at hand, so the rows are made by hand.
    for (hash, name) in [(5u64, "a"), (5, "b"), (5, "c"), (9, "d")] {
        let mut key = key_of(hash);
        key.extend_from_slice(name.as_bytes());
        let dentry = Dentry { inode: InodeId::from_raw(7), kind: FILE };
        world.state.tables.rows.put(&key, Bytes::copy_from_slice(&dentry.encode()));
    }
    let part = world.state.readdir(ROOT, 0, 1).unwrap();
    assert_eq!((part.entries.len(), part.end), (3, false));
    let part = world.state.readdir(ROOT, 5, 1).unwrap();
    assert_eq!((part.entries.len(), part.end), (1, true));
}

fn key_of(hash: u64) -> Vec<u8> {
    crate::key::dentries_from(ROOT, hash).to_vec()
}

#[test]
fn a_second_bootstrap_is_refused() {
    let mut world = World::new();
    let cluster = mooseng_types::ClusterId::from_bytes([8; 16]);
    world.refused(FsError::Exists, ClusterCommand::Bootstrap { cluster, copies: 3 });
    assert_eq!(world.state.settings().unwrap().copies, 2);
}
