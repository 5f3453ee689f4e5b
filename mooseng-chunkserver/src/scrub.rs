//! When which copy of a disk is read to find damage: a pass over all of them, in order, in a stated time. A value without disks,
//! threads and clocks; who has them asks it what to do and tells it what came of it.
//!
//! The pace is that of copies, not of bytes: the time that is left is divided among the copies that are left. So a pass keeps its
//! time whatever comes and goes meanwhile, and a server that was down for some days hurries, but not beyond [`HURRY`].

use std::collections::VecDeque;
use std::time::Duration;

use mooseng_types::Part;

use crate::engine::Now;

/// A pass that is late goes at most so many times as fast as one that is not.
const HURRY: u32 = 4;
/// Rests that were missed because the disk was busy are made up for, up to this.
const MISSED_MAX: Duration = Duration::from_secs(2);
/// Time between two notes of how far a pass has come.
const SAVE_EVERY: Duration = Duration::from_secs(3600);

/// What survives a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    /// When the pass began that is under way, or was last; 0 for none yet.
    pub(crate) started_unix_s: u64,
    /// It is under way.
    pub(crate) under_way: bool,
    /// Nothing is done until somebody says so.
    pub(crate) paused: bool,
    /// The last copy that was read.
    pub(crate) position: Option<Part>,
    /// Copies read in this pass.
    pub(crate) done: u64,
    /// Copies that were left when somebody looked last.
    pub(crate) left: u64,
    /// When a pass was last finished; 0 for never.
    pub(crate) last_complete_unix_s: u64,
    /// Copies found damaged, in all passes.
    pub(crate) damaged_found: u64,
}

impl Progress {
    /// How much of the pass is done, in thousandths; 0 where none is under way.
    pub(crate) fn permille(&self) -> u32 {
        let all = self.done.saturating_add(self.left);
        let done = if self.under_way { self.done.saturating_mul(1000).checked_div(all) } else { None };
        done.and_then(|done| u32::try_from(done).ok()).unwrap_or(0)
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Nothing; it is to be asked again in a second.
    Wait,
    /// To look which copies come behind this one.
    List(Option<Part>),
    /// To read this copy.
    Read(Part),
}

/// The passes over one disk.
#[derive(Debug)]
pub(crate) struct Scrub {
    /// The time of a pass; `None` if there are to be none.
    period: Option<Duration>,
    progress: Progress,
    /// The copies that come next.
    batch: VecDeque<Part>,
    /// The next copy is not read before.
    rest_until: Duration,
    saved: Option<Duration>,
}

impl Scrub {
    /// Passes of `period`, going on where an earlier process has stopped.
    pub(crate) fn new(period: Option<Duration>, progress: Progress) -> Self {
        let period = period.filter(|period| !period.is_zero());
        Self { period, progress, batch: VecDeque::new(), rest_until: Duration::ZERO, saved: None }
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether there are to be no passes.
    pub(crate) fn is_off(&self) -> bool {
        self.period.is_none()
    }

    /// What to do now.
    pub(crate) fn next(&mut self, now: Now) -> Next {
        let Some(period) = self.period.filter(|_| !self.progress.paused) else { return Next::Wait };
        // A wall clock that was set back: from now on, then.
        self.progress.started_unix_s = self.progress.started_unix_s.min(now.unix_s);
        let since = now.unix_s - self.progress.started_unix_s;
        if !self.progress.under_way {
            if self.progress.started_unix_s != 0 && since < period.as_secs() {
                return Next::Wait;
            }
            self.start(now);
        }
        if now.mono < self.rest_until {
            return Next::Wait;
        }
        match self.batch.front() {
            Some(part) => Next::Read(*part),
            None => Next::List(self.progress.position),
        }
    }

    /// A pass begins, in place of one that is under way.
    pub(crate) fn start(&mut self, now: Now) {
        let Progress { last_complete_unix_s, damaged_found, .. } = self.progress;
        self.progress = Progress {
            started_unix_s: now.unix_s,
            under_way: true,
            last_complete_unix_s,
            damaged_found,
            ..Progress::default()
        };
        self.batch.clear();
        (self.rest_until, self.saved) = (Duration::ZERO, None);
    }

    /// Nothing is done until [`Self::resume`].
    pub(crate) fn pause(&mut self) {
        self.progress.paused = true;
        self.saved = None;
    }

    /// Goes on.
    pub(crate) fn resume(&mut self) {
        self.progress.paused = false;
        self.saved = None;
    }

    /// The copies that come next, and how many are left with them. None left is the end of the pass.
    pub(crate) fn listed(&mut self, now: Now, next: Vec<Part>, left: u64) {
        self.progress.left = left;
        self.batch = next.into();
        if self.batch.is_empty() && self.progress.under_way {
            (self.progress.under_way, self.progress.left) = (false, 0);
            self.progress.last_complete_unix_s = now.unix_s;
            self.saved = None;
        }
    }

    /// The copy that was to be read was read, or is not to be had.
    pub(crate) fn read(&mut self, now: Now, part: Part, damaged: bool) {
        // A pass that was begun meanwhile has its own order.
        if self.batch.front() != Some(&part) {
            return;
        }
        self.batch.pop_front();
        let progress = &mut self.progress;
        progress.position = Some(part);
        progress.done += 1;
        progress.left = progress.left.saturating_sub(1);
        if damaged {
            progress.damaged_found += 1;
            self.saved = None;
        }
        if progress.left == 0 {
            // Whether it was the last one, a look will tell.
            return;
        }
        let earliest = now.mono.saturating_sub(MISSED_MAX);
        self.rest_until = self.rest_until.max(earliest) + self.rest(now);
    }

    /// How long to rest between two copies.
    fn rest(&self, now: Now) -> Duration {
        let Progress { started_unix_s, done, left, .. } = self.progress;
        // A tenth of the time is kept for what comes between.
        let period = self.period.unwrap_or_default() * 9 / 10;
        let divided = |time: Duration, by: u64| time / u32::try_from(by.max(1)).unwrap_or(u32::MAX);
        let evenly = divided(period, done + left);
        let time_left = period.saturating_sub(Duration::from_secs(now.unix_s.saturating_sub(started_unix_s)));
        // Never much slower either: a clock may have been wrong.
        divided(time_left, left).clamp(evenly / HURRY, evenly * 2)
    }

    /// What is to be noted now, if anything is; the caller writes it down. `stopping`: there is no later.
    pub(crate) fn save_due(&mut self, now: Duration, stopping: bool) -> Option<Progress> {
        let due = self.saved.is_none_or(|saved| now.saturating_sub(saved) >= SAVE_EVERY);
        // Nothing has happened yet that is worth a file.
        let worth = self.progress.started_unix_s != 0 || self.progress.paused;
        if !worth || !(due || stopping) {
            return None;
        }
        self.saved = Some(now);
        Some(self.progress)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mooseng_types::ChunkId;
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400;
    const START: u64 = 1_790_000_000;

    fn part(chunk: u64) -> Part {
        Part::whole(ChunkId::from_raw(chunk))
    }

    fn now(s: u64) -> Now {
        Now { mono: Duration::from_secs(s), unix_s: START + s }
    }

    /// Does what is to be done, once a second, until the clock shows `until`; what was read when.
    fn run(scrub: &mut Scrub, copies: &BTreeSet<Part>, from: u64, until: u64) -> Vec<(u64, Part)> {
        let mut read = Vec::new();
        for s in from..until {
            loop {
                match scrub.next(now(s)) {
                    Next::Wait => break,
                    Next::List(after) => {
                        let behind = || copies.iter().copied().filter(|part| Some(*part) > after);
                        scrub.listed(now(s), behind().take(10).collect(), behind().count() as u64);
                    }
                    Next::Read(part) => {
                        read.push((s, part));
                        scrub.read(now(s), part, false);
                    }
                }
            }
        }
        read
    }

    #[test]
    fn a_pass_reads_every_copy_once_in_its_time_and_the_next_one_begins_when_that_is_over() {
        let copies: BTreeSet<_> = (0..95).map(part).collect();
        let mut scrub = Scrub::new(Some(Duration::from_secs(DAY)), Progress::default());
        let read = run(&mut scrub, &copies, 0, DAY);
        assert_eq!(read.iter().map(|(_, part)| *part).collect::<Vec<_>>(), Vec::from_iter(copies.clone()));
        assert!((DAY * 8 / 10..DAY).contains(&read[94].0), "spread over the time: {}", read[94].0);
        let progress = scrub.progress();
        assert!(!progress.under_way && progress.last_complete_unix_s > START);
        assert_eq!((progress.permille(), progress.done), (0, 95));
        assert_eq!(run(&mut scrub, &copies, DAY, DAY + 1), [(DAY, part(0))], "the next one");
    }

    #[test]
    fn a_pass_goes_on_after_a_restart_and_hurries_within_bounds_when_time_was_lost() {
        let copies: BTreeSet<_> = (0..100).map(part).collect();
        let period = Some(Duration::from_secs(DAY));
        let mut scrub = Scrub::new(period, Progress::default());
        run(&mut scrub, &copies, 0, DAY / 2);
        let noted = scrub.progress();
        assert!((500..600).contains(&noted.permille()), "{noted:?}");
        let mut scrub = Scrub::new(period, noted);
        let read = run(&mut scrub, &copies, 3 * DAY, 3 * DAY + DAY / 2);
        let rest = usize::try_from(100 - noted.done).unwrap();
        assert!(read[..rest].iter().map(|(_, part)| *part).eq((noted.done..100).map(part)), "no copy twice");
        assert_eq!(read[rest].1, part(0), "the next pass is due long since");
        let took = read[rest - 1].0 - read[0].0;
        assert!((DAY / 12..DAY / 8).contains(&took), "four times as fast as usual: {took}");
    }

    #[test]
    fn nothing_is_read_while_it_is_off_or_paused_and_a_start_begins_anew() {
        let copies: BTreeSet<_> = (0..10).map(part).collect();
        let mut off = Scrub::new(Some(Duration::ZERO), Progress::default());
        assert!(run(&mut off, &copies, 0, 10).is_empty());
        assert_eq!(off.save_due(Duration::ZERO, true), None);
        let mut scrub = Scrub::new(Some(Duration::from_secs(1000)), Progress::default());
        assert_eq!(run(&mut scrub, &copies, 0, 1), [(0, part(0))]);
        scrub.pause();
        assert!(scrub.save_due(Duration::ZERO, false).is_some_and(|noted| noted.paused));
        assert!(run(&mut scrub, &copies, 1, 5000).is_empty());
        scrub.resume();
        assert_eq!(run(&mut scrub, &copies, 5000, 5001)[0], (5000, part(1)));
        scrub.start(now(5001));
        assert_eq!(run(&mut scrub, &copies, 5001, 5002)[0], (5001, part(0)));
    }

    #[test]
    fn what_was_found_is_noted_at_once_and_the_rest_once_an_hour() {
        let mut scrub = Scrub::new(Some(Duration::from_secs(DAY)), Progress::default());
        assert_eq!(scrub.next(now(0)), Next::List(None));
        scrub.listed(now(0), vec![part(1), part(2)], 2);
        assert!(scrub.save_due(now(0).mono, false).is_some(), "it began");
        scrub.read(now(1), part(1), false);
        assert_eq!(scrub.save_due(now(1).mono, false), None);
        assert_eq!(scrub.save_due(now(3600).mono, false).unwrap().position, Some(part(1)));
        scrub.read(now(3601), part(2), true);
        assert_eq!(scrub.save_due(now(3601).mono, false).unwrap().damaged_found, 1);
        assert!(scrub.save_due(now(3602).mono, true).is_some());
    }

    proptest! {
        #[test]
        fn whatever_the_clock_does_copies_are_read_in_order_and_never_in_a_rush(
            jumps in prop::collection::vec((0u64..10 * DAY, 1u64..600), 1..20),
        ) {
            let copies: BTreeSet<_> = (0..1000).map(part).collect();
            let mut scrub = Scrub::new(Some(Duration::from_secs(DAY)), Progress::default());
            let mut mono = 0;
            for (wall, seconds) in jumps {
                let mut read = 0;
                for s in 0..seconds {
                    let now = Now { mono: Duration::from_secs(mono + s), unix_s: START + wall + s };
                    loop {
                        match scrub.next(now) {
                            Next::Wait => break,
                            Next::List(after) => {
                                let behind = || copies.iter().copied().filter(|part| Some(*part) > after);
                                scrub.listed(now, behind().take(100).collect(), behind().count() as u64);
                            }
                            Next::Read(part) => {
                                prop_assert!(scrub.progress().position < Some(part));
                                scrub.read(now, part, false);
                                read += 1;
                            }
                        }
                    }
                }
                mono += seconds;
                // A rest is at least 86,400 s * 0.9 / 1000 / 4.
                prop_assert!(read <= 2 + seconds / 19, "{read} in {seconds} s");
            }
        }
    }
}
