//! Files whose content somebody else has changed, until whoever keeps a cache of them has dropped it.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use mooseng_types::InodeId;

use crate::lock;

#[derive(Debug, Default)]
struct State {
    files: BTreeSet<InodeId>,
    /// Somebody keeps a cache.
    listening: bool,
    stopped: bool,
}

/// The files. No more than programs have looked at since somebody took the last.
#[derive(Debug, Default)]
pub(crate) struct ForeignChanges {
    state: Mutex<State>,
    changed: Condvar,
}

impl ForeignChanges {
    /// Somebody keeps a cache from here on.
    pub(crate) fn listen(&self) {
        lock(&self.state).listening = true;
    }

    pub(crate) fn note(&self, inode: InodeId) {
        let mut state = lock(&self.state);
        if state.listening {
            state.files.insert(inode);
            self.changed.notify_all();
        }
    }

    /// The next file, waiting for one; `None` after [`ForeignChanges::stop`].
    pub(crate) fn next(&self) -> Option<InodeId> {
        let idle = |state: &mut State| state.files.is_empty() && !state.stopped;
        let waited = self.changed.wait_while(lock(&self.state), idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.stopped { None } else { state.files.pop_first() }
    }

    /// Nobody takes any more.
    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }
}
