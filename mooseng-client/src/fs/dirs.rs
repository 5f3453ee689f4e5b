//! Directories and totals.

use mooseng_types::InodeId;

use super::{DirPage, FsStats};
use crate::Result;
use crate::client::Client;

impl Client {
    /// Up to `entries_max` entries of a directory after `cookie` (0: from the start); with attributes if `plus`.
    pub fn readdir(&self, inode: InodeId, cookie: u64, entries_max: u32, plus: bool) -> Result<DirPage> {
        let stamp = self.next_stamp();
        let mut page = self.masters.readdir(inode, cookie, entries_max, plus)?;
        for entry in &mut page.entries {
            entry.attr = entry.attr.map(|attr| self.seen(attr, stamp));
        }
        Ok(page)
    }

    /// Totals of the file system.
    pub fn statfs(&self) -> Result<FsStats> {
        self.masters.stat_fs()
    }
}
