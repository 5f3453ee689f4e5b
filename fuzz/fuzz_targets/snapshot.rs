//! What a sender of a snapshot says: any frames leave the receiver alive, and whatever it takes in is the store that was
//! meant. Two ways in: frames as they come off the wire, and a true snapshot with one thing about it changed.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mooseng_master::raft::{Message, SnapshotOf};
use mooseng_master::snapshot::{MemorySink, Receiving, SnapshotError, SnapshotFrame, frames};
use mooseng_master::wire;
use mooseng_meta::{
    Batch, Member, Membership, MemoryStore, MetaState, MetaStore, StoreView, applied_index_of, base_row,
};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_types::level::SUPPORTED;
use mooseng_types::{CellId, MasterId};

const INDEX: u64 = 70;
const TERM: u64 = 3;

type Rows = BTreeMap<Vec<u8>, Bytes>;

fn rows_of(view: &dyn StoreView) -> Rows {
    let mut rows = Rows::new();
    view.scan(&[], &mut |key, value| {
        rows.insert(key.to_vec(), Bytes::copy_from_slice(value));
        true
    });
    rows
}

/// Gives the frames to a receiver; the store, if it takes them all in.
fn receive(frames: impl IntoIterator<Item = SnapshotFrame>) -> Option<MemoryStore> {
    let mut receiving: Option<Receiving<MemorySink>> = None;
    for frame in frames {
        match frame {
            SnapshotFrame::Begin(_, begin) => {
                receiving = Receiving::begin(begin, MemorySink::default(), SUPPORTED).ok()
            }
            SnapshotFrame::Rows(rows) => {
                if receiving.as_mut()?.rows(rows).is_err() {
                    return None;
                }
            }
            SnapshotFrame::End(end) => {
                let received = receiving.take()?.end(end).ok()?;
                let said = received.message.snapshot.map(|snapshot| snapshot.index);
                assert_eq!(said, Some(applied_index_of(&*received.store.view())));
                assert_eq!(received.rows as usize, rows_of(&*received.store.view()).len() - 1);
                return Some(received.store);
            }
        }
    }
    None
}

/// Frames: one byte for the kind, two for the length, the message.
fn read_frames(mut rest: &[u8]) -> Vec<SnapshotFrame> {
    let mut frames = Vec::new();
    while let Some((&[kind, low, high], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (bytes, after) = after.split_at(length.min(after.len()));
        rest = after;
        let kind = match kind % 3 {
            0 => pb::SnapshotBegin::KIND,
            1 => pb::SnapshotRows::KIND,
            _ => pb::SnapshotEnd::KIND,
        };
        frames.extend(wire::snapshot::read(kind, Bytes::copy_from_slice(bytes)).ok());
    }
    frames
}

/// A store as of entry 70, with rows of `data` besides: one byte for the key's length, one for the value's, both.
fn store(mut data: &[u8]) -> MemoryStore {
    let empty: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let Ok(mut state) = MetaState::open(empty, CellId::ROOT) else { unreachable!("an empty store") };
    let id = MasterId::new(1, 9);
    let member = Member { id, name: "m1".into(), address: "h:1".into(), voter: true, wants_vote: true };
    state.found(INDEX, 1, Membership { epoch: 1, members: vec![member] });
    let mut batch = Batch::clone(&state.freeze().expect("a founded state"));
    while let Some((&[key, value], after)) = data.split_first_chunk() {
        let (key, after) = after.split_at(usize::from(key % 32).min(after.len()));
        let (value, after) = after.split_at(usize::from(value).min(after.len()));
        data = after;
        // In no table, so that it means nothing.
        batch.rows.insert([b"~", key].concat(), Some(Bytes::copy_from_slice(value)));
    }
    let store = MemoryStore::new();
    store.write(&batch);
    store
}

fn true_frames(store: &MemoryStore) -> Vec<SnapshotFrame> {
    let snapshot = SnapshotOf { index: INDEX, term: TERM, ..Default::default() };
    let message = Message { kind: 7, snapshot: Some(snapshot), ..Default::default() };
    let mut all = Vec::new();
    let sent: Result<_, SnapshotError> = frames(CellId::ROOT, &*store.view(), message, &mut |frame| {
        all.push(frame);
        Ok(())
    });
    assert!(sent.is_ok(), "{sent:?}");
    all
}

/// Changes one thing about the rows.
fn change(rows: &mut Vec<(Bytes, Bytes)>, [kind, at, to, byte]: [u8; 4]) {
    let (at, to) = (usize::from(at) % rows.len(), usize::from(to) % rows.len());
    let altered = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        let place = to.min(bytes.len());
        match bytes.get_mut(place) {
            Some(old) => *old = byte,
            None => bytes.push(byte),
        }
        Bytes::from(bytes)
    };
    match kind % 6 {
        0 => drop(rows.remove(at)),
        1 => rows.insert(to, rows[at].clone()),
        2 => rows.swap(at, to),
        3 => rows[at].0 = altered(&rows[at].0),
        4 => rows[at].1 = altered(&rows[at].1),
        _ => rows.truncate(at),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    if first & 1 == 0 {
        drop(receive(read_frames(rest)));
        return;
    }
    let Some((&edit, rest)) = rest.split_first_chunk::<4>() else { return };
    let store = store(rest);
    let sent = true_frames(&store);
    let mut wanted = rows_of(&*store.view());
    let (key, value) = base_row(INDEX, TERM);
    wanted.insert(key.to_vec(), value);
    let received = receive(sent.iter().cloned()).expect("what is sent is received");
    assert!(rows_of(&*received.view()) == wanted);

    let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
    for frame in &sent {
        if let SnapshotFrame::Rows(part) = frame {
            rows.extend(part.iter().cloned());
        }
    }
    change(&mut rows, edit);
    let middle = rows.chunks(1 + usize::from(first >> 1)).map(|rows| SnapshotFrame::Rows(rows.to_vec()));
    let changed = sent[..1].iter().cloned().chain(middle).chain(sent[sent.len() - 1..].iter().cloned());
    if let Some(received) = receive(changed) {
        assert!(rows_of(&*received.view()) == wanted, "another store than was sent is taken in");
    }
});
