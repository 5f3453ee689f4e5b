//! The project's own tool: `cargo xtask verify`, `fix`, `tidy`, `test`, `bench` and `fuzz`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal; what it prints is its product"
)]

mod bench;
mod cluster;
mod extra_mount;
mod fuzz;
mod mounts;
mod random;
mod shell;
mod status;
mod suite;
mod test;
mod tidy;
mod verify;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::suite::{Context, Outcome};

/// The first port of the first suite; each suite has a hundred of its own.
const PORT_BASE: u16 = 23_000;

#[derive(Parser)]
#[command(name = "xtask", about = "Checks, tests and measures MooseNG")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, clippy, tidy and docs; never writes.
    Verify,
    /// Formats, and lets clippy repair what it can.
    Fix,
    /// The rules about files alone.
    Tidy,
    /// Unit tests, doc tests, fresh worlds of the simulator, and the end-to-end suites on a mounted cluster.
    Test(TestArgs),
    /// Measures ours, a directory, or a peer beside ours.
    Bench(bench::BenchArgs),
    /// Feeds made-up bytes to every decoder.
    Fuzz(fuzz::FuzzArgs),
    /// One suite in this process (what `test` starts).
    #[command(hide = true)]
    Suite(SuiteArgs),
}

#[derive(Args)]
struct TestArgs {
    /// Smaller loads.
    #[arg(long)]
    quick: bool,
    /// Only this suite (may be repeated): unit, doc, explore, smoke, kill_all, …
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often kill_all and cuts cut the power [default: 3], how often failover has each of its faults [default: 1], and
    /// how many thousand operations two_mounts does [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Does again what a suite did that printed this seed (as far as chance alone decides it).
    #[arg(long)]
    seed: Option<u64>,
    /// The first of 1300 ports on 127.0.0.0/8.
    #[arg(long, default_value_t = PORT_BASE)]
    port_base: u16,
}

#[derive(Args)]
struct SuiteArgs {
    name: String,
    #[arg(long)]
    binary: PathBuf,
    #[arg(long)]
    scratch: PathBuf,
    #[arg(long)]
    port_base: u16,
    #[arg(long)]
    rounds: Option<u32>,
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    wait::catch_signals()?;
    let root = root()?;
    match task {
        Task::Verify => verify::verify(&root)?,
        Task::Fix => verify::fix(&root)?,
        Task::Tidy => tidy::run(&root)?,
        Task::Test(TestArgs { quick, only, rounds, seed, port_base }) => {
            test::run(&root, &test::Wanted { quick, only, rounds, seed, port_base })?;
        }
        Task::Bench(args) => bench::run(&root, &args)?,
        Task::Fuzz(args) => fuzz::run(&root, &args)?,
        Task::Suite(SuiteArgs { name, binary, scratch, port_base, rounds, seed, quick }) => {
            let context = Context { root, binary, scratch, port_base, quick, rounds, seed };
            if let Outcome::Skipped(reason) = test::run_one(&context, &name)? {
                println!("{name}: SKIPPED: {reason}");
                return Ok(ExitCode::from(suite::SKIPPED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The root of the repository: where the workspace's manifest is.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask is a directory of the workspace")?.to_owned())
}
