//! An open that is to show what others have closed before it. Pure.

use std::time::Duration;

use super::flush::gave_up;
use super::{File, Operation, Step};

/// Waits until no change of ours is being answered: what an open was told may be that change, or somebody else's that it
/// has to show.
#[derive(Debug)]
pub struct Explained {
    until: Duration,
}

impl Explained {
    /// To be run after [`File::learn_opened`].
    #[must_use]
    pub fn new(file: &File, now: Duration) -> Self {
        Self { until: now + file.rules.patience }
    }
}

impl Operation for Explained {
    type Output = ();

    fn next(&mut self, file: &mut File, now: Duration) -> Step<()> {
        match file.changing {
            true if now >= self.until => Step::Done(Err(gave_up("open", file.rules.patience))),
            true => Step::Wait(Some(self.until)),
            false => Step::Done(Ok(())),
        }
    }
}
