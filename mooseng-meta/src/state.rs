//! The state machine: entries in, answers out, changed rows to the store when the caller has time for it.
//!
//! The masters' log is the only write-ahead log. [`MetaState::apply`] changes rows in memory; now and then the caller
//! takes them with [`MetaState::freeze`], writes them to the store on a thread of its own, and says
//! [`MetaState::flushed`]. The index of the last applied entry is in the same batch, so a restart goes on right there.

use std::collections::BTreeMap;
use std::sync::Arc;

use mooseng_types::level::SUPPORTED;
use mooseng_types::{CellId, ChunkId, FsError, InodeId, Level, UNACKED_MAX};

use crate::codec::CodecError;
use crate::codec::v1;
use crate::codec::v1::row::{Base, Digest, Number, RowValue};
use crate::command::{ClusterCommand, Command, Entry, Request};
use crate::counters::Counters;
use crate::digest::Rolling;
use crate::key;
use crate::membership::Membership;
use crate::overlay::Overlay;
use crate::response::Response;
use crate::session::Window;
use crate::store::{Batch, MetaStore};
use crate::tables::Tables;

/// A request that skips more numbers than this makes us look which answers there are to forget.
const FORGET_BLINDLY_MAX: u64 = 64;

/// Why a store cannot be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It has rows, but none that says what they are.
    #[error("the store holds something else than metadata")]
    Foreign,
    /// A later release has written it.
    #[error("the store has format {found}, this release knows {}", v1::FORMAT)]
    Unknown {
        /// The format it has.
        found: u64,
    },
    /// A cluster of a later level has written it.
    #[error("the store has level {found}, this release knows {SUPPORTED}: upgrade it")]
    Level {
        /// The level it has.
        found: u64,
    },
    /// Another cell has written it.
    #[error("the store is of {found}, not of {wanted}")]
    Cell {
        /// Whose it is.
        found: CellId,
        /// Whose it should be.
        wanted: CellId,
    },
    /// A row that every store has is missing.
    #[error("the store has no row {0}")]
    Missing(String),
    /// A row cannot be read.
    #[error("row {key} of the store")]
    Damaged {
        /// The row.
        key: String,
        /// What is wrong with it.
        source: CodecError,
    },
}

/// The namespace.
#[derive(Debug)]
pub struct MetaState {
    pub(crate) tables: Tables,
    applied_index: u64,
    /// The applied index of the last freeze.
    frozen_index: u64,
    membership: Membership,
}

fn stored<T: RowValue>(rows: &Overlay, key: &[u8]) -> Result<Option<T>, FormatError> {
    rows.read(key, T::decode)
        .transpose()
        .map_err(|source| FormatError::Damaged { key: key.escape_ascii().to_string(), source })
}

fn needed<T: RowValue>(rows: &Overlay, key: &[u8]) -> Result<T, FormatError> {
    stored(rows, key)?.ok_or_else(|| FormatError::Missing(key.escape_ascii().to_string()))
}

/// The level that a store says; one that says none is of the first.
fn level_of(row: Option<Number>) -> Result<Level, FormatError> {
    let Some(Number(found)) = row else { return Ok(Level::FIRST) };
    let level = u16::try_from(found).map(Level::from_raw).ok().filter(|level| SUPPORTED.has(*level));
    level.ok_or(FormatError::Level { found })
}

/// Ids given out by one cell in the store of another would be given out twice.
fn check_cell(rows: &Overlay, wanted: CellId) -> Result<(), FormatError> {
    let first = rows.collect(b"i", &[], 1, |key, _| InodeId::from_raw(key::number_at(key, 1)).cell());
    match first.first() {
        Some(&found) if found != wanted => Err(FormatError::Cell { found, wanted }),
        _ => Ok(()),
    }
}

impl MetaState {
    /// The part of the namespace that this cell has, in this store; an empty store is an empty namespace.
    pub fn open(store: Arc<dyn MetaStore>, cell: CellId) -> Result<Self, FormatError> {
        let mut empty = true;
        store.scan(&[], &[], &mut |_, _| {
            empty = false;
            false
        });
        let mut rows = Overlay::new(store);
        if empty {
            rows.digest = Rolling::START;
            let tables = Tables {
                rows,
                counters: Counters::default(),
                windows: BTreeMap::new(),
                settings: None,
                cell,
                level: Level::FIRST,
                touched: Vec::new(),
            };
            let membership = Membership::default();
            return Ok(Self { tables, applied_index: 0, frozen_index: 0, membership });
        }
        let Number(found) = stored(&rows, &key::FORMAT)?.ok_or(FormatError::Foreign)?;
        if found != u64::from(v1::FORMAT) {
            return Err(FormatError::Unknown { found });
        }
        let Number(applied_index) = needed(&rows, &key::APPLIED)?;
        let counters = needed(&rows, &key::COUNTERS)?;
        let settings = stored(&rows, &key::SETTINGS)?;
        let level = level_of(stored(&rows, &key::LEVEL)?)?;
        let membership = stored(&rows, &key::MEMBERSHIP)?.unwrap_or_default();
        rows.digest =
            stored(&rows, &key::DIGEST)?.map_or(Rolling::UNKNOWN, |Digest(hash)| Rolling::from_raw(hash));
        check_cell(&rows, cell)?;
        // Read when asked for, so it is only looked at here.
        stored::<Base>(&rows, &key::BASE)?;
        let windows = rows
            .collect(b"a", &[], usize::MAX, |key, value| {
                let session = Number(key::number_at(key, 1)).session();
                Window::decode(value)
                    .map(|window| (session, window))
                    .map_err(|source| FormatError::Damaged { key: key.escape_ascii().to_string(), source })
            })
            .into_iter()
            .collect::<Result<_, _>>()?;
        let touched = Vec::new();
        let tables = Tables { rows, counters, windows, settings, cell, level, touched };
        Ok(Self { tables, applied_index, frozen_index: applied_index, membership })
    }

    /// Whose part of the namespace it is.
    #[must_use]
    pub fn cell(&self) -> CellId {
        self.tables.cell
    }

    /// The last entry applied; 0: none.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The chunks whose rows the entries applied since the last call have changed or removed, in order; one may come twice.
    pub fn take_touched(&mut self) -> Vec<ChunkId> {
        std::mem::take(&mut self.tables.touched)
    }

    /// Applies the entry with this index, which must be above [`MetaState::applied_index`]. Never fails: a command
    /// that cannot be done is [refused](Response::Refused) and changes nothing.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Response {
        self.advance(index);
        let response = match entry.request {
            None => self.run(entry),
            Some(request) => self.run_once(request, entry),
        };
        self.tables.rows.digest.entry(index, &self.tables.counters);
        response
    }

    /// Passes over an entry without a command, such as a new leader's empty one.
    pub fn skip(&mut self, index: u64) {
        self.advance(index);
        self.tables.rows.digest.entry(index, &self.tables.counters);
    }

    fn advance(&mut self, index: u64) {
        assert!(index > self.applied_index, "entry {index} comes after entry {}", self.applied_index);
        self.applied_index = index;
    }

    /// The rolling hash of all changes that entries up to the applied index have made: the same on every replica that
    /// has applied the same entries, whenever it flushed and however often it was restarted. 0 if it is not known,
    /// because the store is from a release that did not keep it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.tables.rows.digest.known().unwrap_or(0)
    }

    /// The group of masters as of the applied index.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Applies an entry that changes the group: as [`MetaState::skip`], and the group is `membership` from here on.
    pub fn set_membership(&mut self, index: u64, membership: Membership) {
        self.advance(index);
        self.put_membership(membership);
        self.tables.rows.digest.entry(index, &self.tables.counters);
    }

    /// Makes an empty state that of a newly founded group, whose log goes on after this entry.
    pub fn found(&mut self, index: u64, term: u64, membership: Membership) {
        assert_eq!(self.applied_index, 0, "a group is founded once");
        self.advance(index);
        self.tables.rows.put_own(&key::BASE, Base { index, term }.encode().into());
        self.put_membership(membership);
        self.tables.rows.digest.entry(index, &self.tables.counters);
    }

    /// Makes this state that of a group made anew after it lost its majority for good: its log goes on after this entry.
    /// Entries that came after the applied one may be lost with the other masters, and with them ids that they gave
    /// out; so ids go on far above, that none is given to two things.
    pub fn begin_anew(&mut self, index: u64, term: u64, membership: Membership) {
        assert!(
            membership.epoch > self.membership.epoch,
            "a group that is made anew has an epoch of its own"
        );
        self.advance(index);
        self.tables.rows.put_own(&key::BASE, Base { index, term }.encode().into());
        self.put_membership(membership);
        self.tables.counters.skip_ids();
        self.tables.rows.digest.entry(index, &self.tables.counters);
    }

    /// Index and term of the entry that the store began with, at the group's founding, at its being made anew or by a
    /// snapshot: what the log begins after. (0, 0) if it began empty.
    #[must_use]
    pub fn base(&self) -> (u64, u64) {
        self.tables.row(&key::BASE).map_or((0, 0), |Base { index, term }| (index, term))
    }

    /// The store below. Changes since the last flush are not in it.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn MetaStore> {
        self.tables.rows.store()
    }

    /// Bytes of rows changed since the last freeze, about.
    #[must_use]
    pub fn unflushed_bytes(&self) -> usize {
        self.tables.rows.active_bytes()
    }

    /// Takes the rows changed since the last freeze, for the store to write; they stay readable. `None` if the last
    /// ones are not [flushed](MetaState::flushed) yet, or nothing was applied. Freeing a large batch takes a while: who
    /// drops the last reference pays, so the writing thread should keep its own until after `flushed`.
    pub fn freeze(&mut self) -> Option<Arc<Batch>> {
        if self.tables.rows.is_frozen() || self.applied_index == self.frozen_index {
            return None;
        }
        let Tables { rows, counters, windows, .. } = &mut self.tables;
        for (&session, window) in windows.iter_mut().filter(|(_, window)| window.dirty) {
            rows.put_own(&key::window(session), window.encode().into());
            window.dirty = false;
        }
        rows.put_own(&key::FORMAT, Number(v1::FORMAT.into()).encode().into());
        rows.put_own(&key::APPLIED, Number(self.applied_index).encode().into());
        rows.put_own(&key::COUNTERS, counters.encode().into());
        if let Some(hash) = rows.digest.known() {
            rows.put_own(&key::DIGEST, Digest(hash).encode().into());
        }
        self.frozen_index = self.applied_index;
        rows.freeze(self.applied_index)
    }

    /// The frozen rows are durable in the store.
    pub fn flushed(&mut self) {
        self.tables.rows.flushed();
    }

    fn put_membership(&mut self, membership: Membership) {
        self.tables.rows.put(&key::MEMBERSHIP, membership.encode().into());
        self.membership = membership;
    }

    fn run(&mut self, entry: &Entry) -> Response {
        entry.command.run(&mut self.tables, entry.stamp).unwrap_or_else(Response::Refused)
    }

    /// Runs a client's request unless its answer is stored, and stores the answer.
    fn run_once(&mut self, request: Request, entry: &Entry) -> Response {
        let Request { id, acked_below } = request;
        let Some(&window) = self.tables.windows.get(&id.session) else {
            // Whose session is gone has what closing it would give.
            return match entry.command {
                Command::Cluster(ClusterCommand::CloseSession { session }) if session == id.session => {
                    Response::Done
                }
                _ => Response::Refused(FsError::SessionExpired),
            };
        };
        // The leader does not propose what is beyond the bound; it waits for the client to acknowledge more.
        let beyond = id.seq.saturating_sub(acked_below.max(window.acked_below)) >= UNACKED_MAX;
        if id.seq < window.acked_below || acked_below > id.seq || beyond {
            return Response::Refused(FsError::Invalid);
        }
        if let Some(response) = self.stored_response(id) {
            return response;
        }
        let response = self.run(entry);
        // "Try again": with the same number, so no answer may stand in the way.
        if response == Response::Refused(FsError::LeaseHeld) {
            return response;
        }
        self.remember(request, &response);
        response
    }

    fn remember(&mut self, request: Request, response: &Response) {
        let Request { id, acked_below } = request;
        // The command may have been the session's end.
        let Some(window) = self.tables.windows.get_mut(&id.session) else { return };
        let forgotten = window.acked_below..acked_below.max(window.acked_below);
        *window = Window { acked_below: forgotten.end, highest: window.highest.max(id.seq), dirty: true };
        let rows = &mut self.tables.rows;
        if forgotten.end - forgotten.start <= FORGET_BLINDLY_MAX {
            for seq in forgotten {
                rows.delete_written_once(&key::response(id.session, seq));
            }
        } else {
            let from = key::response(id.session, forgotten.start);
            let stored = rows.collect(&key::responses(id.session), &from, usize::MAX, |key, _| key.to_vec());
            for key in stored.iter().filter(|key| key::number_at(key, 9) < forgotten.end) {
                rows.delete_written_once(key);
            }
        }
        rows.put(&key::response(id.session, id.seq), response.encode().into());
    }
}
