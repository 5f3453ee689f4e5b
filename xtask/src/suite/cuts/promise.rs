//! What a reader of a file may see, byte by byte, after everything its only writer was told.

/// A write at an offset into the file's window. A byte that is `None` stands for "none was there, or zero".
#[derive(Debug, Clone)]
struct Write {
    offset: usize,
    bytes: Vec<Option<u8>>,
}

impl Write {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn allows(&self, at: usize, byte: u8) -> bool {
        let told = at.checked_sub(self.offset).and_then(|index| self.bytes.get(index));
        told.is_some_and(|value| value.unwrap_or(0) == byte)
    }
}

/// One file with one writer. What was acknowledged and is covered by an fsync has to be there; by a close, too, unless the
/// power of several servers was cut since; and everything else may be there or not.
#[derive(Debug, Default)]
pub(super) struct Promise {
    /// What has to be there, or what `doubt` has instead.
    certain: Vec<u8>,
    /// The file may end no earlier.
    length_min: usize,
    /// Acknowledged since, and covered by nothing.
    pending: Vec<Write>,
    /// What was there before writes that a close has covered, and no sync: with the number of heavy cuts before.
    closed: Vec<(u64, usize, Write)>,
    /// What may be there instead.
    doubt: Vec<Write>,
    /// Every write ever, for what is told of a finding.
    all: Vec<Write>,
}

/// Wrong bytes that are told of a finding, run by run.
const RUNS_SHOWN: usize = 4;
/// Right bytes that a wrong run may have in between: some are right by chance.
const CHANCE: usize = 16;

impl Promise {
    /// A write was answered.
    pub(super) fn wrote(&mut self, offset: usize, bytes: &[u8], acknowledged: bool) {
        let write = Write { offset, bytes: bytes.iter().copied().map(Some).collect() };
        self.all.push(write.clone());
        if acknowledged { self.pending.push(write) } else { self.doubt.push(write) }
    }

    /// An fsync was answered: all of it is there, or the loss was told.
    pub(super) fn synced(&mut self, done: bool) {
        if done {
            self.closed.clear();
            for write in std::mem::take(&mut self.pending) {
                self.settle(&write);
            }
        } else {
            self.lost();
        }
    }

    /// A loss was told: of what was pending, or of what only a close has covered. Nobody says what was lost.
    fn lost(&mut self) {
        self.doubt.append(&mut self.pending);
        self.cut(u64::MAX);
    }

    /// A close was answered, after so many heavy cuts.
    pub(super) fn closed(&mut self, done: bool, cuts: u64) {
        if !done {
            return self.lost();
        }
        for write in std::mem::take(&mut self.pending) {
            let before = (write.offset..write.end()).map(|at| self.certain.get(at).copied()).collect();
            self.closed.push((cuts, self.length_min, Write { offset: write.offset, bytes: before }));
            self.settle(&write);
        }
    }

    /// After that many heavy cuts: what only a close has covered before the last may be lost.
    pub(super) fn cut(&mut self, cuts: u64) {
        let (lost, kept) =
            std::mem::take(&mut self.closed).into_iter().partition(|(then, _, _)| *then < cuts);
        self.closed = kept;
        for (_, length_min, before) in lost {
            self.length_min = self.length_min.min(length_min);
            self.doubt.push(before);
        }
    }

    fn settle(&mut self, write: &Write) {
        self.certain.resize(self.certain.len().max(write.end()), 0);
        for (old, new) in self.certain.iter_mut().skip(write.offset).zip(&write.bytes) {
            *old = new.unwrap_or(0);
        }
        self.length_min = self.length_min.max(write.end());
        // What is certain now is in no doubt any more: there the doubt says what the promise says.
        for doubt in &mut self.doubt {
            for (at, value) in (doubt.offset..).zip(&mut doubt.bytes) {
                if let Some(new) = at.checked_sub(write.offset).and_then(|index| write.bytes.get(index)) {
                    *value = *new;
                }
            }
        }
    }

    /// The longest that the file may be.
    pub(super) fn length_max(&self) -> usize {
        let ends = self.pending.iter().chain(&self.doubt).map(Write::end);
        ends.fold(self.certain.len(), usize::max)
    }

    /// What is wrong with what a reader has read.
    pub(super) fn check(&self, have: &[u8]) -> Option<String> {
        if have.len() < self.length_min || have.len() > self.length_max() {
            return Some(format!(
                "{} bytes, and {} to {} are promised",
                have.len(),
                self.length_min,
                self.length_max()
            ));
        }
        let wrong = |(at, byte): &(usize, &u8)| !self.allows(*at, **byte);
        let (first, byte) = have.iter().enumerate().find(wrong)?;
        let count = have.iter().enumerate().filter(wrong).count();
        let zeros = have.iter().enumerate().filter(wrong).all(|(_, byte)| *byte == 0);
        let place = if self.certain.get(first).is_some() { "promised" } else { "never written there" };
        Some(format!(
            "{count} of {} bytes wrong from {first} on ({byte:02x}{}; {place}: {:02x?}){}",
            have.len(),
            if zeros { ", all zeros" } else { "" },
            self.certain.get(first),
            self.runs(have)
        ))
    }

    /// Where the wrong bytes lie, and of which write they are.
    fn runs(&self, have: &[u8]) -> String {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (at, _) in have.iter().enumerate().filter(|(at, byte)| !self.allows(*at, **byte)) {
            match runs.last_mut() {
                Some((_, to)) if at <= *to + CHANCE => *to = at + 1,
                _ => runs.push((at, at + 1)),
            }
        }
        let tell = |(from, to): &(usize, usize)| {
            let is_of = |write: &&Write| (*from..*to).all(|at| write.allows(at, *have.get(at).unwrap_or(&0)));
            let number = self.all.iter().rposition(|write| is_of(&write));
            let whose = number.and_then(|number| Some((self.all.len() - number, self.all.get(number)?)));
            match whose {
                Some((back, write)) => {
                    format!("{from}..{to} of write {} at {}, {back} back", write.bytes.len(), write.offset)
                }
                None => format!("{from}..{to} of no one write"),
            }
        };
        let shown: Vec<String> = runs.iter().take(RUNS_SHOWN).map(tell).collect();
        format!("; {} runs: {}", runs.len(), shown.join(", "))
    }

    fn allows(&self, at: usize, byte: u8) -> bool {
        let promised = self.certain.get(at).copied().unwrap_or(0);
        promised == byte || self.pending.iter().chain(&self.doubt).any(|write| write.allows(at, byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine(promise: &Promise, have: &[u8]) -> bool {
        promise.check(have).is_none()
    }

    #[test]
    fn what_an_fsync_covered_is_there_and_what_it_did_not_may_be() {
        let mut promise = Promise::default();
        promise.wrote(0, b"aaaa", true);
        assert!(
            fine(&promise, b"") && fine(&promise, b"a") && fine(&promise, b"\0a") && !fine(&promise, b"b")
        );
        promise.synced(true);
        assert!(fine(&promise, b"aaaa") && !fine(&promise, b"aaa") && !fine(&promise, b"a\0aa"));
        promise.wrote(2, b"bbbb", true);
        assert!(fine(&promise, b"aaaa") && fine(&promise, b"aabab") && !fine(&promise, b"aaaaaa"));
        promise.synced(false);
        assert!(fine(&promise, b"aaaa") && fine(&promise, b"aabbbb"), "the loss was told");
        promise.synced(true);
        assert!(fine(&promise, b"aaaa"), "an fsync after the one that told promises nothing of before");
        promise.wrote(3, b"c", true);
        promise.synced(true);
        assert!(fine(&promise, b"aabcb") && !fine(&promise, b"aabbb") && !fine(&promise, b"aaaa"));
    }

    #[test]
    fn what_a_close_covered_may_go_with_a_heavy_cut_after_it_only() {
        let mut promise = Promise::default();
        promise.wrote(0, b"aa", true);
        promise.synced(true);
        promise.wrote(1, b"bb", true);
        promise.closed(true, 3);
        promise.cut(3);
        assert!(fine(&promise, b"abb") && !fine(&promise, b"aa"));
        promise.cut(4);
        assert!(fine(&promise, b"abb") && fine(&promise, b"aa") && fine(&promise, b"aa\0"));
        assert!(!fine(&promise, b"a") && !fine(&promise, b"a\0b"));
    }

    #[test]
    fn an_error_also_tells_the_loss_of_what_only_a_close_has_covered() {
        for told_by_close in [false, true] {
            let mut promise = Promise::default();
            promise.wrote(0, b"aa", true);
            promise.synced(true);
            promise.wrote(1, b"bb", true);
            promise.closed(true, 3);
            promise.wrote(4, b"c", false);
            if told_by_close {
                promise.closed(false, 3)
            } else {
                promise.synced(false)
            }
            promise.synced(true);
            assert!(fine(&promise, b"aa") && fine(&promise, b"abb") && !fine(&promise, b"ac"));
            promise.wrote(1, b"d", true);
            promise.synced(true);
            assert!(fine(&promise, b"ad") && fine(&promise, b"adb") && !fine(&promise, b"abb"));
        }
    }

    #[test]
    fn a_write_that_failed_may_have_happened() {
        let mut promise = Promise::default();
        promise.wrote(0, b"xy", false);
        promise.wrote(1, b"z", true);
        promise.synced(true);
        assert!(fine(&promise, b"xz") && fine(&promise, b"\0z") && !fine(&promise, b"xy"));
    }
}
