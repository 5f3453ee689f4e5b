//! A copy that the masters have chosen among several which may differ: from here on it is what the chunk holds.

use std::sync::Arc;
use std::time::Duration;

use mooseng_types::ChunkVersion;

use super::chunk::{Chunk, State};
use super::error::StoreError;
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
        let doubt = std::mem::take(&mut state.in_doubt);
        self.make_dirty(state, version).inspect_err(|_| state.in_doubt = doubt)?;
        let copy = self.opened(state, now)?;
        self.changed(copy, now, 0);
        self.publish(state);
        self.disk.events.note(self.id(), CopyEvent::Here { version, in_doubt: false, verified: false });
        Ok(())
    }
}
