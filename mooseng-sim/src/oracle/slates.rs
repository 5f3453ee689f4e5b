//! Files that several clients write and read at once, cell by cell: what any reader may see.
//!
//! Every write fills some cells of a file with its own number. A cell that is read shows the number of a write, or none.
//! A write *must be seen* by whoever begins to read after a close or a sync that covers it has returned (but if it was only
//! closed, and a server has lost power since the close began, not by whoever reaches a copy in doubt only). It is *over*
//! when that happened, or when its client was told of a loss, lost its session or died. A read may show a write only if no
//! write that must be seen began after that one was over. A truncation is a write of nothing to all cells behind the new
//! end, which lasts from when it has returned; one that failed may be done at any time.

use std::collections::BTreeMap;
use std::time::Duration;

/// Cells of a slate.
pub(crate) const CELLS: usize = 24;
/// Bytes of a cell.
pub(crate) const CELL: usize = 512;
/// How many slates there are.
pub(crate) const SLATES: usize = 3;

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    life: usize,
    cells: std::ops::Range<usize>,
    invoked: Duration,
    /// When the first close that covers it returned, and when that one had begun.
    closed: Option<Duration>,
    closing: Duration,
    /// When a sync that covers it returned.
    synced: Option<Duration>,
    /// When it was told lost, or its client or session ended.
    ended: Option<Duration>,
    /// Its session ended before any of it was sent: nobody may ever see it.
    void: bool,
    /// Since when its session is known to be over. Whoever has not seen it by then never will.
    dead: Option<Duration>,
    /// It is a truncation.
    cut: bool,
}

/// One slate: its writes, whose numbers are their places plus 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slate {
    writes: Vec<Write>,
    /// By cell: what was read there last, and how.
    last: BTreeMap<usize, (u64, Look)>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slates {
    slates: [Slate; SLATES],
}

/// A read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// When it began.
    pub(crate) from: Duration,
    /// When it ended.
    pub(crate) to: Duration,
    /// No copy was reached of something but one in doubt, and a server had lost power last by then.
    pub(crate) in_doubt: Option<Duration>,
    /// And bits may have rotted in it: a server that crashed while it was written believes the bytes, not the checksums.
    pub(crate) rotten: bool,
}

/// What a client has done to make its writes last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Made {
    /// A close returned.
    Closed,
    /// A sync returned.
    Synced,
    /// An error was told, or the client died.
    Lost,
    /// The session ended.
    Dead,
}

impl Slates {
    /// A write begins; its number.
    pub(crate) fn begin(
        &mut self,
        slate: usize,
        life: usize,
        cells: std::ops::Range<usize>,
        now: Duration,
    ) -> u64 {
        let writes = &mut self.slates[slate].writes;
        writes.push(Write {
            life,
            cells,
            invoked: now,
            closed: None,
            closing: Duration::MAX,
            synced: None,
            ended: None,
            void: false,
            dead: None,
            cut: false,
        });
        writes.len() as u64
    }

    /// A truncation to where `cell` begins has begun; its number.
    pub(crate) fn begin_cut(&mut self, slate: usize, life: usize, cell: usize, now: Duration) -> u64 {
        let number = self.begin(slate, life, cell..CELLS, now);
        if let Some(write) = self.slates[slate].writes.last_mut() {
            write.cut = true;
        }
        number
    }

    /// A truncation is done.
    pub(crate) fn cut(&mut self, slate: usize, number: u64, now: Duration) {
        if let Some(write) = self.slates[slate].write_mut(number) {
            (write.closed, write.closing, write.synced) = (Some(now), now, Some(now));
        }
    }

    /// Something has become of all that a client wrote to a slate before `begun`.
    pub(crate) fn made(&mut self, slate: usize, life: usize, begun: Duration, now: Duration, what: Made) {
        for write in &mut self.slates[slate].writes {
            let mine = write.life == life && write.invoked <= begun && write.ended.is_none();
            if !mine || write.synced.is_some() || write.cut {
                continue;
            }
            if matches!(what, Made::Closed | Made::Synced) && write.closed.is_none() {
                (write.closed, write.closing) = (Some(now), begun);
            }
            match what {
                Made::Closed => {}
                Made::Synced => write.synced = Some(now),
                Made::Lost => write.ended = Some(now),
                Made::Dead => (write.ended, write.dead) = (Some(now), Some(now)),
            }
        }
    }

    /// The session of a write has ended before any of it was sent.
    pub(crate) fn void(&mut self, slate: usize, number: u64) {
        if let Some(write) = self.slates[slate].write_mut(number) {
            write.void = true;
        }
    }

    /// A client has died, or its session has ended.
    pub(crate) fn life_ended(&mut self, life: usize, now: Duration) {
        for slate in 0..SLATES {
            self.made(slate, life, now, now, Made::Lost);
        }
    }

    /// What is wrong with what `reader` has read of a cell; 0 for nothing written there. What it was told itself counts too:
    /// its own writes must be seen as soon as they have returned.
    pub(crate) fn check(
        &self,
        slate: usize,
        cell: usize,
        seen: u64,
        reader: Option<usize>,
        look: Look,
    ) -> Option<String> {
        let slate = self.slates.get(slate)?;
        if look.rotten {
            return None;
        }
        let began = |write: &Write| write.cells.contains(&cell) && write.invoked <= look.to;
        let mut candidates = Vec::new();
        if seen == 0 {
            let cuts = slate.writes.iter().enumerate().filter(|(_, write)| write.cut && began(write));
            candidates.push(None);
            candidates.extend(cuts.map(Some));
        } else {
            let at = usize::try_from(seen).ok()? - 1;
            match slate.writes.get(at).filter(|write| !write.cut && began(write)) {
                Some(write) if write.void => {
                    return Some(format!("cell {cell} shows {seen}, which ended unsent: {write:?}"));
                }
                Some(write) => candidates.push(Some((at, write))),
                None => return Some(format!("cell {cell} shows {seen}, which nobody wrote there")),
            }
        }
        let newer_than = |shown: Option<(usize, &Write)>| {
            slate.writes.iter().enumerate().find(|(at, write)| {
                let follows = match shown {
                    None => true,
                    Some((shown_at, shown)) => {
                        let over = [shown.closed, shown.synced, shown.ended].into_iter().flatten().min();
                        let mine = write.life == shown.life && *at > shown_at;
                        mine || over.is_some_and(|over| over < write.invoked)
                    }
                };
                write.cells.contains(&cell) && follows && must_be_seen(write, reader, look)
            })
        };
        let mut newer = None;
        for shown in candidates {
            newer = Some(newer_than(shown)?);
        }
        let (at, write) = newer?;
        Some(format!("cell {cell} shows {seen}, though {} must be seen: {write:?}", at + 1))
    }

    /// Notes what a cell showed, and tells if a write is back in the place of a closed one that was seen before, or is there
    /// that was not when its session was over.
    pub(crate) fn saw(&mut self, slate: usize, cell: usize, seen: u64, look: Look) -> Option<String> {
        let slate = self.slates.get_mut(slate)?;
        if look.in_doubt.is_some() {
            return None;
        }
        let before = slate.last.get(&cell).copied().filter(|(_, before)| before.to < look.from);
        if slate.last.get(&cell).is_none_or(|(_, before)| before.to < look.to) {
            slate.last.insert(cell, (seen, look));
        }
        let (before, then) = before.filter(|(number, _)| *number != seen)?;
        let back = slate.write(seen);
        if before == 0 {
            let back = back.filter(|back| back.dead.is_some_and(|dead| dead < then.from))?;
            // Within the length, what a dead writer left uncommitted may differ between copies (docs/consistency.md): who
            // reads while the first server is away sees the other's. Only what lies behind the end is void for good.
            if slate.reaches_behind(cell, back) {
                return None;
            }
            return Some(format!(
                "cell {cell} shows {seen}, whose session was over when it was not there: {back:?}"
            ));
        }
        let earlier = slate.write(before)?;
        let closed = earlier.closed.is_some_and(|closed| closed < look.from);
        let over = |back: &Write| back.closed.is_some_and(|closed| closed < then.from);
        let mut cuts = slate.writes.iter().filter(|write| {
            write.cut && write.cells.contains(&cell) && write.invoked <= look.to && !over(write)
        });
        let was_over = back.map_or_else(|| cuts.next().is_none(), over);
        let lasts = earlier.synced.is_some_and(|synced| synced < look.from) || earlier.ended.is_none();
        (closed && was_over && lasts)
            .then(|| format!("cell {cell} shows {seen} again, though {before} was seen before: {earlier:?}"))
    }
}

impl Slate {
    fn write(&self, number: u64) -> Option<&Write> {
        self.writes.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Whether the file reached behind this cell when `dead` was written, and was never cut to less.
    fn reaches_behind(&self, cell: usize, dead: &Write) -> bool {
        let over = |at: Option<Duration>| at.is_some_and(|at| at < dead.invoked);
        let longer = |write: &Write| {
            !write.cut && write.cells.end > cell + 1 && (over(write.synced) || over(write.closed))
        };
        let shortened = |write: &Write| write.cut && write.cells.start <= cell + 1;
        self.writes.iter().any(longer) && !self.writes.iter().any(shortened)
    }

    fn write_mut(&mut self, number: u64) -> Option<&mut Write> {
        self.writes.get_mut(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

fn must_be_seen(write: &Write, reader: Option<usize>, look: Look) -> bool {
    let done = !write.cut || write.closed.is_some();
    let mine = reader == Some(write.life) && write.invoked < look.from && write.ended.is_none() && done;
    let may_be_lost = look.in_doubt.is_some_and(|power_lost| power_lost >= write.closing);
    write.synced.is_some_and(|synced| synced < look.from)
        || (write.ended.is_none() && !may_be_lost && write.closed.is_some_and(|closed| closed < look.from))
        || mine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn look(from: u64) -> Look {
        Look { from: ms(from), to: ms(from + 1), in_doubt: None, rotten: false }
    }

    fn in_doubt(from: u64, power_lost: u64) -> Look {
        Look { in_doubt: Some(ms(power_lost)), ..look(from) }
    }

    #[test]
    fn a_synced_write_must_be_seen_and_what_it_replaced_must_not() {
        let mut slates = Slates::default();
        assert_eq!(slates.begin(0, 1, 0..2, ms(1)), 1);
        slates.made(0, 1, ms(1), ms(2), Made::Synced);
        assert_eq!(slates.begin(0, 2, 1..3, ms(3)), 2);
        let check = |slates: &Slates, cell, seen, from| slates.check(0, cell, seen, None, look(from));
        assert!(check(&slates, 0, 1, 5).is_none());
        assert!(check(&slates, 0, 0, 5).is_some(), "it is missing");
        assert!(check(&slates, 0, 0, 1).is_none(), "the read began before");
        assert!(check(&slates, 1, 1, 5).is_none() && check(&slates, 1, 2, 5).is_none(), "both may be there");
        slates.made(0, 2, ms(3), ms(6), Made::Synced);
        assert!(check(&slates, 1, 1, 7).is_some(), "replaced");
        assert!(slates.check(0, 1, 1, None, in_doubt(7, 4)).is_some(), "a copy in doubt has what was synced");
        assert!(check(&slates, 0, 2, 7).is_some(), "never written there");
    }

    #[test]
    fn what_was_seen_is_not_missed_later() {
        let mut slates = Slates::default();
        for at in [1, 3] {
            slates.begin(0, 1, 0..1, ms(at));
            slates.made(0, 1, ms(at), ms(at + 1), Made::Closed);
        }
        assert!(slates.saw(0, 0, 1, look(2)).is_none());
        assert!(slates.saw(0, 0, 2, look(5)).is_none());
        assert!(slates.clone().saw(0, 0, 1, look(8)).is_some(), "another reader sees the older one again");
        assert!(slates.saw(0, 0, 1, in_doubt(8, 7)).is_none(), "only a copy that may have lost it was left");
        assert!(slates.saw(0, 0, 1, look(10)).is_some(), "that says nothing about the others");
    }

    #[test]
    fn a_close_counts_but_for_copies_in_doubt_and_a_told_loss_does_not_count() {
        let mut slates = Slates::default();
        slates.begin(0, 1, 0..1, ms(1));
        slates.made(0, 1, ms(2), ms(3), Made::Closed);
        assert!(slates.check(0, 0, 0, None, look(4)).is_some());
        assert!(slates.check(0, 0, 0, None, in_doubt(6, 2)).is_none());
        assert!(slates.check(0, 0, 0, None, in_doubt(6, 1)).is_some(), "the close was to tell that");
        assert!(slates.check(0, 0, 0, Some(1), in_doubt(6, 5)).is_some(), "its writer is to be told first");
        slates.made(0, 1, ms(1), ms(8), Made::Lost);
        assert!(slates.check(0, 0, 0, Some(1), look(9)).is_none());
    }

    #[test]
    fn nothing_is_seen_behind_a_truncation_but_what_was_written_since() {
        let mut slates = Slates::default();
        slates.begin(0, 1, 0..3, ms(1));
        slates.made(0, 1, ms(1), ms(2), Made::Synced);
        let cut = slates.begin_cut(0, 2, 1, ms(5));
        let check = |slates: &Slates, cell, seen, from| slates.check(0, cell, seen, None, look(from));
        assert!(check(&slates, 1, 0, 6).is_none() && check(&slates, 1, 1, 6).is_none(), "under way");
        slates.cut(0, cut, ms(8));
        assert!(check(&slates, 1, 0, 9).is_none() && check(&slates, 0, 1, 9).is_none());
        assert!(check(&slates, 1, 1, 9).is_some(), "cut off");
        assert!(check(&slates, 0, 0, 9).is_some(), "before the new end");
        slates.begin(0, 3, 0..3, ms(10));
        slates.made(0, 3, ms(10), ms(11), Made::Closed);
        assert!(check(&slates, 1, 0, 12).is_some(), "written since");
        slates.begin_cut(0, 2, 1, ms(13));
        slates.life_ended(2, ms(14));
        assert!(check(&slates, 1, 0, 99).is_none(), "may be done at any time");
    }

    #[test]
    fn what_was_not_there_when_its_session_was_over_never_comes() {
        let mut slates = Slates::default();
        slates.begin(0, 1, 0..2, ms(1));
        slates.made(0, 1, ms(2), ms(2), Made::Dead);
        assert!(slates.saw(0, 0, 0, look(3)).is_none());
        assert!(slates.saw(0, 0, 1, look(5)).is_some());
        assert!(slates.saw(0, 1, 1, look(5)).is_none(), "it may have been committed before");
        let mut within = Slates::default();
        within.begin(0, 1, 2..3, ms(1));
        within.made(0, 1, ms(1), ms(2), Made::Synced);
        within.begin(0, 2, 0..1, ms(3));
        within.made(0, 2, ms(4), ms(4), Made::Dead);
        let mut shortened = within.clone();
        let back = |slates: &mut Slates| slates.saw(0, 0, 0, look(5)).or(slates.saw(0, 0, 2, look(7)));
        assert!(back(&mut within).is_none(), "copies may differ there");
        shortened.begin_cut(0, 3, 0, ms(4));
        assert!(back(&mut shortened).is_some(), "it is behind the end since");
    }
}
