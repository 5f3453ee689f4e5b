//! A new length: what lies behind it need not be sent, everything else is, the leases are given back, and then the masters
//! are told. Pure.

use std::time::Duration;

use mooseng_types::SetAttr;

use super::flush::gave_up;
use super::{Action, File, Flush, GiveBack, Lease, Operation, Step};

#[derive(Debug)]
enum Stage {
    Flushing(Flush),
    GivingBack(GiveBack),
    Told,
}

/// The change of a length.
#[derive(Debug)]
pub struct Truncate {
    change: SetAttr,
    until: Duration,
    stage: Stage,
}

impl Truncate {
    /// Begins to change `file` as `change` says, its length among it.
    pub fn new(file: &mut File, change: SetAttr, now: Duration) -> Self {
        file.buffer.discard_from(change.size.unwrap_or(0));
        let stage = Stage::Flushing(Flush::new(file, false, now));
        Self { change, until: now + file.rules.patience, stage }
    }

    /// All leases that there were are given back.
    fn given_back(&mut self, file: &mut File, now: Duration) -> Option<Step<()>> {
        if file.leases.is_empty() && !file.changing && !file.resizing {
            (file.changing, file.resizing) = (true, true);
            self.stage = Stage::Told;
            return Some(Step::Do(Action::SetSize(self.change)));
        }
        // Another program got a lease meanwhile, or changes the file.
        self.stage = Stage::Flushing(Flush::new(file, false, now));
        let nothing_to_give_back = !file.leases.values().any(Lease::can_be_given_back);
        nothing_to_give_back.then_some(Step::Wait(Some(self.until)))
    }
}

impl Operation for Truncate {
    type Output = ();

    fn next(&mut self, file: &mut File, now: Duration) -> Step<()> {
        loop {
            if now >= self.until && !matches!(self.stage, Stage::Told) {
                return Step::Done(Err(gave_up("change the length of a file", file.rules.patience)));
            }
            match &mut self.stage {
                Stage::Flushing(flush) => match flush.next(file, now) {
                    Step::Done(Ok(())) => self.stage = Stage::GivingBack(GiveBack::new(file, None, now)),
                    other => return other,
                },
                Stage::GivingBack(give_back) => match give_back.next(file, now) {
                    Step::Done(Ok(())) => {
                        if let Some(step) = self.given_back(file, now) {
                            return step;
                        }
                    }
                    other => return other,
                },
                Stage::Told => return Step::Done(Ok(())),
            }
        }
    }

    fn abandon(&mut self, file: &mut File) {
        if let Stage::GivingBack(give_back) = &mut self.stage {
            give_back.abandon(file);
        }
    }
}
