//! The rolling hash: the same on replicas that applied the same entries, for ever another on one that differs once.

use std::sync::Arc;

use bytes::Bytes;
use mooseng_types::{CellId, FileKind, InodeId};
use proptest::prelude::*;

use super::membership::group;
use crate::key;
use crate::state::MetaState;
use crate::store::{Batch, MetaStore};
use crate::testing::World;

fn opened(world: &World) -> MetaState {
    MetaState::open(Arc::clone(&world.store) as Arc<dyn MetaStore>, CellId::ROOT).unwrap()
}

#[test]
fn entries_of_every_sort_change_the_hash() {
    let mut world = World::new();
    let mut seen = vec![world.state.digest()];
    world.make(InodeId::ROOT, "a", FileKind::File);
    seen.push(world.state.digest());
    let index = world.state.applied_index();
    world.state.skip(index + 1);
    seen.push(world.state.digest());
    world.state.set_membership(index + 2, group(1, &[1]));
    seen.push(world.state.digest());
    let refused = World::create(InodeId::ROOT, "a", FileKind::File);
    world.run(refused);
    seen.push(world.state.digest());
    for (at, digest) in seen.iter().enumerate() {
        assert!(!seen[..at].contains(digest), "{at}");
    }
}

#[test]
fn freezing_flushing_and_opening_leave_the_hash_alone() {
    let mut world = World::new();
    world.make(InodeId::ROOT, "a", FileKind::File);
    let before = world.state.digest();
    world.flush();
    assert_eq!(world.state.digest(), before);
    assert_eq!(opened(&world).digest(), before);
}

#[test]
fn a_store_from_before_hashes_were_kept_has_none_and_gets_none() {
    let mut world = World::new();
    world.flush();
    world.store.write(&Batch { applied_index: 9, rows: [(key::DIGEST.to_vec(), None)].into() });
    world.state = opened(&world);
    assert_eq!(world.state.digest(), 0);
    world.make(InodeId::ROOT, "a", FileKind::File);
    assert_eq!(world.state.digest(), 0);
    world.flush();
    assert!(!world.stored().contains_key(&key::DIGEST[..]));
}

#[test]
fn where_a_store_began_is_its_own_matter_but_who_is_in_the_group_is_not() {
    let founded = |index, term, numbers: &[u16]| {
        let store = Arc::new(crate::store::MemoryStore::new());
        let mut state = MetaState::open(store as Arc<dyn MetaStore>, CellId::ROOT).unwrap();
        state.found(index, term, group(1, numbers));
        state.digest()
    };
    assert_eq!(founded(1, 1, &[1, 2]), founded(1, 2, &[1, 2]));
    assert_ne!(founded(1, 1, &[1, 2]), founded(1, 1, &[1]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// One bit of one row differs, as a bad memory chip would have it.
    #[test]
    fn replicas_that_differ_once_never_agree_again(
        row in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        bit in 0u8..8,
        later in 1usize..40,
    ) {
        let (mut one, mut other) = (World::new(), World::new());
        prop_assert_eq!(one.state.digest(), other.state.digest());
        let rows = [(&b"x1"[..], vec![1, 2, 3]), (b"x22", vec![9; 30]), (b"x333", vec![0; 400])];
        let wrong = row.index(rows.len());
        for (at, (key, value)) in rows.iter().enumerate() {
            one.state.tables.rows.put(key, Bytes::from(value.clone()));
            let mut value = value.clone();
            if at == wrong {
                let byte = byte.index(value.len());
                value[byte] ^= 1 << bit;
            }
            other.state.tables.rows.put(key, Bytes::from(value));
        }
        for number in 0..later {
            let name = format!("f{number}");
            for world in [&mut one, &mut other] {
                world.make(InodeId::ROOT, &name, FileKind::File);
            }
            prop_assert_ne!(one.state.digest(), other.state.digest());
        }
    }
}
