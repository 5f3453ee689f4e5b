//! Pieces of files that were read ahead, until the program (or the kernel for it) has taken them. Bounded in bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use mooseng_types::InodeId;

use crate::file::buffer::PIECE_SIZE;
use crate::lock;

/// Which piece: of which file, the how manieth MiB, and of which state of the file. A write or a foreign change begins
/// a new state, and what was read of the old one is not found any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PieceKey {
    pub(crate) inode: InodeId,
    pub(crate) state: u64,
    pub(crate) number: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None` while it is being read.
    pieces: HashMap<PieceKey, Option<Bytes>>,
    /// In the order of their coming; may name pieces that are gone.
    order: VecDeque<PieceKey>,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct DataCache {
    pieces_max: usize,
    inner: Mutex<Inner>,
    loaded: Condvar,
}

/// The duty to read one piece. If it goes without a result, waiting readers read for themselves.
#[derive(Debug)]
pub(crate) struct Loading {
    cache: Arc<DataCache>,
    key: PieceKey,
}

impl DataCache {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            pieces_max: bytes_max / PIECE_SIZE as usize,
            inner: Mutex::default(),
            loaded: Condvar::new(),
        })
    }

    /// Claims a piece that is not there; `None` if it is, or is being read, or there is no room for it.
    pub(crate) fn claim(self: &Arc<Self>, key: PieceKey) -> Option<Loading> {
        let mut inner = lock(&self.inner);
        if inner.pieces.contains_key(&key) || !inner.make_room(self.pieces_max) {
            return None;
        }
        inner.pieces.insert(key, None);
        inner.order.push_back(key);
        Some(Loading { cache: Arc::clone(self), key })
    }

    /// The piece, after waiting for it if it is being read.
    pub(crate) fn get(&self, key: PieceKey) -> Option<Bytes> {
        let inner = lock(&self.inner);
        let inner = self
            .loaded
            .wait_while(inner, |inner| matches!(inner.pieces.get(&key), Some(None)))
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.pieces.get(&key).cloned().flatten()
    }

    /// The piece has been read to its end: the kernel has it now.
    pub(crate) fn taken(&self, key: PieceKey) {
        lock(&self.inner).remove(key);
    }
}

impl Inner {
    fn remove(&mut self, key: PieceKey) {
        if matches!(self.pieces.get(&key), Some(Some(_))) {
            self.pieces.remove(&key);
        }
    }

    /// Drops the oldest pieces that are not being read until one more fits.
    fn make_room(&mut self, pieces_max: usize) -> bool {
        let mut looked_at = self.order.len();
        while self.pieces.len() >= pieces_max || self.order.len() > 2 * pieces_max {
            let Some(oldest) = self.order.pop_front() else { break };
            match self.pieces.get(&oldest) {
                Some(None) => self.order.push_back(oldest),
                _ => self.remove(oldest),
            }
            looked_at -= 1;
            if looked_at == 0 {
                break;
            }
        }
        self.pieces.len() < pieces_max
    }
}

impl Loading {
    /// The piece is here.
    pub(crate) fn complete(self, data: Bytes) {
        if let Some(slot) = lock(&self.cache.inner).pieces.get_mut(&self.key) {
            *slot = Some(data);
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let mut inner = lock(&self.cache.inner);
        if matches!(inner.pieces.get(&self.key), Some(None)) {
            inner.pieces.remove(&self.key);
        }
        drop(inner);
        self.cache.loaded.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> PieceKey {
        PieceKey { inode: InodeId::from_raw(1), state: 0, number }
    }

    #[test]
    fn the_oldest_piece_makes_room_and_one_being_read_never() {
        let cache = DataCache::new(2 << 20);
        let loading = cache.claim(key(0)).unwrap();
        cache.claim(key(1)).unwrap().complete(Bytes::from_static(b"1"));
        cache.claim(key(2)).unwrap().complete(Bytes::from_static(b"2"));
        assert_eq!(cache.get(key(1)), None);
        assert_eq!(cache.get(key(2)).unwrap(), "2");
        assert!(cache.claim(key(2)).is_none());
        loading.complete(Bytes::from_static(b"0"));
        assert_eq!(cache.get(key(0)).unwrap(), "0");
    }

    #[test]
    fn a_reader_waits_for_a_piece_and_is_freed_when_nobody_brings_it() {
        let cache = DataCache::new(8 << 20);
        for brings in [true, false] {
            let loading = cache.claim(key(brings.into())).unwrap();
            let other = Arc::clone(&cache);
            let reader = std::thread::spawn(move || other.get(key(brings.into())));
            if brings {
                loading.complete(Bytes::from_static(b"x"));
            } else {
                drop(loading);
            }
            assert_eq!(reader.join().unwrap().is_some(), brings);
        }
    }

    #[test]
    fn a_full_cache_claims_nothing_while_all_is_being_read() {
        let cache = DataCache::new(1 << 20);
        let _loading = cache.claim(key(0)).unwrap();
        assert!(cache.claim(key(1)).is_none());
        assert!(DataCache::new(0).claim(key(0)).is_none());
    }
}
