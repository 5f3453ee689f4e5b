//! Runs worlds of fresh seeds until told to stop, or those asked for; prints how to repeat what failed.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mooseng_env::{Clock as _, Entropy as _, SystemClock, SystemEntropy};
use mooseng_sim::{Outcome, Plant, Shape, run, run_in_detail};

/// Runs simulated clusters with faults and looks for broken promises.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed only, and print what went wrong in its world
    #[arg(long)]
    seed: Option<u64>,
    /// Run these seeds: A..B
    #[arg(long, value_name = "A..B")]
    seeds: Option<String>,
    /// Run fresh seeds for so many seconds; without any of these, for ever
    #[arg(long)]
    seconds: Option<u64>,
    /// "one" or "three" masters; both in turn by default
    #[arg(long)]
    world: Option<String>,
    /// Plant a bug, to see it found
    #[arg(long)]
    plant: Option<String>,
    /// End at the first failure
    #[arg(long)]
    first: bool,
}

/// What was run.
#[derive(Debug, Default)]
struct Sum {
    worlds: u64,
    failed: u64,
    simulated: Duration,
    answered: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if std::env::var_os("MOOSENG_LOG").is_some() {
        mooseng_env::daemon::start_logging(false);
    }
    let mut out = std::io::stdout();
    match explore(&arguments, &mut out) {
        Ok(sum) => {
            let hours = sum.simulated.as_secs_f64() / 3600.0;
            let Sum { worlds, failed, answered, .. } = sum;
            // Without a reader of the output there is nobody to tell.
            drop(writeln!(
                out,
                "{worlds} worlds, {failed} failed, {hours:.2} simulated hours, {answered} operations"
            ));
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            drop(writeln!(std::io::stderr(), "explore: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn explore(arguments: &Arguments, out: &mut impl std::io::Write) -> anyhow::Result<Sum> {
    let shapes = match arguments.world.as_deref() {
        None => Shape::ALL.to_vec(),
        Some("one") => vec![Shape::One],
        Some("three") => vec![Shape::Three],
        Some("five") => vec![Shape::Five],
        Some(other) => anyhow::bail!("--world: {other} is neither one nor three"),
    };
    let plant = match arguments.plant.as_deref() {
        None => None,
        Some(name) => Some(
            Plant::ALL
                .into_iter()
                .find(|plant| plant.name() == name)
                .ok_or_else(|| anyhow::anyhow!("--plant: one of {:?}", Plant::ALL.map(Plant::name)))?,
        ),
    };
    let (mut seed, end) = match (arguments.seed, arguments.seeds.as_deref()) {
        (Some(seed), _) => (seed, seed.saturating_add(1)),
        (None, Some(range)) => {
            let (from, to) =
                range.split_once("..").ok_or_else(|| anyhow::anyhow!("--seeds: A..B, not {range}"))?;
            (from.parse()?, to.parse()?)
        }
        (None, None) => (SystemEntropy.next_u64() >> 16, u64::MAX),
    };
    let clock = SystemClock::default();
    let limit = arguments.seconds.map_or(Duration::MAX, Duration::from_secs);
    let mut sum = Sum::default();
    while seed < end && clock.monotonic() < limit {
        for shape in &shapes {
            let look = if arguments.seed.is_some() { run_in_detail } else { run };
            let outcome = look(seed, *shape, plant);
            sum.worlds += 1;
            sum.simulated += outcome.simulated;
            sum.answered += outcome.answered;
            if arguments.seed.is_some() {
                outcome.log.iter().try_for_each(|line| writeln!(out, "{line}"))?;
                writeln!(out, "trace {:016x}, {} operations", outcome.trace, outcome.answered)?;
            }
            if !outcome.violations.is_empty() {
                sum.failed += 1;
                tell(out, seed, *shape, &outcome)?;
                if arguments.first {
                    return Ok(sum);
                }
            }
        }
        seed += 1;
    }
    Ok(sum)
}

fn tell(out: &mut impl std::io::Write, seed: u64, shape: Shape, outcome: &Outcome) -> anyhow::Result<()> {
    let world = shape.name();
    writeln!(out, "FAILED: cargo run -p mooseng-sim --bin explore -- --seed {seed} --world {world}")?;
    for violation in &outcome.violations {
        writeln!(out, "    {violation:.600}")?;
    }
    Ok(())
}
