//! What every store must do, as checks that each implementation's test runs.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Batch, MetaStore, StoreView, applied_index_of};
use crate::codec::v1::row::Number;
use crate::key;

/// Rows of a batch; `None` deletes.
type Rows = BTreeMap<Vec<u8>, Option<Bytes>>;
/// What a store should hold.
type Model = BTreeMap<Vec<u8>, Bytes>;

/// The contract: what holds for every store that is new and empty. Each panics where it does not.
#[doc(hidden)]
pub const CONTRACT: [fn(&dyn MetaStore); 6] = [
    an_empty_store_has_nothing,
    a_row_is_what_was_last_written,
    a_scan_keeps_to_its_prefix_and_its_start,
    a_scan_stops_when_it_is_told,
    a_view_stands_still,
    a_batch_may_be_large,
];

/// Writes `history`, batch by batch, and compares rows, scans and views with a map: those of each batch when it is
/// written, and again when all are.
///
/// # Panics
/// Where they differ.
#[doc(hidden)]
pub fn check_history(store: &dyn MetaStore, history: Vec<Rows>) {
    let mut model = Model::new();
    let mut views: Vec<(Box<dyn StoreView>, Model)> = Vec::new();
    for (rows, applied_index) in history.into_iter().zip(1..) {
        for (key, value) in &rows {
            match value {
                Some(value) => drop(model.insert(key.clone(), value.clone())),
                None => drop(model.remove(key)),
            }
        }
        let touched: Vec<Vec<u8>> = rows.keys().cloned().collect();
        store.write(&Batch { applied_index, rows });
        for key in &touched {
            assert_eq!(store.get(key).as_ref(), model.get(key), "{key:?} after batch {applied_index}");
            check_scan(store, &model, &key[..key.len().min(1)], key);
        }
        check_scan(store, &model, b"", b"");
        views.push((store.view(), model.clone()));
    }
    for (view, model) in &views {
        assert!(seen_by(&**view, b"") == rows_from(model, b""), "a view has changed");
        for key in model.keys() {
            assert_eq!(view.get(key).as_ref(), model.get(key));
        }
    }
}

/// What was written before a store was dropped is there when `open` opens it again, and what was deleted is not.
///
/// # Panics
/// Where it is otherwise.
#[doc(hidden)]
pub fn check_reopened(open: &dyn Fn() -> Box<dyn MetaStore>) {
    let mut model = Model::new();
    for round in 0..8u8 {
        let store = open();
        assert!(seen(&*store, b"", b"") == rows_from(&model, b""), "opened for round {round}");
        let gone = [(vec![b'r', round.wrapping_sub(1)], None)];
        let rows: Rows = [(vec![b'r', round], value(&[round])), (b"same".to_vec(), value(&[round]))].into();
        store.write(&Batch { applied_index: round.into(), rows: rows.into_iter().chain(gone).collect() });
        model = [(vec![b'r', round], vec![round].into()), (b"same".to_vec(), vec![round].into())].into();
    }
    assert!(seen(&*open(), b"", b"") == rows_from(&model, b""));
}

fn an_empty_store_has_nothing(store: &dyn MetaStore) {
    assert_eq!(store.get(b"a"), None);
    assert_eq!(seen(store, b"", b""), []);
    assert_eq!(seen_by(&*store.view(), b""), []);
    assert_eq!(applied_index_of(&*store.view()), 0);
    put(store, &[]);
    put(store, &[(b"a", None)]);
    assert_eq!(seen(store, b"", b""), []);
}

fn a_row_is_what_was_last_written(store: &dyn MetaStore) {
    put(store, &[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", Some(b""))]);
    put(store, &[(b"a", Some(b"3")), (b"b", None)]);
    assert_eq!(store.get(b"a").as_deref(), Some(&b"3"[..]));
    assert_eq!(store.get(b"b"), None);
    assert_eq!(store.get(b"c").as_deref(), Some(&b""[..]), "an empty value is a value");
    assert_eq!(store.get(b"aa"), None);
    put(store, &[(b"b", Some(b"4"))]);
    assert_eq!(store.get(b"b").as_deref(), Some(&b"4"[..]), "what was deleted may come again");
    put(store, &[(b"b", None), (b"never", None)]);
    assert_eq!(keys(store, b"", b""), ["a", "c"]);
}

fn a_scan_keeps_to_its_prefix_and_its_start(store: &dyn MetaStore) {
    let all: Vec<(&[u8], Option<&[u8]>)> =
        [&b"a1"[..], b"b", b"b1", b"b2", b"b3", b"c1", b"\xff", b"\xff\xff"]
            .iter()
            .map(|&key| (key, Some(key)))
            .collect();
    put(store, &all);
    assert_eq!(keys(store, b"b", b""), ["b", "b1", "b2", "b3"]);
    assert_eq!(keys(store, b"b", b"a1"), ["b", "b1", "b2", "b3"], "a start before the prefix");
    assert_eq!(keys(store, b"b", b"b2"), ["b2", "b3"], "the start is in it");
    assert_eq!(keys(store, b"b", b"b11"), ["b2", "b3"], "the start need not be there");
    assert!(keys(store, b"b", b"b4").is_empty(), "a start behind the last row");
    assert!(keys(store, b"b", b"c1").is_empty(), "a start beyond the prefix");
    assert!(keys(store, b"aa", b"").is_empty(), "a prefix that no row has");
    assert_eq!(seen(store, b"", b"").len(), 8, "every row has the empty prefix");
    assert_eq!(seen(store, b"", b"c").len(), 3);
    assert_eq!(seen(store, b"\xff", b"").len(), 2, "nothing sorts behind this prefix");
    assert!(seen(store, b"", b"").iter().all(|(key, value)| *key == value[..]));
}

fn a_scan_stops_when_it_is_told(store: &dyn MetaStore) {
    put(store, &[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", Some(b"3"))]);
    let view = store.view();
    for most in 1..=4 {
        let (mut of_store, mut of_view) = (0, 0);
        store.scan(b"", b"", &mut |_, _| {
            of_store += 1;
            of_store < most
        });
        view.scan(b"", &mut |_, _| {
            of_view += 1;
            of_view < most
        });
        assert_eq!((of_store, of_view), (most.min(3), most.min(3)));
    }
}

fn a_view_stands_still(store: &dyn MetaStore) {
    let applied = Number(300).encode();
    put(store, &[(b"a", Some(b"1")), (b"c", Some(b"2")), (&key::APPLIED, Some(&applied[..]))]);
    let view = store.view();
    put(store, &[(b"a", None), (b"b", Some(b"3")), (b"c", Some(b"4")), (&key::APPLIED, None)]);
    let later = store.view();
    assert_eq!(view.get(b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!((view.get(b"b"), view.get(b"c").as_deref()), (None, Some(&b"2"[..])));
    assert_eq!(applied_index_of(&*view), 300);
    assert_eq!(seen_by(&*view, b"").len(), 3);
    assert_eq!(seen_by(&*view, b"b").first().map(|(key, _)| &key[..]), Some(&b"c"[..]));
    assert_eq!(seen_by(&*later, b""), seen(store, b"", b""));
    put(store, &[(b"d", Some(b"5"))]);
    assert_eq!(later.get(b"d"), None);
}

fn a_batch_may_be_large(store: &dyn MetaStore) {
    let row = |number: u32| (number.to_be_bytes().to_vec(), Bytes::from(vec![number as u8; 500]));
    let model: Model = (0..20_000).map(row).collect();
    let rows = model.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    store.write(&Batch { applied_index: 1, rows });
    assert!(seen(store, b"", b"") == rows_from(&model, b""), "not all of a large batch is there");
    let rows = model.keys().map(|key| (key.clone(), None)).collect();
    store.write(&Batch { applied_index: 2, rows });
    assert_eq!(seen(store, b"", b""), []);
}

fn value(bytes: &[u8]) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(bytes))
}

fn put(store: &dyn MetaStore, rows: &[(&[u8], Option<&[u8]>)]) {
    let rows = rows.iter().map(|(key, value)| (key.to_vec(), value.map(Bytes::copy_from_slice))).collect();
    store.write(&Batch { applied_index: 1, rows });
}

fn check_scan(store: &dyn MetaStore, model: &Model, prefix: &[u8], from: &[u8]) {
    let expected: Vec<_> =
        rows_from(model, from).into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
    assert!(seen(store, prefix, from) == expected, "rows with {prefix:?} from {from:?}");
}

fn rows_from(model: &Model, from: &[u8]) -> Vec<(Vec<u8>, Bytes)> {
    model
        .iter()
        .filter(|(key, _)| &key[..] >= from)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn seen(store: &dyn MetaStore, prefix: &[u8], from: &[u8]) -> Vec<(Vec<u8>, Bytes)> {
    let mut rows = Vec::new();
    store.scan(prefix, from, &mut |key, value| {
        rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
        true
    });
    rows
}

fn seen_by(view: &dyn StoreView, from: &[u8]) -> Vec<(Vec<u8>, Bytes)> {
    let mut rows = Vec::new();
    view.scan(from, &mut |key, value| {
        rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
        true
    });
    rows
}

fn keys(store: &dyn MetaStore, prefix: &[u8], from: &[u8]) -> Vec<String> {
    let rows = seen(store, prefix, from);
    rows.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect()
}
