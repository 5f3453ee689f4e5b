//! What the kernel has been told and may still believe, and how it is made to forget.
//!
//! It believes attributes for a time. An open must show what others have closed before it, so attributes that differ from
//! those told last are taken back before the open is answered. Pages are dropped when somebody else has changed the
//! content, on a thread of its own: dropping a page waits for whoever reads it.
//!
//! Whatever makes it forget has a price: an answer with attributes that is on its way at that moment counts for nothing,
//! and a read that waits for that answer ends at the length of before. So a file whose length the kernel may have wrong, or
//! may fail to learn, is read past its pages: there the length counts for nothing.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use fuser::{INodeNo, Notifier};
use mooseng_types::{Attr, InodeId};

use crate::file::Pages;
use crate::lock;

const SHARDS: usize = 16;
/// Files whose attributes are remembered, in each shard.
const TOLD_MAX: usize = 8192;
/// From an answer until the kernel has made use of it, on a busy machine; and from its last look at the attributes before an
/// open until the open is here.
const IN_FLIGHT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Shard {
    told: HashMap<InodeId, Told>,
    /// Files that others have changed and the kernel was made to forget, and until when one may be opened that it has
    /// not asked for since.
    doubted: HashMap<InodeId, Duration>,
    /// What was forgotten before this may still be believed.
    unknown_until: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    content_version: u64,
    size: u64,
    until: Duration,
}

/// The kernel's beliefs.
#[derive(Debug)]
pub(crate) struct Kernel {
    notifier: OnceLock<Notifier>,
    shards: [Mutex<Shard>; SHARDS],
    timeout: Duration,
}

impl Kernel {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { notifier: OnceLock::new(), shards: Default::default(), timeout }
    }

    /// The way to the kernel; set once, after the mount.
    pub(crate) fn connect(&self, notifier: Notifier) {
        // A second mount of the same file system does not exist.
        drop(self.notifier.set(notifier));
    }

    fn shard(&self, inode: InodeId) -> &Mutex<Shard> {
        &self.shards[inode.raw() as usize % SHARDS]
    }

    /// The kernel is being told these attributes.
    pub(super) fn tell(&self, attr: &Attr, now: Duration) {
        let mut shard = lock(self.shard(attr.inode));
        if shard.told.len() >= TOLD_MAX {
            shard.told.clear();
            shard.unknown_until = now + self.timeout;
        }
        let until = now + self.timeout;
        let told = Told { content_version: attr.content_version, size: attr.size, until };
        shard.told.insert(attr.inode, told);
    }

    /// A file with these attributes is being opened: others that the kernel may believe are taken back. Returns whether what
    /// it has of length and pages is to be trusted.
    pub(super) fn opens(&self, attr: &Attr, pages: Pages, now: Duration) -> bool {
        let (stale, doubted) = {
            let shard = lock(self.shard(attr.inode));
            let stale = match shard.told.get(&attr.inode) {
                Some(told) => {
                    let same = (told.content_version, told.size) == (attr.content_version, attr.size);
                    !same && now <= told.until
                }
                None => now <= shard.unknown_until,
            };
            (stale, shard.doubted.get(&attr.inode).is_some_and(|until| now <= *until))
        };
        // Nobody but programs here has changed the file since the kernel learnt its length.
        let own = pages == Pages::Right;
        if pages == Pages::Old || (stale && !own) {
            // This open has the pages dropped. Another one may come before that is done.
            self.doubt(attr.inode, now);
        }
        if stale {
            self.invalidate(attr.inode, -1);
        }
        !doubted && (own || !stale)
    }

    /// Somebody else has changed the file: the kernel asks for the attributes anew before it uses them.
    pub(super) fn forget_attributes(&self, inode: InodeId, now: Duration) {
        self.doubt(inode, now);
        self.invalidate(inode, -1);
    }

    /// Somebody else has changed the content: the kernel drops the pages too; waits for those that are being read.
    pub(crate) fn forget_content(&self, inode: InodeId) {
        self.invalidate(inode, 0);
    }

    /// The kernel is being made, or was just made, to forget what it believes of a file.
    pub(crate) fn doubt(&self, inode: InodeId, now: Duration) {
        let mut shard = lock(self.shard(inode));
        if shard.doubted.len() >= TOLD_MAX {
            shard.doubted.retain(|_, until| now <= *until);
        }
        shard.doubted.insert(inode, now + IN_FLIGHT);
    }

    fn invalidate(&self, inode: InodeId, offset: i64) {
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(error) = notifier.inval_inode(INodeNo(inode.raw()), offset, 0) {
            // It does not know the file: nothing is believed of it.
            tracing::trace!(%inode, %error, "nothing to forget");
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::{FileKind, TimeNs};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn attr(content_version: u64, size: u64) -> Attr {
        let time = TimeNs::from_raw(1);
        Attr {
            inode: InodeId::from_raw(7),
            generation: 1,
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            size,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            content_version,
        }
    }

    #[test]
    fn a_length_that_others_have_changed_is_not_trusted_for_as_long_as_it_may_be_believed() {
        let kernel = Kernel::new(SECOND);
        kernel.tell(&attr(1, 0), SECOND);
        assert!(kernel.opens(&attr(1, 0), Pages::Unknown, SECOND), "it was told");
        assert!(!kernel.opens(&attr(2, 9), Pages::Unknown, SECOND), "it was told another one");
        kernel.tell(&attr(2, 9), SECOND);
        assert!(!kernel.opens(&attr(2, 9), Pages::Right, 2 * SECOND), "it may have missed what it was told");
        assert!(kernel.opens(&attr(2, 9), Pages::Right, 3 * SECOND), "it has asked since");
        kernel.doubt(InodeId::from_raw(7), 3 * SECOND);
        assert!(!kernel.opens(&attr(2, 9), Pages::Right, 4 * SECOND), "it was made to forget");
    }

    #[test]
    fn old_pages_are_not_trusted_by_an_open_that_meets_the_one_that_drops_them() {
        let kernel = Kernel::new(SECOND);
        kernel.tell(&attr(2, 9), SECOND);
        assert!(kernel.opens(&attr(2, 9), Pages::Old, SECOND), "they are dropped before anybody reads");
        assert!(!kernel.opens(&attr(2, 9), Pages::Right, SECOND), "they may be there yet");
        assert!(kernel.opens(&attr(2, 9), Pages::Right, 3 * SECOND));
    }

    #[test]
    fn a_length_that_only_programs_here_have_changed_is_trusted() {
        let kernel = Kernel::new(SECOND);
        kernel.tell(&attr(1, 0), SECOND);
        assert!(kernel.opens(&attr(2, 9), Pages::Right, SECOND));
        assert!(kernel.opens(&attr(2, 9), Pages::Right, SECOND), "that it was made to forget says nothing");
    }
}
