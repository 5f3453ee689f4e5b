//! Write leases, commits, small files, and chunks that go.

use bytes::Bytes;
use mooseng_types::{
    CHUNK_SIZE, ChunkId, ChunkIndex, ChunkVersion, FILE_SIZE_MAX, FileKind, FsError, InodeId, Level, Part,
    ServerId,
};

use crate::check::check;
use crate::command::{AttrCommand, ClusterCommand, ContentCommand, RepairCommand};
use crate::layout::{Layout, Stripe};
use crate::testing::World;

const ROOT: InodeId = InodeId::ROOT;
const FULL: u32 = 64 << 20;

fn world() -> (World, InodeId) {
    let mut world = World::new();
    let file = world.make(ROOT, "f", FileKind::File);
    (world, file)
}

fn servers(ids: &[u32]) -> Vec<ServerId> {
    ids.iter().copied().map(ServerId::from_raw).collect()
}

fn version(raw: u32) -> ChunkVersion {
    ChunkVersion::from_raw(raw)
}

fn write(inode: InodeId, offset: u32, data: &'static [u8]) -> ContentCommand {
    ContentCommand::WriteInline { inode, offset, append: false, data: Bytes::from_static(data) }
}

#[test]
fn the_first_grant_makes_a_chunk_and_a_commit_makes_its_bytes_the_files() {
    let (mut world, file) = world();
    let grant = world.grant(file, 1);
    assert!(grant.fresh && grant.inline.is_none());
    assert_eq!((grant.base_version, grant.version), (version(0), version(1)));
    assert_eq!((grant.servers.clone(), grant.valid_length), (servers(&[1, 2, 3]), FULL));
    let attr = world.attr(world.commit(file, CHUNK_SIZE + 10, 1, &grant, false));
    assert_eq!(attr.size, CHUNK_SIZE + 10);
    assert_eq!(attr.mtime, attr.ctime);
    let row = world.state.chunk(grant.chunk).unwrap();
    assert_eq!((row.committed, row.granted, row.lease), (version(1), version(1), Some(world.session)));
    let attr = world.attr(world.commit(file, 5, 1, &grant, true));
    assert_eq!(attr.size, CHUNK_SIZE + 10);
    assert_eq!(world.state.chunk(grant.chunk).unwrap().lease, None);
    world.refused(FsError::LeaseLost, world.commit(file, 5, 1, &grant, true));
    let located = world.state.locate(file, ChunkIndex::from_raw(0), 2).unwrap();
    assert_eq!(
        located.iter().map(|(index, chunk, _)| (index.raw(), *chunk)).collect::<Vec<_>>(),
        [(1, grant.chunk)]
    );
    assert_eq!(world.state.locate(file, ChunkIndex::from_raw(0), 1), Ok(vec![]));
    assert_eq!(world.state.locate(ROOT, ChunkIndex::from_raw(0), 1), Err(FsError::IsDirectory));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_grant_that_cannot_be_is_refused() {
    let (mut world, file) = world();
    let none = |inode, index| {
        let index = ChunkIndex::from_raw(index);
        ContentCommand::GrantWrite {
            session: world.session,
            inode,
            index,
            candidates: vec![],
            failed: vec![],
            up: vec![],
            nothing_written: false,
            renew: false,
        }
    };
    let (empty, beyond) = (none(file, 0), none(file, 1 << 30));
    world.refused(FsError::NoSpace, empty);
    world.refused(FsError::FileTooLarge, beyond);
    world.refused(FsError::IsDirectory, World::grant_by(world.session, ROOT, 0, &[]));
    world.refused(
        FsError::SessionExpired,
        World::grant_by(mooseng_types::SessionId::from_raw(9), file, 0, &[]),
    );
}

#[test]
fn one_session_holds_a_lease_and_gets_the_same_again() {
    let (mut world, file) = world();
    let other = world.open(2);
    let mut grant = world.grant(file, 0);
    world.refused(FsError::LeaseHeld, World::grant_by(other, file, 0, &[]));
    let before = world.rows();
    grant.fresh = false;
    assert_eq!(world.grant(file, 0), grant);
    assert_eq!(world.granted(World::grant_by(world.session, file, 0, &[9])), grant);
    assert_eq!(world.rows(), before);
}

#[test]
fn a_failed_server_loses_the_chunk_under_a_new_version() {
    let (mut world, file) = world();
    let first = world.grant(file, 0);
    let second = world.granted(World::grant_by(world.session, file, 0, &[2]));
    assert_eq!((second.chunk, second.version, second.fresh), (first.chunk, version(2), false));
    assert_eq!(second.servers, servers(&[1, 3]));
    world.refused(FsError::LeaseLost, world.commit(file, 10, 0, &first, false));
    world.attr(world.commit(file, 10, 0, &second, false));
    let third = world.granted(World::grant_by(world.session, file, 0, &[3]));
    assert_eq!((third.base_version, third.version, third.fresh), (version(2), version(3), false));
    assert_eq!(third.servers, servers(&[1]));
}

/// A grant to the world's session that says who failed and who is up.
fn grant_with(
    world: &World,
    file: InodeId,
    failed: &[u32],
    up: &[u32],
    nothing_written: bool,
) -> ContentCommand {
    ContentCommand::GrantWrite {
        session: world.session,
        inode: file,
        index: ChunkIndex::from_raw(0),
        candidates: servers(&[4, 5, 6]),
        failed: servers(failed),
        up: servers(up),
        nothing_written,
        renew: false,
    }
}

#[test]
fn a_lease_that_is_renewed_has_a_new_version_and_the_same_copies() {
    let (mut world, file) = world();
    let first = world.grant(file, 0);
    let mut renewed = grant_with(&world, file, &[], &[], false);
    if let ContentCommand::GrantWrite { renew, .. } = &mut renewed {
        *renew = true;
    }
    let second = world.granted(renewed);
    assert_eq!((second.chunk, second.version), (first.chunk, first.version.next()));
    assert_eq!(second.servers, first.servers);
}

#[test]
fn the_last_copy_that_is_up_is_never_dropped() {
    let (mut world, file) = world();
    let grant = world.grant(file, 0);
    world.attr(world.commit(file, 10, 0, &grant, false));
    let all = world.granted(grant_with(&world, file, &[1, 2, 3], &[1, 2, 3], false));
    assert_eq!((all.version, all.servers.clone()), (version(2), servers(&[1, 2, 3])));
    let down = world.granted(grant_with(&world, file, &[1, 2], &[1, 2, 9], true));
    assert_eq!((down.version, down.servers.clone()), (version(3), servers(&[1, 2, 3])), "3 is not up");
    let left = world.granted(grant_with(&world, file, &[1, 2], &[3], true));
    assert_eq!((left.chunk, left.version, left.servers.clone()), (grant.chunk, version(4), servers(&[3])));
    let last = world.granted(grant_with(&world, file, &[3], &[], true));
    assert_eq!((last.version, last.servers.clone()), (version(5), servers(&[3])));
    // What was proposed before the chain had changed.
    let again = world.granted(grant_with(&world, file, &[1, 2], &[3], true));
    assert_eq!((again.version, again.servers), (version(5), servers(&[3])));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_chunk_of_which_nothing_is_written_is_made_anew_with_all_its_copies() {
    let (mut world, file) = world();
    let first = world.grant(file, 0);
    let kept = world.granted(grant_with(&world, file, &[1], &[2, 3, 4, 5, 6], false));
    assert_eq!((kept.chunk, kept.fresh, kept.servers.clone()), (first.chunk, false, servers(&[2, 3])));
    let anew = world.granted(grant_with(&world, file, &[2], &[3, 4, 5, 6], true));
    assert_ne!(anew.chunk, first.chunk);
    assert_eq!((anew.version, anew.fresh, anew.servers.clone()), (version(1), true, servers(&[4, 5, 6])));
    assert_eq!(world.state.dead_chunks(ChunkId::from_raw(0), 9).len(), 1);
    world.attr(world.commit(file, 10, 0, &anew, false));
    let committed = world.granted(grant_with(&world, file, &[4], &[5, 6], true));
    assert_eq!((committed.chunk, committed.servers.clone()), (anew.chunk, servers(&[5, 6])));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_chunk_with_no_server_left_and_nothing_committed_is_made_anew() {
    let (mut world, file) = world();
    let session = world.session;
    let index = ChunkIndex::from_raw(0);
    let with = |candidates: &[u32], failed: &[u32]| ContentCommand::GrantWrite {
        session,
        inode: file,
        index,
        candidates: servers(candidates),
        failed: servers(failed),
        up: servers(candidates),
        nothing_written: false,
        renew: false,
    };
    let first = world.granted(with(&[1], &[]));
    let stays = world.granted(with(&[1], &[1]));
    assert_eq!((stays.chunk, stays.version, stays.servers.clone()), (first.chunk, version(2), servers(&[1])));
    let second = world.granted(with(&[1, 4], &[1]));
    assert_ne!(second.chunk, first.chunk);
    assert_eq!((second.version, second.servers.clone(), second.fresh), (version(1), servers(&[4]), true));
    let copies = vec![(ServerId::from_raw(1), Part::whole(first.chunk))];
    assert_eq!(world.state.dead_chunks(ChunkId::from_raw(0), 9), [(first.chunk, copies)]);
    assert_eq!(world.state.totals().chunks, 1);
    assert_eq!(check(&world.state), []);
    world.done(RepairCommand::ForgetDead { chunks: vec![first.chunk, second.chunk] });
    assert_eq!(world.state.dead_chunks(ChunkId::from_raw(0), 9), []);
    assert!(world.state.chunk(second.chunk).is_some());
}

#[test]
fn bytes_beyond_the_files_end_are_void_when_a_lease_ends_without_a_commit() {
    let (mut world, file) = world();
    let grant = world.grant(file, 0);
    world.attr(world.commit(file, 100, 0, &grant, false));
    let indexes = vec![ChunkIndex::from_raw(0), ChunkIndex::from_raw(7)];
    world.done(ContentCommand::ReleaseLease { session: world.session, inode: file, indexes });
    let row = world.state.chunk(grant.chunk).unwrap();
    assert_eq!((row.lease, row.valid_length), (None, 100));
    world.attr(World::truncate(file, 1000, None));
    let again = world.grant(file, 0);
    assert_eq!((again.valid_length, again.version), (100, version(2)));
    let beyond = world.grant(file, 3);
    world.done(ClusterCommand::CloseSession { session: world.session });
    assert_eq!(world.state.chunk(again.chunk).unwrap().valid_length, 100);
    assert_eq!(world.state.chunk(beyond.chunk).unwrap().valid_length, 0);
    assert_eq!(check(&world.state), []);
    world.session = world.open(2);
    let last = world.grant(file, 0);
    world.attr(world.commit(file, 2000, 0, &last, true));
    assert_eq!(world.state.chunk(last.chunk).unwrap().valid_length, 2000);
}

#[test]
fn a_chunk_without_a_commit_is_void_once_its_lease_has_ended() {
    let (mut world, file) = world();
    world.attr(World::truncate(file, 2 * CHUNK_SIZE, None));
    let first = world.grant(file, 0);
    let indexes = vec![ChunkIndex::from_raw(0)];
    world.done(ContentCommand::ReleaseLease { session: world.session, inode: file, indexes });
    let again = world.grant(file, 0);
    assert_eq!((again.chunk, again.fresh, again.valid_length), (first.chunk, false, 0));
    world.done(ClusterCommand::CloseSession { session: world.session });
    let row = world.state.chunk(first.chunk).unwrap();
    assert_eq!((row.valid_length, row.differs), (0, false));
    assert_eq!(check(&world.state), []);
}

#[test]
fn uncommitted_bytes_of_a_dead_writer_never_appear_when_the_file_grows() {
    let (mut world, file) = world();
    let grant = world.grant(file, 0);
    world.attr(world.commit(file, 100, 0, &grant, false));
    let other = world.open(2);
    // It may grow by another's commit of another chunk, whatever the first writes behind the end meanwhile.
    let far = world.granted(World::grant_by(other, file, 1, &[]));
    let dead = std::mem::replace(&mut world.session, other);
    world.attr(world.commit(file, CHUNK_SIZE + 9, 1, &far, true));
    assert_eq!(world.state.chunk(grant.chunk).unwrap().valid_length, 100);
    world.done(ClusterCommand::CloseSession { session: dead });
    let row = world.state.chunk(grant.chunk).unwrap();
    assert_eq!((row.valid_length, row.lease, row.differs), (100, None, true));
    world.attr(World::truncate(file, 3 * CHUNK_SIZE, None));
    let next = world.grant(file, 0);
    assert_eq!((next.valid_length, next.fresh), (100, false));
    world.attr(world.commit(file, 200, 0, &next, true));
    let row = world.state.chunk(grant.chunk).unwrap();
    assert_eq!((row.valid_length, row.differs), (FULL, true));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_file_does_not_grow_over_what_another_session_has_yet_to_commit() {
    let (mut world, file) = world();
    let other = world.open(2);
    world.attr(World::truncate(file, CHUNK_SIZE + 10, None));
    world.grant(file, 0);
    world.attr(World::truncate(file, CHUNK_SIZE + 20, Some(other)));
    world.grant(file, 1);
    world.refused(FsError::LeaseHeld, World::truncate(file, 3 * CHUNK_SIZE, Some(other)));
    world.refused(FsError::LeaseHeld, World::truncate(file, CHUNK_SIZE + 21, None));
    world.attr(World::truncate(file, CHUNK_SIZE + 21, Some(world.session)));
    world.attr(World::truncate(file, CHUNK_SIZE + 21, Some(other)));
    world.done(ClusterCommand::CloseSession { session: world.session });
    world.granted(World::grant_by(other, file, 1, &[]));
    assert_eq!(check(&world.state), []);
}

#[test]
fn every_change_of_content_or_length_is_counted_and_nothing_else() {
    let (mut world, file) = world();
    let version = |world: &World| world.state.getattr(file).unwrap().content_version;
    assert_eq!(version(&world), 0);
    assert_eq!(world.attr(write(file, 0, b"hello")).content_version, 1);
    world.attr(World::truncate(file, 5, None));
    assert_eq!(version(&world), 1, "the length is what it was");
    assert_eq!(world.attr(World::truncate(file, 9, None)).content_version, 2);
    let grant = world.grant(file, 0);
    assert_eq!((grant.attr.content_version, grant.attr.size), (2, 9));
    assert_eq!(world.attr(world.commit(file, 9, 0, &grant, false)).content_version, 3);
    let ContentCommand::CommitWrite { session, inode, mtime, .. } = world.commit(file, 0, 0, &grant, false)
    else {
        unreachable!()
    };
    let of_size =
        |size_at_least| ContentCommand::CommitWrite { session, inode, size_at_least, mtime, chunks: vec![] };
    assert_eq!(world.attr(of_size(9)).content_version, 3);
    assert_eq!(world.attr(of_size(10)).content_version, 4);
    let change = mooseng_types::SetAttr { mode: Some(0o600), ..Default::default() };
    assert_eq!(world.attr(AttrCommand::SetAttr { inode: file, change, session: None }).content_version, 4);
}

#[test]
fn what_is_appended_inline_goes_to_the_end_as_it_is_then() {
    let (mut world, file) = world();
    let append = |data: Bytes| ContentCommand::WriteInline { inode: file, offset: 77, append: true, data };
    assert_eq!(world.attr(append(Bytes::from_static(b"one"))).size, 3);
    assert_eq!(world.attr(append(Bytes::from_static(b"two"))).size, 6);
    assert_eq!(world.state.inline(file).unwrap(), &b"onetwo"[..]);
    world.attr(World::truncate(file, 8, None));
    assert_eq!(world.attr(append(Bytes::from_static(b"x"))).size, 9);
    assert_eq!(world.state.inline(file).unwrap(), &b"onetwo\0\0x"[..]);
    world.refused(FsError::Invalid, append(vec![0; 4088].into()));
    assert_eq!(world.attr(append(vec![1; 4087].into())).size, 4096);
    world.refused(FsError::Invalid, append(Bytes::from_static(b"x")));
    world.attr(World::truncate(file, 3 * CHUNK_SIZE, None));
    world.refused(FsError::Invalid, append(Bytes::from_static(b"x")));
    assert_eq!(check(&world.state), []);
}

#[test]
fn inline_content_is_that_of_the_first_chunk_alone() {
    let (mut world, file) = world();
    world.attr(write(file, 0, b"small"));
    let far = world.grant(file, 1);
    world.attr(world.commit(file, CHUNK_SIZE + 20, 1, &far, true));
    assert_eq!(world.attr(write(file, 5, b"er")).size, CHUNK_SIZE + 20);
    assert_eq!(world.state.inline(file).unwrap(), &b"smaller"[..]);
    let located = world.state.locate(file, ChunkIndex::from_raw(0), 9).unwrap();
    assert_eq!(located.len(), 1, "the first is inline, the second a chunk");
    let first = world.grant(file, 0);
    assert_eq!(first.inline.as_deref(), Some(&b"smaller"[..]));
    world.attr(world.commit(file, 0, 0, &first, true));
    assert_eq!(world.state.inline(file), None);
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_commit_with_one_lost_lease_commits_nothing() {
    let (mut world, file) = world();
    let (a, b) = (world.grant(file, 0), world.grant(file, 1));
    let ContentCommand::CommitWrite { mut chunks, .. } = world.commit(file, 9, 0, &a, false) else {
        unreachable!()
    };
    let ContentCommand::CommitWrite { chunks: more, .. } = world.commit(file, 9, 1, &b, false) else {
        unreachable!()
    };
    chunks.extend(more);
    chunks[1].version = version(9);
    let commit = |chunks, size_at_least| ContentCommand::CommitWrite {
        session: world.session,
        inode: file,
        size_at_least,
        mtime: None,
        chunks,
    };
    let (lost, large, none) = (commit(chunks, 9), commit(vec![], FILE_SIZE_MAX + 1), commit(vec![], 7));
    world.refused(FsError::LeaseLost, lost);
    world.refused(FsError::FileTooLarge, large);
    assert_eq!(world.attr(none).size, 7);
}

#[test]
fn a_cut_removes_chunks_beyond_it_and_voids_the_rest_of_its_own() {
    let (mut world, file) = world();
    let grants: Vec<_> = (0..3).map(|index| world.grant(file, index)).collect();
    for (index, grant) in (0..).zip(&grants) {
        world.attr(world.commit(file, 3 * CHUNK_SIZE, index, grant, true));
    }
    world.attr(World::truncate(file, CHUNK_SIZE + 5, None));
    assert_eq!(world.state.chunk(grants[0].chunk).unwrap().valid_length, FULL);
    assert_eq!(world.state.chunk(grants[1].chunk).unwrap().valid_length, 5);
    assert_eq!(world.state.chunk(grants[2].chunk), None);
    world.attr(World::truncate(file, 2 * CHUNK_SIZE, None));
    assert_eq!(world.state.chunk(grants[1].chunk).unwrap().valid_length, 5);
    world.attr(World::truncate(file, CHUNK_SIZE, None));
    assert_eq!(world.state.chunk(grants[1].chunk), None);
    let dead: Vec<_> =
        world.state.dead_chunks(ChunkId::from_raw(0), 9).into_iter().map(|dead| dead.0).collect();
    assert_eq!(dead, [grants[1].chunk, grants[2].chunk]);
    assert_eq!(world.state.totals().used_bytes, CHUNK_SIZE);
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_cut_waits_for_the_leases_of_others_and_ends_ones_own() {
    let (mut world, file) = world();
    let other = world.open(2);
    let (first, second) = (world.grant(file, 0), world.grant(file, 1));
    world.attr(world.commit(file, 2 * CHUNK_SIZE, 1, &second, false));
    world.refused(FsError::LeaseHeld, World::truncate(file, CHUNK_SIZE + 1, Some(other)));
    world.refused(FsError::LeaseHeld, World::truncate(file, CHUNK_SIZE + 1, None));
    world.attr(World::truncate(file, 3 * CHUNK_SIZE, Some(other)));
    world.attr(World::truncate(file, CHUNK_SIZE + 1, Some(world.session)));
    assert_eq!(world.state.chunk(second.chunk).unwrap().lease, None);
    assert_eq!(world.state.chunk(first.chunk).unwrap().lease, Some(world.session));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_small_file_lives_inline_until_its_first_chunk_is_committed() {
    let (mut world, file) = world();
    assert_eq!(world.attr(write(file, 0, b"hello")).size, 5);
    assert_eq!(world.attr(write(file, 7, b"you")).size, 10);
    assert_eq!(world.state.inline(file).unwrap(), &b"hello\0\0you"[..]);
    assert_eq!(world.attr(write(file, 0, b"j")).size, 10);
    world.refused(FsError::Invalid, write(file, 4090, b"too long"));
    world.refused(FsError::IsDirectory, write(ROOT, 0, b"x"));
    world.attr(World::truncate(file, 6, None));
    world.attr(World::truncate(file, 4096, None));
    assert_eq!(world.state.inline(file).unwrap(), &b"jello\0"[..]);
    let grant = world.grant(file, 0);
    assert_eq!(grant.inline.as_deref(), Some(&b"jello\0"[..]));
    world.refused(FsError::LeaseHeld, write(file, 0, b"x"));
    world.attr(world.commit(file, 4096, 0, &grant, true));
    assert_eq!(world.state.inline(file), None);
    world.refused(FsError::Invalid, write(file, 0, b"x"));
    assert_eq!(world.state.totals().used_bytes, 4096);
    assert_eq!(check(&world.state), []);
}

#[test]
fn inline_content_goes_with_a_cut_to_nothing() {
    let (mut world, file) = world();
    world.attr(write(file, 0, b"hello"));
    world.attr(World::truncate(file, 0, None));
    assert_eq!(world.state.inline(file), None);
    assert_eq!(check(&world.state), []);
}

#[test]
fn an_orphan_can_be_written_and_is_reaped_in_bounded_steps() {
    let (mut world, file) = world();
    world.done(World::unlink(ROOT, "f"));
    let name = Bytes::from_static(b"user.a");
    let mode = crate::command::XattrMode::Any;
    world.done(AttrCommand::SetXattr { inode: file, name, value: Bytes::new(), mode });
    for index in 0..1030 {
        world.grant(file, index);
    }
    world.attr(World::truncate(file, 77, Some(world.session)));
    for index in 0..1030 {
        world.grant(file, index);
    }
    world.done(RepairCommand::ReapOrphans { inodes: vec![file] });
    assert_eq!((world.state.totals().chunks, world.state.is_orphan(file)), (6, true));
    assert_eq!(check(&world.state), []);
    world.done(RepairCommand::ReapOrphans { inodes: vec![file, file] });
    assert_eq!(world.state.totals(), crate::settings::Totals { inodes: 1, used_bytes: 0, chunks: 0 });
    assert_eq!(check(&world.state), []);
    assert_eq!(world.state.tables.rows.collect(b"x", &[], 9, |_, _| ()).len(), 0);
}

#[test]
fn copies_are_added_and_struck_off() {
    let (mut world, file) = world();
    let grant = world.grant(file, 0);
    let (chunk, server) = (grant.chunk, ServerId::from_raw(9));
    let add = |version, server| RepairCommand::AddReplica { chunk, version, server };
    world.refused(FsError::Stale, add(version(1), server));
    world.attr(world.commit(file, 1, 0, &grant, true));
    world.refused(FsError::Stale, add(version(2), server));
    world.refused(FsError::Stale, add(version(1), ServerId::from_raw(1)));
    world.done(add(version(1), server));
    let remove = |server| RepairCommand::RemoveReplica { chunk, server: ServerId::from_raw(server) };
    world.refused(FsError::Invalid, remove(8));
    for server in 1..=3 {
        world.done(remove(server));
    }
    world.refused(FsError::Invalid, remove(9));
    assert_eq!(world.state.chunk(chunk).unwrap().layout, Layout::Copies(servers(&[9])));
}

#[test]
fn copies_that_may_differ_are_settled_by_a_version_that_nobody_has_and_a_grant_in_between_comes_first() {
    let (mut world, file) = world();
    world.done(ClusterCommand::RaiseLevel { level: Level::CLASSES });
    let grant = world.grant(file, 0);
    let chunk = grant.chunk;
    let begin = |granted| RepairCommand::BeginSettle { chunk, granted: version(granted) };
    let end = |raw| RepairCommand::EndSettle { chunk, version: version(raw) };
    world.refused(FsError::Stale, begin(1));
    world.attr(world.commit(file, 1, 0, &grant, false));
    world.refused(FsError::Stale, begin(1));
    let session = world.session;
    world.done(ClusterCommand::CloseSession { session });
    assert!(world.state.chunk(chunk).unwrap().differs);
    world.refused(FsError::Stale, begin(2));
    world.done(begin(1));
    world.refused(FsError::Stale, end(1));
    world.done(end(2));
    let row = world.state.chunk(chunk).unwrap();
    assert_eq!((row.committed, row.granted, row.differs, row.lease), (version(2), version(2), false, None));
    assert_eq!(check(&world.state), []);
}

/// Makes a stripe of a chunk, as nothing does yet.
fn striped(world: &mut World, chunk: ChunkId) {
    let mut row = world.state.chunk(chunk).unwrap();
    row.layout = Layout::Striped(Stripe::new(2, 1, servers(&[1, 2, 3])).unwrap());
    world.state.tables.put_chunk(chunk, &row);
}

#[test]
fn what_knows_only_copies_refuses_a_stripe() {
    let (mut world, file) = world();
    let grant = world.grant(file, 0);
    let chunk = grant.chunk;
    world.attr(world.commit(file, 1, 0, &grant, true));
    striped(&mut world, chunk);
    for failed in [&[][..], &[1]] {
        world.refused(FsError::NotSupported, World::grant_by(world.session, file, 0, failed));
    }
    let (version, server) = (version(1), ServerId::from_raw(9));
    world.refused(FsError::NotSupported, RepairCommand::AddReplica { chunk, version, server });
    let server = ServerId::from_raw(1);
    world.refused(FsError::NotSupported, RepairCommand::RemoveReplica { chunk, server });
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_stripe_dies_with_its_parts() {
    let (mut world, file) = world();
    let chunk = world.grant(file, 0).chunk;
    striped(&mut world, chunk);
    let session = world.session;
    world.attr(World::truncate(file, 1, Some(session)));
    world.attr(World::truncate(file, 0, Some(session)));
    let parts: Vec<_> = [1, 2, 3]
        .into_iter()
        .map(|index| (ServerId::from_raw(index.into()), Part::new(chunk, index).unwrap()))
        .collect();
    assert_eq!(world.state.dead_chunks(ChunkId::from_raw(0), 9), [(chunk, parts)]);
    assert_eq!(check(&world.state), []);
}
