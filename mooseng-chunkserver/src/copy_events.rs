//! What happened to copies since the leader was last told: coalesced by copy, so that it can never grow beyond what there is.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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

/// Events to be told.
#[derive(Debug, Default)]
pub(crate) struct CopyEvents {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    by_part: BTreeMap<Part, CopyEvent>,
    failed: BTreeMap<Part, FailedFetch>,
    overflowed: bool,
    stopping: bool,
}

/// What there is to tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToTell {
    /// These events.
    Some(Vec<(Part, CopyEvent)>),
    /// Too many to name: everything.
    Everything,
}

impl CopyEvents {
    /// Notes an event.
    pub(crate) fn note(&self, part: Part, event: CopyEvent) {
        let mut state = self.lock();
        state.by_part.insert(part, event);
        state.bound();
        self.wake.notify_all();
    }

    /// Notes that a copy is here, which is nothing new: that it was verified, and is not told yet, stays true.
    pub(crate) fn remind(&self, part: Part, version: ChunkVersion, in_doubt: bool) {
        let mut state = self.lock();
        let verified = state.by_part.get(&part).is_some_and(|pending| pending.verifies(version));
        state.by_part.insert(part, CopyEvent::Here { version, in_doubt, verified });
        state.bound();
        self.wake.notify_all();
    }

    /// Notes that a copy was not fetched.
    pub(crate) fn not_fetched(&self, part: Part, failed: FailedFetch) {
        self.lock().put_failed(part, failed);
        self.wake.notify_all();
    }

    /// Forgets that an earlier try to fetch a copy has failed: it is here.
    pub(crate) fn fetched(&self, part: Part) {
        self.lock().failed.remove(&part);
    }

    /// Takes up to `max` copies that were not fetched; the taker puts them back as with events.
    pub(crate) fn take_failed(&self, max: usize) -> Vec<(Part, FailedFetch)> {
        let mut state = self.lock();
        std::iter::from_fn(|| state.failed.pop_first()).take(max).collect()
    }

    /// Puts back what could not be told. What has happened since wins.
    pub(crate) fn put_back_failed(&self, failed: Vec<(Part, FailedFetch)>) {
        let mut state = self.lock();
        for (part, failed) in failed {
            if !state.failed.contains_key(&part) {
                state.put_failed(part, failed);
            }
        }
    }

    /// Takes up to `max` events; the taker puts them back if they could not be told.
    pub(crate) fn take(&self, max: usize) -> ToTell {
        let mut state = self.lock();
        if std::mem::take(&mut state.overflowed) {
            return ToTell::Everything;
        }
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(event) = state.by_part.pop_first()
        {
            taken.push(event);
        }
        ToTell::Some(taken)
    }

    /// Puts back what could not be told. A newer event of the same copy wins.
    pub(crate) fn put_back(&self, events: ToTell) {
        let mut state = self.lock();
        match events {
            ToTell::Everything => state.overflowed = true,
            ToTell::Some(events) => {
                for (part, event) in events {
                    state.by_part.entry(part).or_insert(event);
                }
                state.bound();
            }
        }
    }

    /// Takes everything: a full report, made after this, will tell it.
    pub(crate) fn take_all(&self) -> BTreeMap<Part, CopyEvent> {
        let mut state = self.lock();
        state.overflowed = false;
        std::mem::take(&mut state.by_part)
    }

    /// Waits until something is to be told, the end is near, or `timeout` is over.
    pub(crate) fn wait(&self, timeout: Duration, only_for_stop: bool) {
        let idle = |state: &mut State| !state.stopping && (only_for_stop || !state.has_something());
        drop(self.wake.wait_timeout_while(self.lock(), timeout, idle));
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_something(&self) -> bool {
        !self.by_part.is_empty() || !self.failed.is_empty() || self.overflowed
    }

    /// Of too many, the leader finds the others out by itself, later.
    fn put_failed(&mut self, part: Part, failed: FailedFetch) {
        if self.failed.len() < EVENTS_MAX || self.failed.contains_key(&part) {
            self.failed.insert(part, failed);
        }
    }

    fn bound(&mut self) {
        if self.by_part.len() > EVENTS_MAX {
            self.by_part.clear();
            self.overflowed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::ChunkId;

    use super::*;

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
}
