//! The file that all clients append to: each record is there once, whole, and in the order of those that were done before
//! the next began.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Made;

/// Bytes of a record: its number, again and again.
pub(crate) const RECORD: usize = 256;

/// One record.
#[derive(Clone, Debug)]
struct Record {
    life: usize,
    invoked: Duration,
    /// When a close or a sync that covers it returned.
    done: Option<Duration>,
    synced: bool,
    /// It was told lost, or its client or session ended.
    ended: bool,
}

/// All records, whose numbers are their places plus 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    records: Vec<Record>,
    power_lost: Option<Duration>,
}

impl Journal {
    /// An append begins; its number.
    pub(crate) fn begin(&mut self, life: usize, now: Duration) -> u64 {
        self.records.push(Record { life, invoked: now, done: None, synced: false, ended: false });
        self.records.len() as u64
    }

    /// Something has become of all that a client appended before `begun`.
    pub(crate) fn made(&mut self, life: usize, begun: Duration, now: Duration, what: Made) {
        for record in &mut self.records {
            if record.life != life || record.invoked > begun || record.ended || record.synced {
                continue;
            }
            match what {
                Made::Lost | Made::Dead => record.ended = true,
                Made::Closed | Made::Synced => {
                    record.done.get_or_insert(now);
                    record.synced = what == Made::Synced;
                }
            }
        }
    }

    /// A server has lost power.
    pub(crate) fn power_was_lost(&mut self, now: Duration) {
        self.power_lost = Some(now);
    }

    /// What is wrong with the records that were read at the end, in their order in the file; each as the numbers in it.
    pub(crate) fn check(&self, seen: &[Vec<u64>]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut places = BTreeMap::new();
        for (place, numbers) in seen.iter().enumerate() {
            for number in numbers.iter().filter(|number| **number != 0) {
                match usize::try_from(*number).ok().and_then(|number| self.records.get(number - 1)) {
                    None => problems.push(format!("place {place} shows {number}, which nobody appended")),
                    Some(_) if *places.entry(*number).or_insert(place) != place => {
                        problems.push(format!("record {number} is there twice"));
                    }
                    Some(record) if numbers.len() > 1 && self.must_be_there(record) => {
                        problems.push(format!("record {number} is torn: {numbers:?}"));
                    }
                    Some(_) => {}
                }
            }
        }
        // The latest beginning of those that lie before.
        for (number, record) in (1u64..).zip(&self.records) {
            let Some(place) = places.get(&number) else {
                if self.must_be_there(record) {
                    problems.push(format!("record {number} is missing: {record:?}"));
                }
                continue;
            };
            let behind = (1u64..).zip(&self.records).find(|(other, earlier)| {
                earlier.done.is_some_and(|done| done < record.invoked)
                    && places.get(other).is_some_and(|other| other > place)
            });
            if let Some((other, _)) = behind {
                problems.push(format!("record {number} lies before {other}, which was done before it began"));
            }
        }
        problems
    }

    fn must_be_there(&self, record: &Record) -> bool {
        let safe = self.power_lost.is_none_or(|lost| lost < record.invoked);
        record.synced || (!record.ended && safe && record.done.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_record_that_is_missing_doubled_torn_or_out_of_order_is_found() {
        let mut journal = Journal::default();
        for at in [1, 3] {
            journal.begin(1, ms(at));
            journal.made(1, ms(at), ms(at + 1), Made::Synced);
        }
        journal.begin(2, ms(5));
        let check =
            |seen: &[&[u64]]| journal.check(&seen.iter().map(|place| place.to_vec()).collect::<Vec<_>>());
        assert!(check(&[&[1], &[2]]).is_empty(), "the third was never done");
        assert!(check(&[&[1], &[0], &[2], &[3]]).is_empty(), "what was lost leaves a hole");
        assert!(check(&[&[1], &[2], &[0, 3]]).is_empty(), "and may be torn");
        assert_eq!(check(&[&[1]]).len(), 1, "missing");
        assert_eq!(check(&[&[1], &[2], &[1]]).len(), 1, "doubled");
        assert_eq!(check(&[&[1], &[0, 2]]).len(), 1, "torn");
        assert_eq!(check(&[&[2], &[1]]).len(), 1, "out of order");
        assert_eq!(check(&[&[1], &[2], &[9]]).len(), 1, "of nobody");
    }
}
