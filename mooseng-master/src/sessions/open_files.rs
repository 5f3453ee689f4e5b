//! What one session has open. Its opens and releases are numbered in the order in which the client has made them, and may
//! arrive in another, twice, or by way of a list: an inode's latest counts.

use std::collections::{BTreeMap, BTreeSet};

use mooseng_types::InodeId;

/// Releases remembered, so that an open that was sent before one and comes after it opens nothing. Of more the oldest is
/// forgotten: then such a file counts as open until the session's next list.
const RELEASED_MAX: usize = 4096;

/// The open files of a session.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    /// With the number of the last open known, or that of the list that told of it.
    open: BTreeMap<InodeId, u64>,
    released: BTreeMap<InodeId, u64>,
    releases: BTreeSet<(u64, InodeId)>,
}

impl OpenFiles {
    pub(crate) fn open(&mut self, inode: InodeId, number: u64) {
        if self.released.get(&inode).is_some_and(|released| number < *released) {
            return;
        }
        self.forget_release(inode);
        let last = self.open.entry(inode).or_default();
        *last = number.max(*last);
    }

    pub(crate) fn release(&mut self, inode: InodeId, number: u64) {
        if self.open.get(&inode).is_some_and(|opened| *opened >= number) {
            return;
        }
        self.open.remove(&inode);
        let last = self.released.get(&inode).copied().unwrap_or(0).max(number);
        self.forget_release(inode);
        self.released.insert(inode, last);
        self.releases.insert((last, inode));
        if self.releases.len() > RELEASED_MAX
            && let Some((_, oldest)) = self.releases.pop_first()
        {
            self.released.remove(&oldest);
        }
    }

    /// All that is open as of the open or release with the number `as_of`. What has a higher number stays as it is.
    pub(crate) fn list(&mut self, as_of: u64, listed: impl IntoIterator<Item = InodeId>) {
        self.open.retain(|_, number| *number > as_of);
        self.released.retain(|_, number| *number > as_of);
        self.releases.retain(|(number, _)| *number > as_of);
        for inode in listed {
            if !self.released.contains_key(&inode) {
                self.open.entry(inode).or_insert(as_of);
            }
        }
    }

    pub(crate) fn is_open(&self, inode: InodeId) -> bool {
        self.open.contains_key(&inode)
    }

    fn forget_release(&mut self, inode: InodeId) {
        if let Some(number) = self.released.remove(&inode) {
            self.releases.remove(&(number, inode));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const INODES: u64 = 4;

    fn inode(raw: u64) -> InodeId {
        InodeId::from_raw(raw)
    }

    /// What reaches the master.
    #[derive(Clone, Debug)]
    enum Event {
        Open(u64, u64),
        Release(u64, u64),
        List(u64, BTreeSet<u64>),
    }

    /// What a client has open after its first `count` opens and releases.
    fn truth(history: &[(u64, bool)], count: usize) -> BTreeSet<u64> {
        let mut open = BTreeSet::new();
        for (inode, opens) in &history[..count] {
            if *opens {
                open.insert(*inode)
            } else {
                open.remove(inode)
            };
        }
        open
    }

    fn apply(files: &mut OpenFiles, event: &Event) {
        match event {
            Event::Open(of, number) => files.open(inode(*of), *number),
            Event::Release(of, number) => files.release(inode(*of), *number),
            Event::List(as_of, listed) => files.list(*as_of, listed.iter().map(|raw| inode(*raw))),
        }
    }

    /// A client's opens and releases, what comes of them in some order, and some of it twice.
    fn stories() -> impl Strategy<Value = (Vec<(u64, bool)>, Vec<Event>)> {
        let history = vec((0..INODES, any::<bool>()), 1..14);
        history.prop_flat_map(|history| {
            let mut events: Vec<Event> = Vec::new();
            for (number, (of, opens)) in (1..).zip(&history) {
                events.push(if *opens { Event::Open(*of, number) } else { Event::Release(*of, number) });
            }
            let again = vec(0..events.len(), 0..4);
            let lists = vec(0..=events.len(), 0..3);
            (Just(history), Just(events), again, lists).prop_flat_map(
                |(history, mut events, again, lists)| {
                    events.extend(again.iter().map(|at| events[*at].clone()).collect::<Vec<_>>());
                    events.extend(
                        lists.iter().map(|count| Event::List(*count as u64, truth(&history, *count))),
                    );
                    (Just(history), Just(events).prop_shuffle())
                },
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

        #[test]
        fn in_whatever_order_they_come_an_inodes_latest_open_or_release_counts((history, events) in stories()) {
            let mut files = OpenFiles::default();
            let end = truth(&history, history.len());
            let lists = events.iter().any(|event| matches!(event, Event::List(..)));
            for event in &events {
                apply(&mut files, event);
                // From the moment that the last word on a file is here and says that it is open, nothing closes it.
                if let Event::Open(of, number) = event {
                    let last = history.iter().rposition(|(inode, _)| inode == of).unwrap() as u64 + 1;
                    prop_assert!(last != *number || files.is_open(inode(*of)));
                }
            }
            for raw in 0..INODES {
                let (is, should) = (files.is_open(inode(raw)), end.contains(&raw));
                // An open that comes after a list which knows of its release may count until the next list.
                prop_assert!(is == should || (is && lists), "{raw}: {is}");
            }
            apply(&mut files, &Event::List(history.len() as u64, end.clone()));
            for raw in 0..INODES {
                prop_assert_eq!(files.is_open(inode(raw)), end.contains(&raw));
            }
        }
    }

    #[test]
    fn a_list_takes_nothing_from_an_open_that_was_under_way() {
        let mut files = OpenFiles::default();
        files.open(inode(1), 1);
        files.open(inode(2), 3);
        files.list(2, [inode(7)]);
        assert_eq!([1, 2, 7].map(|raw| files.is_open(inode(raw))), [false, true, true]);
        files.release(inode(7), 2);
        files.release(inode(2), 3);
        assert!(files.is_open(inode(7)) && files.is_open(inode(2)), "both were opened later");
        files.release(inode(7), 4);
        assert!(!files.is_open(inode(7)));
    }

    #[test]
    fn releases_are_remembered_within_a_bound() {
        let mut files = OpenFiles::default();
        (1..10_000).for_each(|number| files.release(inode(number), number));
        assert_eq!((files.released.len(), files.releases.len()), (RELEASED_MAX, RELEASED_MAX));
        files.open(inode(9_999), 5);
        assert!(!files.is_open(inode(9_999)));
        files.list(20_000, []);
        assert!(files.released.is_empty() && files.releases.is_empty());
    }
}
