//! What the kernel has been told and may still believe, and how it is made to forget.
//!
//! It believes attributes for a time. An open must show what others have closed before it, so attributes that differ from
//! those told last are taken back before the open is answered. Pages are dropped when somebody else has changed the
//! content, on a thread of its own: dropping a page waits for whoever reads it.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use fuser::{INodeNo, Notifier};
use mooseng_types::{Attr, InodeId};

use crate::lock;

const SHARDS: usize = 16;
/// Files whose attributes are remembered, in each shard.
const TOLD_MAX: usize = 8192;

#[derive(Debug, Default)]
struct Shard {
    told: HashMap<InodeId, Told>,
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

    /// A file with these attributes is being opened: others that the kernel may believe are taken back.
    pub(super) fn opens(&self, attr: &Attr, now: Duration) {
        let stale = {
            let shard = lock(self.shard(attr.inode));
            match shard.told.get(&attr.inode) {
                Some(told) => {
                    let same = (told.content_version, told.size) == (attr.content_version, attr.size);
                    !same && now <= told.until
                }
                None => now <= shard.unknown_until,
            }
        };
        if stale {
            self.forget_attributes(attr.inode);
        }
    }

    /// The kernel asks for the attributes anew before it uses them.
    pub(super) fn forget_attributes(&self, inode: InodeId) {
        self.invalidate(inode, -1);
    }

    /// The kernel drops the pages too; waits for those that are being read.
    pub(crate) fn forget_content(&self, inode: InodeId) {
        self.invalidate(inode, 0);
    }

    fn invalidate(&self, inode: InodeId, offset: i64) {
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(error) = notifier.inval_inode(INodeNo(inode.raw()), offset, 0) {
            // It does not know the file: nothing is believed of it.
            tracing::trace!(%inode, %error, "nothing to forget");
        }
    }
}
