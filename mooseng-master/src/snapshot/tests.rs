//! Whole snapshots come across as they are; of a damaged one nothing does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use mooseng_meta::{BASE, Batch, Member, Membership, MetaState, MetaStore, StoreView, applied_index_of};
use mooseng_protocol::frame::{FLAG_REPLY, Frame, Header};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::level::SUPPORTED;
use mooseng_types::{Level, MasterId};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use super::*;

type Rows = BTreeMap<Vec<u8>, Bytes>;

fn group() -> Membership {
    let id = MasterId::new(1, 9);
    let member = Member { id, name: "m1".into(), address: "h:1".into(), voter: true, wants_vote: true };
    Membership { epoch: 4, members: vec![member] }
}

/// A store as of entry 70, with these rows besides.
fn store(rows: &Rows) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let mut state = MetaState::open(Arc::<MemoryStore>::clone(&store)).unwrap();
    state.found(69, 1, group());
    state.skip(70);
    let mut batch = Batch::clone(&state.freeze().unwrap());
    batch.rows.extend(rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
    store.write(&batch);
    store
}

fn message(index: u64) -> pb::RaftMessage {
    let snapshot = pb::RaftSnapshot { index, term: 3, ..Default::default() };
    pb::RaftMessage { kind: 7, from: 1, to: 2, term: 3, snapshot: Some(snapshot), ..Default::default() }
}

fn sent(view: &dyn StoreView) -> Vec<Piece> {
    let mut all = Vec::new();
    pieces(view, message(70), &mut |piece| {
        all.push(piece);
        Ok(())
    })
    .unwrap();
    all
}

fn all_rows(view: &dyn StoreView) -> Rows {
    let mut rows = Rows::new();
    view.scan(&[], &mut |key, value| {
        rows.insert(key.to_vec(), Bytes::copy_from_slice(value));
        true
    });
    rows
}

fn receive<S: SnapshotSink>(
    pieces: Vec<Piece>,
    sink: S,
) -> Result<Option<Received<S::Store>>, SnapshotError> {
    let mut sink = Some(sink);
    let mut receiving: Option<Receiving<S>> = None;
    for piece in pieces {
        match piece {
            Piece::Begin(begin) => {
                receiving = Some(Receiving::begin(begin, sink.take().unwrap(), SUPPORTED)?)
            }
            Piece::Rows(rows) => receiving.as_mut().unwrap().rows(rows)?,
            Piece::End(end) => return receiving.take().unwrap().end(end).map(Some),
        }
    }
    Ok(None)
}

fn flaw(pieces: Vec<Piece>) -> Flaw {
    match receive(pieces, MemorySink::default()) {
        Err(SnapshotError::Refused { flaw, .. }) => flaw,
        other => panic!("{other:?}"),
    }
}

/// All rows of the pieces in frames of `size`, changed by `change`, between the same begin and end.
fn changed(pieces: &[Piece], size: usize, change: impl FnOnce(&mut Vec<pb::SnapshotRow>)) -> Vec<Piece> {
    let mut rows = Vec::new();
    for piece in pieces {
        if let Piece::Rows(part) = piece {
            rows.extend(part.rows.clone());
        }
    }
    change(&mut rows);
    let frames = rows.chunks(size).map(|rows| Piece::Rows(pb::SnapshotRows { rows: rows.to_vec() }));
    let (first, last) = (pieces[0].clone(), pieces[pieces.len() - 1].clone());
    [first].into_iter().chain(frames).chain([last]).collect()
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
        let state = MetaState::open(Arc::new(received.store)).unwrap();
        prop_assert_eq!((state.base(), state.digest()), ((70, 3), MetaState::open(from).unwrap().digest()));
    }

    #[test]
    fn a_row_dropped_doubled_moved_or_altered_is_found(
        rows in some_rows(),
        size in 1usize..20,
        kind in 0u8..6,
        (at, to, bit) in (any::<Index>(), any::<Index>(), 0u8..8),
    ) {
        let pieces = sent(&*store(&rows).view());
        let frames = changed(&pieces, size, |rows| {
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
                4 => rows[at].key = alter(&rows[at].key),
                _ => rows[at].value = alter(&rows[at].value),
            }
        });
        let refused = matches!(receive(frames, MemorySink::default()), Err(SnapshotError::Refused { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn a_snapshot_that_stops_early_or_ends_early_is_not_taken(rows in some_rows(), stop in any::<Index>()) {
        let pieces = changed(&sent(&*store(&rows).view()), 1, |_| {});
        let stop = stop.index(pieces.len() - 1);
        let mut early = pieces[..=stop].to_vec();
        prop_assert!(matches!(receive(early.clone(), MemorySink::default()), Ok(None)));
        if stop + 2 < pieces.len() {
            early.extend(pieces.last().cloned());
            let refused = matches!(flaw(early), Flaw::Count { .. });
            prop_assert!(refused);
        }
    }
}

#[test]
fn frames_are_of_some_size_and_the_base_is_left_out() {
    let rows = (0..40u8).map(|number| (vec![b'x', number], Bytes::from(vec![number; 50_000]))).collect();
    let pieces = sent(&*store(&rows).view());
    assert!(pieces.len() > 8, "{}", pieces.len());
    for piece in &pieces {
        if let Piece::Rows(part) = piece {
            assert!(part.encoded_len() < (256 << 10) + VALUE_MAX);
            assert!(part.rows.iter().all(|row| row.key != BASE[..]));
        }
    }
}

#[test]
fn what_no_sender_sends_is_refused_and_named() {
    let pieces = sent(&*store(&Rows::new()).view());
    let row = |key: &[u8], value: Vec<u8>| pb::SnapshotRow {
        key: Bytes::copy_from_slice(key),
        value: value.into(),
    };
    let with = |new: pb::SnapshotRow| {
        changed(&pieces, 3, |rows| {
            rows.retain(|row| row.key != new.key);
            rows.push(new);
            rows.sort_by(|a, b| a.key.cmp(&b.key));
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
    let mut empty = pieces.clone();
    empty.insert(1, Piece::Rows(pb::SnapshotRows::default()));
    assert_eq!(flaw(empty), Flaw::NoRows);
    for wrong in [None, Some(message(0)), Some(pb::RaftMessage::default())] {
        assert_eq!(flaw(vec![Piece::Begin(pb::SnapshotBegin { message: wrong })]), Flaw::NoSnapshot);
    }
    let mut other = pieces;
    other[0] = Piece::Begin(pb::SnapshotBegin { message: Some(message(71)) });
    assert_eq!(flaw(other), Flaw::Index { found: 70, said: 71 });
}

/// Count and hash may be right, and the rows still no store.
#[test]
fn rows_that_are_not_a_store_are_refused() {
    let pieces = sent(&*store(&Rows::new()).view());
    for (key, missing) in [(b"mf", "format"), (b"ma", "applied index"), (b"mm", "group of masters")] {
        let mut hash = rows_hash::RowsHash::default();
        let mut count = 0;
        let mut frames = changed(&pieces, 3, |rows| {
            rows.retain(|row| row.key != key[..]);
            rows.iter().for_each(|row| hash.row(&row.key, &row.value));
            count = rows.len() as u64;
        });
        *frames.last_mut().unwrap() = Piece::End(pb::SnapshotEnd { rows: count, hash: hash.value() });
        assert_eq!(flaw(frames), Flaw::Missing(missing));
    }
}

#[test]
fn a_store_that_is_not_what_the_message_says_is_not_sent() {
    let refused = |view: &dyn StoreView, index| match pieces(view, message(index), &mut |piece| {
        panic!("sent {piece:?}")
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

/// Answers every frame of a snapshot that comes over `stream`, until one is refused or it is whole.
fn serve(stream: FrameStream, sink: IncomingStore) -> Result<Received<FjallStore>, SnapshotError> {
    let (mut reader, mut writer) = stream.split();
    let mut sink = Some(sink);
    let mut receiving = None;
    loop {
        let Frame { header, body, .. } = reader.receive().unwrap();
        let mut done = None;
        let outcome = match header.kind {
            pb::SnapshotBegin::KIND => {
                Receiving::begin(pb::SnapshotBegin::decode(body).unwrap(), sink.take().unwrap(), SUPPORTED)
                    .map(|begun| receiving = Some(begun))
            }
            pb::SnapshotRows::KIND => {
                receiving.as_mut().unwrap().rows(pb::SnapshotRows::decode(body).unwrap())
            }
            _ => receiving
                .take()
                .unwrap()
                .end(pb::SnapshotEnd::decode(body).unwrap())
                .map(|whole| done = Some(whole)),
        };
        outcome?;
        let header = Header { flags: FLAG_REPLY, deadline_ms: 0, ..header };
        writer.send(header, &pb::Empty::default(), &[]).unwrap();
        if let Some(whole) = done {
            return Ok(whole);
        }
    }
}

#[test]
fn a_store_crosses_a_socket_onto_another_disk() {
    let rows: Rows = (0..200u8).map(|number| (vec![b'x', number], vec![number; 20_000].into())).collect();
    let from = store(&rows);
    let data = tempfile::tempdir().unwrap();
    let sink = IncomingStore::begin(&data.path().join("store-1")).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let paced = RefCell::new(0);
    let (sent, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| serve(FrameStream::new(listener.accept().unwrap().0).unwrap(), sink));
        let mut stream = FrameStream::new(std::net::TcpStream::connect(address).unwrap()).unwrap();
        let pace = |bytes| {
            *paced.borrow_mut() += bytes as u64;
            true
        };
        let sent = send(&mut stream, &*from.view(), message(70), &pace);
        (sent.unwrap(), receiver.join().unwrap().unwrap())
    });
    assert_eq!((sent.rows, sent.bytes), (received.rows, received.bytes));
    assert_eq!(paced.into_inner(), sent.bytes);
    let mut wanted = all_rows(&*from.view());
    let (key, value) = mooseng_meta::base_row(70, 3);
    wanted.insert(key.to_vec(), value);
    assert!(all_rows(&*received.store.view()) == wanted);
}

/// Sends to a receiver that takes two frames and goes away.
fn send_in_vain(pace: &dyn Fn(usize) -> bool) -> Result<Sent, SnapshotError> {
    let rows: Rows = (0..100u8).map(|number| (vec![b'x', number], vec![number; 20_000].into())).collect();
    let from = store(&rows);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut reader, mut writer) = FrameStream::new(listener.accept().unwrap().0).unwrap().split();
            for _ in 0..2 {
                let header = Header { flags: FLAG_REPLY, deadline_ms: 0, ..reader.receive().unwrap().header };
                writer.send(header, &pb::Empty::default(), &[]).unwrap();
            }
        });
        let mut stream = FrameStream::new(std::net::TcpStream::connect(address).unwrap()).unwrap();
        send(&mut stream, &*from.view(), message(70), pace)
    })
}

#[test]
fn a_receiver_that_goes_away_is_an_error_that_says_how_far_it_was() {
    let result = send_in_vain(&|_| true);
    assert!(matches!(result, Err(SnapshotError::Call { rows: 1.., .. })), "{result:?}");
}

#[test]
fn a_master_that_is_stopping_sends_no_further_frame() {
    let result = send_in_vain(&|_| false);
    assert!(matches!(result, Err(SnapshotError::Stopped)), "{result:?}");
}
