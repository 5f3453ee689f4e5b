//! What a file should hold: a sparse file in memory.

use std::collections::BTreeMap;

pub(super) const PAGE: u64 = 4096;
pub(super) const CHUNK: u64 = 64 << 20;
/// Zeros that are looked at beside each border of a chunk and at both ends of a hole.
const MARGIN: u64 = 2 * PAGE;

/// Pages that were written, by number; what is missing is zeros.
#[derive(Debug, Default, Clone)]
pub(super) struct Content {
    size: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let inside = to_index(at % PAGE);
            let (part, after) = rest.split_at(rest.len().min(to_index(PAGE) - inside));
            let page = self.pages.entry(at / PAGE).or_insert_with(|| vec![0; to_index(PAGE)]);
            for (old, new) in page.iter_mut().skip(inside).zip(part) {
                *old = *new;
            }
            at += part.len() as u64;
            rest = after;
        }
        self.size = self.size.max(at);
    }

    pub(super) fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.pages.split_off(&size.div_ceil(PAGE));
            if let Some(page) = self.pages.get_mut(&(size / PAGE)) {
                page.iter_mut().skip(to_index(size % PAGE)).for_each(|byte| *byte = 0);
            }
        }
        self.size = size;
    }

    /// What a read of `length` bytes at `offset` answers.
    pub(super) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = (offset + length as u64).min(self.size);
        let mut bytes = vec![0; to_index(end.saturating_sub(offset))];
        for (number, page) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = number * PAGE;
            let (from, to) = (start.max(offset), (start + PAGE).min(end));
            if from < to {
                let target = bytes.iter_mut().skip(to_index(from - offset));
                let source = page.iter().skip(to_index(from - start)).take(to_index(to - from));
                target.zip(source).for_each(|(old, new)| *old = *new);
            }
        }
        bytes
    }

    /// The ranges where a mistake would show: what was written with a margin, and the borders of chunks. Each range with its
    /// length, in order, within the file, none overlapping.
    pub(super) fn windows(&self) -> Vec<(u64, u64)> {
        let written = self.pages.keys().map(|number| (number * PAGE, (number + 1) * PAGE));
        let borders = (0..=self.size / CHUNK).map(|number| (number * CHUNK, number * CHUNK));
        let mut wanted: Vec<(u64, u64)> = written
            .chain(borders)
            .chain([(self.size, self.size)])
            .map(|(from, to)| (from.saturating_sub(MARGIN), (to + MARGIN).min(self.size)))
            .collect();
        wanted.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from, to) in wanted {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged.into_iter().map(|(from, to)| (from, to - from)).filter(|(_, length)| *length > 0).collect()
    }
}

pub(super) fn to_index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where two runs of bytes part, in words.
pub(super) fn difference(offset: u64, expected: &[u8], have: &[u8]) -> Option<String> {
    if expected.len() != have.len() {
        return Some(format!("{} bytes read at {offset}, {} expected", have.len(), expected.len()));
    }
    let first = expected.iter().zip(have).position(|(a, b)| a != b)?;
    let wrong = expected.iter().zip(have).filter(|(a, b)| a != b).count();
    let show = |bytes: &[u8]| {
        let some = bytes.iter().skip(first).take(8);
        some.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    };
    let zeros = if have.iter().skip(first).take(wrong).all(|byte| *byte == 0) { " (zeros)" } else { "" };
    Some(format!(
        "{wrong} bytes of {} are wrong from {} on: {}{zeros}, expected {}",
        expected.len(),
        offset + first as u64,
        show(have),
        show(expected)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn it_is_what_a_vector_would_be() {
        let (mut content, mut plain) = (Content::default(), Vec::new());
        let mut random = Random::seeded(4);
        for _ in 0..2000 {
            let (offset, length) = (random.index(30_000), random.index(9000));
            if random.below(3) == 0 {
                content.set_size(offset as u64);
                plain.resize(offset, 0);
            } else {
                let bytes = random.bytes(length.max(1));
                content.write(offset as u64, &bytes);
                plain.resize(plain.len().max(offset + bytes.len()), 0);
                plain[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            assert_eq!(content.size(), plain.len() as u64);
            let from = random.index(plain.len() + 1);
            let to = (from + random.index(10_000)).min(plain.len());
            assert_eq!(content.read(from as u64, to - from), plain[from..to]);
        }
    }

    #[test]
    fn windows_hold_everything_written_and_the_borders_of_chunks() {
        let mut content = Content::default();
        content.write(10, b"x");
        content.write(2 * CHUNK + 4 * PAGE, b"y");
        assert_eq!(
            content.windows(),
            [(0, 3 * PAGE), (CHUNK - 2 * PAGE, 4 * PAGE), (2 * CHUNK - 2 * PAGE, 6 * PAGE + 1)]
        );
        assert_eq!(Content::default().windows(), []);
    }

    #[test]
    fn a_difference_names_the_first_wrong_byte() {
        assert_eq!(difference(5, b"abc", b"abc"), None);
        assert!(difference(5, b"abc", b"a\0c").unwrap().contains("from 6 on: 00"));
        assert!(difference(5, b"abc", b"ab").unwrap().contains("2 bytes read at 5"));
    }
}
