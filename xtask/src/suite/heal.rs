//! Chunkservers lose their disks one after the other, one comes back with what it had, and one is drained and taken away: every chunk
//! gets its copies again by itself, and no byte is lost.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{Context, Outcome, tree};
use crate::cluster::Cluster;
use crate::{shell, wait};

const SERVERS: u32 = 6;
/// From the loss of a server to the last copy that is made again, and from its return to the last that is taken away.
const HEAL_LIMIT: Duration = Duration::from_secs(180);
/// It is taken away for good in the end.
const DRAINED: &str = "chunkserver-2";
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// What `mooseng chunk matrix --json` says.
#[derive(Debug, Deserialize)]
struct Chunks {
    matrix: Vec<Count>,
    conditions: Vec<Condition>,
    unknown: u64,
    todo: u64,
    complete: bool,
    marked: u64,
}

#[derive(Debug, Deserialize)]
struct Count {
    wanted: u32,
    live: u32,
    chunks: u64,
}

#[derive(Debug, Deserialize)]
struct Condition {
    condition: String,
    chunks: u64,
}

impl Chunks {
    fn ask(cluster: &Cluster) -> Result<Self> {
        let done = shell::finish(&mut cluster.mooseng(&["chunk", "matrix", "--json"]), ASK_LIMIT)?;
        serde_json::from_str(&done.stdout).with_context(|| shell::tail(&done.stderr).to_owned())
    }

    fn total(&self) -> u64 {
        self.matrix.iter().map(|count| count.chunks).sum()
    }

    fn is_at_goal(&self) -> bool {
        self.complete && self.marked == 0 && self.matrix.iter().all(|count| count.live >= count.wanted)
    }

    /// Nothing is missing, and nothing is too much.
    fn is_healed(&self) -> bool {
        let troubled: u64 = self.conditions.iter().map(|it| it.chunks).sum();
        self.is_at_goal() && troubled == 0 && self.unknown == 0 && self.todo == 0
    }

    fn count(&self, condition: &str) -> u64 {
        self.conditions.iter().find(|it| it.condition == condition).map_or(0, |it| it.chunks)
    }
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let mut options = context.options();
    options.chunkservers = SERVERS;
    let mut cluster = Cluster::start(&options)?;
    let files = cluster.mount_point().join("files");
    fs::create_dir(&files)?;
    tree::generate(&files, if context.quick { 150 } else { 1500 }, 4)?;
    shell::stdout(Command::new("sync").arg("-f").arg(&files))?;
    let written = tree::digest(&files)?;
    // Leases end with the mount, so that every chunk is at rest.
    cluster.remount()?;
    let chunks = wait_until(&cluster, "all chunks to have their copies", Chunks::is_healed)?.total();
    ensure!(chunks > 0, "the files have no chunks");

    let rounds = if context.quick { 2 } else { SERVERS };
    for number in 1..=rounds {
        let server = format!("chunkserver-{number}");
        let begun = Instant::now();
        cluster.kill(&server)?;
        fs::remove_dir_all(disk(&cluster, &server))?;
        let seen = wait_until(&cluster, "the loss to be seen", |now| now.count("endangered") > 0)?;
        let endangered = seen.count("endangered");
        wait_until(&cluster, "the lost copies to be made again", Chunks::is_at_goal)?;
        println!(
            "heal: {server} lost its disk; {endangered} of {chunks} chunks had one copy left and have two again after {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        cluster.restart(&server)?;
    }
    let healed = wait_until(&cluster, "everything to be at rest", Chunks::is_healed)?;
    ensure!(healed.total() == chunks, "{} chunks of {chunks} are left", healed.total());
    cluster.remount()?;
    tree::expect_equal("files whose copies were all lost once", &written, &tree::digest(&files)?)?;

    // One that was given up comes back with all that it had. The first has got much of what the others lost.
    let server = "chunkserver-1".to_owned();
    cluster.kill(&server)?;
    wait_until(&cluster, "the loss to be seen", |now| now.count("endangered") > 0)?;
    wait_until(&cluster, "the lost copies to be made again", Chunks::is_at_goal)?;
    cluster.restart(&server)?;
    wait_until(&cluster, "what is too much to be set aside", |now| now.is_healed() && aside(&cluster) > 0)?;
    println!("heal: {server} came back; {} files of surplus copies are in quarantine", aside(&cluster));
    drain(&mut cluster)?;
    let healthy = shell::finish(&mut cluster.mooseng(&["health"]), ASK_LIMIT)?;
    if !healthy.status.success() {
        bail!("`mooseng health` does not say that all is well: {}", healthy.stdout);
    }
    cluster.remount()?;
    tree::expect_equal("files after all that", &written, &tree::digest(&files)?)?;
    shell::stdout(&mut cluster.mooseng(&["fsck"]))?;
    Ok(Outcome::Passed)
}

fn disk(cluster: &Cluster, server: &str) -> PathBuf {
    cluster.data().join(server).join("disk")
}

/// A server's copies go elsewhere, it is stopped and forgotten.
fn drain(cluster: &mut Cluster) -> Result<()> {
    let begun = Instant::now();
    let command = |words: &[&str]| cluster.mooseng(words);
    shell::stdout_within(&mut command(&["server", "drain", DRAINED, "--wait"]), HEAL_LIMIT)?;
    let listed = shell::stdout(&mut command(&["server", "list"]))?;
    let line = listed.lines().find(|line| line.contains(DRAINED)).unwrap_or_default();
    ensure!(line.contains("safe to pull now"), "{DRAINED} is drained, but the list says: {line}");
    println!("heal: {DRAINED} was drained after {:.1} s", begun.elapsed().as_secs_f64());
    cluster.kill(DRAINED)?;
    fs::remove_dir_all(disk(cluster, DRAINED))?;
    // It is up until it has been silent for a while.
    wait::until(ASK_LIMIT, "the drained server to be forgotten", || {
        let done = shell::finish(&mut cluster.mooseng(&["server", "forget", DRAINED]), ASK_LIMIT)?;
        Ok(done.status.success())
    })?;
    wait_until(cluster, "nothing to be missed", Chunks::is_healed)?;
    Ok(())
}

/// Files in quarantine, on all servers.
fn aside(cluster: &Cluster) -> usize {
    let of = |number: u32| fs::read_dir(disk(cluster, &format!("chunkserver-{number}")).join("quarantine"));
    (1..=SERVERS).map(|number| of(number).map_or(0, Iterator::count)).sum()
}

/// Asks until it is so; what was said last.
fn wait_until(cluster: &Cluster, what: &str, done: impl Fn(&Chunks) -> bool) -> Result<Chunks> {
    let mut last = None;
    let waited = wait::until(HEAL_LIMIT, what, || {
        let now = Chunks::ask(cluster)?;
        let done = done(&now);
        last = Some(now);
        Ok(done)
    });
    waited.with_context(|| format!("the last word: {last:?}\n{}", cluster.last_words()))?;
    last.context("nothing was said")
}
