//! Which copies have open files, and who keeps them open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mooseng_protocol::checksum;
use mooseng_types::Part;

use super::{damaged, flip, get, id, memory, put, request, token, version};
use crate::buffer::BufferPool;
use crate::store::open_copies::Closable;
use crate::store::{Incoming, Store, StoreError};

fn opened(store: &Store) -> Vec<Part> {
    store.open_copies.list().iter().map(|chunk| chunk.id()).collect()
}

#[test]
fn a_copy_is_listed_as_open_until_its_files_are_closed_whatever_closes_them() {
    let (_, _, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    assert!(opened(&store).is_empty(), "nothing was made yet");
    put(&chunk, &token(id(1), 1, 1, true), 0, b"x").unwrap();
    assert_eq!(opened(&store), [id(1)]);
    let mut incoming = Incoming::begin(Arc::clone(&chunk)).unwrap();
    incoming.append(b"y", &checksum::of_range(id(1), 0, b"y")).unwrap();
    incoming.publish(version(2), false).unwrap();
    assert!(opened(&store).is_empty(), "another one has taken its place");
    get(&chunk, 0, 1).unwrap();
    assert_eq!(opened(&store), [id(1)]);
    chunk.delete().unwrap();
    assert!(opened(&store).is_empty(), "it was deleted");

    let (disk, store, _) = damaged(|_, _, _| {});
    let chunk = store.find(id(0x2a)).unwrap();
    get(&chunk, 0, 1).unwrap();
    assert_eq!(opened(&store), [id(0x2a)]);
    flip(&*disk, &Path::new(super::ROOT).join("2a").join("000000000000002a.data"), 0);
    assert!(matches!(get(&chunk, 0, 1), Err(StoreError::Broken { .. })));
    assert!(opened(&store).is_empty(), "it was moved aside");
}

#[test]
fn no_copy_is_closed_that_is_read_or_dirty_unless_its_disk_is_out_of_use() {
    let (_, _, store, _) = memory(u64::MAX);
    let chunk = store.find_or_place(id(1)).unwrap();
    put(&chunk, &token(id(1), 1, 1, true), 0, b"x").unwrap();
    assert!(!chunk.try_close(), "it is dirty");
    chunk.clean_if_idle(Duration::from_secs(200), Duration::ZERO).unwrap();
    let permit = chunk.permit(&mut chunk.lock());
    assert!(!chunk.try_close(), "it is being read");
    drop(permit);
    assert!(chunk.try_close());
    assert!(opened(&store).is_empty());

    put(&chunk, &token(id(1), 1, 1, false), 0, b"y").unwrap();
    chunk.disk().fail(&std::io::Error::other("gone"));
    assert!(chunk.try_close(), "it does not become clean any more");
    let answer = chunk.read(Duration::from_secs(200), &request(0, 0, 1), &BufferPool::new(1 << 20));
    assert!(matches!(answer, Err(StoreError::Disk { .. })), "{answer:?}");
}
