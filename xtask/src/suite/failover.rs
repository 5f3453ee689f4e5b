//! Masters that die, freeze, are cut off or have no room left, while clients work: a client notices a stall and no
//! error, and everything that was acknowledged is there exactly once.
//!
//! Three masters run in network namespaces of their own, so that one can be cut off as a machine is: without a reset.

mod fault;
mod load;
mod net;
mod spread;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use self::fault::{Fault, KINDS, Victim};
use self::load::{Load, Promises};
use self::net::Net;
pub(crate) use self::net::sweep_leftovers;
use self::spread::Spread;
use super::{Context, Outcome};
use crate::{shell, status, wait};

const WORKERS: usize = 8;
const MOUNTS: usize = 4;
const MASTERS: u8 = 3;
/// Load before the fault, and after its end.
const BEFORE: Duration = Duration::from_millis(700);
const AFTER: Duration = Duration::from_millis(1500);
/// A stall above this is a failure, whatever the fault; so is one that only the end of the fault ends.
const STALL_MAX: Duration = Duration::from_secs(5);
const SYNC_LIMIT: Duration = Duration::from_secs(60);
const FSCK_LIMIT: Duration = Duration::from_secs(60);
const SHOWN_MAX: usize = 20;
/// The mount through which the audit looks, made anew for each.
const AUDIT: &str = "mount-audit";

/// How long the suite may take: a start, and for each round ten faults.
pub(super) fn limit(context: &Context) -> Duration {
    Duration::from_secs(180 + 180 * u64::from(context.rounds.unwrap_or(1)))
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::Skipped("network namespaces are made, which only root may".to_owned()));
    }
    let options = context.options();
    let net = match Net::make(MASTERS, &options.data, &options.mount) {
        Ok(net) => net,
        Err(error) => return Ok(Outcome::Skipped(format!("no network namespaces here: {error:#}"))),
    };
    let seed = context.seed();
    let mut spread = Spread::start(options, net, seed)?;
    let mounts = (0..MOUNTS).map(|number| spread.mount(&format!("mount-{number}")));
    let mounts: Vec<PathBuf> = mounts.collect::<Result<_>>()?;
    let rounds = context.rounds.unwrap_or(1);
    let can_transfer = status::can_transfer(spread.mooseng());
    if !can_transfer {
        println!("failover: this build has no `mooseng cluster transfer-leader`: no round of it");
    }
    let kinds: Vec<(Fault, Victim)> =
        KINDS.into_iter().filter(|(fault, _)| can_transfer || *fault != Fault::Transfer).collect();
    let mut stalls: Vec<Vec<Duration>> = vec![Vec::new(); kinds.len()];
    for number in 1..=rounds {
        for ((fault, victim), stalls) in kinds.iter().copied().zip(&mut stalls) {
            let round = Round { number, fault, victim };
            let stall = round
                .run(&mut spread, &mounts)
                .with_context(|| format!("round {number}, {fault:?} of a {victim:?}"))?;
            stalls.push(stall);
        }
    }
    for ((fault, victim), stalls) in kinds.iter().copied().zip(&mut stalls) {
        stalls.sort_unstable();
        let at = |part: usize| {
            stalls.get((stalls.len() * part / 100).min(stalls.len() - 1)).map_or(0, Duration::as_millis)
        };
        println!(
            "failover: {fault:?} of a {victim:?}: longest stall of a round: median {} ms, longest {} ms, {} rounds",
            at(50),
            at(100),
            stalls.len()
        );
    }
    Ok(Outcome::Passed)
}

/// One fault, and the audit after it.
struct Round {
    number: u32,
    fault: Fault,
    victim: Victim,
}

impl Round {
    /// Answers the longest stall.
    fn run(&self, spread: &mut Spread, mounts: &[PathBuf]) -> Result<Duration> {
        let status = spread.wait_in_sync(SYNC_LIMIT)?;
        let victim = self.victim.choose(&status, self.number as usize)?;
        let places = self.places(mounts);
        let load = Load::start(&places)?;
        let begun = Instant::now();
        wait::let_run(BEFORE)?;
        ensure!(load.done() > 0, "nothing was done before the fault\n{}", spread.last_words());
        self.fault.begin(spread, &victim)?;
        wait::let_run(self.fault.lasts())?;
        let said = self.fault.end(spread, &victim)?;
        wait::let_run(AFTER)?;
        // It may have met the end of its disk just before there was room again.
        self.fault.start_again(spread, &victim)?;
        let promises = load.stop().map_err(|error| error.context(spread.last_words()))?;
        let loaded = begun.elapsed();
        spread.wait_in_sync(SYNC_LIMIT).map_err(|error| error.context(spread.last_words()))?;
        spread.check_alive()?;
        self.audit(spread, &promises)?;
        let (stall, what) = promises.iter().map(|promises| promises.stall.clone()).max().unwrap_or_default();
        let operations: u64 = promises.iter().map(|promises| promises.operations).sum();
        println!(
            "failover: round {}: {:?} of the {:?} {victim}{said}: {operations} operations in {} ms, none lost; longest stall {} ms ({what}); {} s",
            self.number,
            self.fault,
            self.victim,
            loaded.as_millis(),
            stall.as_millis(),
            begun.elapsed().as_secs(),
        );
        ensure!(
            stall < self.fault.lasts().min(STALL_MAX),
            "a client stood still for {} ms\n{}",
            stall.as_millis(),
            spread.last_words()
        );
        Ok(stall)
    }

    /// A directory for each worker, on the mounts in turn.
    fn places(&self, mounts: &[PathBuf]) -> Vec<PathBuf> {
        let place = |worker: usize| Some(mounts.get(worker % mounts.len())?.join(self.place(worker)));
        (0..WORKERS).filter_map(place).collect()
    }

    fn place(&self, worker: usize) -> String {
        format!("round-{}-{:?}-{:?}/worker-{worker}", self.number, self.fault, self.victim)
    }

    /// Looks at everything through a mount that has never seen any of it.
    fn audit(&self, spread: &mut Spread, promises: &[Promises]) -> Result<()> {
        let point = spread.mount(AUDIT)?;
        let mut wrong = Vec::new();
        for (worker, promises) in promises.iter().enumerate() {
            wrong.extend(promises.audit(&point.join(self.place(worker)))?);
        }
        spread.unmount(AUDIT)?;
        if !wrong.is_empty() {
            let shown = wrong.get(..SHOWN_MAX.min(wrong.len())).unwrap_or_default().join("\n");
            bail!("{} wrong:\n{shown}\n{}", wrong.len(), spread.last_words());
        }
        let mut fsck = spread.mooseng();
        fsck.arg("fsck");
        shell::stdout_within(&mut fsck, FSCK_LIMIT).map(drop)
    }
}
