//! Reading one part of a chunk from whichever copies can give it, block by block. Pure.
//!
//! Damage is a matter of blocks: what of an answer matches its checksums is kept, and only the rest is asked of the next
//! copy. Two copies that are damaged in different blocks still make a whole. When every copy has answered and none can give
//! some block, the read fails at once; when some did not answer, it is tried again until the patience is over.
//!
//! A copy in doubt, which may lack what was written before its server crashed, is read only where no other copy can be.

use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::checksum;
use mooseng_types::{BLOCK_SIZE, ChunkCause, ChunkId, Part, ServerId};

use super::read::Source;
use crate::{ClientError, Unreadable};

/// What the reader is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum PartStep {
    /// Ask a server.
    Ask(Ask),
    /// Every copy was asked, some in vain: locate the chunk anew, wait for so long, and begin again with a new source.
    Again(Duration),
    /// These are the bytes.
    Done(Bytes),
}

/// What a server is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Which of the source's servers.
    pub place: usize,
    /// From here on in the chunk.
    pub offset: u64,
    /// So many bytes.
    pub length: u64,
    /// Not if its copy is in doubt.
    pub whole: bool,
}

/// What a server answered.
#[derive(Debug)]
pub enum PartAnswer {
    /// Bytes from `offset` of the chunk on, with what the copy has; each block of them was verified or not.
    Bytes {
        /// Where they begin.
        offset: u64,
        /// The bytes; beyond `copy_length` the chunk reads as zero.
        bytes: Bytes,
        /// Blocks (by number in the chunk) that do not match their checksums.
        damaged: Vec<u64>,
        /// Bytes that the copy has.
        copy_length: u64,
    },
    /// It cannot.
    Fault(ChunkCause),
}

impl PartAnswer {
    /// What of a payload matches its checksums. The payload, which begins at `payload.0` of the chunk, may begin before and
    /// end after the `range` that was asked for.
    #[must_use]
    pub fn verified(
        chunk: ChunkId,
        payload: (u64, Vec<u8>),
        checksums: &[u32],
        copy_length: u64,
        range: (u64, u64),
    ) -> Self {
        let ((begins, payload), copy) = (payload, Part::whole(chunk));
        let mut expected = checksums.iter();
        let wrong = |(block, section): (u32, &[u8])| {
            let right = expected.next() == Some(&checksum::of_section(copy, block, section));
            (!right).then_some(u64::from(block))
        };
        let damaged = checksum::sections(begins, &payload).filter_map(wrong).collect();
        let bytes = Bytes::from(payload);
        let end = (range.0 + range.1).min(begins + bytes.len() as u64);
        // Exactly the wanted range, where there is more.
        let (offset, bytes) = match (begins <= range.0, range.0 <= end) {
            (true, true) => (range.0, bytes.slice((range.0 - begins) as usize..(end - begins) as usize)),
            _ => (begins, bytes),
        };
        Self::Bytes { offset, bytes, damaged, copy_length }
    }
}

/// Waits between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);
/// Rounds in which a copy in doubt is left alone because another server is only busy: 0.3 s.
const ROUNDS_FOR_WHOLE: u32 = 5;

/// The read of one part.
#[derive(Debug)]
pub struct PartRead {
    offset: u64,
    length: u64,
    until: Duration,
    pause: Duration,
    bytes: Vec<u8>,
    /// Ranges of the chunk that are still missing, in order.
    missing: Vec<(u64, u64)>,
    /// Servers to be asked in this round, the next one last.
    queue: Vec<usize>,
    /// Those of this round whose copies are in doubt, in the order in which they said so.
    doubtful: Vec<usize>,
    /// The queue holds those in doubt.
    last_resort: bool,
    rounds: u32,
    /// A server of this round might answer otherwise in the next.
    hope: bool,
    /// One was reached that could not answer just now.
    busy: bool,
    /// The server whose copy turned out to be of no use to the holder of the lease.
    lost: Option<ServerId>,
    single: Option<Bytes>,
}

impl PartRead {
    /// A read of `length` bytes at `offset` of a chunk, tried for `patience`.
    #[must_use]
    pub fn new(offset: u64, length: u64, now: Duration, patience: Duration) -> Self {
        Self {
            offset,
            length,
            until: now + patience,
            pause: PAUSE,
            bytes: Vec::new(),
            missing: vec![(offset, offset + length)],
            queue: Vec::new(),
            doubtful: Vec::new(),
            last_resort: false,
            rounds: 0,
            hope: false,
            busy: false,
            lost: None,
            single: None,
        }
    }

    /// Begins a round with a source. `rank` orders the servers by their places; the lowest is asked first. It is not asked
    /// where the source's order is to be kept.
    pub fn begin(&mut self, source: &Source, rank: impl Fn(usize) -> u64) {
        let valid = source.valid_length;
        // Beyond the valid length there are zeros, whatever a copy holds.
        self.missing = self
            .missing
            .iter()
            .map(|(from, to)| (*from, (*to).min(valid)))
            .filter(|(from, to)| from < to)
            .collect();
        self.queue = (0..source.servers.len()).collect();
        if !source.in_order {
            self.queue.sort_by_key(|place| rank(*place));
        }
        self.queue.reverse();
        self.doubtful.clear();
        self.last_resort = false;
        self.rounds += 1;
        (self.hope, self.busy) = (false, false);
        self.lost = None;
    }

    /// What to do next.
    pub fn next(&mut self, now: Duration) -> Result<PartStep, ClientError> {
        let Some((from, to)) = self.missing.first().copied() else {
            return Ok(PartStep::Done(self.take()));
        };
        let another_may_do = self.busy && self.rounds < ROUNDS_FOR_WHOLE && now < self.until;
        if self.queue.is_empty() && !another_may_do {
            self.queue.extend(self.doubtful.drain(..).rev());
            self.last_resort = true;
        }
        if let Some(place) = self.queue.last() {
            let (place, whole) = (*place, !self.last_resort);
            return Ok(PartStep::Ask(Ask { place, offset: from, length: to - from, whole }));
        }
        if !self.hope {
            return Err(Unreadable::NoWholeCopy.into());
        }
        if now >= self.until {
            return Err(Unreadable::NoAnswer.into());
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        Ok(PartStep::Again(pause))
    }

    /// The server that was asked last has answered.
    pub fn answered(&mut self, source: &Source, answer: PartAnswer) {
        let Some(place) = self.queue.last().copied() else { return };
        match answer {
            PartAnswer::Bytes { offset, bytes, damaged, copy_length } => {
                let asked = self.missing.first().copied();
                self.take_in(offset, &bytes, &damaged, copy_length);
                // Other missing ranges are asked of the same server, unless it could not give all of this one.
                if asked == self.missing.first().copied() || !damaged.is_empty() {
                    self.queue.pop();
                }
            }
            PartAnswer::Fault(ChunkCause::InDoubt) => self.doubtful.extend(self.queue.pop()),
            PartAnswer::Fault(cause) => {
                self.queue.pop();
                self.hope |= !matches!(
                    cause,
                    ChunkCause::Damaged | ChunkCause::NoCopy | ChunkCause::Stale | ChunkCause::DiskFailed
                );
                self.busy |= matches!(cause, ChunkCause::Busy | ChunkCause::Garbled);
                if cause == ChunkCause::Interrupted {
                    self.lost = source.servers.get(place).map(|placement| placement.server);
                }
            }
        }
    }

    /// A server whose copy has lost what the holder of the lease has written.
    #[must_use]
    pub fn lost(&self) -> Option<ServerId> {
        self.lost
    }

    /// Where the chunk is, is asked anew: something may have become of it meanwhile.
    pub fn hope(&mut self) {
        self.hope = true;
    }

    fn take_in(&mut self, offset: u64, bytes: &Bytes, damaged: &[u64], copy_length: u64) {
        let whole = self.missing == [(self.offset, self.offset + self.length)];
        let covers = offset == self.offset && bytes.len() as u64 == self.length;
        if whole && covers && damaged.is_empty() {
            self.single = Some(bytes.clone());
            self.missing.clear();
            return;
        }
        if self.bytes.is_empty() {
            self.bytes = vec![0; self.length as usize];
        }
        let have_to = offset + bytes.len() as u64;
        let mut left = Vec::new();
        for (from, to) in std::mem::take(&mut self.missing) {
            let mut at = from;
            while at < to {
                let block = at / BLOCK_SIZE;
                let end = ((block + 1) * BLOCK_SIZE).min(to);
                let good = !damaged.contains(&block) && at >= offset;
                if good && end <= have_to {
                    self.put(at, &bytes[(at - offset) as usize..(end - offset) as usize]);
                } else if good && have_to >= copy_length {
                    // The copy ends within this block: zeros follow.
                    let have = have_to.clamp(at, end);
                    if have > at {
                        self.put(at, &bytes[(at - offset) as usize..(have - offset) as usize]);
                    }
                } else {
                    left.push((at, end));
                }
                at = end;
            }
        }
        self.missing = joined(left);
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let from = (at - self.offset) as usize;
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
    }

    fn take(&mut self) -> Bytes {
        if let Some(single) = self.single.take() {
            return single;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(self.length as usize, 0);
        bytes.into()
    }
}

fn joined(ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (from, to) in ranges {
        match out.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => out.push((from, to)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkRef, Placement};
    use mooseng_types::ChunkVersion;

    const B: u64 = BLOCK_SIZE;

    fn source(servers: u32) -> Source {
        let place = |number| Placement { server: ServerId::from_raw(number), address: format!("s{number}") };
        Source {
            chunk: ChunkRef {
                chunk: ChunkId::from_raw(1),
                version: ChunkVersion::from_raw(1),
                token: Bytes::new(),
            },
            servers: (1..=servers).map(place).collect(),
            valid_length: 64 << 20,
            intact: false,
            in_order: false,
        }
    }

    /// Answers from a chunk of `length` bytes in which byte n is n/B + 1, with these blocks damaged.
    fn answer(step: &PartStep, copy_length: u64, damaged: &[u64]) -> PartAnswer {
        let PartStep::Ask(Ask { offset, length, .. }) = *step else { panic!("{step:?}") };
        let from = offset / B * B;
        let to = (offset + length).next_multiple_of(B).min(copy_length).max(from);
        let bytes: Vec<u8> = (from..to)
            .map(|at| if damaged.contains(&(at / B)) { 0xee } else { (at / B + 1) as u8 })
            .collect();
        let damaged =
            damaged.iter().copied().filter(|block| (from / B..to.div_ceil(B)).contains(block)).collect();
        PartAnswer::Bytes { offset: from, bytes: bytes.into(), damaged, copy_length }
    }

    fn read(copies: &[&[u64]], copy_length: u64) -> (Result<Bytes, ClientError>, u32) {
        let source = source(copies.len() as u32);
        let mut part = PartRead::new(100, 5 * B, Duration::ZERO, Duration::from_secs(1));
        part.begin(&source, |place| place as u64);
        let mut asked = 0;
        loop {
            match part.next(Duration::ZERO) {
                Ok(PartStep::Done(bytes)) => return (Ok(bytes), asked),
                Ok(PartStep::Again(_)) => panic!("nobody was silent"),
                Ok(step) => {
                    let PartStep::Ask(ask) = step else { unreachable!() };
                    part.answered(&source, answer(&step, copy_length, copies[ask.place]));
                    asked += 1;
                }
                Err(error) => return (Err(error), asked),
            }
        }
    }

    #[test]
    fn only_verified_blocks_of_the_wanted_range_pass() {
        let chunk = ChunkId::from_raw(5);
        let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let checksums = checksum::of_range(Part::whole(chunk), 0, &data);
        let check = |payload: Vec<u8>, range: (u64, u64)| {
            let answer = PartAnswer::verified(chunk, (0, payload), &checksums, 100_000, range);
            let PartAnswer::Bytes { offset, bytes, damaged, .. } = answer else { panic!() };
            (offset, bytes, damaged)
        };
        let wanted = (70_000, data[70_000..71_000].to_vec().into(), vec![]);
        assert_eq!(check(data.clone(), (70_000, 1000)), wanted);
        assert_eq!(check(data.clone(), (99_990, 1000)).1.len(), 10);
        assert!(check(data.clone(), (100_000, 1000)).1.is_empty());
        let mut wrong = data.clone();
        wrong[70_000] ^= 1;
        assert_eq!(check(wrong, (0, 100_000)).2, [1]);
        assert_eq!(
            check(data[..65_537].to_vec(), (0, 100_000)).2,
            [1],
            "a piece of a block is not the block"
        );
    }

    #[test]
    fn copies_that_are_damaged_in_different_blocks_make_a_whole() {
        let (bytes, _) = read(&[&[1, 2], &[3, 0]], 64 << 20);
        let bytes = bytes.unwrap();
        assert_eq!(bytes.len() as u64, 5 * B);
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == ((at as u64 + 100) / B + 1) as u8));
    }

    #[test]
    fn a_block_that_is_damaged_everywhere_fails_at_once() {
        let (result, asked) = read(&[&[1], &[1, 2]], 64 << 20);
        assert!(matches!(result, Err(ClientError::Unreadable(Unreadable::NoWholeCopy))), "{result:?}");
        assert_eq!(asked, 2);
    }

    #[test]
    fn beyond_the_end_of_a_copy_there_are_zeros() {
        let (bytes, asked) = read(&[&[]], 2 * B + 7);
        let bytes = bytes.unwrap();
        assert_eq!(asked, 1);
        let end = (2 * B + 7 - 100) as usize;
        assert!(bytes[..end].iter().all(|byte| *byte != 0) && bytes[end..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_silent_server_is_tried_again_until_the_patience_is_over() {
        let source = source(1);
        let mut part = PartRead::new(0, 10, Duration::ZERO, Duration::from_secs(1));
        part.begin(&source, |_| 0);
        assert!(matches!(part.next(Duration::ZERO), Ok(PartStep::Ask(_))));
        part.answered(&source, PartAnswer::Fault(ChunkCause::Silent));
        assert!(matches!(part.next(Duration::ZERO), Ok(PartStep::Again(_))));
        part.begin(&source, |_| 0);
        part.answered(&source, PartAnswer::Fault(ChunkCause::Silent));
        let error = part.next(Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, ClientError::Unreadable(Unreadable::NoAnswer)), "{error}");
    }

    #[test]
    fn what_lies_beyond_the_valid_length_is_not_asked_for() {
        let mut source = source(1);
        source.valid_length = 50;
        let mut part = PartRead::new(40, 20, Duration::ZERO, Duration::from_secs(1));
        part.begin(&source, |_| 0);
        let step = part.next(Duration::ZERO).unwrap();
        assert_eq!(step, PartStep::Ask(Ask { place: 0, offset: 40, length: 10, whole: true }));
        let bytes = Bytes::from_static(&[9; 10]);
        part.answered(&source, PartAnswer::Bytes { offset: 40, bytes, damaged: vec![], copy_length: 1000 });
        let PartStep::Done(bytes) = part.next(Duration::ZERO).unwrap() else { panic!() };
        assert_eq!(bytes[..], [[9; 10], [0; 10]].concat());
    }

    /// Reads ten bytes from servers that answer so, each with its number in every byte, or 0xff of a copy in doubt; `rounds`
    /// at most. Returns the first byte, and who was asked and whether for a whole copy.
    fn read_of(
        servers: &[Option<ChunkCause>],
        in_order: bool,
        rounds: u32,
    ) -> (Result<u8, ClientError>, Vec<(usize, bool)>) {
        let source = Source { in_order, ..source(servers.len() as u32) };
        let mut part = PartRead::new(0, 10, Duration::ZERO, Duration::from_secs(1));
        part.begin(&source, |place| place as u64);
        let (mut asked, mut round) = (Vec::new(), 1);
        loop {
            match part.next(Duration::ZERO) {
                Err(error) => return (Err(error), asked),
                Ok(PartStep::Done(bytes)) => return (Ok(bytes[0]), asked),
                Ok(PartStep::Again(_)) if round == rounds => return (Err(ClientError::Closed), asked),
                Ok(PartStep::Again(_)) => {
                    round += 1;
                    part.begin(&source, |place| place as u64);
                }
                Ok(PartStep::Ask(ask)) => {
                    asked.push((ask.place, ask.whole));
                    let bytes = |byte| PartAnswer::Bytes {
                        offset: 0,
                        bytes: vec![byte; 10].into(),
                        damaged: vec![],
                        copy_length: 10,
                    };
                    let answer = match servers[ask.place] {
                        None => bytes(ask.place as u8),
                        Some(ChunkCause::InDoubt) if !ask.whole => bytes(0xff),
                        Some(cause) => PartAnswer::Fault(cause),
                    };
                    part.answered(&source, answer);
                }
            }
        }
    }

    #[test]
    fn a_copy_in_doubt_is_read_only_where_no_other_can_be() {
        const DOUBT: Option<ChunkCause> = Some(ChunkCause::InDoubt);
        let (byte, asked) = read_of(&[DOUBT, None], false, 1);
        assert_eq!((byte.unwrap(), asked), (1, vec![(0, true), (1, true)]));
        for other in [ChunkCause::Unreachable, ChunkCause::Silent, ChunkCause::Damaged, ChunkCause::Stale] {
            let (byte, asked) = read_of(&[DOUBT, Some(other)], false, 1);
            assert_eq!((byte.unwrap(), asked), (0xff, vec![(0, true), (1, true), (0, false)]), "{other}");
        }
        let (_, asked) = read_of(&[DOUBT, DOUBT], true, 1);
        assert_eq!(asked, [(0, true), (1, true), (0, false)], "in the masters' order");
    }

    #[test]
    fn a_server_that_is_only_busy_is_waited_for_before_a_copy_in_doubt_is_read() {
        let servers = [Some(ChunkCause::InDoubt), Some(ChunkCause::Busy)];
        let (read, asked) = read_of(&servers, false, ROUNDS_FOR_WHOLE - 1);
        assert!(read.is_err() && asked.iter().all(|(_, whole)| *whole), "{asked:?}");
        assert_eq!(read_of(&servers, false, ROUNDS_FOR_WHOLE).0.unwrap(), 0xff);
    }
}
