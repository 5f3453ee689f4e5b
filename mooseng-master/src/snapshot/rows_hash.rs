//! The hash over all rows of a snapshot, in their order.

use xxhash_rust::xxh3::Xxh3;

/// XXH3-64 over, for each row: length of the key as u32, key, length of the value as u32, value; little-endian.
#[derive(Clone, Default)]
pub(super) struct RowsHash(Xxh3);

impl RowsHash {
    /// Takes in the next row. Its parts are far below 4 GiB.
    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.0.update(&length.to_le_bytes());
            self.0.update(part);
        }
    }

    /// The hash of the rows so far.
    pub(super) fn value(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(rows: &[(&[u8], &[u8])]) -> u64 {
        let mut hash = RowsHash::default();
        rows.iter().for_each(|(key, value)| hash.row(key, value));
        hash.value()
    }

    #[test]
    fn borders_between_rows_and_their_parts_count() {
        let all = [
            hash(&[]),
            hash(&[(b"", b"")]),
            hash(&[(b"ab", b"cd")]),
            hash(&[(b"abc", b"d")]),
            hash(&[(b"a", b"b"), (b"c", b"d")]),
            hash(&[(b"c", b"d"), (b"a", b"b")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    /// Masters of different releases send to each other.
    #[test]
    fn the_hash_is_that_of_its_first_day() {
        assert_eq!(hash(&[(b"ab", b"cd"), (b"b", b"")]), 8_962_815_519_887_355_666);
    }
}
