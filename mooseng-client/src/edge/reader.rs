//! From the chunkservers to a program: the plan of a read carried out, through the cache of pieces read ahead where the
//! content rests.

use std::sync::Arc;

use bytes::Bytes;
use mooseng_types::geometry::ChunkExtent;

use super::data_cache::PieceKey;
use super::inode::{Inode, OpenFile};
use super::operate::WAIT_MAX;
use crate::client::Client;
use crate::file::buffer::PIECE_SIZE;
use crate::file::{PartRead, PartStep, Plan, ReadStep, Source, Span};
use crate::{Result, lock};

/// Answers for reads of holes and of what lies beyond a copy.
static ZEROS: [u8; PIECE_SIZE as usize] = [0; PIECE_SIZE as usize];

impl Client {
    /// Reads up to `length` bytes at `offset`; fewer only at the end of the file.
    pub fn read(self: &Arc<Self>, file: &OpenFile, offset: u64, length: u64) -> Result<Bytes> {
        let inode = &file.inode;
        let (size, key) = {
            let core = inode.enter(self);
            (core.file.size(), core.file.cache_key())
        };
        if offset >= size || length == 0 {
            return Ok(Bytes::new());
        }
        let length = length.min(size - offset);
        match key {
            Some(key) => self.read_through_cache(file, key, (offset, length), size),
            None => self.read_range(inode, offset, length),
        }
    }

    /// Reads from the pieces that were read ahead, and has more of them fetched.
    fn read_through_cache(
        self: &Arc<Self>,
        file: &OpenFile,
        content: u64,
        range: (u64, u64),
        size: u64,
    ) -> Result<Bytes> {
        let (inode, (offset, length)) = (&file.inode, range);
        let key = |number| PieceKey { inode: inode.id, state: content, number };
        if self.config.read_ahead_bytes > 0 {
            let ahead = lock(&file.read_ahead).on_read(offset, length, size);
            for number in ahead {
                self.fetch_ahead(inode, key(number), size);
            }
        }
        let (first, last) = (offset / PIECE_SIZE, (offset + length - 1) / PIECE_SIZE);
        let mut parts = Vec::new();
        for number in first..=last {
            let start = offset.max(number * PIECE_SIZE);
            let end = (offset + length).min((number + 1) * PIECE_SIZE);
            let cached = self.cache.get(key(number)).and_then(|piece| {
                let inside = (start - number * PIECE_SIZE) as usize;
                let until = (end - number * PIECE_SIZE) as usize;
                (until <= piece.len()).then(|| piece.slice(inside..until))
            });
            match cached {
                Some(part) => {
                    if end == (number + 1) * PIECE_SIZE || end == size {
                        self.cache.taken(key(number));
                    }
                    parts.push(part);
                }
                None => parts.push(self.read_range(inode, start, end - start)?),
            }
        }
        Ok(joined(parts, length))
    }

    fn fetch_ahead(self: &Arc<Self>, inode: &Arc<Inode>, key: PieceKey, size: u64) {
        let Some(loading) = self.cache.claim(key) else { return };
        let (client, inode) = (Arc::clone(self), Arc::clone(inode));
        let start = key.number * PIECE_SIZE;
        let length = PIECE_SIZE.min(size.saturating_sub(start));
        // With a full queue the claim goes with the job, and readers read for themselves.
        self.fetchers.try_submit(move || {
            let read = client.read_range(&inode, start, length);
            // What was read while the content changed belongs to no state of it.
            let still = inode.enter(&client).file.cache_key() == Some(key.state);
            if let (Ok(data), true) = (read, still) {
                loading.complete(data);
            }
        });
    }

    /// Reads a range as the file's core plans it.
    fn read_range(&self, inode: &Inode, offset: u64, length: u64) -> Result<Bytes> {
        let plan = self.plan(inode, offset, length)?;
        let mut parts = Vec::new();
        for span in &plan.base {
            match span {
                Span::Zeros(length) => parts.push(zeros(*length)),
                Span::Here(bytes) => parts.push(bytes.clone()),
                Span::Copies(extent, source) => {
                    let end = extent.offset + extent.length;
                    let mut at = extent.offset;
                    while at < end {
                        let length = (PIECE_SIZE - at % PIECE_SIZE).min(end - at);
                        let part = ChunkExtent { index: extent.index, offset: at, length };
                        parts.push(self.read_part(inode, part, source.clone())?);
                        at += length;
                    }
                }
            }
        }
        let base = if plan.base.is_empty() { Bytes::new() } else { joined(parts, plan.length) };
        Ok(plan.finish(base))
    }

    fn plan(&self, inode: &Inode, offset: u64, length: u64) -> Result<Plan> {
        let mut core = inode.enter(self);
        loop {
            let now = self.clock.monotonic();
            match core.file.read(offset, length, now) {
                ReadStep::Ready(plan) => return Ok(plan),
                ReadStep::Wait(until) => {
                    core.wait(until.map_or(WAIT_MAX, |until| until.saturating_sub(now)).min(WAIT_MAX));
                }
                ReadStep::Do(action) => {
                    drop(core);
                    let happened;
                    (core, happened) = self.act(inode, action);
                    happened?;
                }
            }
        }
    }

    /// Reads a part of at most 1 MiB of one chunk, from whichever copies can give it.
    fn read_part(&self, inode: &Inode, part: ChunkExtent, mut source: Source) -> Result<Bytes> {
        let patience = self.patience();
        let mut read = PartRead::new(part.offset, part.length, self.clock.monotonic(), patience);
        read.begin(&source, |place| self.chunks.rank(&source, place));
        loop {
            match read.next(self.clock.monotonic())? {
                PartStep::Done(bytes) => return Ok(bytes),
                PartStep::Ask(ask) => {
                    let answer = self.chunks.read(&source, ask);
                    read.answered(&source, answer);
                }
                PartStep::Again(pause) => {
                    let lost = read.lost();
                    inode.enter(self).file.unreadable(part.index, &source, lost, self.clock.monotonic());
                    self.clock.sleep(pause);
                    let at = part.index.start() + part.offset;
                    match self.plan(inode, at, part.length)?.base.into_iter().next() {
                        Some(Span::Copies(_, new)) => source = new,
                        Some(Span::Here(bytes)) => return Ok(padded(bytes, part.length)),
                        // Cut off or removed meanwhile.
                        Some(Span::Zeros(_)) | None => return Ok(zeros(part.length)),
                    }
                    read.begin(&source, |place| self.chunks.rank(&source, place));
                }
            }
        }
    }
}

fn zeros(length: u64) -> Bytes {
    if length <= PIECE_SIZE {
        Bytes::from_static(&ZEROS[..length as usize])
    } else {
        Bytes::from(vec![0; length as usize])
    }
}

/// `data` and zeros behind it, `length` bytes together.
fn padded(data: Bytes, length: u64) -> Bytes {
    if data.len() as u64 >= length {
        return data.slice(..length as usize);
    }
    let mut whole = data.to_vec();
    whole.resize(length as usize, 0);
    whole.into()
}

/// One part as it is, several in one piece.
fn joined(mut parts: Vec<Bytes>, length: u64) -> Bytes {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    let mut whole = Vec::with_capacity(length as usize);
    for part in parts {
        whole.extend_from_slice(&part);
    }
    whole.into()
}
