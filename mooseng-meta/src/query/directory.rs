//! Listing a directory.

use mooseng_types::{FileKind, FileName, FsError, InodeId};

use crate::inode::Dentry;
use crate::key;
use crate::state::MetaState;
use crate::tables::decode;

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Where it leads.
    pub inode: InodeId,
    /// What is there.
    pub kind: FileKind,
    /// Its name.
    pub name: FileName,
    /// Its place: a listing from this cookie goes on after it.
    pub cookie: u64,
}

/// A part of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// The directory above: what `..` is.
    pub parent: InodeId,
    /// The entries, by rising cookie.
    pub entries: Vec<DirEntry>,
    /// Nothing follows.
    pub end: bool,
}

impl MetaState {
    /// The entries behind `cookie` (0: from the start), about `entries_max` of them and at least one: entries that
    /// share a cookie are never parted over two listings. What is added or removed meanwhile shifts nothing, because
    /// an entry's place follows from its name.
    pub fn readdir(&self, inode: InodeId, cookie: u64, entries_max: usize) -> Result<Listing, FsError> {
        let parent = self.tables.need_dir(inode)?.parent;
        let mut entries: Vec<DirEntry> = Vec::new();
        let mut end = true;
        let from = key::dentries_from(inode, cookie.saturating_add(1));
        self.tables.rows.scan(&key::dentries(inode), &from, &mut |key, value| {
            let cookie = key::number_at(key, 9);
            let parted = entries.last().is_none_or(|last| last.cookie != cookie);
            if parted && entries.len() >= entries_max.max(1) {
                end = false;
                return false;
            }
            let Dentry { inode, kind } = decode(key, value);
            let Ok(name) = FileName::parse(key.get(17..).unwrap_or_default()) else {
                panic!("metadata row {} has no name", key.escape_ascii());
            };
            entries.push(DirEntry { inode, kind, name, cookie });
            true
        });
        Ok(Listing { parent, entries, end })
    }
}
