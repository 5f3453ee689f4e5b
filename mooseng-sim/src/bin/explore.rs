//! Runs worlds of fresh seeds until told to stop, or those asked for; prints how to repeat what failed, and goes on.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use mooseng_env::{Clock as _, Entropy as _, SystemClock, SystemEntropy, Threads};
use mooseng_sim::{Happening, Outcome, Plant, Shape, run, run_in_detail};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How often it tells how far it is.
const MINUTE: Duration = Duration::from_secs(60);
/// How long a stop order may go unnoticed.
const LOOK: Duration = Duration::from_millis(200);

/// Runs simulated clusters with faults and looks for broken promises. Ends with 1 if one was found.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed only, and print everything that happened in its world
    #[arg(long)]
    seed: Option<u64>,
    /// Run these seeds: A..B
    #[arg(long, value_name = "A..B", conflicts_with = "seed")]
    seeds: Option<String>,
    /// Run for so long: 300s, 10m, 2h; else until the seeds are used up, or until told to stop
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    limit: Option<Duration>,
    /// Worlds that run at the same time; one for each processor by default
    #[arg(long)]
    jobs: Option<usize>,
    /// "one", "three" or "five" masters; all in turn by default
    #[arg(long, value_parser = parse_shape)]
    world: Option<Shape>,
    /// Plant a bug, to see it found
    #[arg(long, value_parser = parse_plant)]
    plant: Option<Plant>,
    /// End at the first failure
    #[arg(long)]
    first: bool,
    /// Print the first seed, failures and the sum only
    #[arg(long)]
    quiet: bool,
    /// Count what happened in the worlds, and print it at the end
    #[arg(long)]
    stats: bool,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => return Err(format!("{other} is no unit of time: s, m or h")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text} is no time: 300s, 10m or 2h"))?;
    Ok(Duration::from_secs(number.saturating_mul(unit)))
}

fn parse_shape(text: &str) -> Result<Shape, String> {
    let known = Shape::ALL.map(Shape::name);
    Shape::ALL.into_iter().find(|shape| shape.name() == text).ok_or_else(|| format!("one of {known:?}"))
}

fn parse_plant(text: &str) -> Result<Plant, String> {
    let known = Plant::ALL.map(Plant::name);
    Plant::ALL.into_iter().find(|plant| plant.name() == text).ok_or_else(|| format!("one of {known:?}"))
}

/// What was run.
#[derive(Debug, Default)]
struct Sum {
    worlds: u64,
    failed: u64,
    simulated: Duration,
    answered: u64,
    /// How often each has happened, and in how many worlds.
    happened: [(u64, u64); Happening::ALL.len()],
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { worlds, failed, simulated, answered, .. } = self;
        let hours = simulated.as_secs_f64() / 3600.0;
        write!(f, "{worlds} worlds, {failed} failed, {hours:.2} simulated hours, {answered} operations")
    }
}

impl Sum {
    fn tell_happenings(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        for (what, (times, worlds)) in Happening::ALL.iter().zip(&self.happened) {
            let percent = 100 * worlds / self.worlds.max(1);
            writeln!(out, "{:<32} {times:>7} times, in {worlds:>6} worlds, {percent:>3} %", what.name())?;
        }
        Ok(())
    }
}

/// Where the threads that run worlds take their seeds from.
#[derive(Debug)]
struct Seeds {
    next: AtomicU64,
    end: u64,
    stop: AtomicBool,
    told_to_stop: Arc<AtomicBool>,
    limit: Duration,
    clock: SystemClock,
}

impl Seeds {
    fn next(&self) -> Option<u64> {
        let stopped = self.stop.load(Ordering::Relaxed) || self.told_to_stop.load(Ordering::Relaxed);
        if stopped || self.clock.monotonic() >= self.limit {
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < self.end)
    }
}

type Ran = (u64, Shape, Outcome);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if std::env::var_os("MOOSENG_LOG").is_some() {
        mooseng_env::daemon::start_logging(false);
    }
    let mut out = std::io::stdout();
    match explore(&arguments, &mut out) {
        Ok(sum) => {
            // Without a reader of the output there is nobody to tell.
            drop(writeln!(out, "{sum}"));
            if arguments.stats {
                drop(sum.tell_happenings(&mut out));
            }
            if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            drop(writeln!(std::io::stderr(), "explore: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn explore(arguments: &Arguments, out: &mut impl std::io::Write) -> anyhow::Result<Sum> {
    let (first, end) = range(arguments)?;
    let told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first one ends the run with its sum, a second one at once.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&told_to_stop))?;
        signal_hook::flag::register(signal, Arc::clone(&told_to_stop))?;
    }
    if arguments.seed.is_none() {
        // A core that panics is told of as a broken promise, with its seed.
        std::panic::set_hook(Box::new(|_| {}));
    }
    writeln!(out, "seeds from {first} on")?;
    out.flush()?;
    let limit = arguments.limit.unwrap_or(Duration::MAX);
    let (next, stop, clock) = (AtomicU64::new(first), AtomicBool::new(false), SystemClock::default());
    let seeds = Arc::new(Seeds { next, end, stop, told_to_stop, limit, clock });
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let shapes = arguments.world.map_or_else(|| Shape::ALL.to_vec(), |shape| vec![shape]);
    let threads = Threads::default();
    let (sender, outcomes) = sync_channel(jobs.max(1) * 4);
    for job in 0..jobs.max(1) {
        let (seeds, sender, shapes) = (Arc::clone(&seeds), SyncSender::clone(&sender), shapes.clone());
        let (plant, detail) = (arguments.plant, arguments.seed.is_some());
        threads.spawn(&format!("world-{job}"), move || {
            let look = if detail { run_in_detail } else { run };
            while let Some(seed) = seeds.next() {
                let mut outcomes = shapes.iter().map(|shape| (seed, *shape, look(seed, *shape, plant)));
                if outcomes.any(|outcome| sender.send(outcome).is_err()) {
                    return;
                }
            }
        })?;
    }
    drop(sender);
    let collected = collect(arguments, out, &seeds, &outcomes);
    seeds.stop.store(true, Ordering::Relaxed);
    // Whoever still has an outcome finds nobody to take it, and ends.
    drop(outcomes);
    threads.join();
    collected
}

/// The first seed, and the one behind the last.
fn range(arguments: &Arguments) -> anyhow::Result<(u64, u64)> {
    match (arguments.seed, arguments.seeds.as_deref()) {
        (Some(seed), _) => Ok((seed, seed.saturating_add(1))),
        (None, Some(range)) => {
            let (from, to) = range.split_once("..").with_context(|| format!("--seeds: A..B, not {range}"))?;
            Ok((from.parse()?, to.parse()?))
        }
        // Short enough to be typed.
        (None, None) => Ok((SystemEntropy.next_u64() >> 24, u64::MAX)),
    }
}

fn collect(
    arguments: &Arguments,
    out: &mut impl std::io::Write,
    seeds: &Seeds,
    outcomes: &Receiver<Ran>,
) -> anyhow::Result<Sum> {
    let mut sum = Sum::default();
    let mut told = Duration::ZERO;
    loop {
        match outcomes.recv_timeout(LOOK) {
            Ok((seed, shape, outcome)) => {
                sum.worlds += 1;
                sum.simulated += outcome.simulated;
                sum.answered += outcome.answered;
                for (what, (times, worlds)) in Happening::ALL.iter().zip(&mut sum.happened) {
                    let here = outcome.counts.of(*what);
                    *times += here;
                    *worlds += u64::from(here > 0);
                }
                if arguments.seed.is_some() {
                    outcome.log.iter().try_for_each(|line| writeln!(out, "{line}"))?;
                    writeln!(out, "trace {:016x}, {} operations", outcome.trace, outcome.answered)?;
                }
                if !outcome.violations.is_empty() {
                    sum.failed += 1;
                    tell(out, seed, shape, arguments.plant, &outcome)?;
                    if arguments.first {
                        return Ok(sum);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(sum),
        }
        let now = seeds.clock.monotonic();
        if !arguments.quiet && now.saturating_sub(told) >= MINUTE {
            told = now;
            writeln!(out, "{:>6} s: {sum}", now.as_secs())?;
            out.flush()?;
        }
    }
}

fn tell(
    out: &mut impl std::io::Write,
    seed: u64,
    shape: Shape,
    plant: Option<Plant>,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let world = shape.name();
    let plant = plant.map_or_else(String::new, |plant| format!(" --plant {}", plant.name()));
    writeln!(out, "FAILED: cargo run -p mooseng-sim --bin explore -- --seed {seed} --world {world}{plant}")?;
    for violation in &outcome.violations {
        writeln!(out, "    {violation:.600}")?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("300s").unwrap(), Duration::from_secs(300));
        assert_eq!(parse_time("300").unwrap(), Duration::from_secs(300));
        assert_eq!(parse_time("2h").unwrap(), Duration::from_secs(7200));
        assert!(parse_time("h").is_err());
        assert!(parse_time("3 days").is_err());
    }
}
