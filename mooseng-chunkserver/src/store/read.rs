//! Reads: what a reply says, and where its bytes are.

use std::sync::Arc;
use std::time::Duration;

use mooseng_env::DiskFile;
use mooseng_protocol::checksum;
use mooseng_types::{BLOCK_SIZE, CHUNK_SIZE, ChunkVersion, Part};

use super::chunk::{Chunk, ReadPermit, State};
use super::error::StoreError;
use crate::buffer::{Buffer, BufferPool};

/// The longest read, in bytes.
pub(crate) const READ_MAX: u64 = 1 << 20;
/// Reads from this length on go out whole blocks at a time, unread by this process.
const ZERO_COPY_MIN: u64 = BLOCK_SIZE;
/// A copy written within this time is read through memory: a slow receiver of a zero-copy read would make its writer
/// wait.
const HOT: Duration = Duration::from_secs(1);

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadRequest {
    /// The copy must be at least this new.
    pub(crate) oldest: ChunkVersion,
    /// Where the bytes begin.
    pub(crate) offset: u64,
    /// How many they are, at most [`READ_MAX`].
    pub(crate) length: u64,
    /// To be verified here, whatever the length.
    pub(crate) verify: bool,
    /// Only of a copy that has lost nothing of what was written under its lease.
    pub(crate) intact: bool,
    /// Only of a copy that is not in doubt.
    pub(crate) whole: bool,
}

/// The answer to a read.
#[derive(Debug)]
pub(crate) struct ReadAnswer {
    /// The copy's version.
    pub(crate) version: ChunkVersion,
    /// The copy's length in bytes.
    pub(crate) copy_length: u64,
    /// Where in the chunk the bytes begin.
    pub(crate) offset: u64,
    /// The checksums of their sections.
    pub(crate) checksums: Vec<u32>,
    /// The bytes.
    pub(crate) bytes: ReadBytes,
}

/// Where the bytes of an answer are.
#[derive(Debug)]
pub(crate) enum ReadBytes {
    /// Here, verified: this part of the buffer.
    Memory {
        /// The blocks read.
        buffer: Buffer,
        /// Where the bytes begin in the buffer.
        from: usize,
        /// How many they are.
        length: usize,
    },
    /// In the data file, at the answer's offset. The receiver verifies.
    File(FileBytes),
    /// Nowhere: the read lies beyond the copy's end.
    Nothing,
}

/// Bytes of a data file that will not change as long as this lives: from the decision to send them until the receiver has
/// taken them, since a socket refers to the file's own pages.
#[derive(Debug)]
pub(crate) struct FileBytes {
    /// The data file.
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the bytes begin.
    pub(crate) offset: u64,
    /// How many they are.
    pub(crate) length: usize,
    permit: ReadPermit,
}

impl FileBytes {
    /// The file did not give them: draws the consequences for the copy or its disk.
    pub(crate) fn failed(self, source: std::io::Error) -> StoreError {
        let chunk = Arc::clone(self.permit.chunk());
        drop(self);
        let error = chunk.read_failed(source);
        tracing::error!(%error, "a copy's file does not give its bytes");
        error
    }
}

/// What is to be read, decided under the copy's lock.
struct Plan {
    part: Part,
    version: ChunkVersion,
    copy_length: u64,
    /// What was asked for, clamped to the copy.
    asked: (u64, u64),
    /// The same, widened to block borders.
    whole: (u64, u64),
    checksums: Vec<u32>,
    file: Arc<dyn DiskFile>,
    hot: bool,
    permit: ReadPermit,
}

impl Chunk {
    /// Reads from a copy. What is not verified here, the receiver verifies.
    pub(crate) fn read(
        self: &Arc<Self>,
        now: Duration,
        request: &ReadRequest,
        buffers: &Arc<BufferPool>,
    ) -> Result<ReadAnswer, StoreError> {
        let part = self.id();
        if request.length > READ_MAX || request.offset > CHUNK_SIZE {
            return Err(StoreError::Invalid { part, what: "the read is too long or beyond the chunk" });
        }
        let plan = {
            let mut state = self.lock_to_read();
            let plan = self.plan(&mut state, now, request);
            self.conclude(&mut state, plan)?
        };
        let (from, to) = plan.asked;
        if from >= to {
            return Ok(plan.answer(from, vec![], ReadBytes::Nothing));
        }
        let exact = request.length < ZERO_COPY_MIN;
        if !exact && !request.verify && !plan.hot && plan.file.fd().is_some() {
            return Ok(plan.unread());
        }
        // The permit goes with the plan, or what follows from an error would wait for itself.
        plan.read_and_verify(buffers, exact).map_err(|reason| match reason {
            ReadFailure::Io(source) => self.read_failed(source),
            ReadFailure::Mismatch(block) => {
                let why = format!("block {block} does not match its checksum");
                self.conclude_unlocked(StoreError::Broken { part, why })
            }
        })
    }

    fn plan(
        self: &Arc<Self>,
        state: &mut State,
        now: Duration,
        request: &ReadRequest,
    ) -> Result<Plan, StoreError> {
        let ReadRequest { oldest, offset, length, .. } = *request;
        let part = self.id();
        self.admit_present(state)?;
        if state.version < oldest {
            return Err(StoreError::Stale { part, have: state.version, need: oldest });
        }
        let version = state.version;
        if request.intact && state.interrupted {
            return Err(StoreError::Interrupted { part, version });
        }
        if request.whole && state.in_doubt {
            return Err(StoreError::InDoubt { part });
        }
        let copy = self.opened(state, now)?;
        let from = offset.min(copy.length);
        let to = (offset + length).min(copy.length);
        let first = from / BLOCK_SIZE;
        let whole = (first * BLOCK_SIZE, to.next_multiple_of(BLOCK_SIZE).min(copy.length));
        let last = to.div_ceil(BLOCK_SIZE).max(first);
        let checksums = copy.table.get(first as usize..last as usize).unwrap_or_default().to_vec();
        if from == copy.read_end && from > 0 {
            read_ahead(&*copy.data, whole.1);
        }
        copy.read_end = to;
        let hot = copy.dirty && now.saturating_sub(copy.last_write) < HOT;
        let (file, copy_length) = (Arc::clone(&copy.data), copy.length);
        let permit = self.permit(state);
        Ok(Plan { part, version, copy_length, asked: (from, to), whole, checksums, file, hot, permit })
    }
}

enum ReadFailure {
    Io(std::io::Error),
    Mismatch(u64),
}

impl Plan {
    fn answer(&self, offset: u64, checksums: Vec<u32>, bytes: ReadBytes) -> ReadAnswer {
        let (version, copy_length) = (self.version, self.copy_length);
        ReadAnswer { version, copy_length, offset, checksums, bytes }
    }

    fn unread(self) -> ReadAnswer {
        let (offset, end) = self.whole;
        let length = (end - offset) as usize;
        ReadAnswer {
            version: self.version,
            copy_length: self.copy_length,
            offset,
            checksums: self.checksums,
            bytes: ReadBytes::File(FileBytes { file: self.file, offset, length, permit: self.permit }),
        }
    }

    /// Reads whole blocks, verifies them, and answers with exactly what was asked for (`exact`) or with the blocks.
    fn read_and_verify(self, buffers: &Arc<BufferPool>, exact: bool) -> Result<ReadAnswer, ReadFailure> {
        let (start, end) = self.whole;
        let mut buffer = buffers.take((end - start) as usize);
        self.file.read_exact_at(&mut buffer, start).map_err(ReadFailure::Io)?;
        let mut expected = self.checksums.iter();
        for (block, section) in checksum::sections(start, &buffer) {
            if expected.next() != Some(&checksum::of_section(self.part, block, section)) {
                return Err(ReadFailure::Mismatch(block.into()));
            }
        }
        if !exact {
            let length = buffer.len();
            return Ok(self.answer(
                start,
                self.checksums.clone(),
                ReadBytes::Memory { buffer, from: 0, length },
            ));
        }
        let (asked_from, asked_to) = self.asked;
        let (from, length) = ((asked_from - start) as usize, (asked_to - asked_from) as usize);
        let checksums = checksum::of_range(self.part, asked_from, &buffer[from..from + length]);
        Ok(self.answer(asked_from, checksums, ReadBytes::Memory { buffer, from, length }))
    }
}

/// Asks the kernel to have the next bytes ready. Only a hint: an error changes nothing.
fn read_ahead(file: &dyn DiskFile, from: u64) {
    const READ_AHEAD: std::num::NonZeroU64 = match std::num::NonZeroU64::new(4 << 20) {
        Some(bytes) => bytes,
        None => std::num::NonZeroU64::MIN,
    };
    if let Some(fd) = file.fd()
        && let Err(error) = rustix::fs::fadvise(fd, from, Some(READ_AHEAD), rustix::fs::Advice::WillNeed)
    {
        tracing::trace!(%error, "no read-ahead");
    }
}
