//! Whole snapshots come across as they are; of a damaged one nothing does.

use std::sync::Arc;

use mooseng_meta::{BASE, Batch, MetaState, MetaStore, StoreView, applied_index_of};
use mooseng_types::level::SUPPORTED;
use mooseng_types::{CellId, Level};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::testing::{Rows, all_rows, group, message, store};
use super::*;
use crate::raft::Message;

fn sent(view: &dyn StoreView) -> Vec<SnapshotFrame> {
    let mut all = Vec::new();
    frames(CellId::ROOT, view, message(70), &mut |frame| {
        all.push(frame);
        Ok(())
    })
    .unwrap();
    all
}

fn receive<S: SnapshotSink>(
    frames: Vec<SnapshotFrame>,
    sink: S,
) -> Result<Option<Received<S::Store>>, SnapshotError> {
    let mut sink = Some(sink);
    let mut receiving: Option<Receiving<S>> = None;
    for frame in frames {
        match frame {
            SnapshotFrame::Begin(_, begin) => {
                receiving = Some(Receiving::begin(begin, sink.take().unwrap(), SUPPORTED)?)
            }
            SnapshotFrame::Rows(rows) => receiving.as_mut().unwrap().rows(rows)?,
            SnapshotFrame::End(end) => return receiving.take().unwrap().end(end).map(Some),
        }
    }
    Ok(None)
}

fn flaw(frames: Vec<SnapshotFrame>) -> Flaw {
    match receive(frames, MemorySink::default()) {
        Err(SnapshotError::Refused { flaw, .. }) => flaw,
        other => panic!("{other:?}"),
    }
}

/// All rows of the frames in others of `size`, changed by `change`, between the same begin and end.
fn changed(
    frames: &[SnapshotFrame],
    size: usize,
    change: impl FnOnce(&mut Vec<(Bytes, Bytes)>),
) -> Vec<SnapshotFrame> {
    let mut rows = Vec::new();
    for frame in frames {
        if let SnapshotFrame::Rows(part) = frame {
            rows.extend(part.clone());
        }
    }
    change(&mut rows);
    let middle = rows.chunks(size).map(|rows| SnapshotFrame::Rows(rows.to_vec()));
    let (first, last) = (frames[0].clone(), frames[frames.len() - 1].clone());
    [first].into_iter().chain(middle).chain([last]).collect()
}

/// Rows besides those that say what the store is.
fn some_rows() -> impl Strategy<Value = Rows> {
    let key = vec(b'n'..=b'z', 1..6);
    btree_map(key, vec(any::<u8>(), 0..40).prop_map(Bytes::from), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn a_snapshot_comes_across_as_it_is_but_for_the_base(rows in some_rows(), size in 1usize..20) {
        let from = store(&rows);
        let frames = changed(&sent(&*from.view()), size, |_| {});
        let received = receive(frames, MemorySink::default()).unwrap().unwrap();
        let mut wanted = all_rows(&*from.view());
        prop_assert_eq!(received.rows as usize, wanted.len() - 1);
        let (key, value) = mooseng_meta::base_row(70, 3);
        wanted.insert(key.to_vec(), value);
        prop_assert_eq!(all_rows(&*received.store.view()), wanted);
        prop_assert_eq!(received.membership, group());
        prop_assert_eq!(received.message, message(70));
        prop_assert_eq!(applied_index_of(&*received.store.view()), 70);
        let state = MetaState::open(Arc::new(received.store), CellId::ROOT).unwrap();
        prop_assert_eq!((state.base(), state.digest()), ((70, 3), MetaState::open(from, CellId::ROOT).unwrap().digest()));
    }

    #[test]
    fn a_row_dropped_doubled_moved_or_altered_is_found(
        rows in some_rows(),
        size in 1usize..20,
        kind in 0u8..6,
        (at, to, bit) in (any::<Index>(), any::<Index>(), 0u8..8),
    ) {
        let frames = sent(&*store(&rows).view());
        let frames = changed(&frames, size, |rows| {
            let (at, to) = (at.index(rows.len()), to.index(rows.len()));
            let alter = |bytes: &Bytes| {
                let mut bytes = bytes.to_vec();
                match bytes.first_mut() {
                    Some(first) => *first ^= 1 << bit,
                    None => bytes.push(bit),
                }
                Bytes::from(bytes)
            };
            match kind {
                0 => drop(rows.remove(at)),
                1 => rows.insert(at, rows[at].clone()),
                2 => rows.push(rows[at].clone()),
                3 if at != to => rows.swap(at, to),
                4 => rows[at].0 = alter(&rows[at].0),
                _ => rows[at].1 = alter(&rows[at].1),
            }
        });
        let refused = matches!(receive(frames, MemorySink::default()), Err(SnapshotError::Refused { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn a_snapshot_that_stops_early_or_ends_early_is_not_taken(rows in some_rows(), stop in any::<Index>()) {
        let frames = changed(&sent(&*store(&rows).view()), 1, |_| {});
        let stop = stop.index(frames.len() - 1);
        let mut early = frames[..=stop].to_vec();
        prop_assert!(matches!(receive(early.clone(), MemorySink::default()), Ok(None)));
        if stop + 2 < frames.len() {
            early.extend(frames.last().cloned());
            let refused = matches!(flaw(early), Flaw::Count { .. });
            prop_assert!(refused);
        }
    }
}

#[test]
fn frames_are_of_some_size_and_the_base_is_left_out() {
    let rows = (0..40u8).map(|number| (vec![b'x', number], Bytes::from(vec![number; 50_000]))).collect();
    let frames = sent(&*store(&rows).view());
    assert!(frames.len() > 8, "{}", frames.len());
    for frame in &frames {
        if let SnapshotFrame::Rows(part) = frame {
            let bytes: usize = part.iter().map(|(key, value)| key.len() + value.len()).sum();
            assert!(bytes < (256 << 10) + VALUE_MAX);
            assert!(part.iter().all(|row| row.0 != BASE[..]));
        }
    }
}

#[test]
fn what_no_sender_sends_is_refused_and_named() {
    let frames = sent(&*store(&Rows::new()).view());
    let row = |key: &[u8], value: Vec<u8>| (Bytes::copy_from_slice(key), Bytes::from(value));
    let with = |new: (Bytes, Bytes)| {
        changed(&frames, 3, |rows| {
            rows.retain(|row| row.0 != new.0);
            rows.push(new);
            rows.sort();
        })
    };
    assert_eq!(flaw(with(row(&[b'z'; KEY_MAX + 1], vec![]))), Flaw::TooLong { key: KEY_MAX + 1, value: 0 });
    assert_eq!(flaw(with(row(b"z", vec![0; VALUE_MAX + 1]))), Flaw::TooLong { key: 1, value: VALUE_MAX + 1 });
    assert_eq!(flaw(with(row(b"", vec![]))), Flaw::Order);
    assert_eq!(flaw(with(row(b"mb", vec![1, 1, 1]))), Flaw::HasBase);
    assert_eq!(flaw(with(row(b"mf", vec![1, 2]))), Flaw::Landmark(CodecError::Format(2)));
    assert_eq!(flaw(with(row(b"mm", vec![]))), Flaw::Landmark(CodecError::Truncated));
    let level = Level::from_raw(9);
    assert_eq!(flaw(with(row(b"ml", vec![1, 9]))), Flaw::Level { level, levels: SUPPORTED });
    let mut empty = frames.clone();
    empty.insert(1, SnapshotFrame::Rows(Vec::new()));
    assert_eq!(flaw(empty), Flaw::NoRows);
    for wrong in [message(0), Message::default()] {
        assert_eq!(flaw(vec![SnapshotFrame::Begin(CellId::ROOT, wrong)]), Flaw::NoSnapshot);
    }
    let mut other = frames;
    other[0] = SnapshotFrame::Begin(CellId::ROOT, message(71));
    assert_eq!(flaw(other), Flaw::Index { found: 70, said: 71 });
}

/// Count and hash may be right, and the rows still no store.
#[test]
fn rows_that_are_not_a_store_are_refused() {
    let frames = sent(&*store(&Rows::new()).view());
    for (key, missing) in [(b"mf", "format"), (b"ma", "applied index"), (b"mm", "group of masters")] {
        let mut hash = rows_hash::RowsHash::default();
        let mut count = 0;
        let mut frames = changed(&frames, 3, |rows| {
            rows.retain(|row| row.0 != key[..]);
            rows.iter().for_each(|row| hash.row(&row.0, &row.1));
            count = rows.len() as u64;
        });
        *frames.last_mut().unwrap() = SnapshotFrame::End(Ending { rows: count, hash: hash.value() });
        assert_eq!(flaw(frames), Flaw::Missing(missing));
    }
}

#[test]
fn a_store_that_is_not_what_the_message_says_is_not_sent() {
    let refused =
        |view: &dyn StoreView, index| match frames(CellId::ROOT, view, message(index), &mut |frame| {
            panic!("sent {frame:?}")
        }) {
            Err(SnapshotError::Unsendable(flaw)) => flaw,
            other => panic!("{other:?}"),
        };
    assert_eq!(refused(&*store(&Rows::new()).view(), 71), Flaw::Index { found: 70, said: 71 });
    assert_eq!(refused(&*MemoryStore::new().view(), 70), Flaw::Missing("applied index"));
    let from = store(&Rows::new());
    from.write(&Batch { applied_index: 70, rows: [(b"mm".to_vec(), None)].into() });
    assert_eq!(refused(&*from.view(), 70), Flaw::Missing("group of masters"));
}
