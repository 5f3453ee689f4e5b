//! Reading a copy to check it: every block against its checksum, a piece at a time, so that others come in between.

use std::sync::Arc;

use mooseng_env::DiskFile;
use mooseng_protocol::checksum;
use mooseng_types::{BLOCK_SIZE, ChunkVersion, Part};

use super::chunk::{Chunk, ReadPermit, State};
use super::error::StoreError;
use super::open_copies::Closable as _;
use crate::copy_events::CopyEvent;

/// Bytes of a piece.
const PIECE: u64 = 1 << 20;
/// A copy that changes while it is read is begun again so often.
const TRIES_MAX: u32 = 3;

/// A copy that is being read.
#[derive(Debug)]
pub(crate) struct Verification {
    chunk: Arc<Chunk>,
    /// What the copy was when the reading began; `None` before.
    seen: Option<Seen>,
    /// Bytes read and found good.
    at: u64,
    tries: u32,
    /// For the piece at hand.
    buffer: Vec<u8>,
    /// Nobody else had it open: it is closed again, and the kernel need not keep its pages.
    cold: bool,
    last_used_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    version: ChunkVersion,
    changes: u64,
}

/// How far a verification has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Checked {
    /// There is more to read.
    Going,
    /// Every block of the copy, of so many bytes, is as it was when the reading began, and matches.
    Whole(u64),
    /// It was written each time it was tried.
    Restless,
}

/// A piece, decided under the copy's lock.
struct Piece {
    from: u64,
    to: u64,
    copy_length: u64,
    checksums: Vec<u32>,
    file: Arc<dyn DiskFile>,
    _permit: ReadPermit,
}

impl Verification {
    /// Of this copy, from the beginning.
    pub(crate) fn new(chunk: Arc<Chunk>) -> Self {
        let last_used_ms = chunk.last_used_ms();
        Self { chunk, seen: None, at: 0, tries: 0, buffer: Vec::new(), cold: false, last_used_ms }
    }

    /// Of what.
    pub(crate) fn part(&self) -> Part {
        self.chunk.id()
    }

    /// Reads and checks the next piece. An error is the copy's or the disk's, and what follows from it is done: a copy that is
    /// damaged is moved aside and reported lost.
    pub(crate) fn step(&mut self) -> Result<Checked, StoreError> {
        let piece = match self.plan() {
            Err(StoreError::Busy { .. }) | Ok(None) => return Ok(self.begin_again()),
            Err(error) => return Err(error),
            Ok(Some(piece)) => piece,
        };
        if piece.from == piece.to {
            let length = piece.copy_length;
            drop(piece);
            return Ok(self.end(length));
        }
        if self.cold && piece.from == 0 {
            // What is read is to come from the disk.
            forget_pages(&*piece.file, 0, piece.copy_length);
        }
        let (part, from, to) = (self.chunk.id(), piece.from, piece.to);
        self.buffer.resize(usize::try_from(to - from).unwrap_or(0), 0);
        let read = piece.file.read_exact_at(&mut self.buffer, from);
        if self.cold {
            forget_pages(&*piece.file, from, to - from);
        }
        let expected = piece.checksums.iter();
        let sums = checksum::of_range(part, from, &self.buffer);
        let mismatch = sums.iter().zip(expected).position(|(found, expected)| found != expected);
        let incomplete = sums.len() != piece.checksums.len();
        // What follows from an error waits for permits to end.
        drop(piece);
        let error = match (read, mismatch) {
            (Err(source), _) => return Err(self.chunk.read_failed(source)),
            (Ok(()), None) if !incomplete => {
                self.at = to;
                return Ok(Checked::Going);
            }
            (Ok(()), found) => {
                let block = from / BLOCK_SIZE + found.unwrap_or(sums.len()) as u64;
                let why = format!("block {block} does not match its checksum");
                self.chunk.conclude_unlocked(StoreError::Broken { part, why })
            }
        };
        match error {
            // A slow reader keeps it from being moved aside: it is found again.
            StoreError::Busy { .. } => Ok(self.begin_again()),
            error => Err(error),
        }
    }

    /// What to read next; `None` if the copy has changed.
    fn plan(&mut self) -> Result<Option<Piece>, StoreError> {
        let chunk = &self.chunk;
        let mut state = chunk.lock_to_read();
        chunk.admit_present(&state)?;
        let now = Seen { version: state.version, changes: state.changes };
        if self.seen.is_some_and(|seen| seen != now) {
            return Ok(None);
        }
        if self.seen.is_none() {
            self.cold = state.open.is_none();
            self.seen = Some(now);
        }
        let piece = chunk.piece(&mut state, self.at);
        chunk.conclude(&mut state, piece).map(Some)
    }

    fn begin_again(&mut self) -> Checked {
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            return Checked::Restless;
        }
        (self.seen, self.at) = (None, 0);
        Checked::Going
    }

    /// All was read, if nothing has changed since.
    fn end(&mut self, length: u64) -> Checked {
        let state = self.chunk.lock();
        let now = Seen { version: state.version, changes: state.changes };
        let same = self.chunk.admit_present(&state).is_ok() && self.seen == Some(now);
        drop(state);
        if !same {
            return self.begin_again();
        }
        if self.cold && self.chunk.last_used_ms() == self.last_used_ms {
            // Somebody may have begun to use it just now; then it stays open.
            self.chunk.try_close();
        }
        Checked::Whole(length)
    }

    /// Tells the leader what came of it: that the copy is here, and verified unless it has changed.
    pub(crate) fn tell(&self, checked: Checked) {
        let mut state = self.chunk.lock();
        if self.chunk.admit_present(&state).is_err() {
            // Whoever took it away has said so.
            return;
        }
        let now = Seen { version: state.version, changes: state.changes };
        if matches!(checked, Checked::Whole(_)) && self.seen == Some(now) {
            self.chunk.note_verified(&mut state);
        } else {
            self.chunk.remind(&state);
        }
    }
}

impl Chunk {
    /// The piece that begins at `from`; none of it is left behind the copy's end. Opens the copy without counting as its use.
    fn piece(self: &Arc<Self>, state: &mut State, from: u64) -> Result<Piece, StoreError> {
        let copy = self.open_unused(state)?;
        let copy_length = copy.length;
        let (from, to) = (from.min(copy_length), (from + PIECE).min(copy_length));
        let blocks = (from / BLOCK_SIZE) as usize..to.div_ceil(BLOCK_SIZE) as usize;
        let checksums = copy.table.get(blocks).unwrap_or_default().to_vec();
        let file = Arc::clone(&copy.data);
        Ok(Piece { from, to, copy_length, checksums, file, _permit: self.permit(state) })
    }

    /// The copy was verified as it is.
    pub(super) fn note_verified(&self, state: &mut State) {
        state.verified = true;
        let event = CopyEvent::Here { version: state.version, in_doubt: state.in_doubt, verified: true };
        self.disk().events.note(self.id(), event);
    }

    /// The copy is about to change: what was verified of it is so no more.
    pub(super) fn changing(&self, state: &mut State) {
        state.changes += 1;
        if std::mem::take(&mut state.verified) {
            let event = CopyEvent::Here { version: state.version, in_doubt: state.in_doubt, verified: false };
            self.disk().events.note(self.id(), event);
        }
    }
}

/// Lets the kernel drop what it keeps of a range. Only a hint: an error changes nothing.
fn forget_pages(file: &dyn DiskFile, from: u64, length: u64) {
    if let (Some(fd), Some(length)) = (file.fd(), std::num::NonZeroU64::new(length))
        && let Err(error) = rustix::fs::fadvise(fd, from, Some(length), rustix::fs::Advice::DontNeed)
    {
        tracing::trace!(%error, "pages are kept");
    }
}
