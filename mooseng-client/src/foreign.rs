//! Files whose content somebody else has changed, until whoever keeps a cache of them has dropped it.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use mooseng_types::InodeId;

use crate::lock;

#[derive(Debug, Default)]
struct State {
    files: BTreeSet<InodeId>,
    /// Whose cache is being dropped.
    at_work: Option<InodeId>,
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

    /// The next file, waiting for one; `None` after [`ForeignChanges::stop`]. The cache of the one before is dropped.
    pub(crate) fn next(&self) -> Option<InodeId> {
        let mut state = lock(&self.state);
        state.at_work = None;
        let idle = |state: &mut State| state.files.is_empty() && !state.stopped;
        let waited = self.changed.wait_while(state, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.at_work = if state.stopped { None } else { state.files.pop_first() };
        state.at_work
    }

    /// Whether a cache of the file has yet to be dropped.
    pub(crate) fn is_noted(&self, inode: InodeId) -> bool {
        let state = lock(&self.state);
        state.at_work == Some(inode) || state.files.contains(&inode)
    }

    /// Nobody takes any more.
    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }
}
