//! The masters' group as part of the state.

use std::sync::Arc;

use mooseng_types::{CellId, MasterId};

use crate::codec::CodecError;
use crate::membership::{Member, Membership};
use crate::state::{FormatError, MetaState};
use crate::store::{Batch, MemoryStore, MetaStore};
use crate::testing::World;

pub(super) fn group(epoch: u64, numbers: &[u16]) -> Membership {
    let mut group = Membership { epoch, members: Vec::new() };
    for &number in numbers {
        group.put(Member {
            id: MasterId::new(number, 5),
            name: format!("m{number}"),
            address: format!("h{number}:9421"),
            voter: number != 3,
            wants_vote: true,
        });
    }
    group
}

fn open(store: &Arc<MemoryStore>) -> MetaState {
    MetaState::open(Arc::clone(store) as Arc<dyn MetaStore>, CellId::ROOT).unwrap()
}

#[test]
fn a_founded_group_is_there_after_a_restart_with_the_entry_it_was_founded_at() {
    let store = Arc::new(MemoryStore::new());
    let mut state = open(&store);
    assert_eq!((state.membership(), state.base()), (&Membership::default(), (0, 0)));
    state.found(7, 2, group(1, &[1, 2]));
    let batch = state.freeze().unwrap();
    let keys: Vec<&[u8]> = batch.rows.keys().map(Vec::as_slice).collect();
    assert_eq!(keys, [b"ma", b"mb", b"mc", b"md", b"mf", b"mm"]);
    state.store().write(&batch);
    let state = open(&store);
    assert_eq!(state.membership(), &group(1, &[1, 2]));
    assert_eq!((state.applied_index(), state.base()), (7, (7, 2)));
}

#[test]
fn a_change_of_the_group_counts_at_once_and_after_a_flush() {
    let mut world = World::new();
    let index = world.state.applied_index() + 1;
    world.state.set_membership(index, group(4, &[1, 2, 3]));
    assert_eq!((world.state.applied_index(), world.state.membership()), (index, &group(4, &[1, 2, 3])));
    assert_eq!(open(&world.store).membership(), &Membership::default());
    world.flush();
    assert_eq!(open(&world.store).membership(), &group(4, &[1, 2, 3]));
    assert_eq!(open(&world.store).base(), (0, 0));
}

#[test]
#[should_panic = "a group is founded once"]
fn a_state_that_has_entries_is_not_founded() {
    World::new().state.found(100, 1, group(1, &[1]));
}

#[test]
fn a_state_that_begins_anew_keeps_its_rows_and_gives_no_id_again() {
    let mut world = World::new();
    world.state.set_membership(world.state.applied_index() + 1, group(4, &[1, 2, 3]));
    let (settings, totals) = (world.state.settings(), world.state.totals());
    let before = world.state.tables.counters;
    let index = world.state.applied_index() + 1;
    world.state.begin_anew(index, 1 << 32, group(5, &[2]));
    world.flush();
    let state = open(&world.store);
    assert_eq!((state.membership(), state.base()), (&group(5, &[2]), (index, 1 << 32)));
    assert_eq!((state.applied_index(), state.settings(), state.totals()), (index, settings, totals));
    let now = state.tables.counters;
    assert!(now.next_inode - before.next_inode >= 1 << 32 && now.next_chunk - before.next_chunk >= 1 << 32);
    assert!(now.next_session > before.next_session + 1000 && now.next_server > before.next_server + 1000);
}

#[test]
#[should_panic = "an epoch of its own"]
fn a_state_begins_anew_in_a_later_epoch_only() {
    let mut world = World::new();
    let index = world.state.applied_index() + 1;
    world.state.set_membership(index, group(4, &[1, 2, 3]));
    world.state.begin_anew(index + 1, 9, group(4, &[2]));
}

#[test]
fn a_damaged_group_is_found_when_the_store_is_opened() {
    for (key, name) in [(b"mm", "mm"), (b"mb", "mb"), (b"md", "md")] {
        let mut world = World::new();
        world.flush();
        let rows = [(key.to_vec(), Some(bytes::Bytes::from_static(&[1])))].into();
        world.store.write(&Batch { applied_index: 9, rows });
        let error =
            MetaState::open(Arc::clone(&world.store) as Arc<dyn MetaStore>, CellId::ROOT).unwrap_err();
        assert_eq!(error, FormatError::Damaged { key: name.to_owned(), source: CodecError::Truncated });
    }
}
