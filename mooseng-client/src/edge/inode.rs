//! A file known here: its core under one lock, never held across a request, and what the lock's holders share beside it.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_types::{Attr, InodeId};

use super::budget::Permit;
use crate::client::Client;
use crate::file::ahead::ReadAhead;
use crate::file::{File, Occasion, Pages, Told};
use crate::{Result, lock};

/// A file known here.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) id: InodeId,
    core: Mutex<Core>,
    /// Something of the file has changed that others may wait for.
    changed: Condvar,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) file: File,
    /// For the bytes that the file buffers.
    permit: Permit,
    pub(crate) last_used: Duration,
    /// Until then the file is believed to have no `security.capability`, for which the kernel asks at every write.
    pub(crate) no_capability_until: Duration,
}

/// The core, entered. When it is left, the room that the file does not need any more is given back, and losses are logged.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    guard: Option<MutexGuard<'a, Core>>,
    inode: &'a Inode,
    client: &'a Client,
}

impl Inode {
    pub(crate) fn new(file: File, permit: Permit) -> Arc<Self> {
        let core = Core { file, permit, last_used: Duration::ZERO, no_capability_until: Duration::ZERO };
        let id = core.file.id();
        Arc::new(Self { id, core: Mutex::new(core), changed: Condvar::new() })
    }

    /// Enters the core. What a lost session took is lost from here on.
    pub(crate) fn enter<'a>(&'a self, client: &'a Client) -> Entered<'a> {
        let mut entered = Entered { guard: Some(lock(&self.core)), inode: self, client };
        entered.file.session_lost(client.masters.sessions_lost());
        entered
    }

    /// Wakes those who wait, if there is something for them.
    fn tell_news(&self, core: &mut Core) {
        if core.file.take_news() {
            self.changed.notify_all();
        }
    }
}

impl Core {
    /// Takes over room for bytes that the file is about to buffer.
    pub(crate) fn give_room(&mut self, permit: Permit) {
        self.permit.merge(permit);
    }

    fn leave(&mut self, now: Duration) {
        self.permit.keep(self.file.buffered());
        let id = self.file.id();
        if let Some((error, count)) = self.file.take_log(now) {
            tracing::error!(inode = %id, %error, count, "written data was lost");
        }
    }
}

impl Entered<'_> {
    /// Lets others at the core until it has changed, at most for `time`.
    pub(crate) fn wait(&mut self, time: Duration) {
        let Some(mut guard) = self.guard.take() else { return };
        guard.leave(self.client.clock.monotonic());
        self.inode.tell_news(&mut guard);
        let waited = self.inode.changed.wait_timeout(guard, time);
        self.guard = Some(waited.unwrap_or_else(PoisonError::into_inner).0);
        let lost = self.client.masters.sessions_lost();
        self.file.session_lost(lost);
    }
}

impl Deref for Entered<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        self.guard.as_ref().unwrap_or_else(|| unreachable!("only a wait lets go of the lock"))
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        self.guard.as_mut().unwrap_or_else(|| unreachable!("only a wait lets go of the lock"))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let now = self.client.clock.monotonic();
        if let Some(guard) = &mut self.guard {
            guard.leave(now);
            self.inode.tell_news(guard);
        }
    }
}

/// An open file. Given back by [`Client::release`](crate::Client::release).
#[derive(Debug)]
pub struct OpenFile {
    pub(crate) inode: Arc<Inode>,
    pub(crate) read_ahead: Mutex<ReadAhead>,
    told: Mutex<Told>,
    /// The attributes as of the open, and what pages of the file the kernel may have. `None` for a file that was just made.
    as_opened: Option<(Attr, Pages)>,
    /// Something was written through it that no flush or sync of it has answered for.
    wrote: AtomicBool,
}

impl OpenFile {
    pub(crate) fn new(inode: Arc<Inode>, told: Told, as_opened: Option<(Attr, Pages)>) -> Arc<Self> {
        let (told, wrote) = (Mutex::new(told), AtomicBool::new(false));
        Arc::new(Self { inode, read_ahead: Mutex::default(), told, as_opened, wrote })
    }

    /// The file that is open.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        self.inode.id
    }

    /// The attributes as of the open, and what pages the kernel may have; `None` if the file was just made.
    pub(crate) fn as_opened(&self) -> Option<(Attr, Pages)> {
        self.as_opened
    }

    /// Something is being written through this handle.
    pub(crate) fn writes(&self) {
        self.wrote.store(true, Ordering::Relaxed);
    }

    /// Whether this handle has to answer for something it wrote. It has not from here on.
    pub(crate) fn take_wrote(&self) -> bool {
        self.wrote.swap(false, Ordering::Relaxed)
    }

    /// Tells an error of writing in the background.
    pub(crate) fn tell(&self, core: &mut Core, occasion: Occasion) -> Result<()> {
        core.file.tell(&mut lock(&self.told), occasion)
    }
}
