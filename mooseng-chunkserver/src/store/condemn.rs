//! A copy that the leader has given up goes into quarantine, and one that is wanted after all comes back.

use std::path::Path;
use std::sync::{Arc, MutexGuard};

use mooseng_env::disk::OpenMode;
use mooseng_types::ChunkVersion;

use super::chunk::{Chunk, Phase, State};
use super::error::StoreError;
use super::quarantine::{Kept, NotMoved};
use super::sidecar::Header;
use crate::copy_events::CopyEvent;

impl Chunk {
    /// Moves the copy into quarantine, on the order of the leader, unless it is newer than the one that the leader has decided
    /// about. Whatever comes of it, the leader hears.
    pub(crate) fn quarantine(&self, condemned: ChunkVersion, until_unix_s: u64) -> Result<(), StoreError> {
        let mut state = self.lock_to_change()?;
        match self.admit_present(&state) {
            // Nothing to keep: what is broken lies in `damaged/`, and stays broken.
            Err(StoreError::NotFound { .. } | StoreError::Broken { .. } | StoreError::Busy { .. }) => {
                self.disk.events.note(self.id(), CopyEvent::Lost);
                Ok(())
            }
            Err(failed) => Err(failed),
            Ok(()) if state.version > condemned => {
                self.remind(&state);
                Ok(())
            }
            Ok(()) => self.put_away(&mut state, until_unix_s),
        }
    }

    /// Makes way for a copy of `version` that is to come back: an older one goes into quarantine. Where there is none to speak
    /// of, the lock is given out, under which the other one comes or does not.
    pub(super) fn make_way(
        &self,
        version: ChunkVersion,
        until_unix_s: u64,
    ) -> Result<Option<MutexGuard<'_, State>>, StoreError> {
        let mut state = self.lock_to_change()?;
        let part = self.id();
        match state.phase {
            Phase::Broken => Ok(Some(state)),
            Phase::Absent | Phase::Gone => {
                Err(StoreError::Busy { part, why: "a copy is just being made or removed" })
            }
            Phase::Present if self.disk.failed() => Ok(Some(state)),
            Phase::Present if state.version >= version => {
                Err(StoreError::NotOlder { part, have: state.version })
            }
            Phase::Present => self.put_away(&mut state, until_unix_s).map(|()| None),
        }
    }

    fn put_away(&self, state: &mut State, until_unix_s: u64) -> Result<(), StoreError> {
        let length = self.make_ready(state);
        let length = self.conclude(state, length)?;
        let kept = Kept { until_unix_s, part: self.id(), version: state.version };
        let moved = self.disk.quarantine.take_in(&self.disk.home(self.id()), kept, length);
        let moved = moved.map_err(|error| self.not_moved(error));
        self.conclude(state, moved)?;
        state.phase = Phase::Gone;
        self.close(state);
        self.unpublish();
        self.disk.uncount_copy();
        self.disk.events.note(self.id(), CopyEvent::Lost);
        Ok(())
    }

    /// Makes the copy clean, so that it comes back as it was, and its files durable; the length of its data. On a full disk it
    /// stays dirty, and is recovered when it comes back.
    fn make_ready(&self, state: &mut State) -> Result<u64, StoreError> {
        let marks = state.marks();
        if let Some(copy) = state.open.as_mut().filter(|copy| copy.dirty) {
            self.clean(copy)?;
            match self.store_clean(copy, marks) {
                Err(StoreError::NoSpace { .. }) => {}
                stored => stored?,
            }
        }
        let home = self.disk.home(self.id());
        let open = |path: &Path| self.disk.disk.open(path, OpenMode::Read).map_err(self.io());
        let (data, meta) = (open(&home.data)?, open(&home.meta)?);
        if state.untouched {
            data.sync_data().and_then(|()| meta.sync_data()).map_err(|source| self.disk_fails(source))?;
            state.untouched = false;
        }
        data.len().map_err(self.io())
    }

    fn not_moved(&self, error: NotMoved) -> StoreError {
        if error.half_way {
            self.disk_fails(error.source)
        } else {
            self.disk.trouble(self.id(), error.source)
        }
    }

    /// Becomes the copy that is `kept`, whose sidecar says `header`. `enter` makes this chunk known; until this returns, whoever
    /// finds it waits.
    pub(super) fn come_back(
        self: &Arc<Self>,
        kept: &Kept,
        header: &Header,
        enter: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        enter()?;
        let moved = self.disk.quarantine.give_back(&self.disk.home(self.id()), kept);
        if let Err(error) = moved {
            state.phase = Phase::Gone;
            let error = self.not_moved(error);
            return self.conclude(&mut state, Err(error));
        }
        self.disk.count_copy();
        self.disk.forget_broken(self.id());
        self.take_over(&mut state, header)?;
        self.remind(&state);
        Ok(())
    }
}
