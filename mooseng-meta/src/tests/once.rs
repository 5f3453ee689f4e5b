//! Sessions, and requests that are sent again.

use std::sync::Arc;

use mooseng_types::{CellId, FileKind, FsError, InodeId, Level, RequestId, ServerId, SessionId};

use crate::check::check;
use crate::command::{AttrCommand, BATCH_MAX, ClusterCommand, Command, CommandBatch};
use crate::response::Response;
use crate::state::{FormatError, MetaState};
use crate::store::{Batch, MemoryStore, MetaStore};
use crate::testing::World;

const ROOT: InodeId = InodeId::ROOT;

fn stored(world: &World) -> usize {
    world.state.tables.rows.collect(b"r", &[], usize::MAX, |_, _| ()).len()
}

#[test]
fn a_request_sent_again_is_answered_again_and_done_once() {
    let mut world = World::new();
    let create = World::create(ROOT, "f", FileKind::File);
    let first = world.numbered(1, 0, create.clone());
    assert!(matches!(first, Response::Attr(_)));
    let before = world.rows();
    assert_eq!(world.numbered(1, 0, create.clone()), first);
    assert_eq!(world.rows(), before);
    let refused = Response::Refused(FsError::Exists);
    assert_eq!(world.numbered(2, 0, create.clone()), refused);
    world.done(World::unlink(ROOT, "f"));
    assert_eq!(world.numbered(2, 0, create), refused);
    let id = RequestId { session: world.session, seq: 2 };
    assert_eq!(world.state.stored_response(id), Some(refused));
}

#[test]
fn a_batch_sent_again_is_answered_again_and_done_once() {
    let mut world = World::new();
    let batch = || {
        let names = ["a", "b", "a", "c"];
        let create = |name| World::create(ROOT, name, FileKind::File).into();
        CommandBatch::new(names.map(create).to_vec()).unwrap()
    };
    assert_eq!(world.numbered(1, 0, batch()), Response::Refused(FsError::NotSupported), "at the first level");
    world.done(ClusterCommand::RaiseLevel { level: Level::IDENTITY });
    let first = world.numbered(2, 0, batch());
    let Response::Batch(answers) = &first else { panic!("{first:?}") };
    let made = |answer: &Response| matches!(answer, Response::Attr(_));
    assert_eq!(answers.iter().map(made).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(answers[2], Response::Refused(FsError::Exists));
    let before = world.rows();
    assert_eq!(world.numbered(2, 0, batch()), first);
    assert_eq!(world.rows(), before);
    let c = World::name("c");
    assert_eq!(world.state.lookup(ROOT, &c), Err(FsError::NotFound), "nothing behind the first refusal");
}

#[test]
fn what_cannot_be_in_a_batch_makes_none() {
    let create = || World::create(ROOT, "f", FileKind::File).into();
    let close: Command = ClusterCommand::CloseSession { session: SessionId::from_raw(1) }.into();
    let inner = CommandBatch::new(vec![create()]).unwrap().into();
    for wrong in [vec![], vec![create(), close], vec![create(), inner], vec![create(); BATCH_MAX + 1]] {
        assert_eq!(CommandBatch::new(wrong).unwrap_err(), FsError::Invalid);
    }
    assert!(CommandBatch::new(vec![create(); BATCH_MAX]).is_ok());
}

#[test]
fn requests_may_arrive_in_any_order() {
    let mut world = World::new();
    for seq in [5, 3, 4, 1] {
        let create = World::create(ROOT, &format!("f{seq}"), FileKind::File);
        assert!(matches!(world.numbered(seq, 1, create), Response::Attr(_)));
    }
    assert_eq!(stored(&world), 4);
}

#[test]
fn acknowledged_answers_are_forgotten_and_not_done_again() {
    let mut world = World::new();
    for seq in 1..=200 {
        world.numbered(seq, 0, World::create(ROOT, "f", FileKind::File));
        if seq == 100 {
            world.flush();
        }
    }
    assert_eq!(stored(&world), 200);
    world.numbered(201, 201, World::unlink(ROOT, "f"));
    assert_eq!(stored(&world), 1);
    world.numbered(202, 202, World::unlink(ROOT, "f"));
    assert_eq!(stored(&world), 1);
    let invalid = Response::Refused(FsError::Invalid);
    assert_eq!(world.numbered(7, 0, World::create(ROOT, "f", FileKind::File)), invalid);
    assert_eq!(world.numbered(203, 204, World::create(ROOT, "f", FileKind::File)), invalid);
    assert!(world.lookup(ROOT, "f").is_err());
    world.flush();
    assert_eq!(world.stored().keys().filter(|key| key[0] == b'r').count(), 1);
}

#[test]
fn a_session_that_acknowledges_nothing_has_a_bounded_number_of_answers() {
    let mut world = World::new();
    let invalid = Response::Refused(FsError::Invalid);
    let chmod = || AttrCommand::SetAttr {
        inode: ROOT,
        change: mooseng_types::SetAttr { mode: Some(0o777), ..Default::default() },
        session: None,
    };
    let beyond = mooseng_types::UNACKED_MAX + 1;
    for seq in 1..beyond {
        assert!(matches!(world.numbered(seq, 1, chmod()), Response::Attr(_)), "{seq}");
    }
    for seq in [beyond, u64::MAX] {
        assert_eq!(world.numbered(seq, 1, chmod()), invalid);
    }
    assert_eq!(stored(&world), 4096);
    assert!(matches!(world.numbered(beyond, 2, chmod()), Response::Attr(_)));
    assert!(matches!(world.numbered(u64::MAX, u64::MAX, chmod()), Response::Attr(_)));
}

#[test]
fn try_again_is_not_an_answer_to_remember() {
    let mut world = World::new();
    let file = world.make(ROOT, "f", FileKind::File);
    let other = world.open(2);
    let grant = world.granted(World::grant_by(other, file, 0, &[]));
    let mine = World::grant_by(world.session, file, 0, &[]);
    let before = world.rows();
    assert_eq!(world.numbered(1, 0, mine.clone()), Response::Refused(FsError::LeaseHeld));
    assert_eq!(world.rows(), before);
    world.done(ClusterCommand::CloseSession { session: other });
    match world.numbered(1, 0, mine) {
        Response::Grant(mine) => assert_eq!((mine.chunk, mine.version), (grant.chunk, grant.version.next())),
        refused => panic!("{refused:?}"),
    }
}

#[test]
fn a_session_that_is_gone_can_do_nothing_and_leaves_nothing() {
    let mut world = World::new();
    let session = world.session;
    world.numbered(1, 0, World::create(ROOT, "f", FileKind::File));
    assert_eq!(world.open(1), session);
    let close = ClusterCommand::CloseSession { session };
    assert_eq!(world.numbered(2, 1, close.clone()), Response::Done);
    assert_eq!(stored(&world), 0);
    assert!(!world.state.session_exists(session) && world.state.sessions().is_empty());
    assert_eq!(world.numbered(2, 1, close.clone()), Response::Done);
    world.done(close);
    let expired = Response::Refused(FsError::SessionExpired);
    assert_eq!(world.numbered(3, 0, World::create(ROOT, "g", FileKind::File)), expired);
    world.refused(FsError::SessionExpired, World::truncate(ROOT, 0, Some(session)));
    world.flush();
    for table in *b"sakrl" {
        assert!(world.stored().keys().all(|key| key[0] != table), "{}", char::from(table));
    }
    assert_ne!(world.open(1), session);
}

#[test]
fn a_server_keeps_its_id_and_is_found_where_it_said_last() {
    let mut world = World::new();
    let mut register = |uuid, address: &str| {
        let (name, address) = ("cs".to_owned(), address.to_owned());
        world.run(ClusterCommand::RegisterServer { uuid: [uuid; 16], name, address, place: None })
    };
    let first = Response::Server(ServerId::from_raw(1));
    assert_eq!(register(1, "a:1"), first);
    assert_eq!(register(2, "b:1"), Response::Server(ServerId::from_raw(2)));
    assert_eq!(register(1, "a:2"), first);
    let servers = world.state.servers();
    assert_eq!(servers.iter().map(|row| row.address.as_str()).collect::<Vec<_>>(), ["a:2", "b:1"]);
}

#[test]
fn a_state_opened_again_goes_on_where_it_stopped() {
    let mut world = World::new();
    world.numbered(1, 0, World::create(ROOT, "f", FileKind::File));
    assert!(world.state.unflushed_bytes() > 0);
    let batch = world.state.freeze().unwrap();
    assert_eq!((world.state.unflushed_bytes(), batch.applied_index), (0, world.state.applied_index()));
    // While the batch is out its rows stay readable, and there is no second one.
    assert!(world.lookup(ROOT, "f").is_ok());
    world.make(ROOT, "g", FileKind::File);
    assert!(world.state.freeze().is_none());
    world.store.write(&batch);
    world.state.flushed();
    world.state.skip(50);
    world.flush();
    assert!(world.state.freeze().is_none());
    let again = MetaState::open(Arc::clone(&world.store) as Arc<dyn MetaStore>, CellId::ROOT).unwrap();
    assert_eq!(again.applied_index(), 50);
    assert_eq!(again.totals(), world.state.totals());
    assert_eq!(again.settings(), world.state.settings());
    let before = world.rows();
    world.state = again;
    assert_eq!(world.rows(), before);
    assert!(matches!(world.numbered(1, 0, World::unlink(ROOT, "f")), Response::Attr(_)));
    assert_eq!(check(&world.state), []);
}

#[test]
fn a_store_with_something_else_in_it_is_not_opened() {
    let write = |key: &[u8], value: &'static [u8]| {
        let store = MemoryStore::new();
        let rows = [(key.to_vec(), Some(bytes::Bytes::from_static(value)))].into();
        store.write(&Batch { applied_index: 0, rows });
        MetaState::open(Arc::new(store), CellId::ROOT).err()
    };
    assert_eq!(write(b"x", b"y"), Some(FormatError::Foreign));
    assert_eq!(write(b"mf", &[1, 2]), Some(FormatError::Unknown { found: 2 }));
    assert_eq!(write(b"mf", &[1, 1]), Some(FormatError::Missing("ma".to_owned())));
    assert!(matches!(write(b"mf", &[9]), Some(FormatError::Damaged { .. })));
}

#[test]
#[should_panic(expected = "comes after")]
fn an_entry_is_not_applied_twice() {
    let mut world = World::new();
    let index = world.state.applied_index();
    world.state.skip(index);
}

#[test]
#[should_panic(expected = "is damaged")]
fn a_damaged_row_stops_the_machine() {
    let mut world = World::new();
    let file = world.make(ROOT, "f", FileKind::File);
    world.state.tables.rows.put(&crate::key::inode(file), bytes::Bytes::from_static(b"\x01nonsense"));
    world.run(World::unlink(ROOT, "f"));
}

#[test]
fn an_unknown_session_is_not_known() {
    let world = World::new();
    assert!(world.state.session_exists(world.session));
    assert!(!world.state.session_exists(SessionId::from_raw(77)));
}
