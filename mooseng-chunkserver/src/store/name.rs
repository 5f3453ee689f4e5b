//! The names of a copy's files: the chunk's number in 16 hexadecimal digits and, for a part, `.p` and its index in two
//! decimal ones. What comes behind is up to the directory. No whole copy's name goes on with `p`, and every name is read
//! back only as it is written, so that no file ever stands for two things.

use std::fmt;

use mooseng_types::{ChunkId, Part};

/// Hexadecimal digits of a chunk's number.
const CHUNK_DIGITS: usize = 16;

/// What the names of all files of a copy begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stem(pub(super) Part);

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.chunk().raw())?;
        if self.0.is_whole() { Ok(()) } else { write!(f, ".p{:02}", self.0.index()) }
    }
}

impl Stem {
    /// Whose file `name` is, and what follows the dot behind the stem.
    pub(super) fn split(name: &str) -> Option<(Part, &str)> {
        let (digits, rest) = name.split_once('.')?;
        let canonical = digits.len() == CHUNK_DIGITS
            && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let chunk = ChunkId::from_raw(u64::from_str_radix(digits, 16).ok().filter(|_| canonical)?);
        let Some(part) = rest.strip_prefix('p') else { return Some((Part::whole(chunk), rest)) };
        let (digits, rest) = part.split_once('.')?;
        let canonical = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        let index = digits.parse().ok().filter(|index| canonical && *index != 0)?;
        Some((Part::new(chunk, index)?, rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(chunk: u64, index: u8) -> Part {
        Part::new(ChunkId::from_raw(chunk), index).unwrap()
    }

    #[test]
    fn names_never_change() {
        assert_eq!(Stem(part(0x123f, 0)).to_string(), "000000000000123f");
        assert_eq!(Stem(part(0x123f, 7)).to_string(), "000000000000123f.p07");
        assert_eq!(Stem(part(u64::MAX, 48)).to_string(), "ffffffffffffffff.p48");
        assert_eq!(Stem::split("000000000000123f.data"), Some((part(0x123f, 0), "data")));
        assert_eq!(Stem::split("000000000000123f.p07.data"), Some((part(0x123f, 7), "data")));
        assert_eq!(Stem::split("000000000000123f.p48.3.meta.old"), Some((part(0x123f, 48), "3.meta.old")));
    }

    #[test]
    fn a_name_that_is_not_written_so_is_nobodys() {
        let indexes = ["p00", "p49", "p99", "p7", "p007", "p+7", "p", "p 7", "p0x", "P07", "07"];
        for index in indexes {
            let name = format!("000000000000123f.{index}.data");
            let taken = Stem::split(&name).filter(|(_, rest)| *rest == "data");
            assert_eq!(taken, None, "{name}");
        }
        for name in
            ["123f.data", "000000000000123F.data", "+00000000000123f.data", "000000000000123f", ".data"]
        {
            assert_eq!(Stem::split(name), None, "{name}");
        }
        assert_eq!(Stem::split("000000000000123f.p07"), None);
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_it_was_written_and_nothing_else_does(
            chunk: u64, index in 0..=Part::INDEX_MAX,
            other in "[0-9a-fA-F+]{15,17}\\.(p[0-9+]{0,3}\\.)?(data|0\\.meta)",
        ) {
            let name = format!("{}.0.data", Stem(part(chunk, index)));
            prop_assert_eq!(Stem::split(&name), Some((part(chunk, index), "0.data")));
            if let Some((part, rest)) = Stem::split(&other) {
                prop_assert_eq!(format!("{}.{rest}", Stem(part)), other);
            }
        }
    }
}
