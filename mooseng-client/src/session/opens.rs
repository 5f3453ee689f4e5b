//! Which files are open, and what the masters are told of it. Pure.
//!
//! Opens and releases are numbered by one count. The masters keep for each file the number under which it was opened: a
//! release closes only what was opened before it, and a list replaces only what it can know of. So requests on different
//! connections may pass each other, and an open that is under way while a list is made is not lost.

use std::collections::{BTreeMap, BTreeSet};

use mooseng_types::InodeId;

/// Files closed by one release.
const RELEASE_MAX: usize = 256;

#[derive(Debug, Default)]
struct Entry {
    handles: u32,
    /// Opens under way.
    opening: u32,
}

/// Everything that is open, for a new leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenList {
    /// It knows of every open and release up to this number.
    pub as_of: u64,
    /// What is open, or being opened.
    pub inodes: Vec<InodeId>,
}

/// The open files of a client.
#[derive(Debug, Default)]
pub struct OpenFiles {
    last: u64,
    /// Files that the masters have, or may have, down as open.
    open: BTreeMap<InodeId, Entry>,
    /// Those among them that no program has open.
    idle: BTreeSet<InodeId>,
    /// Creates under way: which files they open is not known yet.
    creating: BTreeSet<u64>,
    /// Releases that were told since the last list was begun: it may have passed them.
    released_since: bool,
}

impl OpenFiles {
    /// An open begins; returns its number.
    pub fn begin(&mut self, inode: InodeId) -> u64 {
        self.open.entry(inode).or_default().opening += 1;
        self.idle.remove(&inode);
        self.number()
    }

    /// A create that opens its file begins; returns its number.
    pub fn begin_create(&mut self) -> u64 {
        let number = self.number();
        self.creating.insert(number);
        number
    }

    /// A create has come to an end; `inode` is what it has made and opened.
    pub fn end_create(&mut self, number: u64, inode: Option<InodeId>) {
        self.creating.remove(&number);
        if let Some(inode) = inode {
            self.open.entry(inode).or_default().handles += 1;
            self.look(inode);
        }
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// An open has come to an end; `open` says whether there is a handle more.
    pub fn end(&mut self, inode: InodeId, open: bool) {
        let entry = self.open.entry(inode).or_default();
        entry.opening = entry.opening.saturating_sub(1);
        entry.handles += u32::from(open);
        self.look(inode);
    }

    /// A handle is closed.
    pub fn closed(&mut self, inode: InodeId) {
        if let Some(entry) = self.open.get_mut(&inode) {
            entry.handles = entry.handles.saturating_sub(1);
        }
        self.look(inode);
    }

    fn look(&mut self, inode: InodeId) {
        if self.is_known(inode) && !self.is_open(inode) {
            self.idle.insert(inode);
        } else {
            self.idle.remove(&inode);
        }
    }

    /// How many files no program has open and the masters do not know it.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Whether a program has the file open, or is about to.
    #[must_use]
    pub fn is_open(&self, inode: InodeId) -> bool {
        self.open.get(&inode).is_some_and(|entry| entry.handles > 0 || entry.opening > 0)
    }

    /// Whether the masters may have it down as open.
    #[must_use]
    pub fn is_known(&self, inode: InodeId) -> bool {
        self.open.contains_key(&inode)
    }

    /// Files that no program has open and that `may_go` lets go, and the number of their release.
    pub fn take_closed(&mut self, may_go: impl Fn(InodeId) -> bool) -> Option<(u64, Vec<InodeId>)> {
        let going: Vec<InodeId> =
            self.idle.iter().copied().filter(|inode| may_go(*inode)).take(RELEASE_MAX).collect();
        if going.is_empty() {
            return None;
        }
        for inode in &going {
            self.open.remove(inode);
            self.idle.remove(inode);
        }
        self.released_since = true;
        Some((self.number(), going))
    }

    /// Everything that is open, for a new leader.
    pub fn list(&mut self) -> OpenList {
        self.released_since = false;
        let as_of = self.creating.first().map_or(self.last, |first| first - 1);
        OpenList { as_of, inodes: self.open.keys().copied().collect() }
    }

    /// Whether the last list that was told is still right. A release that passed it may have been undone by it.
    #[must_use]
    pub fn list_holds(&self) -> bool {
        !self.released_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inode(raw: u64) -> InodeId {
        InodeId::from_raw(raw)
    }

    #[test]
    fn a_list_names_what_is_being_opened_and_says_how_far_it_knows() {
        let mut files = OpenFiles::default();
        let number = files.begin(inode(5));
        let list = files.list();
        assert_eq!(list, OpenList { as_of: number, inodes: vec![inode(5)] });
        files.end(inode(5), true);
        files.closed(inode(5));
        assert!(files.take_closed(|_| false).is_none());
        let (release, closed) = files.take_closed(|_| true).unwrap();
        assert!(release > number && closed == [inode(5)]);
        assert!(!files.list_holds(), "the list may have passed the release");
        assert!(files.list().inodes.is_empty() && files.list_holds());
    }

    #[test]
    fn a_list_says_nothing_of_a_create_that_is_under_way() {
        let mut files = OpenFiles::default();
        files.begin(inode(5));
        let number = files.begin_create();
        files.begin(inode(6));
        assert!(files.list().as_of < number);
        files.end_create(number, Some(inode(7)));
        assert!(files.is_open(inode(7)) && files.list().as_of > number);
    }

    /// What the masters do with the numbers.
    #[derive(Default)]
    struct Masters {
        open: BTreeMap<InodeId, u64>,
    }

    #[derive(Debug, Clone)]
    enum Message {
        Open(InodeId, u64),
        Release(Vec<InodeId>, u64),
        List(OpenList),
    }

    impl Masters {
        fn take(&mut self, message: Message) {
            match message {
                Message::Open(inode, number) => {
                    let known = self.open.entry(inode).or_default();
                    *known = (*known).max(number);
                }
                Message::Release(inodes, number) => {
                    self.open.retain(|inode, opened| !inodes.contains(inode) || *opened > number);
                }
                Message::List(list) => {
                    self.open.retain(|_, opened| *opened > list.as_of);
                    for inode in list.inodes {
                        self.open.entry(inode).or_insert(list.as_of);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_order_requests_arrive_in_nothing_that_is_open_counts_as_closed(
            steps in proptest::collection::vec((0u8..4, 1u64..4, any::<prop::sample::Index>()), 1..80)
        ) {
            let mut files = OpenFiles::default();
            let mut masters = Masters::default();
            let mut under_way: Vec<Message> = Vec::new();
            let mut handles: BTreeMap<InodeId, u32> = BTreeMap::new();
            for (what, which, index) in steps {
                match what {
                    0 => under_way.push(Message::Open(inode(which), files.begin(inode(which)))),
                    1 if handles.get(&inode(which)).copied().unwrap_or(0) > 0 => {
                        *handles.entry(inode(which)).or_default() -= 1;
                        files.closed(inode(which));
                        if let Some((number, inodes)) = files.take_closed(|_| true) {
                            under_way.push(Message::Release(inodes, number));
                        }
                    }
                    2 => under_way.push(Message::List(files.list())),
                    _ if !under_way.is_empty() => {
                        let message = under_way.swap_remove(index.index(under_way.len()));
                        masters.take(message.clone());
                        if let Message::Open(inode, _) = message {
                            files.end(inode, true);
                            *handles.entry(inode).or_default() += 1;
                        }
                    }
                    _ => {}
                }
                for (inode, count) in &handles {
                    prop_assert!(*count == 0 || masters.open.contains_key(inode), "{inode} counts as closed");
                }
            }
        }
    }
}
