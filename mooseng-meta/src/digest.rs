//! The rolling hash of a replica's state: a chain over every change of a row, in the order in which entries make them.
//!
//! Replicas that have applied the same entries have the same hash; one that differed once, by a bug, a bad memory chip or
//! another release, differs for ever. What a replica does by itself (when it flushes, what it keeps where) is not in it.
//!
//! ```text
//! change:  next = xxh3(hash | xxh3(key) | xxh3(value) | key length, and 2^63 if deleted)    each u64 little-endian
//! entry:   next = xxh3(hash | index | the counters)                                         each u64 little-endian
//! ```
//!
//! Not proof against somebody who wants to deceive: a master that lies about its hash can lie about its rows too.

use xxhash_rust::xxh3::xxh3_64;

use crate::counters::Counters;
use crate::settings::Totals;

/// The length's bit that says that the row is gone. No key is that long.
const DELETED: u64 = 1 << 63;

/// The hash up to here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rolling(u64);

fn hash<const N: usize>(words: [u64; N]) -> u64 {
    let mut bytes = [[0; 8]; N];
    for (bytes, word) in bytes.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    // 0 is kept for "not known".
    xxh3_64(bytes.as_flattened()).max(1)
}

impl Rolling {
    /// That of a store from before hashes were kept: it stays unknown, as what went before would be missing in it.
    pub(crate) const UNKNOWN: Self = Self(0);
    /// That of an empty state.
    pub(crate) const START: Self = Self(1);

    pub(crate) fn from_raw(hash: u64) -> Self {
        Self(hash)
    }

    pub(crate) fn known(self) -> Option<u64> {
        (self != Self::UNKNOWN).then_some(self.0)
    }

    /// Takes in that a row has this value from now on, or is gone.
    pub(crate) fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        if *self != Self::UNKNOWN {
            let deleted = if value.is_none() { DELETED } else { 0 };
            let value = value.map_or(0, xxh3_64);
            self.0 = hash([self.0, xxh3_64(key), value, key.len() as u64 | deleted]);
        }
    }

    /// Takes in that the entry with this index is done. The counters, which change with most entries, are written as a
    /// row only now and then, so they come in here.
    pub(crate) fn entry(&mut self, index: u64, counters: &Counters) {
        if *self != Self::UNKNOWN {
            let Counters { next_inode, next_chunk, next_session, next_server, totals } = *counters;
            let Totals { inodes, used_bytes, chunks } = totals;
            let next_server = next_server.into();
            self.0 = hash([
                self.0,
                index,
                next_inode,
                next_chunk,
                next_session,
                next_server,
                inodes,
                used_bytes,
                chunks,
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(f: impl FnOnce(&mut Rolling)) -> Rolling {
        let mut rolling = Rolling::START;
        f(&mut rolling);
        rolling
    }

    #[test]
    fn every_part_of_a_change_counts() {
        let counters = Counters::default();
        let changed = Counters { next_server: 2, ..counters };
        let all = [
            Rolling::START,
            after(|r| r.change(b"k", Some(b"v"))),
            after(|r| r.change(b"kv", Some(b""))),
            after(|r| r.change(b"", Some(b"kv"))),
            after(|r| r.change(b"k", Some(b"w"))),
            after(|r| r.change(b"k", Some(b""))),
            after(|r| r.change(b"k", None)),
            after(|r| r.change(b"l", None)),
            after(|r| (r.change(b"k", None), r.change(b"l", None)).0),
            after(|r| (r.change(b"l", None), r.change(b"k", None)).0),
            after(|r| r.entry(1, &counters)),
            after(|r| r.entry(2, &counters)),
            after(|r| r.entry(1, &changed)),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other != one), "{at}");
        }
    }

    /// Replicas of different releases compare these.
    #[test]
    fn the_hash_is_that_of_its_first_day() {
        let mut rolling = Rolling::START;
        rolling.change(b"key", Some(b"value"));
        rolling.change(b"key", None);
        rolling.entry(7, &Counters::default());
        assert_eq!(rolling.known(), Some(9_346_613_165_048_768_514));
    }

    #[test]
    fn what_is_not_known_stays_unknown() {
        let mut rolling = Rolling::UNKNOWN;
        rolling.change(b"key", None);
        rolling.entry(7, &Counters::default());
        assert_eq!(rolling.known(), None);
    }
}
