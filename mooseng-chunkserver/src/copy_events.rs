//! What happened to copies since a leader was last told: coalesced by copy, so that it can never grow beyond what there is.
//!
//! Every master that says it leads has an ear of its own. One that leads no more may not know it yet, and each cell has a leader: what
//! one of them was told the others have still to hear.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_types::{ChunkVersion, Part};

/// Events kept; beyond, a full report is due instead. A full report of so many copies is not much longer.
const EVENTS_MAX: usize = 100_000;

/// What happened to a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CopyEvent {
    /// It is here.
    Here {
        /// With this version.
        version: ChunkVersion,
        /// It was being written when the server died, and nobody has made it good since.
        in_doubt: bool,
        /// Every block of it was read and matched since the masters were last told of it.
        verified: bool,
    },
    /// It is gone: deleted on order, or broken.
    Lost,
}

impl CopyEvent {
    /// Whether it tells that this version was verified.
    pub(crate) fn verifies(&self, wanted: ChunkVersion) -> bool {
        matches!(self, Self::Here { version, verified: true, .. } if *version == wanted)
    }
}

/// A copy that was to be fetched and was not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FailedFetch {
    /// The address of the server that was asked.
    pub(crate) source: String,
    pub(crate) reason: FetchReason,
}

/// Why, by what the leader would do differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FetchReason {
    /// The source does not answer.
    Unreachable,
    /// Its copy is damaged.
    Damaged,
    /// Its copy is older than was wanted.
    Older,
    /// There is no room here.
    NoSpace,
    /// Anything else.
    Other,
}

/// Where events are noted.
#[derive(Debug)]
pub(crate) struct CopyEvents {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inboxes: BTreeMap<u64, Inbox>,
    /// The number of the next ear.
    next: u64,
    stopping: bool,
}

/// Events that a master is to be told. It goes with the talk with that master; a talk begins with everything there is.
#[derive(Debug)]
pub(crate) struct Ear {
    events: Arc<CopyEvents>,
    number: u64,
}

#[derive(Debug, Default)]
struct Inbox {
    by_part: BTreeMap<Part, CopyEvent>,
    failed: BTreeMap<Part, FailedFetch>,
    overflowed: bool,
    /// Something of it is to be told before the next heartbeat.
    urgent: bool,
}

/// What there is to tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToTell {
    /// These events.
    Some(Vec<(Part, CopyEvent)>),
    /// Too many to name: everything.
    Everything,
}

impl Default for CopyEvents {
    fn default() -> Self {
        let state = State::default();
        // What the tests of a store look into.
        #[cfg(test)]
        let state = State { inboxes: [(tests::EAR, Inbox::default())].into(), ..state };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }
}

impl CopyEvents {
    /// Notes an event.
    pub(crate) fn note(&self, part: Part, event: CopyEvent) {
        self.for_all(|inbox| inbox.note(part, event));
    }

    /// Notes an event that may wait for the next heartbeat: a writer has taken a copy along, as writers do all the time.
    pub(crate) fn note_in_passing(&self, part: Part, event: CopyEvent) {
        self.lock().inboxes.values_mut().for_each(|inbox| inbox.put(part, event));
    }

    /// Notes that a copy is here, which is nothing new: that it was verified, and is not told yet, stays true.
    pub(crate) fn remind(&self, part: Part, version: ChunkVersion, in_doubt: bool) {
        self.for_all(|inbox| {
            let verified = inbox.by_part.get(&part).is_some_and(|pending| pending.verifies(version));
            inbox.note(part, CopyEvent::Here { version, in_doubt, verified });
        });
    }

    /// Notes that a copy was not fetched.
    pub(crate) fn not_fetched(&self, part: Part, failed: &FailedFetch) {
        self.for_all(|inbox| inbox.put_failed(part, failed.clone()));
    }

    /// Forgets that an earlier try to fetch a copy has failed: it is here.
    pub(crate) fn fetched(&self, part: Part) {
        self.for_all(|inbox| drop(inbox.failed.remove(&part)));
    }

    /// A master is to hear what happens from now on.
    pub(crate) fn listen(self: &Arc<Self>) -> Ear {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.inboxes.insert(number, Inbox::default());
        Ear { events: Arc::clone(self), number }
    }

    /// Waits until the end is near, or `timeout` is over.
    pub(crate) fn wait_for_stop(&self, timeout: Duration) {
        drop(self.wake.wait_timeout_while(self.lock(), timeout, |state| !state.stopping));
    }

    /// Wakes everyone who waits, from now on at once.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.wake.notify_all();
    }

    /// Whether the end is near.
    pub(crate) fn stopping(&self) -> bool {
        self.lock().stopping
    }

    fn for_all(&self, change: impl FnMut(&mut Inbox)) {
        self.lock().inboxes.values_mut().for_each(change);
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ear {
    fn inbox<T: Default>(&self, look: impl FnOnce(&mut Inbox) -> T) -> T {
        self.events.lock().inboxes.get_mut(&self.number).map(look).unwrap_or_default()
    }

    /// Takes up to `max` events; the taker puts them back if they could not be told.
    pub(crate) fn take(&self, max: usize) -> ToTell {
        self.inbox(|inbox| inbox.take(max))
    }

    /// Puts back what could not be told. A newer event of the same copy wins.
    pub(crate) fn put_back(&self, events: ToTell) {
        self.inbox(|inbox| inbox.put_back(events));
    }

    /// Takes everything: a full report, made after this, will tell it.
    pub(crate) fn take_all(&self) -> BTreeMap<Part, CopyEvent> {
        self.inbox(Inbox::take_all)
    }

    /// Takes up to `max` copies that were not fetched; the taker puts them back as with events.
    pub(crate) fn take_failed(&self, max: usize) -> Vec<(Part, FailedFetch)> {
        self.inbox(|inbox| inbox.take_failed(max))
    }

    /// Puts back what could not be told. What has happened since wins.
    pub(crate) fn put_back_failed(&self, failed: Vec<(Part, FailedFetch)>) {
        self.inbox(|inbox| inbox.put_back_failed(failed));
    }

    /// Waits until something is to be told, the end is near, or `timeout` is over.
    pub(crate) fn wait(&self, timeout: Duration) {
        let idle = |state: &mut State| {
            !state.stopping && !state.inboxes.get(&self.number).is_some_and(|inbox| inbox.urgent)
        };
        drop(self.events.wake.wait_timeout_while(self.events.lock(), timeout, idle));
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.events.lock().inboxes.remove(&self.number);
    }
}

impl Default for ToTell {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Inbox {
    fn note(&mut self, part: Part, event: CopyEvent) {
        self.urgent = true;
        self.put(part, event);
    }

    fn put(&mut self, part: Part, event: CopyEvent) {
        self.by_part.insert(part, event);
        self.bound();
    }

    fn take(&mut self, max: usize) -> ToTell {
        self.urgent = self.by_part.len() > max;
        if std::mem::take(&mut self.overflowed) {
            return ToTell::Everything;
        }
        ToTell::Some(std::iter::from_fn(|| self.by_part.pop_first()).take(max).collect())
    }

    fn put_back(&mut self, events: ToTell) {
        self.urgent = true;
        match events {
            ToTell::Everything => self.overflowed = true,
            ToTell::Some(events) => {
                for (part, event) in events {
                    self.by_part.entry(part).or_insert(event);
                }
                self.bound();
            }
        }
    }

    fn take_all(&mut self) -> BTreeMap<Part, CopyEvent> {
        self.overflowed = false;
        std::mem::take(&mut self.by_part)
    }

    fn take_failed(&mut self, max: usize) -> Vec<(Part, FailedFetch)> {
        std::iter::from_fn(|| self.failed.pop_first()).take(max).collect()
    }

    fn put_back_failed(&mut self, failed: Vec<(Part, FailedFetch)>) {
        for (part, failed) in failed {
            if !self.failed.contains_key(&part) {
                self.put_failed(part, failed);
            }
        }
    }

    /// Of too many, the leader finds the others out by itself, later.
    fn put_failed(&mut self, part: Part, failed: FailedFetch) {
        self.urgent = true;
        if self.failed.len() < EVENTS_MAX || self.failed.contains_key(&part) {
            self.failed.insert(part, failed);
        }
    }

    fn bound(&mut self) {
        if self.by_part.len() > EVENTS_MAX {
            self.by_part.clear();
            (self.overflowed, self.urgent) = (true, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::ChunkId;

    use super::*;

    /// The ear that the tests of a store have.
    pub(crate) const EAR: u64 = u64::MAX;

    /// As an ear that has listened from the beginning.
    impl CopyEvents {
        fn in_tests<T>(&self, look: impl FnOnce(&mut Inbox) -> T) -> T {
            look(self.lock().inboxes.get_mut(&EAR).unwrap())
        }

        pub(crate) fn take(&self, max: usize) -> ToTell {
            self.in_tests(|inbox| inbox.take(max))
        }

        pub(crate) fn put_back(&self, events: ToTell) {
            self.in_tests(|inbox| inbox.put_back(events));
        }

        pub(crate) fn take_all(&self) -> BTreeMap<Part, CopyEvent> {
            self.in_tests(Inbox::take_all)
        }

        pub(crate) fn take_failed(&self, max: usize) -> Vec<(Part, FailedFetch)> {
            self.in_tests(|inbox| inbox.take_failed(max))
        }

        pub(crate) fn put_back_failed(&self, failed: Vec<(Part, FailedFetch)>) {
            self.in_tests(|inbox| inbox.put_back_failed(failed));
        }
    }

    fn part(chunk: u64) -> Part {
        Part::whole(ChunkId::from_raw(chunk))
    }

    #[test]
    fn the_last_event_of_a_copy_is_told_and_one_put_back_yields_to_a_newer() {
        let events = CopyEvents::default();
        let (a, b) = (part(1), part(2));
        let here = CopyEvent::Here { version: ChunkVersion::from_raw(1), in_doubt: false, verified: false };
        events.note(a, here);
        events.note(b, CopyEvent::Lost);
        let taken = events.take(10);
        assert_eq!(taken, ToTell::Some(vec![(a, here), (b, CopyEvent::Lost)]));
        events.note(a, CopyEvent::Lost);
        events.put_back(taken);
        assert_eq!(events.take(1), ToTell::Some(vec![(a, CopyEvent::Lost)]));
        assert_eq!(events.take(9), ToTell::Some(vec![(b, CopyEvent::Lost)]));
    }

    #[test]
    fn what_was_verified_stays_so_until_it_is_told_or_changed() {
        let events = CopyEvents::default();
        let [one, two] = [1, 2].map(ChunkVersion::from_raw);
        let here = |version, verified| CopyEvent::Here { version, in_doubt: false, verified };
        events.note(part(1), here(one, true));
        events.remind(part(1), one, false);
        assert_eq!(events.take(1), ToTell::Some(vec![(part(1), here(one, true))]));
        events.remind(part(1), one, false);
        assert_eq!(events.take(1), ToTell::Some(vec![(part(1), here(one, false))]), "it was told");
        events.note(part(1), here(one, true));
        events.remind(part(1), two, false);
        assert_eq!(events.take(1), ToTell::Some(vec![(part(1), here(two, false))]));
    }

    #[test]
    fn too_many_events_become_a_full_report() {
        let events = CopyEvents::default();
        for i in 0..=EVENTS_MAX as u64 {
            events.note(part(i), CopyEvent::Lost);
        }
        assert_eq!(events.take(10), ToTell::Everything);
        assert_eq!(events.take(10), ToTell::Some(vec![]));
    }

    #[test]
    fn what_one_master_was_told_another_has_still_to_hear() {
        let events = Arc::<CopyEvents>::default();
        let one = events.listen();
        events.note(part(1), CopyEvent::Lost);
        let two = events.listen();
        events.note(part(2), CopyEvent::Lost);
        let lost = |chunks: &[u64]| {
            ToTell::Some(chunks.iter().map(|chunk| (part(*chunk), CopyEvent::Lost)).collect())
        };
        assert_eq!((one.take(9), one.take(9)), (lost(&[1, 2]), lost(&[])));
        assert_eq!(two.take(9), lost(&[2]), "the rest was in its full report");
        drop(one);
        events.note(part(3), CopyEvent::Lost);
        assert_eq!(two.take(9), lost(&[3]));
    }
}
