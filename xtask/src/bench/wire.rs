//! `bench --suite wire`: durable creates without a mount, and what each costs the masters.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::BenchArgs;
use super::target::Pids;
use super::usage::Snapshot;
use crate::cluster::{Cluster, Options};
use crate::{shell, test, verify, wait};

const CALLERS: [u32; 3] = [1, 16, 64];
const LAYOUTS: [&str; 2] = ["own", "shared"];
const SECONDS: u32 = 4;
const OPERATIONS_MAX: u32 = 60_000;
pub(super) const RUN_LIMIT: Duration = Duration::from_secs(60);
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
const SYNCS: &str = "syscalls:sys_enter_fdatasync,syscalls:sys_enter_fsync";

/// One run's figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sample {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Of all masters, for each create.
    syncs: f64,
    cpu_us: f64,
}

pub(super) fn run(root: &Path, args: &BenchArgs, scratch: &Path) -> Result<()> {
    let binary = test::build(root, true)?;
    let caller = build_example(root, "wire")?;
    let (data, mount) = (scratch.join("data"), scratch.join("mnt"));
    let options = Options { binary, data, mount, port_base: args.port_base, masters: 3, chunkservers: 1 };
    let cluster = Cluster::start(&options)?;
    let counts = can_count_syncs();
    println!("3 masters and the callers on this machine (release build), no mount between them;");
    println!("every create is on the disks of a majority before it is acknowledged");
    println!("syncs per create: of all masters together, {}", counts.describe());
    let mut samples = vec![Vec::new(); CALLERS.len() * LAYOUTS.len()];
    for _ in 0..args.runs {
        let loads = LAYOUTS.iter().flat_map(|layout| CALLERS.map(|callers| (callers, *layout)));
        for ((callers, layout), samples) in loads.zip(&mut samples) {
            wait::check_interrupt()?;
            let sample = load(&cluster, &caller, args.port_base, (callers, layout), counts)
                .with_context(|| cluster.last_words())?;
            samples.push(sample);
        }
    }
    println!(
        "callers  directory   creates/s    median us     p99 us  syncs/create  CPU us/create  (medians of {})",
        args.runs
    );
    let loads = LAYOUTS.iter().flat_map(|layout| CALLERS.map(|callers| (callers, *layout)));
    for ((callers, layout), samples) in loads.zip(&samples) {
        println!("{callers:>7}  {layout:<9}  {}", summary(samples));
    }
    Ok(())
}

/// Builds an example of the client and says where it is.
pub(super) fn build_example(root: &Path, name: &str) -> Result<PathBuf> {
    let words = ["build", "--release", "--package", "mooseng-client", "--example", name];
    shell::visible(&mut verify::command(root, &words), BUILD_LIMIT)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |path| root.join(path));
    Ok(target.join("release/examples").join(name))
}

/// How syncs are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    Perf,
    Diskstats,
}

impl Counts {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Perf => "fdatasync and fsync as `perf stat` counts them",
            Self::Diskstats => "flushes in /proc/diskstats, which are those of the whole machine",
        }
    }
}

pub(super) fn can_count_syncs() -> Counts {
    let own = std::process::id().to_string();
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", SYNCS, "-p", &own, "--", "true"]);
    match shell::finish(&mut perf, RUN_LIMIT) {
        Ok(done) if done.status.success() => Counts::Perf,
        _ => Counts::Diskstats,
    }
}

/// The pids of a cluster's masters.
pub(super) fn masters_of(cluster: &Cluster) -> Vec<u32> {
    let masters = cluster.pids().into_iter().filter(|(name, _)| name.starts_with("master"));
    masters.map(|(_, pid)| pid).collect()
}

/// One run of the callers.
pub(super) fn load(
    cluster: &Cluster,
    caller: &Path,
    port_base: u16,
    (callers, layout): (u32, &str),
    counts: Counts,
) -> Result<Sample> {
    let masters = masters_of(cluster);
    let addresses: Vec<String> = (0..3).map(|number| format!("127.0.0.1:{}", port_base + number)).collect();
    let mut command = match counts {
        Counts::Perf => {
            let mut perf = Command::new("perf");
            let pids: Vec<String> = masters.iter().map(u32::to_string).collect();
            perf.args(["stat", "-x,", "-e", SYNCS, "-p", &pids.join(","), "--"]).arg(caller);
            perf
        }
        Counts::Diskstats => Command::new(caller),
    };
    command
        .arg(cluster.data().join("client.key"))
        .arg(addresses.join(","))
        .arg(callers.to_string())
        .arg(layout);
    command.arg(SECONDS.to_string()).arg(OPERATIONS_MAX.to_string());
    let pids = Pids { servers: masters, clients: Vec::new() };
    let (flushes, before, start) = (disk_flushes(), Snapshot::take(&pids), Instant::now());
    let done = shell::finish(&mut command, RUN_LIMIT)?;
    if !done.status.success() {
        bail!("{}: {}\n{}", shell::describe(&command), done.status, shell::tail(&done.stderr));
    }
    let used = before.until_now(&pids, start.elapsed());
    let operations = value(&done.stdout, "operations=")?.max(1.0);
    let syncs = match counts {
        Counts::Perf => perf_sum(&done.stderr),
        Counts::Diskstats => disk_flushes() - flushes,
    };
    Ok(Sample {
        per_second: operations / value(&done.stdout, "seconds=")?.max(1e-9),
        p50_us: value(&done.stdout, "p50_us=")?,
        p99_us: value(&done.stdout, "p99_us=")?,
        syncs: syncs / operations,
        cpu_us: used.server_s * 1e6 / operations,
    })
}

/// The number behind `key` in a line of `key=number` words.
pub(super) fn value(text: &str, key: &str) -> Result<f64> {
    let word = text.split_whitespace().find_map(|word| word.strip_prefix(key));
    word.and_then(|word| word.parse().ok()).with_context(|| format!("no {key} in {text:?}"))
}

/// All counts in what `perf stat -x,` says; one that was never hit is `<not counted>`.
pub(super) fn perf_sum(text: &str) -> f64 {
    let count = |line: &str| line.split(',').next()?.parse::<f64>().ok();
    text.lines().filter(|line| line.contains("sys_enter_")).filter_map(count).sum()
}

/// Flushes of all disks since the machine started: the sixteenth figure behind the name.
fn disk_flushes() -> f64 {
    flushes(&std::fs::read_to_string("/proc/diskstats").unwrap_or_default())
}

fn flushes(table: &str) -> f64 {
    let flushes = |line: &str| line.split_whitespace().nth(18)?.parse::<f64>().ok();
    table.lines().filter_map(flushes).sum()
}

pub(super) fn summary(samples: &[Sample]) -> String {
    let median = |figure: fn(&Sample) -> f64| {
        let mut figures: Vec<f64> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    };
    format!(
        "{:>10.0}  {:>11.0}  {:>9.0}  {:>12.2}  {:>13.0}",
        median(|sample| sample.per_second),
        median(|sample| sample.p50_us),
        median(|sample| sample.p99_us),
        median(|sample| sample.syncs),
        median(|sample| sample.cpu_us)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_programs_say() {
        let line = "operations=1200 seconds=4.001 p50_us=700 p99_us=3000\n";
        assert_eq!(value(line, "operations=").unwrap(), 1200.0);
        assert!(value(line, "p42_us=").is_err());
        let perf = "31,,syscalls:sys_enter_fdatasync,9,100.00,,\n<not counted>,,syscalls:sys_enter_fsync,0,100.00,,\n";
        assert_eq!(perf_sum(perf), 31.0);
        let disks = " 254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 160 17\n 7 0 loop0 0 0\n";
        assert_eq!(flushes(disks), 160.0);
    }

    #[test]
    fn the_middle_of_the_runs_is_told() {
        let sample = |per_second| Sample { per_second, ..Sample::default() };
        assert!(summary(&[sample(9.0), sample(1.0), sample(5.0)]).trim_start().starts_with('5'));
    }
}
