//! Copies that are fetched, and what the leader hears when they are not.

use std::path::Path;
use std::sync::Arc;

use mooseng_protocol::checksum;
use mooseng_protocol::pb;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_types::ChunkCause;

use super::{ROOT, check_whole, id, memory, pattern, verified_here};
use crate::copy_events::{CopyEvents, FailedFetch, FetchReason, ToTell};
use crate::fetch::{Fetch, FetchError};
use crate::store::{Store, StoreError};

fn order() -> pb::CopyChunk {
    pb::CopyChunk { chunk: 1, version: 3, source: "s:2".into(), ..Default::default() }
}

fn begin(store: &Arc<Store>, events: &Arc<CopyEvents>) -> Result<Option<Fetch>, FetchError> {
    Fetch::begin(store, events, id(1), order())
}

fn piece(bytes: &[u8]) -> pb::ReadChunkReply {
    pb::ReadChunkReply {
        version: 3,
        copy_length: bytes.len() as u32,
        offset: 0,
        checksums: checksum::of_range(id(1), 0, bytes),
    }
}

#[test]
fn the_leader_hears_why_a_copy_was_not_fetched_and_nothing_of_it_is_left() {
    let (_, disk, store, events) = memory(1 << 30);
    let store = Arc::new(store);
    let chunk = |cause| CallError::Chunk { server: None, cause, message: String::new() };
    let closed = CallError::Transport(TransportError::Closed { peer: "s:2".into() });
    let answers = [
        (closed, FetchReason::Unreachable),
        (chunk(ChunkCause::Stopping), FetchReason::Unreachable),
        (chunk(ChunkCause::Damaged), FetchReason::Damaged),
        (chunk(ChunkCause::Stale), FetchReason::Older),
        (chunk(ChunkCause::NoCopy), FetchReason::Other),
        (CallError::Rejected { message: String::new() }, FetchReason::Other),
    ];
    for (answer, reason) in answers {
        let fetch = begin(&store, &events).unwrap().unwrap();
        fetch.source_failed(answer);
        let failed = FailedFetch { source: "s:2".into(), reason };
        assert_eq!(events.take_failed(9), [(id(1), failed)]);
    }
    for (version, reason) in [(2, FetchReason::Older), (4, FetchReason::Other)] {
        let mut fetch = begin(&store, &events).unwrap().unwrap();
        let reply = pb::ReadChunkReply { version, ..piece(b"bytes") };
        assert!(matches!(fetch.take(&reply, b"bytes"), Err(FetchError::Version { .. })));
        assert_eq!(events.take_failed(9)[0].1.reason, reason);
    }
    assert_eq!(events.take(9), ToTell::Some(vec![]));
    assert!(store.find(id(1)).is_none());
    assert!(disk.list(&Path::new(ROOT).join("incoming")).unwrap().is_empty());
}

#[test]
fn a_piece_that_does_not_match_is_asked_for_again_to_be_verified_there() {
    let (_, _, store, events) = memory(1 << 30);
    let store = Arc::new(store);
    let bytes = pattern(100_000, 1);
    let mut damaged = bytes.clone();
    damaged[70_000] ^= 1;
    let mut fetch = begin(&store, &events).unwrap().unwrap();
    assert!(!fetch.request().verify);
    assert!(!fetch.take(&piece(&bytes), &damaged).unwrap());
    assert_eq!((fetch.request().verify, fetch.request().offset), (true, 0));
    assert!(fetch.take(&piece(&bytes), &bytes).unwrap());
    assert_eq!(events.take(9), ToTell::Some(vec![(id(1), verified_here(3))]));
    check_whole(&store.find(id(1)).unwrap(), &bytes);
    store.find(id(1)).unwrap().delete().unwrap();
    store.forget_if_gone(&store.find(id(1)).unwrap());

    let mut fetch = begin(&store, &events).unwrap().unwrap();
    assert!(!fetch.take(&piece(&bytes), &damaged).unwrap());
    let twice = fetch.take(&piece(&bytes), &damaged);
    assert!(matches!(twice, Err(FetchError::Store(StoreError::DamagedOnTheWay { .. }))), "{twice:?}");
    drop(fetch);
    // A later try that succeeds makes the failure old news.
    assert!(begin(&store, &events).unwrap().unwrap().take(&piece(&bytes), &bytes).unwrap());
    assert_eq!(events.take_failed(9), []);
}

#[test]
fn a_server_without_room_says_so() {
    let (memory, _, store, events) = memory(10 << 20);
    let store = Arc::new(store);
    let reason = || events.take_failed(9).pop().unwrap().1.reason;
    assert!(matches!(begin(&store, &events), Err(FetchError::Store(StoreError::NoSpace { .. }))));
    assert_eq!(reason(), FetchReason::NoSpace, "less than a chunk");
    store.disks()[0].use_room(u64::MAX);
    assert!(begin(&store, &events).is_err());
    assert_eq!(reason(), FetchReason::NoSpace);
    memory.set_device(9);
    store.disks()[0].look();
    assert!(begin(&store, &events).is_err());
    assert_eq!(reason(), FetchReason::Other, "no disk at all");
}

#[test]
fn failures_that_were_not_told_are_told_later_unless_there_is_newer_news() {
    let events = CopyEvents::default();
    let failed = |source: &str| FailedFetch { source: source.into(), reason: FetchReason::Damaged };
    for chunk in [1, 2] {
        events.not_fetched(id(chunk), &failed("old"));
    }
    let taken = events.take_failed(9);
    assert_eq!(taken.len(), 2);
    events.not_fetched(id(1), &failed("new"));
    events.put_back_failed(taken);
    assert_eq!(events.take_failed(1), [(id(1), failed("new"))]);
    assert_eq!(events.take_failed(9), [(id(2), failed("old"))]);
}
