//! The leader's side: rows of a view of the store, frame by frame.

use bytes::Bytes;
use mooseng_meta::{BASE, Landmark, StoreView, landmark};
use mooseng_types::CellId;

use super::rows_hash::RowsHash;
use super::{Flaw, KEY_MAX, SnapshotError, VALUE_MAX};
use crate::raft::Message;

/// Bytes of rows from which on a frame is full.
const FRAME_BYTES: usize = 256 << 10;
/// What a row takes in a frame besides its key and value, in bytes, about.
const ROW_OVERHEAD: usize = 16;

/// What has been sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Rows.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// What goes into one frame of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotFrame {
    /// The first: whose rows they are, and what the receiver's consensus core is told when it has everything.
    Begin(CellId, Message),
    /// Those between: rows, in the order of their keys.
    Rows(Vec<(Bytes, Bytes)>),
    /// The last.
    End(Ending),
}

/// What the receiver must have got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// How many rows there were.
    pub rows: u64,
    /// The hash over all of them, in order.
    pub hash: u64,
}

/// Hands out the frames of a snapshot of `view` one after the other, so that the receiver may take `message` in when it has
/// them all.
pub fn frames(
    cell: CellId,
    view: &dyn StoreView,
    message: Message,
    take: &mut dyn FnMut(SnapshotFrame) -> Result<(), SnapshotError>,
) -> Result<Sent, SnapshotError> {
    check(view, &message).map_err(SnapshotError::Unsendable)?;
    take(SnapshotFrame::Begin(cell, message))?;
    let mut out =
        Outgoing { take, rows: Vec::new(), row_bytes: 0, hash: RowsHash::default(), sent: Sent::default() };
    let mut outcome = Ok(());
    view.scan(&[], &mut |key, value| {
        outcome = out.row(key, value);
        outcome.is_ok()
    });
    outcome?;
    out.flush()?;
    let Outgoing { take, hash, sent, .. } = out;
    take(SnapshotFrame::End(Ending { rows: sent.rows, hash: hash.value() }))?;
    Ok(sent)
}

/// What the receiver would refuse at the end is better found before the first row.
fn check(view: &dyn StoreView, message: &Message) -> Result<(), Flaw> {
    let said = message.snapshot.as_ref().map(|snapshot| snapshot.index).ok_or(Flaw::NoSnapshot)?;
    let (mut found, mut group) = (None, false);
    // Those rows have the letter m, and are few.
    let mut outcome: Result<(), Flaw> = Ok(());
    view.scan(&BASE[..1], &mut |key, value| {
        match landmark(key, value) {
            Ok(Some(Landmark::AppliedIndex(index))) => found = Some(index),
            Ok(Some(Landmark::Membership(_))) => group = true,
            Ok(_) => {}
            Err(error) => outcome = Err(error.into()),
        }
        outcome.is_ok() && key.starts_with(&BASE[..1])
    });
    outcome?;
    match found {
        None => Err(Flaw::Missing("applied index")),
        Some(found) if found != said => Err(Flaw::Index { found, said }),
        Some(_) if !group => Err(Flaw::Missing("group of masters")),
        Some(_) => Ok(()),
    }
}

/// Collects rows to frames.
struct Outgoing<'a> {
    take: &'a mut dyn FnMut(SnapshotFrame) -> Result<(), SnapshotError>,
    rows: Vec<(Bytes, Bytes)>,
    row_bytes: usize,
    hash: RowsHash,
    sent: Sent,
}

impl Outgoing<'_> {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        if key == BASE {
            return Ok(());
        }
        if key.len() > KEY_MAX || value.len() > VALUE_MAX {
            let flaw = Flaw::TooLong { key: key.len(), value: value.len() };
            return Err(SnapshotError::Unsendable(flaw));
        }
        self.hash.row(key, value);
        self.sent.rows += 1;
        self.sent.bytes += (key.len() + value.len()) as u64;
        self.row_bytes += ROW_OVERHEAD + key.len() + value.len();
        self.rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if self.row_bytes < FRAME_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        self.row_bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() { Ok(()) } else { (self.take)(SnapshotFrame::Rows(rows)) }
    }
}
