//! What happens to a master, and how it is undone.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::spread::{Spread, host};
use crate::status::{self, Status};

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9`.
    Kill,
    /// SIGTERM: it may hand over first.
    Stop,
    /// The administrator has the leadership handed over.
    Transfer,
    /// SIGSTOP, later SIGCONT: a process that hangs, or a machine that swaps.
    Freeze,
    /// The link goes down: nobody hears anything, no connection is reset.
    Cut,
    /// Not a byte of room on its disk.
    FullDisk,
}

/// To whom it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Leader,
    Follower,
}

/// Every kind of round, in order. A leader dies right after the others were cut off from each other: they must have found
/// each other again.
pub(super) const KINDS: [(Fault, Victim); 10] = [
    (Fault::Cut, Victim::Leader),
    (Fault::Cut, Victim::Follower),
    (Fault::Kill, Victim::Leader),
    (Fault::Kill, Victim::Follower),
    (Fault::Stop, Victim::Leader),
    (Fault::Transfer, Victim::Leader),
    (Fault::Freeze, Victim::Leader),
    (Fault::Freeze, Victim::Follower),
    (Fault::FullDisk, Victim::Leader),
    (Fault::FullDisk, Victim::Follower),
];

const BALLAST: &str = "ballast";

impl Fault {
    /// How long it lasts.
    pub(super) fn lasts(self) -> Duration {
        match self {
            Self::Kill | Self::Stop => Duration::from_secs(2),
            Self::Transfer => Duration::from_secs(1),
            Self::Freeze => Duration::from_secs(10),
            Self::Cut | Self::FullDisk => Duration::from_secs(4),
        }
    }

    pub(super) fn begin(self, spread: &mut Spread, victim: &str) -> Result<()> {
        match self {
            Self::Kill => {
                spread.signal(victim, Signal::KILL)?;
                spread.wait_ended(victim)
            }
            Self::Stop => {
                spread.signal(victim, Signal::TERM)?;
                spread.wait_ended(victim)
            }
            Self::Transfer => status::transfer(spread.mooseng()),
            Self::Freeze => spread.signal(victim, Signal::STOP),
            Self::Cut => spread.net.set_link(host(victim).context("no master")?, false),
            Self::FullDisk => fill(&spread.disk(victim).join(BALLAST)),
        }
    }

    /// Ends it; says what there is to say of the victim.
    pub(super) fn end(self, spread: &mut Spread, victim: &str) -> Result<&'static str> {
        match self {
            Self::Kill | Self::Stop => spread.launch(victim)?,
            Self::Transfer => {}
            Self::Freeze => spread.signal(victim, Signal::CONT)?,
            Self::Cut => spread.net.set_link(host(victim).context("no master")?, true)?,
            Self::FullDisk => {
                std::fs::remove_file(spread.disk(victim).join(BALLAST)).context("make room")?;
                let restarted = self.start_again(spread, victim)?;
                return Ok(if restarted { ", which ended and was started again" } else { ", which went on" });
            }
        }
        Ok("")
    }

    /// Starts a victim that has ended of itself, as it may on a full disk.
    pub(super) fn start_again(self, spread: &mut Spread, victim: &str) -> Result<bool> {
        let ended = self == Self::FullDisk && !spread.is_running(victim);
        if ended {
            spread.launch(victim)?;
        }
        Ok(ended)
    }
}

impl Victim {
    /// Its name; followers take turns.
    pub(super) fn choose(self, status: &Status, round: usize) -> Result<String> {
        let name = match self {
            Self::Leader => status.leader.as_deref(),
            Self::Follower => status.follower(round),
        };
        name.map(str::to_owned).with_context(|| format!("no {self:?} in {status:?}"))
    }
}

/// Writes until nothing more fits, not even a page.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    for size in [1 << 20, 4096] {
        let block = vec![1_u8; size];
        loop {
            match file.write(&block) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => break,
                Err(error) => bail!("fill {}: {error}", path.display()),
            }
        }
    }
    Ok(())
}
