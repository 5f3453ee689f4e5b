//! Owned threads: none is detached, and a panic in one ends the process, because a server without one of its parts
//! would limp on and lie.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// A set of threads that is joined as a whole.
#[derive(Debug, Default)]
pub struct Threads {
    handles: Mutex<Vec<JoinHandle<()>>>,
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a thread panicked; stopping the process");
            std::process::abort();
        }
    }
}

impl Threads {
    /// Starts a thread of the set.
    pub fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let handle = Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = AbortOnPanic;
            body();
        })?;
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
        Ok(())
    }

    /// Waits for every thread of the set, those included that are started meanwhile. The caller has told them to end.
    pub fn join(&self) {
        loop {
            let next = self.handles.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(handle) = next else { return };
            if handle.thread().id() != std::thread::current().id() {
                // A panic has ended the process already.
                drop(handle.join());
            }
        }
    }
}
