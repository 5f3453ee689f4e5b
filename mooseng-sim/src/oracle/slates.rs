//! Files that several clients write and read at once, cell by cell: what any reader may see.
//!
//! Every write fills some cells of a file with its own number. A cell that is read shows the number of a write, or none.
//! A write *must be seen* by whoever begins to read after a close or a sync that covers it has returned (and, if it was
//! only closed, as long as no server has lost power since: what no sync covers may be lost then). It is *over* when that
//! happened, or when its client was told of a loss, lost its session or died. A read may show a write only if no write that
//! must be seen began after that one was over.

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
    /// When a close that covers it returned.
    closed: Option<Duration>,
    /// When a sync that covers it returned.
    synced: Option<Duration>,
    /// When it was told lost, or its client or session ended.
    ended: Option<Duration>,
    /// Its session ended before any of it was sent: nobody may ever see it.
    void: bool,
}

/// One slate: its writes, whose numbers are their places plus 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slate {
    writes: Vec<Write>,
    /// By cell: what was read there last, and when the read began and ended.
    last: BTreeMap<usize, (u64, Duration, Duration)>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slates {
    slates: [Slate; SLATES],
    /// When a server last lost power.
    power_lost: Option<Duration>,
    /// When a server last stopped, for whatever reason.
    stopped: Option<Duration>,
}

/// What a client has done to make its writes last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Made {
    /// A close returned.
    Closed,
    /// A sync returned.
    Synced,
    /// An error was told, or the session ended.
    Lost,
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
            synced: None,
            ended: None,
            void: false,
        });
        writes.len() as u64
    }

    /// Something has become of all that a client wrote to a slate before `begun`.
    pub(crate) fn made(&mut self, slate: usize, life: usize, begun: Duration, now: Duration, what: Made) {
        for write in &mut self.slates[slate].writes {
            let mine = write.life == life && write.invoked <= begun && write.ended.is_none();
            if !mine || write.synced.is_some() {
                continue;
            }
            match what {
                Made::Closed => drop(write.closed.get_or_insert(now)),
                Made::Synced => (write.closed, write.synced) = (write.closed.or(Some(now)), Some(now)),
                Made::Lost => write.ended = Some(now),
            }
        }
    }

    /// The session of a write has ended before any of it was sent.
    pub(crate) fn void(&mut self, slate: usize, number: u64) {
        let at = usize::try_from(number).unwrap_or(0).wrapping_sub(1);
        if let Some(write) = self.slates[slate].writes.get_mut(at) {
            write.void = true;
        }
    }

    /// A client has died, or its session has ended.
    pub(crate) fn life_ended(&mut self, life: usize, now: Duration) {
        for slate in 0..SLATES {
            self.made(slate, life, now, now, Made::Lost);
        }
    }

    /// A server has stopped.
    pub(crate) fn server_stopped(&mut self, now: Duration) {
        self.stopped = Some(now);
    }

    /// A server has lost power.
    pub(crate) fn power_was_lost(&mut self, now: Duration) {
        self.power_lost = Some(now);
    }

    /// What is wrong with what `reader` has read of a cell between two times; 0 for nothing written there. With `mine`,
    /// what it was told itself counts too: its own writes must be seen as soon as they have returned.
    pub(crate) fn check(
        &self,
        slate: usize,
        cell: usize,
        seen: u64,
        reader: Option<usize>,
        (from, to): (Duration, Duration),
    ) -> Option<String> {
        let slate = self.slates.get(slate)?;
        let shown = match seen {
            0 => None,
            number => {
                let at = usize::try_from(number).ok()? - 1;
                match slate.writes.get(at).filter(|write| write.cells.contains(&cell) && write.invoked <= to)
                {
                    Some(write) if write.void => {
                        return Some(format!("cell {cell} shows {number}, which ended unsent: {write:?}"));
                    }
                    Some(write) => Some((at, write)),
                    None => return Some(format!("cell {cell} shows {number}, which nobody wrote there")),
                }
            }
        };
        let newer = slate.writes.iter().enumerate().find(|(at, write)| {
            let follows = match shown {
                None => true,
                Some((shown_at, shown)) => {
                    let over = [shown.closed, shown.synced, shown.ended].into_iter().flatten().min();
                    let mine = write.life == shown.life && *at > shown_at;
                    mine || over.is_some_and(|over| over < write.invoked)
                }
            };
            write.cells.contains(&cell) && follows && self.must_be_seen(write, reader, from)
        })?;
        let number = newer.0 + 1;
        Some(format!("cell {cell} shows {seen}, though {number} must be seen: {:?}", newer.1))
    }

    /// Notes what a cell showed, and tells if a write is back in the place of a closed one that was seen before. What no sync
    /// covers may go with a server that stops, as its copy may have been the only one that has it, and come and go where one
    /// has lost power: whoever knows already where the copies are may read one in doubt.
    pub(crate) fn saw(
        &mut self,
        slate: usize,
        cell: usize,
        seen: u64,
        (from, to): (Duration, Duration),
    ) -> Option<String> {
        let (stopped, power_lost) = (self.stopped, self.power_lost);
        let slate = self.slates.get_mut(slate)?;
        let before = slate.last.get(&cell).copied().filter(|(.., ended)| *ended < from);
        if slate.last.get(&cell).is_none_or(|(.., ended)| *ended < to) {
            slate.last.insert(cell, (seen, from, to));
        }
        let (before, began, _) = before.filter(|(number, ..)| *number != 0 && *number != seen)?;
        let write = |number: u64| slate.writes.get(usize::try_from(number).ok()?.checked_sub(1)?);
        let earlier = write(before)?;
        let closed = earlier.closed.is_some_and(|closed| closed < from);
        // Where power was lost, copies may differ until a sync or a loss is told.
        let unsure =
            |write: &Write| write.synced.is_none() && power_lost.is_some_and(|lost| lost >= write.invoked);
        let over = |back: &Write| back.closed.is_some_and(|closed| closed < began) && !unsure(back);
        let was_over = write(seen).is_none_or(over);
        let lasts = earlier.synced.is_some_and(|synced| synced < from)
            || (earlier.ended.is_none() && stopped.is_none_or(|stopped| stopped < began) && !unsure(earlier));
        (closed && was_over && lasts)
            .then(|| format!("cell {cell} shows {seen} again, though {before} was seen before: {earlier:?}"))
    }

    fn must_be_seen(&self, write: &Write, reader: Option<usize>, from: Duration) -> bool {
        let safe = self.power_lost.is_none_or(|lost| lost < write.invoked);
        let mine = reader == Some(write.life) && write.invoked < from && write.ended.is_none();
        write.synced.is_some_and(|synced| synced < from)
            || (write.ended.is_none() && safe && write.closed.is_some_and(|closed| closed < from))
            || mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_synced_write_must_be_seen_and_what_it_replaced_must_not() {
        let mut slates = Slates::default();
        assert_eq!(slates.begin(0, 1, 0..2, ms(1)), 1);
        slates.made(0, 1, ms(1), ms(2), Made::Synced);
        assert_eq!(slates.begin(0, 2, 1..3, ms(3)), 2);
        let check =
            |slates: &Slates, cell, seen, from| slates.check(0, cell, seen, None, (ms(from), ms(from + 1)));
        assert!(check(&slates, 0, 1, 5).is_none());
        assert!(check(&slates, 0, 0, 5).is_some(), "it is missing");
        assert!(check(&slates, 0, 0, 1).is_none(), "the read began before");
        assert!(check(&slates, 1, 1, 5).is_none() && check(&slates, 1, 2, 5).is_none(), "both may be there");
        slates.made(0, 2, ms(3), ms(6), Made::Synced);
        assert!(check(&slates, 1, 1, 7).is_some(), "replaced");
        assert!(check(&slates, 0, 2, 7).is_some(), "never written there");
    }

    #[test]
    fn what_was_seen_is_not_missed_later() {
        let mut slates = Slates::default();
        for at in [1, 3] {
            slates.begin(0, 1, 0..1, ms(at));
            slates.made(0, 1, ms(at), ms(at + 1), Made::Closed);
        }
        assert!(slates.saw(0, 0, 1, (ms(2), ms(3))).is_none());
        assert!(slates.saw(0, 0, 2, (ms(5), ms(6))).is_none());
        let flipped = |mut slates: Slates| slates.saw(0, 0, 1, (ms(8), ms(9)));
        assert!(flipped(slates.clone()).is_some(), "another reader sees the older one again");
        slates.server_stopped(ms(7));
        assert!(flipped(slates.clone()).is_none(), "the copy that had it may be away");
        slates.made(0, 1, ms(3), ms(7), Made::Synced);
        assert!(flipped(slates).is_some(), "what was synced is on every copy");
    }

    #[test]
    fn a_close_counts_as_long_as_the_power_holds_and_a_told_loss_does_not_count() {
        let mut slates = Slates::default();
        slates.begin(0, 1, 0..1, ms(1));
        slates.made(0, 1, ms(1), ms(2), Made::Closed);
        assert!(slates.check(0, 0, 0, None, (ms(3), ms(4))).is_some());
        slates.power_was_lost(ms(5));
        assert!(slates.check(0, 0, 0, None, (ms(6), ms(7))).is_none());
        assert!(slates.check(0, 0, 0, Some(1), (ms(6), ms(7))).is_some(), "its writer is to be told first");
        slates.made(0, 1, ms(1), ms(8), Made::Lost);
        assert!(slates.check(0, 0, 0, Some(1), (ms(9), ms(10))).is_none());
    }
}
