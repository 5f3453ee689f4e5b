//! What a read needs: the bytes that are here, and where the others are. Pure.

use std::time::Duration;

use bytes::Bytes;
use mooseng_types::geometry::{CHUNK_SIZE, ChunkExtent, chunk_extents};
use mooseng_types::{ChunkIndex, ServerId};

use super::buffer::{self, Piece};
use super::content::Place;
use super::lease::Phase;
use super::steps::{Brought, Need};
use super::{Action, File, LocateJob};
use crate::chunk::{ChunkRef, Placement};

/// Chunks that are located with one request: 1 GiB of the file.
const LOCATE_WINDOW: u32 = 16;

/// Where the bytes of one chunk are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What names it.
    pub chunk: ChunkRef,
    /// Who has it, in the order in which to ask.
    pub servers: Vec<Placement>,
    /// From here on the chunk reads as zero, whatever a copy holds.
    pub valid_length: u64,
    /// This client has written what no sync has covered: a copy that may have lost it is not to be read.
    pub intact: bool,
    /// The copies may differ: the order is not to be changed.
    pub in_order: bool,
}

/// A part of what is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// Zeros.
    Zeros(u64),
    /// These bytes.
    Here(Bytes),
    /// Bytes of a chunk.
    Copies(ChunkExtent, Source),
}

/// What is read: the spans one after the other, and the pieces laid over them.
#[derive(Debug)]
pub struct Plan {
    /// From here on.
    pub offset: u64,
    /// So many bytes.
    pub length: u64,
    /// Empty if the pieces cover everything.
    pub base: Vec<Span>,
    /// What is written and not confirmed.
    pub over: Vec<Piece>,
}

impl Plan {
    /// Lays the pieces over the base's bytes.
    #[must_use]
    pub fn finish(&self, base: Bytes) -> Bytes {
        if self.over.is_empty() {
            return base;
        }
        let mut bytes = base.to_vec();
        bytes.resize(self.length as usize, 0);
        buffer::apply(&self.over, self.offset, &mut bytes);
        bytes.into()
    }
}

/// What a reader is to do next.
#[derive(Debug)]
pub enum ReadStep {
    /// Read this.
    Ready(Plan),
    /// Carry this out first, and tell the file what came of it.
    Do(Action),
    /// Ask again when the file has changed, and at the latest then.
    Wait(Option<Duration>),
}

impl File {
    /// What a read of up to `length` bytes at `offset` needs; fewer come only at the end of the file.
    pub fn read(&mut self, offset: u64, length: u64, now: Duration) -> ReadStep {
        let length = length.min(self.size.saturating_sub(offset));
        let over = self.buffer.overlay(offset, length);
        let mut plan = Plan { offset, length, base: Vec::new(), over };
        if length == 0 || buffer::covers(&plan.over, offset, length) {
            return ReadStep::Ready(plan);
        }
        for extent in chunk_extents(offset, length) {
            match self.span(extent, now) {
                Ok(span) => plan.base.push(span),
                Err(Brought::Do(action)) => return ReadStep::Do(action),
                Err(Brought::Wait(until)) => return ReadStep::Wait(until),
                Err(Brought::Ready) => return ReadStep::Wait(Some(now)),
            }
        }
        ReadStep::Ready(plan)
    }

    fn span(&mut self, extent: ChunkExtent, now: Duration) -> Result<Span, Brought> {
        if let Some(source) = self.leased(extent.index, now)? {
            return Ok(Span::Copies(extent, source));
        }
        if let Some(content) = self.inline().filter(|_| extent.index.raw() == 0) {
            return Ok(Span::Here(cut(content, extent.offset, extent.length)));
        }
        match self.content.located(extent.index) {
            Some(Place::Copies(located)) => {
                let source = Source {
                    chunk: located.chunk.clone(),
                    servers: located.servers.clone(),
                    valid_length: located.valid_length,
                    intact: false,
                    in_order: located.differs,
                };
                Ok(Span::Copies(extent, source))
            }
            Some(Place::Here(content)) => Ok(Span::Here(cut(content, extent.offset, extent.length))),
            Some(Place::Hole) => Ok(Span::Zeros(extent.length)),
            None => Err(Brought::Do(Action::Locate(self.locate_job(extent.index)))),
        }
    }

    pub(super) fn locate_job(&self, index: ChunkIndex) -> LocateJob {
        let first = ChunkIndex::from_raw(index.raw() - index.raw() % LOCATE_WINDOW);
        LocateJob { first, count: LOCATE_WINDOW, asked: self.content.places() }
    }

    /// The copies of a chunk that is written here. While its chain is being mended it is not known which of them have
    /// what was written.
    fn leased(&mut self, index: ChunkIndex, now: Duration) -> Result<Option<Source>, Brought> {
        let Some(lease) = self.leases.get(&index) else { return Ok(None) };
        let written = lease.is_uncommitted() || lease.is_unsynced();
        if lease.adopted.is_none() && !written {
            return Ok(None);
        }
        if !lease.is_adopted() {
            return match lease.phase {
                Phase::Granting | Phase::Preparing { running: true } => Err(Brought::Wait(None)),
                _ => match self.sync_step(index, Need::Version, now) {
                    // It has been given up meanwhile.
                    Brought::Ready => Err(Brought::Wait(Some(now))),
                    other => Err(other),
                },
            };
        }
        let intact = lease.is_unsynced();
        Ok(lease.grant.as_ref().map(|grant| Source {
            chunk: grant.chunk.clone(),
            servers: grant.servers.clone(),
            valid_length: CHUNK_SIZE,
            intact,
            in_order: false,
        }))
    }

    /// A copy of a chunk could not be read as was expected: where it is has to be asked anew. Under a lease its chain is
    /// mended instead, without this server if its copy cannot be used.
    pub fn unreadable(&mut self, index: ChunkIndex, source: &Source, lost: Option<ServerId>, now: Duration) {
        self.content.forget_place(index);
        let Some(lease) = self.leases.get_mut(&index) else { return };
        if let (Some(grant), Some(server)) = (lease.grant.clone(), lost)
            && grant.chunk == source.chunk
        {
            let cause = mooseng_types::ChunkCause::Interrupted;
            lease.failed(&grant, crate::chunk::Fault { server: Some(server), cause }, now);
        }
    }
}

/// A range of a small file; beyond its content there are zeros.
fn cut(content: &Bytes, offset: u64, length: u64) -> Bytes {
    let have = content.len() as u64;
    let from = offset.min(have) as usize;
    let to = (offset + length).min(have) as usize;
    let part = content.slice(from..to);
    if part.len() as u64 == length {
        return part;
    }
    let mut whole = part.to_vec();
    whole.resize(length as usize, 0);
    whole.into()
}
