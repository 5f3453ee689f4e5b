//! `bench --suite groups`: many groups in the same masters. What durable creates cost where the callers are spread over 1, 2
//! and 4 groups, and what masters with 1, 16 and 256 groups cost at rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::target::Pids;
use super::usage::{Snapshot, rss_mib};
use super::wire::{Counts, Sample, build_example, can_count_syncs, load, masters_of, perf_sum, summary};
use super::{BenchArgs, SETTLE};
use crate::cluster::{Cluster, Options};
use crate::{shell, status, test, wait};

const LOADED: [u16; 3] = [1, 2, 4];
const AT_REST: [u16; 3] = [1, 16, 256];
const CALLERS: [u32; 3] = [1, 16, 64];
/// How long the masters may take until they are all in all groups.
const GROUPS_LIMIT: Duration = Duration::from_secs(180);
const REST_SECONDS: u64 = 10;
/// Ports of one cluster.
const PORTS: u16 = 200;
/// What a master's loop calls for each write to a socket.
const WRITES: &str = "syscalls:sys_enter_write,syscalls:sys_enter_sendto,syscalls:sys_enter_writev";

pub(super) fn run(root: &Path, args: &BenchArgs, scratch: &Path) -> Result<()> {
    let binary = test::build(root, true)?;
    let caller = build_example(root, "wire")?;
    let counts = can_count_syncs();
    loaded(&binary, &caller, args, scratch, counts)?;
    at_rest(&binary, args, scratch, counts)
}

/// All clusters are up at once, and the loads take turns.
fn loaded(binary: &Path, caller: &Path, args: &BenchArgs, scratch: &Path, counts: Counts) -> Result<()> {
    let mut clusters = Vec::new();
    for (at, cells) in (0..).zip(LOADED) {
        let port_base = args.port_base + at * PORTS;
        clusters.push((cells, port_base, start(binary, scratch, port_base, cells)?));
    }
    println!("3 masters for each number of groups and the callers on this machine (release build), in turn;");
    println!("every create is on the disks of a majority before it is acknowledged");
    println!("syncs per create: of all masters together, {}", counts.describe());
    let mut samples = vec![Vec::new(); LOADED.len() * CALLERS.len()];
    for _ in 0..args.runs {
        let loads = CALLERS.iter().flat_map(|callers| clusters.iter().map(move |it| (*callers, it)));
        for ((callers, (cells, port_base, cluster)), samples) in loads.zip(&mut samples) {
            wait::check_interrupt()?;
            let layout = format!("cells:{cells}");
            let sample = load(cluster, caller, *port_base, (callers, &layout), counts);
            samples.push(sample.with_context(|| cluster.last_words())?);
        }
    }
    println!(
        "callers  groups   creates/s    median us     p99 us  syncs/create  CPU us/create  (medians of {})",
        args.runs
    );
    let loads = CALLERS.iter().flat_map(|callers| LOADED.map(|cells| (callers, cells)));
    for ((callers, cells), samples) in loads.zip(&samples) {
        let samples: &[Sample] = samples;
        println!("{callers:>7}  {cells:>6}  {}", summary(samples));
    }
    Ok(())
}

fn at_rest(binary: &Path, args: &BenchArgs, scratch: &Path, counts: Counts) -> Result<()> {
    println!("at rest, of the three masters together, over {REST_SECONDS} s:");
    println!(" groups   memory MiB    CPU %   writes/s");
    for cells in AT_REST {
        wait::check_interrupt()?;
        // The ports, and with them the directories, behind those of the clusters before.
        let cluster = start(binary, scratch, args.port_base + LOADED.len() as u16 * PORTS, cells)?;
        wait::let_run(SETTLE)?;
        let masters = masters_of(&cluster);
        let pids = Pids { servers: masters.clone(), clients: Vec::new() };
        let (before, begun) = (Snapshot::take(&pids), Instant::now());
        let writes = match counts {
            Counts::Perf => {
                let mut perf = Command::new("perf");
                let pids: Vec<String> = masters.iter().map(u32::to_string).collect();
                perf.args(["stat", "-x,", "-e", WRITES, "-p", &pids.join(","), "--", "sleep"]);
                perf.arg(REST_SECONDS.to_string());
                Some(perf_sum(&shell::finish(&mut perf, super::wire::RUN_LIMIT)?.stderr))
            }
            Counts::Diskstats => {
                wait::let_run(Duration::from_secs(REST_SECONDS))?;
                None
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        let used = before.until_now(&pids, begun.elapsed());
        let writes = writes.map_or_else(|| "-".to_owned(), |writes| format!("{:.0}", writes / seconds));
        println!(
            "{cells:>7}  {:>11.0}  {:>7.1}  {writes:>9}",
            rss_mib(&masters),
            used.server_s / seconds * 100.0
        );
    }
    Ok(())
}

/// A cluster whose masters host so many groups.
fn start(binary: &Path, scratch: &Path, port_base: u16, cells: u16) -> Result<Cluster> {
    let place = |kind: &str| -> PathBuf { scratch.join(format!("{kind}-{port_base}-{cells}")) };
    let (data, mount) = (place("data"), place("mnt"));
    let binary = binary.to_owned();
    let options = Options { binary, data, mount, port_base, masters: 3, chunkservers: 1 };
    let mut cluster = Cluster::start(&options)?;
    cluster.stop()?;
    for number in 1..=3 {
        let config = cluster.config(&format!("master-{number}"));
        let text = fs::read_to_string(&config)?;
        fs::write(&config, format!("cells = {cells}\n{text}"))?;
    }
    cluster.launch()?;
    status::wait_for_groups(GROUPS_LIMIT, cells.into(), || cluster.mooseng(&[]))?;
    Ok(cluster)
}
