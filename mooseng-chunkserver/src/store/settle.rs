//! A copy that the masters have chosen among several which may differ: from here on it is what the chunk holds.

use std::sync::Arc;
use std::time::Duration;

use mooseng_types::ChunkVersion;

use super::chunk::{Chunk, State};
use super::error::StoreError;
use super::open::Marks;
use crate::copy_events::CopyEvent;

impl Chunk {
    /// Takes on a version that the masters have given to nobody else: whoever could write until now is fenced off, and what the
    /// copy lacks is not waited for any more. The leader hears of it, and of a copy that is as new already.
    pub(crate) fn settle_on(
        self: &Arc<Self>,
        now: Duration,
        version: ChunkVersion,
    ) -> Result<(), StoreError> {
        let mut state = self.lock_to_change()?;
        let done = self.settle_locked(&mut state, now, version);
        self.conclude(&mut state, done)
    }

    fn settle_locked(
        self: &Arc<Self>,
        state: &mut State,
        now: Duration,
        version: ChunkVersion,
    ) -> Result<(), StoreError> {
        self.admit_present(state)?;
        if state.version >= version {
            self.remind(state);
            return Ok(());
        }
        self.opened(state, now)?;
        self.changing(state);
        let marks = Marks { version, interrupted: false, in_doubt: false };
        let Some(copy) = state.open.as_mut() else { return Err(StoreError::NotFound { part: self.id() }) };
        // Clean before the leader hears of it: a crash would leave a dirty copy in doubt, and others may be stale by then.
        self.clean(copy)?;
        self.store_clean(copy, marks)?;
        state.in_doubt = false;
        self.set_version(state, version);
        self.disk.events.note(self.id(), CopyEvent::Here { version, in_doubt: false, verified: false });
        Ok(())
    }
}
