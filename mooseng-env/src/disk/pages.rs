//! The bytes of a file in memory, with holes: pages that nobody has written take no room, and a copy shares its pages
//! with the original until one of both is written.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = 4096;

/// A file's bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    length: usize,
    /// By number; nothing in them lies behind the length.
    pages: BTreeMap<usize, Arc<[u8; PAGE]>>,
}

/// The parts of a range that lie in one page each: the page, and where in it they begin and end.
fn parts(from: usize, to: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let pages = if from < to { from / PAGE..(to - 1) / PAGE + 1 } else { 0..0 };
    pages.map(move |page| {
        let start = page * PAGE;
        (page, from.max(start) - start, to.min(start + PAGE) - start)
    })
}

impl Pages {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Copies what there is from `from` on; tells how many bytes that were.
    pub(super) fn read(&self, from: usize, into: &mut [u8]) -> usize {
        let count = self.length.saturating_sub(from).min(into.len());
        let mut left = &mut into[..count];
        for (page, start, end) in parts(from, from + count) {
            let (part, rest) = std::mem::take(&mut left).split_at_mut(end - start);
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[start..end]),
                None => part.fill(0),
            }
            left = rest;
        }
        count
    }

    /// Writes, and makes the file long enough.
    pub(super) fn write(&mut self, from: usize, bytes: &[u8]) {
        let mut left = bytes;
        for (page, start, end) in parts(from, from + bytes.len()) {
            let (part, rest) = left.split_at(end - start);
            self.page_mut(page)[start..end].copy_from_slice(part);
            left = rest;
        }
        self.length = self.length.max(from + bytes.len());
    }

    /// Cuts, or lengthens by zeros.
    pub(super) fn resize(&mut self, length: usize) {
        if length < self.length {
            drop(self.pages.split_off(&length.div_ceil(PAGE)));
            if let Some(last) = self.pages.get_mut(&(length / PAGE)) {
                Arc::make_mut(last)[length % PAGE..].fill(0);
            }
        }
        self.length = length;
    }

    fn page_mut(&mut self, page: usize) -> &mut [u8; PAGE] {
        Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE])))
    }

    /// Takes over sectors of `size` bytes in which `newer` differs, each if `takes` says so, in their order.
    pub(super) fn take_sectors(&mut self, newer: &Self, size: usize, mut takes: impl FnMut() -> bool) {
        let shared = self.length.min(newer.length);
        let mut numbers: Vec<usize> = self.pages.keys().chain(newer.pages.keys()).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let (mut old, mut new) = (vec![0; size], vec![0; size]);
        for start in numbers.iter().flat_map(|page| (page * PAGE..(page + 1) * PAGE).step_by(size)) {
            let end = shared.min(start + size);
            if start >= end {
                return;
            }
            let count = end - start;
            self.read(start, &mut old[..count]);
            newer.read(start, &mut new[..count]);
            if old[..count] != new[..count] && takes() {
                self.write(start, &new[..count]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_hold_what_a_vector_holds(
            steps in prop::collection::vec((0..3u8, 0..20_000usize, 1..6000usize), 1..30),
        ) {
            let (mut pages, mut model) = (Pages::default(), Vec::new());
            for (number, (what, at, count)) in steps.into_iter().enumerate() {
                let byte = number as u8 + 1;
                if what == 0 {
                    pages.resize(at);
                    model.resize(at, 0);
                } else {
                    pages.write(at, &vec![byte; count]);
                    model.resize(model.len().max(at + count), 0);
                    model[at..at + count].fill(byte);
                }
                let mut seen = vec![9; model.len() + 10];
                prop_assert_eq!(pages.read(0, &mut seen), model.len());
                prop_assert!(seen[..model.len()] == model[..], "after {} steps", number + 1);
                let mut part = vec![9; count];
                let read = pages.read(at, &mut part);
                prop_assert_eq!(&part[..read], model.get(at..).unwrap_or_default().get(..read).unwrap_or_default());
            }
        }
    }
}
