//! Listing a directory: `.` and `..` at cookies 1 and 2, then the masters' entries, a page at a time.
//!
//! The kernel asks in bites of 4 KiB or so; a page is fetched once and handed out in bites. Several entries may bear one
//! cookie, and a bite may end between them, so the place is remembered as a position in the page too.

use std::time::Duration;

use fuser::{FileHandle, INodeNo};
use mooseng_types::{Attr, FileKind, InodeId, TimeNs};

use super::FuseFs;
use crate::fs::DirPage;
use crate::{Result, lock};

/// Entries fetched at once.
const PAGE: u32 = 1024;
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// An entry as the kernel is told it.
pub(super) struct Listed<'a> {
    pub(super) ino: INodeNo,
    pub(super) cookie: u64,
    pub(super) kind: FileKind,
    pub(super) name: &'a [u8],
    pub(super) attr: Option<Attr>,
}

/// A directory that is being listed.
#[derive(Debug)]
pub(crate) struct OpenDir {
    inode: InodeId,
    page: Option<Page>,
}

#[derive(Debug)]
struct Page {
    page: DirPage,
    plus: bool,
    stamp: u64,
    fetched: Duration,
    /// The cookie it goes on after.
    start: u64,
    /// The cookie told last, and which entry is next after it.
    place: (u64, usize),
}

impl OpenDir {
    pub(super) fn new(inode: InodeId) -> Self {
        Self { inode, page: None }
    }
}

impl Page {
    /// Which entry is next after `offset`; `None` if another page tells.
    fn position(&self, offset: u64) -> Option<usize> {
        let entries = &self.page.entries;
        let position = if self.place.0 == offset {
            self.place.1
        } else if self.start == offset {
            0
        } else {
            entries.iter().rposition(|entry| entry.cookie == offset)? + 1
        };
        (position < entries.len() || self.page.end).then_some(position)
    }

    /// Whether entries with the cookie told last are still to come: another page would leave them out.
    fn is_parted(&self, position: usize) -> bool {
        position > 0 && self.page.entries.get(position).is_some_and(|next| next.cookie == self.place.0)
    }
}

impl FuseFs {
    /// Hands out entries from `offset` on until `add` says that there is no more room.
    pub(super) fn list(
        &self,
        handle: FileHandle,
        mut offset: u64,
        plus: bool,
        mut add: impl FnMut(&Listed<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.dirs.get(handle)?;
        let mut dir = lock(&dir);
        if offset == 0 {
            // A list that begins anew (`rewinddir(3)`) shows what is there now.
            dir.page = None;
            if add(&dot(dir.inode, DOT, b".", plus)) {
                return Ok(());
            }
            offset = DOT;
        }
        if offset == DOT {
            let (page, _) = self.page(&mut dir, DOT_DOT, plus)?;
            if add(&dot(page.page.parent, DOT_DOT, b"..", plus)) {
                return Ok(());
            }
            offset = DOT_DOT;
        }
        loop {
            let (page, from) = self.page(&mut dir, offset, plus)?;
            for position in from..page.page.entries.len() {
                let entry = &page.page.entries[position];
                let listed = Listed {
                    ino: INodeNo(entry.inode.raw()),
                    cookie: entry.cookie,
                    kind: entry.kind,
                    name: &entry.name,
                    attr: entry.attr.map(|attr| self.client.seen(attr, page.stamp)),
                };
                if add(&listed) {
                    return Ok(());
                }
                offset = entry.cookie;
                page.place = (offset, position + 1);
            }
            if page.page.end || page.page.entries.is_empty() {
                return Ok(());
            }
        }
    }

    /// The page that goes on after `offset`, and where in it; fetched if the one at hand does not.
    fn page<'a>(&self, dir: &'a mut OpenDir, offset: u64, plus: bool) -> Result<(&'a mut Page, usize)> {
        let now = self.client.clock.monotonic();
        let at_hand = dir.page.take().and_then(|page| {
            let position = page.position(offset)?;
            let fresh = !plus || now.saturating_sub(page.fetched) <= self.attr_timeout;
            let usable = (page.plus || !plus) && (fresh || page.is_parted(position));
            usable.then_some((page, position))
        });
        let (page, position) = match at_hand {
            Some(found) => found,
            None => {
                let stamp = self.client.next_stamp();
                let cookie = if offset <= DOT_DOT { 0 } else { offset };
                let page = self.client.readdir(dir.inode, cookie, PAGE, plus)?;
                (Page { page, plus, stamp, fetched: now, start: offset, place: (offset, 0) }, 0)
            }
        };
        Ok((dir.page.insert(page), position))
    }
}

/// An entry for the directory itself or the one above. With attributes the kernel wants no node for these two (number
/// 0), only what the attributes say.
fn dot(inode: InodeId, cookie: u64, name: &[u8], plus: bool) -> Listed<'_> {
    let attr = plus.then(|| Attr {
        inode,
        generation: 0,
        kind: FileKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        nlink: 2,
        rdev: 0,
        size: 0,
        atime: TimeNs::default(),
        mtime: TimeNs::default(),
        ctime: TimeNs::default(),
        btime: TimeNs::default(),
        content_version: 0,
    });
    let ino = INodeNo(if plus { 0 } else { inode.raw() });
    Listed { ino, cookie, kind: FileKind::Directory, name, attr }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::DirEntry;

    fn page(cookies: &[u64], end: bool) -> Page {
        let entry = |cookie: &u64| DirEntry {
            inode: InodeId::from_raw(7),
            name: "x".into(),
            kind: FileKind::File,
            cookie: *cookie,
            attr: None,
        };
        let entries = cookies.iter().map(entry).collect();
        let page = DirPage { entries, end, parent: InodeId::ROOT };
        Page { page, plus: false, stamp: 0, fetched: Duration::ZERO, start: 2, place: (2, 0) }
    }

    #[test]
    fn a_list_goes_on_where_it_stopped_also_between_entries_of_one_cookie() {
        let mut page = page(&[10, 20, 20, 20, 30], false);
        assert_eq!(page.position(2), Some(0));
        page.place = (20, 2);
        assert_eq!(page.position(20), Some(2));
        assert!(page.is_parted(2));
        assert_eq!(page.position(10), Some(1));
        page.place = (30, 5);
        assert_eq!(page.position(30), None);
        assert_eq!(page.position(20), Some(4));
        assert_eq!(page.position(99), None);
    }

    #[test]
    fn the_end_of_the_last_page_needs_no_other() {
        let mut page = page(&[10], true);
        page.place = (10, 1);
        assert_eq!(page.position(10), Some(1));
    }
}
