//! The copies with open files, on all disks: how many there may be, and which are closed for others, the longest unused
//! first. It knows of a copy only what [`Closable`] says.
//!
//! Its lock is the last to be taken, and nothing is called under it. A copy says that it was opened or closed while it
//! holds its own lock, so that the list is right whenever nobody has that lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Open files are the scarce thing: this many copies stay open for each disk.
const OPEN_PER_DISK: usize = 2048;
/// And no more than this many in all: three quarters of the open files that a server asks for, so that connections and
/// sidecars find theirs.
const OPEN_MAX: usize = 49_152;
/// Copies closed by one opening, at most: its own copy is locked meanwhile.
const BATCH_MAX: usize = 256;

/// What a list of open copies has to know of one.
pub(super) trait Closable {
    /// When it was last used, by a clock that is the same for all copies.
    fn last_used_ms(&self) -> u64;

    /// Closes its files and says so with [`OpenCopies::closed`]; `false` if somebody needs them. Does not wait for who does.
    fn try_close(&self) -> bool;
}

/// The copies with open files.
#[derive(Debug)]
pub(super) struct OpenCopies<C> {
    max: usize,
    /// By their address, which nothing else has while an entry is there. A copy has this list, so the list does not keep
    /// the copy; the store's index does.
    copies: Mutex<HashMap<usize, Weak<C>>>,
}

impl<C: Closable> OpenCopies<C> {
    /// An empty list for a server of so many disks.
    pub(super) fn of_disks(disks: usize) -> Self {
        Self::with_max((disks * OPEN_PER_DISK).min(OPEN_MAX))
    }

    fn with_max(max: usize) -> Self {
        Self { max, copies: Mutex::default() }
    }

    /// Takes in a copy that was opened, and closes others where there are too many.
    pub(super) fn opened(&self, copy: &Arc<C>) {
        let mut by_age = {
            let mut copies = self.lock();
            copies.insert(address(&**copy), Arc::downgrade(copy));
            if copies.len() <= self.max {
                return;
            }
            living(&mut copies)
        };
        if by_age.len() <= self.max {
            return;
        }
        by_age.retain(|other| !Arc::ptr_eq(other, copy));
        // Cached, since copies are used while they are sorted.
        by_age.sort_by_cached_key(|other| other.last_used_ms());
        // A batch, so that the sorting is paid for once in many openings. Those that somebody needs are passed over: on a
        // disk that hangs, that may be all.
        let batch = self.max.div_ceil(8).min(BATCH_MAX);
        by_age.iter().filter(|other| other.try_close()).take(batch).for_each(drop);
    }

    /// Lets go of a copy that was closed.
    pub(super) fn closed(&self, copy: &C) {
        self.lock().remove(&address(copy));
    }

    /// The copies with open files, in no order.
    pub(super) fn list(&self) -> Vec<Arc<C>> {
        living(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Weak<C>>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address<C>(copy: &C) -> usize {
    std::ptr::from_ref(copy).addr()
}

/// The copies that there still are; the others have closed their files when they went.
fn living<C>(copies: &mut HashMap<usize, Weak<C>>) -> Vec<Arc<C>> {
    let mut living = Vec::with_capacity(copies.len());
    copies.retain(|_, copy| copy.upgrade().map(|copy| living.push(copy)).is_some());
    living
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 16;
    const BATCH: usize = 2;

    #[derive(Debug)]
    struct Copy {
        name: usize,
        used: AtomicU64,
        needed: AtomicBool,
        copies: Arc<OpenCopies<Self>>,
    }

    impl Closable for Copy {
        fn last_used_ms(&self) -> u64 {
            self.used.load(Relaxed)
        }

        fn try_close(&self) -> bool {
            let closes = !self.needed.load(Relaxed);
            if closes {
                self.copies.closed(self);
            }
            closes
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Open(usize),
        Use(usize),
        Need(usize, bool),
        Close(usize),
        /// The copy goes, and another of the name comes.
        Replace(usize),
        List,
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = || 0..MAX * 2;
        prop_oneof![
            6 => name().prop_map(Step::Open),
            3 => name().prop_map(Step::Use),
            2 => (name(), any::<bool>()).prop_map(|(name, needed)| Step::Need(name, needed)),
            1 => name().prop_map(Step::Close),
            1 => name().prop_map(Step::Replace),
            2 => Just(Step::List),
        ]
    }

    /// The same with a map that is searched from end to end.
    #[derive(Default)]
    struct Model {
        open: BTreeSet<usize>,
        used: BTreeMap<usize, u64>,
        needed: BTreeSet<usize>,
    }

    impl Model {
        fn open(&mut self, name: usize) {
            self.open.insert(name);
            let closing = if self.open.len() > MAX { BATCH } else { 0 };
            for _ in 0..closing {
                let may_go = self.open.iter().filter(|other| **other != name && !self.needed.contains(other));
                let oldest = may_go.min_by_key(|other| self.used.get(other)).copied();
                oldest.map(|oldest| self.open.remove(&oldest));
            }
        }
    }

    proptest! {
        #[test]
        fn the_longest_unused_that_nobody_needs_are_closed_and_all_others_are_listed(
            steps in proptest::collection::vec(step(), 1..300)
        ) {
            let open_copies = Arc::new(OpenCopies::with_max(MAX));
            let make = |name| {
                let (used, needed) = (AtomicU64::new(0), AtomicBool::new(false));
                Arc::new(Copy { name, used, needed, copies: Arc::clone(&open_copies) })
            };
            let mut copies: Vec<_> = (0..MAX * 2).map(make).collect();
            let mut model = Model::default();
            for (now, step) in (1..).zip(steps) {
                match step {
                    Step::Open(name) => {
                        copies[name].used.store(now, Relaxed);
                        model.used.insert(name, now);
                        open_copies.opened(&copies[name]);
                        model.open(name);
                    }
                    Step::Use(name) => {
                        copies[name].used.store(now, Relaxed);
                        model.used.insert(name, now);
                    }
                    Step::Need(name, true) => {
                        copies[name].needed.store(true, Relaxed);
                        model.needed.insert(name);
                    }
                    Step::Need(name, false) => {
                        copies[name].needed.store(false, Relaxed);
                        model.needed.remove(&name);
                    }
                    Step::Close(name) => {
                        open_copies.closed(&copies[name]);
                        model.open.remove(&name);
                    }
                    Step::Replace(name) => {
                        copies[name] = make(name);
                        model.open.remove(&name);
                        model.needed.remove(&name);
                    }
                    Step::List => {
                        let listed: BTreeSet<_> = open_copies.list().iter().map(|copy| copy.name).collect();
                        prop_assert_eq!(&listed, &model.open);
                    }
                }
            }
        }
    }
}
