//! Hand-made histories, good and bad, of each shared object.

use std::time::Duration;

use super::*;
use crate::invariants::{Call, linearizable};

/// A call from and to a millisecond; without a second one it was never answered.
fn call<O: Object>(span: (u64, u64), op: O::Op, answer: O::Answer) -> Call<O> {
    let ms = Duration::from_millis;
    Call { invoked: ms(span.0), op, answered: (span.1 > 0).then(|| (ms(span.1), answer)) }
}

fn name(span: (u64, u64), op: NameOp, answer: Option<u64>) -> Call<Name> {
    call(span, op, answer)
}

fn fits<O: Object>(calls: impl IntoIterator<Item = Call<O>>) -> bool {
    linearizable(&calls.into_iter().collect::<Vec<_>>()).is_none()
}

#[test]
fn a_stale_look_fits_no_order_and_a_concurrent_one_does() {
    let create = || name((1, 5), NameOp::Create, Some(7));
    assert!(fits([create(), name((2, 3), NameOp::Lookup, None)]));
    assert!(!fits([create(), name((6, 7), NameOp::Lookup, None)]));
    assert!(!fits([create(), name((6, 7), NameOp::Lookup, Some(8))]));
}

#[test]
fn what_was_never_answered_may_have_happened_at_any_time_or_not_at_all() {
    let create = || name((1, 2), NameOp::Create, Some(7));
    let unlink = || name((3, 0), NameOp::Unlink, None);
    let there = || name((4, 5), NameOp::Lookup, Some(7));
    let gone = || name((6, 7), NameOp::Lookup, None);
    assert!(fits([create(), unlink(), there()]));
    assert!(fits([create(), unlink(), there(), gone()]));
    assert!(!fits([create(), unlink(), gone(), name((8, 9), NameOp::Lookup, Some(7))]));
    assert!(!fits([create(), there(), unlink(), name((1, 2), NameOp::Lookup, None), gone(), there()]));
}

#[test]
fn a_name_is_made_once() {
    let first = || name((1, 2), NameOp::Create, Some(7));
    let second = || name((3, 4), NameOp::Create, Some(8));
    assert!(!fits([first(), second()]));
    assert!(fits([first(), name((1, 9), NameOp::Unlink, Some(0)), second()]));
}

fn dir(span: (u64, u64), op: DirOp, answer: DirAnswer) -> Call<Directory> {
    call(span, op, answer)
}

fn names(names: &[(&str, u64)]) -> DirAnswer {
    DirAnswer::Names(names.iter().map(|(name, inode)| ((*name).to_owned(), *inode)).collect())
}

#[test]
fn a_rename_is_seen_whole() {
    let made = || {
        [dir((1, 2), DirOp::Create("a"), DirAnswer::Inode(7)), {
            dir((3, 4), DirOp::Create("b"), DirAnswer::Inode(8))
        }]
    };
    let rename = || dir((5, 9), DirOp::Rename("a", "b"), DirAnswer::Done);
    let list = |listed| dir((6, 7), DirOp::List, listed);
    let with = |listed| fits(made().into_iter().chain([rename(), list(listed)]));
    assert!(with(names(&[("a", 7), ("b", 8)])), "before");
    assert!(with(names(&[("b", 7)])), "after");
    assert!(!with(names(&[("b", 8)])), "gone from the one place, not yet in the other");
    assert!(!with(names(&[("a", 7), ("b", 7)])), "in both places");
    assert!(!with(names(&[("a", 7)])), "the replaced one is gone too early");
}

#[test]
fn two_names_of_one_directory_are_in_one_order() {
    let refused = || DirAnswer::Refused(FsError::NotFound);
    let a = || dir((1, 20), DirOp::Create("a"), DirAnswer::Inode(7));
    let b = || dir((1, 20), DirOp::Create("b"), DirAnswer::Inode(8));
    let a_first = || {
        [dir((2, 3), DirOp::Lookup("a"), DirAnswer::Inode(7)), { dir((4, 5), DirOp::Lookup("b"), refused()) }]
    };
    let b_first = || {
        [dir((6, 7), DirOp::Lookup("b"), DirAnswer::Inode(8)), { dir((8, 9), DirOp::Lookup("a"), refused()) }]
    };
    assert!(fits([a(), b()].into_iter().chain(a_first())));
    assert!(fits([a(), b()].into_iter().chain(b_first())));
    assert!(!fits([a(), b()].into_iter().chain(a_first()).chain(b_first())));
}

#[test]
fn a_rename_that_was_never_answered_may_take_place_late() {
    let create = || dir((1, 2), DirOp::Create("a"), DirAnswer::Inode(7));
    let rename = || dir((3, 0), DirOp::Rename("a", "b"), DirAnswer::Done);
    let early = || dir((4, 5), DirOp::List, names(&[("a", 7)]));
    let late = || dir((6, 7), DirOp::List, names(&[("b", 7)]));
    assert!(fits([create(), rename(), early(), late()]));
    assert!(!fits([create(), rename(), late(), dir((8, 9), DirOp::List, names(&[("a", 7)]))]));
}

#[test]
fn a_file_whose_maker_died_has_one_inode_from_then_on() {
    let create = || dir((1, 0), DirOp::Create("a"), DirAnswer::Done);
    let look = |from, inode| dir((from, from + 1), DirOp::Lookup("a"), DirAnswer::Inode(inode));
    assert!(fits([create(), look(2, 7), look(4, 7)]));
    assert!(!fits([create(), look(2, 7), look(4, 8)]));
}

fn file(span: (u64, u64), op: FileOp, mode: u32, size: u64, mtime: i64) -> Call<File> {
    call(span, op, Attributes { mode, size, mtime: Some(mtime) })
}

#[test]
fn attributes_are_one_register() {
    let set = || file((1, 2), FileOp::SetMode(0o600), 0o600, 0, 5);
    let cut = || file((3, 9), FileOp::SetSize(9), 0o600, 9, 6);
    assert!(fits([set(), cut(), file((4, 5), FileOp::Get, 0o600, 0, 5)]));
    assert!(fits([set(), cut(), file((4, 5), FileOp::Get, 0o600, 9, 6)]));
    assert!(!fits([set(), cut(), file((4, 5), FileOp::Get, 0o600, 9, 5)]), "half of the change");
    assert!(!fits([set(), cut(), file((4, 5), FileOp::Get, FILE_MODE, 0, 5)]), "stale");
    assert!(!fits([set(), cut(), file((10, 11), FileOp::Get, 0o600, 0, 5)]), "stale");
    let touch = || file((10, 0), FileOp::SetMtime(77), 0, 0, 0);
    assert!(fits([set(), cut(), touch(), file((11, 12), FileOp::Get, 0o600, 9, 77)]));
    assert!(!fits([set(), cut(), touch(), file((11, 12), FileOp::Get, 0o600, 9, 78)]));
}

#[test]
fn a_long_history_with_many_unanswered_operations_comes_to_an_end() {
    let writer = |at: u64| file((at, 0), FileOp::SetMode(u32::try_from(at).unwrap()), 0, 0, 0);
    let mut calls: Vec<_> = (1..=8).map(writer).collect();
    calls.extend((10..60).map(|at| file((at, at + 5), FileOp::Get, FILE_MODE, 0, 1)));
    assert!(linearizable(&calls).is_none());
    calls.push(file((70, 71), FileOp::Get, 0o77, 0, 1));
    assert!(linearizable(&calls).is_some());
}
