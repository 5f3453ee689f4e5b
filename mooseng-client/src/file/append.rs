//! A write at the file's end, wherever that is: `O_APPEND`, atomic among mounts. Pure.
//!
//! Who holds the write lease of the chunk that has the end knows the end: everybody else who appends needs that lease too.
//! A small file has its end in the metadata, so the masters place the bytes.

use std::time::Duration;

use bytes::Bytes;
use mooseng_types::geometry::chunk_extents;
use mooseng_types::{ChunkIndex, FILE_SIZE_MAX, FsError, INLINE_MAX, TimeNs};

use super::buffer::Piece;
use super::flush::gave_up;
use super::steps::Brought;
use super::{Action, File, Flush, InlineJob, Operation, Step};
use crate::Loss;

/// Where an append has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The bytes lie from here on.
    pub offset: u64,
    /// A full piece waits to be sent.
    pub full: bool,
}

/// A write at the end.
#[derive(Debug)]
pub struct Append {
    data: Bytes,
    mtime: TimeNs,
    until: Duration,
    /// What was written before must land before the masters place this.
    before: Option<Flush>,
    /// The number under which the masters were asked to place the bytes.
    asked: Option<u64>,
    /// How many chunks of the file had been given up before.
    given_up: u64,
    /// The masters were asked where the end is: others may have made the file longer in another chunk.
    looked: bool,
}

impl Append {
    /// Begins to append `data`, at most a piece of 1 MiB.
    #[must_use]
    pub fn new(file: &File, data: Bytes, mtime: TimeNs, now: Duration) -> Self {
        let (until, given_up) = (now + file.rules.patience, file.given_up.0);
        Self { data, mtime, until, before: None, asked: None, given_up, looked: false }
    }

    /// Brings the leases of all chunks that the bytes are going to lie in: with the first one nobody else can append there, and
    /// without the second nobody knows what lies there. A grant tells the length as of then; if that is news, it may be
    /// other chunks' turn.
    fn bring_leases(file: &mut File, (from, to): (u64, u64), now: Duration) -> Brought {
        for index in chunk_extents(from, to - from).map(|extent| extent.index) {
            match file.bring_lease(index, false, now) {
                Brought::Ready => {}
                other => return other,
            }
        }
        Brought::Ready
    }

    fn next_small(&mut self, file: &mut File, now: Duration) -> Step<Appended> {
        if !file.is_clean() {
            let flush = self.before.get_or_insert_with(|| Flush::new(file, false, now));
            match flush.next(file, now) {
                Step::Done(Ok(())) => self.before = None,
                Step::Done(Err(error)) => return Step::Done(Err(error)),
                Step::Do(action) => return Step::Do(action),
                Step::Wait(until) => return Step::Wait(until),
            }
        }
        if now >= self.until {
            return Step::Done(Err(gave_up("append to a file", file.rules.patience)));
        }
        if file.changing || file.resizing || !file.is_small() || !file.is_clean() {
            return Step::Wait(Some(self.until));
        }
        (file.changing, file.writing_inline) = (true, true);
        file.appends += 1;
        self.asked = Some(file.appends);
        let piece = Piece::loose(file.size, self.data.clone());
        Step::Do(Action::WriteInline(InlineJob { piece, append: self.asked }))
    }
}

impl Operation for Append {
    type Output = Appended;

    fn next(&mut self, file: &mut File, now: Duration) -> Step<Appended> {
        let length = self.data.len() as u64;
        if let Some(offset) = self.asked.take().and_then(|number| file.placed.remove(&number)) {
            return Step::Done(Ok(Appended { offset, full: false }));
        }
        if file.is_small() && file.size + length <= INLINE_MAX {
            return self.next_small(file, now);
        }
        let Some(end) = file.size.checked_add(length).filter(|end| *end <= FILE_SIZE_MAX) else {
            return Step::Done(Err(FsError::FileTooLarge.into()));
        };
        if let (count, Some((index, cause))) = file.given_up
            && count > self.given_up
            && chunk_extents(end - length, length).any(|extent| extent.index == index)
        {
            return Step::Done(Err(Loss::Unwritable(cause).into()));
        }
        match Self::bring_leases(file, (end - length, end), now) {
            Brought::Ready if !self.looked => {
                self.looked = true;
                Step::Do(Action::Locate(file.locate_job(ChunkIndex::from_raw(0))))
            }
            // What the look told may still turn out to be a change of ours: only then is it known where the end is.
            Brought::Ready if file.unexplained.is_some() && now < self.until => Step::Wait(Some(self.until)),
            Brought::Ready if file.unexplained.is_some() => {
                Step::Done(Err(gave_up("append to a file", file.rules.patience)))
            }
            Brought::Ready => {
                let (offset, data, mtime) = (file.size, self.data.clone(), self.mtime);
                let full = file.take_in(offset, &data, mtime, true);
                Step::Done(Ok(Appended { offset, full }))
            }
            Brought::Do(action) => Step::Do(action),
            Brought::Wait(_) if now >= self.until => {
                Step::Done(Err(gave_up("append to a file", file.rules.patience)))
            }
            Brought::Wait(until) => Step::Wait(Some(until.unwrap_or(self.until).min(self.until))),
        }
    }
}
