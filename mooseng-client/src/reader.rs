//! From the chunkservers to a program: where the bytes are, which copy to ask, what lies over them in the write buffer.

use std::sync::Arc;

use bytes::Bytes;
use mooseng_types::geometry::{CHUNK_SIZE, ChunkExtent, chunk_extents};
use mooseng_types::{ChunkIndex, FsError};

use crate::Result;
use crate::backoff::Backoff;
use crate::chunk_client::ChunkRef;
use crate::client::Client;
use crate::data_cache::PieceKey;
use crate::inode::{Inode, Layout, LeaseState, OpenFile, State};
use crate::lock;
use crate::master_client::Placement;
use crate::write_buffer::{self, PIECE_SIZE, Piece};

/// Chunks that are located with one request: 1 GiB of the file.
const LOCATE_WINDOW: u32 = 16;
/// Located chunks kept per file: 256 GiB of it.
const LOCATED_MAX: usize = 4096;
/// Answers for reads of holes and of what lies beyond a copy.
static ZEROS: [u8; PIECE_SIZE as usize] = [0; PIECE_SIZE as usize];

/// Where a chunk is to be read.
enum Source {
    Hole,
    /// In the metadata: this is the whole content.
    Inline(Bytes),
    Copies {
        chunk: ChunkRef,
        servers: Vec<Placement>,
        valid_length: u64,
    },
}

/// What a look at the state says.
enum Look {
    Known(Source),
    /// The write chain is being mended: only after that is it known which copies have what was written.
    Mend,
    Unknown,
}

impl Client {
    /// Reads up to `length` bytes at `offset`; fewer only at the end of the file.
    pub fn read(self: &Arc<Self>, file: &OpenFile, offset: u64, length: u64) -> Result<Bytes> {
        let inode = &file.inode;
        let state = inode.state();
        let size = state.size;
        if offset >= size || length == 0 {
            return Ok(Bytes::new());
        }
        let length = length.min(size - offset);
        let overlay = state.buffer.overlay(offset, length);
        let is_clean = state.is_clean();
        let content = state.content;
        let inline = inline_range(&state.layout, offset, length);
        drop(state);
        if write_buffer::covers(&overlay, offset, length) {
            return Ok(merged(&overlay, offset, vec![0; length as usize]));
        }
        let base = match inline {
            Some(bytes) => bytes,
            None if is_clean => self.read_through_cache(file, content, offset, length, size)?,
            None => self.read_chunks(inode, offset, length)?,
        };
        if overlay.is_empty() {
            return Ok(base);
        }
        Ok(merged(&overlay, offset, base.to_vec()))
    }

    /// Reads from the pieces that were read ahead, and has more of them fetched.
    fn read_through_cache(
        self: &Arc<Self>,
        file: &OpenFile,
        content: u64,
        offset: u64,
        length: u64,
        size: u64,
    ) -> Result<Bytes> {
        let inode = &file.inode;
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
                None => parts.push(self.read_chunks(inode, start, end - start)?),
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
            if let Ok(data) = client.read_chunks(&inode, start, length) {
                loading.complete(data);
            }
        });
    }

    /// Reads what chunkservers have of a range.
    fn read_chunks(&self, inode: &Inode, offset: u64, length: u64) -> Result<Bytes> {
        let mut parts = Vec::new();
        for extent in chunk_extents(offset, length) {
            let end = extent.offset + extent.length;
            let mut at = extent.offset;
            while at < end {
                let length = (PIECE_SIZE - at % PIECE_SIZE).min(end - at);
                parts.push(self.read_part(inode, ChunkExtent { index: extent.index, offset: at, length })?);
                at += length;
            }
        }
        Ok(joined(parts, length))
    }

    /// Reads a part of at most 1 MiB of one chunk, from whichever copy can give it.
    fn read_part(&self, inode: &Inode, part: ChunkExtent) -> Result<Bytes> {
        let start = self.clock.monotonic();
        let mut backoff = Backoff::unavailable();
        loop {
            let (chunk, servers, valid_length) = match self.source(inode, part.index)? {
                Source::Hole => return Ok(zeros(part.length)),
                Source::Inline(content) => return Ok(cut_inline(&content, part.offset, part.length)),
                Source::Copies { chunk, servers, valid_length } => (chunk, servers, valid_length),
            };
            let wanted = valid_length.saturating_sub(part.offset).min(part.length);
            if wanted == 0 {
                return Ok(zeros(part.length));
            }
            let mut last = String::from("no copy is left");
            for (server, address) in self.chunks.in_reading_order(chunk.chunk, &servers) {
                match self.chunks.read(&chunk, address, part.offset, wanted) {
                    Ok(data) => return Ok(padded(data, part.length)),
                    Err(error) => {
                        tracing::debug!(chunk = %chunk.chunk, %server, %error, "read");
                        last = error.to_string();
                    }
                }
            }
            inode.state().located.remove(&part.index);
            self.pause("read from the chunkservers", start, &mut backoff, &last)?;
        }
    }

    fn source(&self, inode: &Inode, index: ChunkIndex) -> Result<Source> {
        loop {
            let mut state = inode.state();
            while state
                .leases
                .get(&index)
                .is_some_and(|l| l.adopted.is_some() && matches!(l.state, LeaseState::Busy))
            {
                state = inode.wait(state);
            }
            match look(&state, index) {
                Look::Known(source) => return Ok(source),
                Look::Mend => {
                    drop(state);
                    self.mend(inode, index)?;
                }
                Look::Unknown => {
                    drop(state);
                    self.locate(inode, index)?;
                }
            }
        }
    }

    /// Asks the masters where a window of chunks is.
    fn locate(&self, inode: &Inode, index: ChunkIndex) -> Result<()> {
        let first = ChunkIndex::from_raw(index.raw() - index.raw() % LOCATE_WINDOW);
        let (opened, chunks) = self.masters.locate(inode.id, first, LOCATE_WINDOW)?;
        let mut state = inode.state();
        if state.located.len() >= LOCATED_MAX {
            state.located.clear();
        }
        for number in first.raw()..first.raw() + LOCATE_WINDOW {
            state.located.insert(ChunkIndex::from_raw(number), None);
        }
        for chunk in chunks {
            if chunk.servers.is_empty() {
                return Err(FsError::Io.into());
            }
            state.located.insert(chunk.index, Some(Arc::new(chunk)));
        }
        if let Some(content) = opened.inline
            && state.leases.is_empty()
        {
            state.layout = Layout::Inline(content);
        }
        Ok(())
    }
}

fn look(state: &State, index: ChunkIndex) -> Look {
    if let Some(lease) = state.leases.get(&index)
        && let Some(version) = lease.adopted
    {
        return match &lease.state {
            LeaseState::Held(grant) => Look::Known(Source::Copies {
                chunk: ChunkRef { version, ..grant.chunk.clone() },
                servers: grant.servers.clone(),
                valid_length: CHUNK_SIZE,
            }),
            LeaseState::Busy | LeaseState::Broken(_) => Look::Mend,
        };
    }
    if let Layout::Inline(content) = &state.layout {
        let source = if index.raw() == 0 { Source::Inline(content.clone()) } else { Source::Hole };
        return Look::Known(source);
    }
    match state.located.get(&index) {
        Some(Some(located)) => Look::Known(Source::Copies {
            chunk: ChunkRef { chunk: located.chunk, version: located.version, token: located.token.clone() },
            servers: located.servers.clone(),
            valid_length: located.valid_length,
        }),
        Some(None) => Look::Known(Source::Hole),
        None => Look::Unknown,
    }
}

/// The range of a file without chunks; `None` for one that has them.
fn inline_range(layout: &Layout, offset: u64, length: u64) -> Option<Bytes> {
    match layout {
        Layout::Empty => Some(zeros(length)),
        Layout::Inline(content) => Some(cut_inline(content, offset, length)),
        Layout::Chunks => None,
    }
}

/// A range of a small file; beyond its content there are zeros.
fn cut_inline(content: &Bytes, offset: u64, length: u64) -> Bytes {
    let have = content.len() as u64;
    let from = offset.min(have) as usize;
    let to = (offset + length).min(have) as usize;
    padded(content.slice(from..to), length)
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
    if data.len() as u64 == length {
        return data;
    }
    if data.is_empty() {
        return zeros(length);
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

fn merged(overlay: &[Piece], offset: u64, mut base: Vec<u8>) -> Bytes {
    write_buffer::apply(overlay, offset, &mut base);
    base.into()
}
