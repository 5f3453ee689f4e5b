//! *Nothing another client has seen is ever taken back* (DESIGN §1, promise 2), for the bytes of a file that several
//! clients write under leases: who reads sees no write that another one, begun after it was answered, has replaced
//! before the read began. Versions fence: a late write of a lease that has ended is never seen.

use std::time::Duration;

/// One write of the whole shared file; every eight bytes of it are its number, its place in the list plus 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoardWrite {
    /// When it began.
    pub(crate) invoked: Duration,
    /// When it was committed, if the writer ever learned of it.
    pub(crate) answered: Option<Duration>,
}

/// What is wrong with `bytes`, read by somebody who began at `from`.
pub(crate) fn board_is_current(writes: &[BoardWrite], bytes: &[u8], from: Duration) -> Option<String> {
    let mut seen = None;
    for word in bytes.as_chunks::<8>().0 {
        let number = u64::from_le_bytes(*word);
        if seen == Some(number) {
            continue;
        }
        seen = Some(number);
        let ended = match usize::try_from(number).ok().and_then(|number| number.checked_sub(1)) {
            None => Some(Duration::ZERO),
            Some(place) => match writes.get(place) {
                Some(write) => write.answered,
                None => return Some(format!("no_return_of_the_old: {number} was never written")),
            },
        };
        let replaced = |later: &BoardWrite| {
            ended.is_some_and(|ended| later.invoked > ended) && later.answered.is_some_and(|a| a < from)
        };
        if let Some(by) = writes.iter().position(replaced) {
            let by = by + 1;
            return Some(format!(
                "no_return_of_the_old: a read from {from:?} on saw write {number}, replaced by {by} before"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_write_is_not_seen_again_and_a_concurrent_one_may_be() {
        let ms = Duration::from_millis;
        let write = |from, to| BoardWrite { invoked: ms(from), answered: Some(ms(to)) };
        let writes = [write(1, 2), write(3, 6), BoardWrite { invoked: ms(4), answered: None }];
        let word = |number: u64| number.to_le_bytes();
        assert!(board_is_current(&writes, &word(1), ms(5)).is_none(), "the second is under way");
        assert!(board_is_current(&writes, &word(1), ms(7)).is_some());
        assert!(board_is_current(&writes, &word(0), ms(5)).is_some());
        assert!(board_is_current(&writes, &word(2), ms(7)).is_none());
        assert!(board_is_current(&writes, &word(3), ms(7)).is_none(), "nobody knows when it ended");
        assert!(board_is_current(&writes, &word(9), ms(7)).is_some());
    }
}
