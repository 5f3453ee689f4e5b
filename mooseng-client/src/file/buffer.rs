//! What programs have written to one file and no chunkserver has confirmed yet. Pure.
//!
//! Written bytes are merged into extents that never cross a border of 1 MiB ([`PIECE_SIZE`]; chunks are cut at such
//! borders too), so that an extent is one request to a chunkserver. An extent that is being sent is "in flight"; bytes
//! written over it meanwhile form an extent of their own that waits until the one below is confirmed, so that
//! overlapping writes land in order. One that could not be written stays in flight and is taken again, before anything
//! that lies over it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use mooseng_types::ChunkIndex;

/// The most that is sent in one request, and the border at which extents are cut.
pub(crate) const PIECE_SIZE: u64 = 1 << 20;
/// From this length on an extent is expected to grow to a full piece.
const GROWING: usize = 128 << 10;

/// The unconfirmed bytes of one file.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    dirty: BTreeMap<u64, Dirty>,
    in_flight: BTreeMap<u64, InFlight>,
    bytes: usize,
    writes: u64,
    /// Rises when everything is thrown away: what was in flight then is of no concern any more.
    epoch: u64,
}

#[derive(Debug)]
struct Dirty {
    data: Vec<u8>,
    /// Number of the oldest write in it.
    since: u64,
    /// Some of it was written at what was the file's end then: it must not land after the lease is lost.
    appended: bool,
}

#[derive(Debug)]
struct InFlight {
    data: Bytes,
    since: u64,
    appended: bool,
    /// A request with it is under way.
    sending: bool,
}

/// An extent to be sent.
#[derive(Clone)]
pub struct Piece {
    /// Where it lies in the file.
    pub offset: u64,
    /// What it holds; at most 1 MiB and not across a border of that.
    pub data: Bytes,
    /// Which filling of the buffer it is of.
    pub(super) epoch: u64,
}

impl fmt::Debug for Piece {
    /// Without the bytes: they are the user's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.data.len(), self.offset)
    }
}

impl Piece {
    /// Bytes that no buffer holds.
    pub(super) fn loose(offset: u64, data: Bytes) -> Self {
        Self { offset, data, epoch: u64::MAX }
    }

    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Which extents to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Only those that cannot grow any more.
    Full,
    /// All that hold a write up to this number.
    UpTo(u64),
    /// The same, of one chunk.
    OfChunk(ChunkIndex, u64),
}

impl Take {
    fn allows(self, at: u64, extent: &Dirty) -> bool {
        match self {
            Self::Full => extent.data.len() as u64 == PIECE_SIZE,
            Self::UpTo(write) => extent.since <= write,
            Self::OfChunk(index, write) => extent.since <= write && ChunkIndex::of_offset(at) == Some(index),
        }
    }

    /// Whether one that was in flight before may be sent again.
    fn allows_again(self, at: u64, extent: &InFlight) -> bool {
        !extent.sending
            && match self {
                Self::Full => true,
                Self::UpTo(write) => extent.since <= write,
                Self::OfChunk(index, write) => {
                    extent.since <= write && ChunkIndex::of_offset(at) == Some(index)
                }
            }
    }
}

impl WriteBuffer {
    /// Takes in a write; `appended` if its place is the file's end. Tells whether an extent has become full.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], appended: bool) -> bool {
        self.writes += 1;
        let mut full = false;
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let room = usize::try_from(PIECE_SIZE - at % PIECE_SIZE).unwrap_or(usize::MAX);
            let (part, tail) = rest.split_at(room.min(rest.len()));
            full |= self.write_part(at, part, appended);
            at += part.len() as u64;
            rest = tail;
        }
        full
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the last write.
    pub(crate) fn last_write(&self) -> u64 {
        self.writes
    }

    /// Whether everything written up to number `write` is confirmed.
    pub(crate) fn is_clean_up_to(&self, write: u64) -> bool {
        self.dirty.values().all(|extent| extent.since > write)
            && self.in_flight.values().all(|extent| extent.since > write)
    }

    /// Whether everything is confirmed.
    pub(crate) fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.in_flight.is_empty()
    }

    /// Whether anything is in flight.
    pub(crate) fn is_sending(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The end of the last unsent extent; 0 if there is none.
    pub(crate) fn dirty_end(&self) -> u64 {
        self.dirty.last_key_value().map_or(0, |(start, extent)| start + extent.data.len() as u64)
    }

    /// The end of the last extent, unsent or in flight; 0 if there is none.
    pub(crate) fn end(&self) -> u64 {
        let in_flight = self.in_flight.last_key_value();
        self.dirty_end().max(in_flight.map_or(0, |(start, extent)| start + extent.data.len() as u64))
    }

    /// The chunks of extents that `which` allows and that nobody is sending, in order.
    pub(crate) fn waiting_chunks(&self, which: Take) -> Vec<ChunkIndex> {
        let again = self.in_flight.iter().filter(|(at, extent)| which.allows_again(**at, extent));
        let unsent = self.dirty.iter().filter(|(start, extent)| {
            which.allows(**start, extent) && !self.is_in_flight(**start, extent.data.len())
        });
        let mut chunks: Vec<ChunkIndex> = again
            .map(|(at, _)| at)
            .chain(unsent.map(|(at, _)| at))
            .filter_map(|at| ChunkIndex::of_offset(*at))
            .collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }

    /// Takes the first extent that `which` allows, whose chunk `usable` allows, and that overlaps none in flight; it is in
    /// flight from here on.
    pub(crate) fn take(&mut self, which: Take, usable: impl Fn(ChunkIndex) -> bool) -> Option<Piece> {
        let usable = |at: u64| ChunkIndex::of_offset(at).is_some_and(&usable);
        let again =
            self.in_flight.iter_mut().find(|(at, extent)| which.allows_again(**at, extent) && usable(**at));
        if let Some((offset, extent)) = again {
            extent.sending = true;
            return Some(Piece { offset: *offset, data: extent.data.clone(), epoch: self.epoch });
        }
        let start = self
            .dirty
            .iter()
            .find(|(start, extent)| {
                which.allows(**start, extent)
                    && usable(**start)
                    && !self.is_in_flight(**start, extent.data.len())
            })
            .map(|(start, _)| *start)?;
        let Dirty { data, since, appended } = self.dirty.remove(&start)?;
        let data = Bytes::from(data);
        self.in_flight.insert(start, InFlight { data: data.clone(), since, appended, sending: true });
        Some(Piece { offset: start, data, epoch: self.epoch })
    }

    /// The piece is confirmed, or given up.
    pub(crate) fn finish(&mut self, piece: &Piece) {
        if piece.epoch == self.epoch {
            self.bytes -= self.in_flight.remove(&piece.offset).map_or(0, |extent| extent.data.len());
        }
    }

    /// The piece was not written: it is to be sent again.
    pub(crate) fn put_back(&mut self, piece: &Piece) {
        if let Some(extent) = self.in_flight.get_mut(&piece.offset)
            && piece.epoch == self.epoch
        {
            extent.sending = false;
        }
    }

    /// Forgets everything. Tells whether there was anything.
    pub(crate) fn clear(&mut self) -> bool {
        let had = !self.is_empty();
        self.dirty.clear();
        self.in_flight.clear();
        self.bytes = 0;
        self.epoch += 1;
        had
    }

    /// Forgets what lies in a chunk and is not being sent; only what was appended, with `appended`. Tells whether there was
    /// anything.
    pub(crate) fn discard_chunk(&mut self, index: ChunkIndex, appended: bool) -> bool {
        let before = self.bytes;
        let inside = |at: u64| ChunkIndex::of_offset(at) == Some(index);
        let bytes = &mut self.bytes;
        self.dirty.retain(|at, extent| {
            let keep = !inside(*at) || (appended && !extent.appended);
            *bytes -= if keep { 0 } else { extent.data.len() };
            keep
        });
        self.in_flight.retain(|at, extent| {
            let keep = !inside(*at) || extent.sending || (appended && !extent.appended);
            *bytes -= if keep { 0 } else { extent.data.len() };
            keep
        });
        self.bytes < before
    }

    /// Whether a chunk has bytes that were written up to number `write` and are not confirmed.
    pub(crate) fn holds_of_chunk(&self, index: ChunkIndex, write: u64) -> bool {
        let (from, to) = (index.start(), index.start() + mooseng_types::CHUNK_SIZE);
        self.dirty.range(from..to).any(|(_, extent)| extent.since <= write)
            || self.in_flight.range(from..to).any(|(_, extent)| extent.since <= write)
    }

    /// Forgets unsent bytes from `offset` on.
    pub(crate) fn discard_from(&mut self, offset: u64) {
        let mut freed: usize = self.dirty.split_off(&offset).values().map(|extent| extent.data.len()).sum();
        if let Some((start, mut last)) = self.dirty.pop_last() {
            let keep = usize::try_from(offset - start).unwrap_or(usize::MAX).min(last.data.len());
            freed += last.data.len() - keep;
            last.data.truncate(keep);
            self.dirty.insert(start, last);
        }
        self.bytes -= freed;
    }

    /// What the buffer holds of a range, in the order in which it is to be laid over what the chunkservers have.
    pub(crate) fn overlay(&self, offset: u64, length: u64) -> Vec<Piece> {
        if self.is_empty() {
            return Vec::new();
        }
        let end = offset + length;
        let from = offset - offset % PIECE_SIZE;
        let cut = |start: u64, length: usize| {
            let low = offset.max(start);
            let high = end.min(start + length as u64);
            (low < high).then(|| (low, (low - start) as usize..(high - start) as usize))
        };
        let mut found = Vec::new();
        for (start, extent) in self.in_flight.range(from..end) {
            if let Some((offset, range)) = cut(*start, extent.data.len()) {
                found.push(Piece { offset, data: extent.data.slice(range), epoch: self.epoch });
            }
        }
        for (start, extent) in self.dirty.range(from..end) {
            if let Some((offset, range)) = cut(*start, extent.data.len()) {
                let data = Bytes::copy_from_slice(&extent.data[range]);
                found.push(Piece { offset, data, epoch: self.epoch });
            }
        }
        found
    }

    fn is_in_flight(&self, start: u64, length: usize) -> bool {
        let end = start + length as u64;
        let from = start - start % PIECE_SIZE;
        self.in_flight.range(from..end).any(|(at, extent)| at + extent.data.len() as u64 > start)
    }

    /// Takes in a part that lies within one piece; tells whether its extent is full.
    fn write_part(&mut self, at: u64, part: &[u8], appended: bool) -> bool {
        let end = at + part.len() as u64;
        let from = at - at % PIECE_SIZE;
        let touching: Vec<u64> = self
            .dirty
            .range(from..=end.min(from + PIECE_SIZE - 1))
            .filter(|(start, extent)| *start + extent.data.len() as u64 >= at)
            .map(|(start, _)| *start)
            .collect();
        let mut extents: Vec<(u64, Dirty)> =
            touching.iter().filter_map(|start| Some((*start, self.dirty.remove(start)?))).collect();
        let before: usize = extents.iter().map(|(_, extent)| extent.data.len()).sum();
        let since = extents.iter().map(|(_, extent)| extent.since).min().unwrap_or(self.writes);
        let appended = appended || extents.iter().any(|(_, extent)| extent.appended);
        let (start, mut data) = match extents.first_mut() {
            Some((start, first)) if *start <= at => (*start, std::mem::take(&mut first.data)),
            _ => (at, Vec::new()),
        };
        self.reserve(start, &mut data, part.len());
        let inside = (at - start) as usize;
        let overlap = part.len().min(data.len() - inside);
        data[inside..inside + overlap].copy_from_slice(&part[..overlap]);
        data.extend_from_slice(&part[overlap..]);
        for (other, extent) in &extents {
            let have = start + data.len() as u64;
            if other + extent.data.len() as u64 > have {
                data.extend_from_slice(&extent.data[(have - other) as usize..]);
            }
        }
        self.bytes += data.len() - before;
        let full = data.len() as u64 == PIECE_SIZE;
        self.dirty.insert(start, Dirty { data, since, appended });
        full
    }

    /// Makes room at once for an extent that is going to be a full piece, instead of copying it at each doubling.
    fn reserve(&self, start: u64, data: &mut Vec<u8>, more: usize) {
        let piece = PIECE_SIZE as usize;
        let follows = || {
            let before = |at: &u64, length: usize| at + length as u64 == start;
            self.dirty.range(..start).next_back().is_some_and(|(at, e)| before(at, e.data.len()))
                || self.in_flight.range(..start).next_back().is_some_and(|(at, e)| before(at, e.data.len()))
        };
        if data.len() + more <= data.capacity() || !start.is_multiple_of(PIECE_SIZE) {
            return;
        }
        if data.len() + more >= GROWING || (data.is_empty() && follows()) {
            data.reserve_exact(piece - data.len());
        }
    }
}

/// Lays `pieces` over `base`, which lies at `offset` of the file.
pub(crate) fn apply(pieces: &[Piece], offset: u64, base: &mut [u8]) {
    for piece in pieces {
        let at = (piece.offset - offset) as usize;
        base[at..at + piece.data.len()].copy_from_slice(&piece.data);
    }
}

/// Whether `pieces` hold every byte of a range.
pub(crate) fn covers(pieces: &[Piece], offset: u64, length: u64) -> bool {
    let mut spans: Vec<(u64, u64)> = pieces.iter().map(|piece| (piece.offset, piece.end())).collect();
    spans.sort_unstable();
    let mut at = offset;
    for (start, end) in spans {
        if start > at {
            return false;
        }
        at = at.max(end);
    }
    at >= offset + length
}

#[cfg(test)]
mod tests;
