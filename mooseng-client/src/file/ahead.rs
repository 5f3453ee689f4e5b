//! Decides what to read before it is asked for. Pure: one small state per open file.

use std::ops::Range;

use super::buffer::PIECE_SIZE;

const WINDOW_FIRST: u64 = 1 << 20;
const WINDOW_MAX: u64 = 8 << 20;
/// The kernel reads ahead by itself with several requests at once, which arrive out of order: this far off the expected
/// place is still in sequence.
const TOLERANCE: u64 = 2 << 20;
/// Bytes read in sequence before anything is fetched ahead; one request of this size is enough.
const TRIGGER: u64 = 128 << 10;

/// Follows the reads of one open file.
#[derive(Debug, Default, Clone)]
pub(crate) struct ReadAhead {
    next: u64,
    in_sequence: u64,
    window: u64,
    fetched_to: u64,
}

impl ReadAhead {
    /// Notes a read and says which pieces (numbered from the file's start) to fetch now, the one being read included.
    pub(crate) fn on_read(&mut self, offset: u64, length: u64, file_size: u64) -> Range<u64> {
        let sequential = offset.abs_diff(self.next) <= TOLERANCE && (self.next > 0 || offset == 0);
        let end = offset + length;
        if !sequential {
            *self = Self { next: end, in_sequence: length, window: 0, fetched_to: offset };
            return 0..0;
        }
        self.next = self.next.max(end);
        self.in_sequence = self.in_sequence.saturating_add(length);
        if self.in_sequence < TRIGGER {
            return 0..0;
        }
        if self.window == 0 {
            self.window = WINDOW_FIRST;
            self.fetched_to = offset;
        }
        // Refill when half of the window is used, so that the fetches overlap with the program's work.
        if self.fetched_to.saturating_sub(self.next) > self.window / 2 && self.fetched_to > offset {
            return 0..0;
        }
        let target = (self.next + self.window).min(file_size.next_multiple_of(PIECE_SIZE));
        let from = self.fetched_to.max(offset) / PIECE_SIZE;
        let to = target.div_ceil(PIECE_SIZE).min(file_size.div_ceil(PIECE_SIZE));
        self.window = (self.window * 2).min(WINDOW_MAX);
        if from >= to {
            return 0..0;
        }
        self.fetched_to = to * PIECE_SIZE;
        from..to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_small_read_at_the_start_fetches_nothing() {
        assert!(ReadAhead::default().on_read(0, 4096, 100 * MIB).is_empty());
    }

    #[test]
    fn random_reads_fetch_nothing() {
        let mut ahead = ReadAhead::default();
        for offset in [50 * MIB, 3 * MIB, 90 * MIB, 20 * MIB, 70 * MIB] {
            assert!(ahead.on_read(offset, 4096, 100 * MIB).is_empty(), "{offset}");
        }
    }

    #[test]
    fn a_sequential_reader_gets_every_piece_once_and_a_growing_window() {
        let mut ahead = ReadAhead::default();
        let size = 64 * MIB + 5;
        let mut fetched = Vec::new();
        let mut longest = 0;
        let mut at = 0;
        while at < size {
            let length = (128 << 10).min(size - at);
            let pieces = ahead.on_read(at, length, size);
            longest = longest.max(pieces.end.saturating_sub(at / MIB));
            fetched.extend(pieces);
            assert!(fetched.contains(&(at / MIB)), "{at} is not fetched");
            at += length;
        }
        assert_eq!(fetched, (0..65).collect::<Vec<_>>());
        assert!((8..=10).contains(&longest), "{longest}");
    }

    #[test]
    fn requests_that_arrive_out_of_order_stay_a_sequence() {
        let mut ahead = ReadAhead::default();
        let mut fetched = Vec::new();
        for offset in [0, 2, 1, 3, 5, 4, 6, 7] {
            fetched.extend(ahead.on_read(offset * (256 << 10), 256 << 10, 100 * MIB));
        }
        assert!(fetched.len() >= 2, "{fetched:?}");
        let mut once = fetched.clone();
        once.dedup();
        assert_eq!(once, fetched);
    }

    #[test]
    fn a_jump_starts_again() {
        let mut ahead = ReadAhead::default();
        for i in 0..8 {
            ahead.on_read(i * MIB, MIB, 100 * MIB);
        }
        assert!(ahead.on_read(60 * MIB, 4096, 100 * MIB).is_empty());
        assert_eq!(ahead.on_read(60 * MIB + 4096, 256 << 10, 100 * MIB), 60..62);
    }
}
