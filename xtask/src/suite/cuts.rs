//! The power of some chunkservers, or of all, is cut under load: what an fsync has covered is there, or its writer was
//! told; nobody reads what was never written; and what was read once is read again.
//!
//! Each chunkserver has a disk of its own that loses what was not synced ([`disks`]). Masters and mounts go on.

mod disks;
mod load;
mod promise;
mod shutdown;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use self::disks::Disks;
use self::load::Load;
use super::{Context, Outcome};
use crate::cluster::{Cluster, Options};
use crate::extra_mount::ExtraMount;
use crate::random::Random;
use crate::{shell, wait};

const CHUNKSERVERS: u32 = 6;
/// How often the power is cut, unless the caller says otherwise.
const ROUNDS: u32 = 3;
const BEFORE_MS: (u64, u64) = (300, 3000);
const DOWN_MS: (u64, u64) = (0, 3000);
const AFTER_MS: (u64, u64) = (500, 3000);
/// From the restart of the last server until fsck finds everything in order.
const FSCK_LIMIT: Duration = Duration::from_secs(60);
const SHOWN_MAX: usize = 12;
/// The files of so many rounds stay, so that later cuts meet idle leases; more would fill the disks.
const ROUNDS_KEPT: u32 = 5;
/// Calls fail soon enough for a round to end.
const SETTINGS: &str = "retry_ms = 20000";

pub(super) fn rounds(context: &Context) -> u32 {
    context.rounds.unwrap_or(ROUNDS)
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::Skipped("small disks are mounted, which only root may".to_owned()));
    }
    if !Path::new("/dev/loop-control").exists() || !shell::has_program("mkfs.ext4") {
        return Ok(Outcome::Skipped("there are no loop devices, or no mkfs.ext4".to_owned()));
    }
    let seed = context.seed();
    println!("cuts: seed {seed}");
    let options = Options { chunkservers: CHUNKSERVERS, ..context.options() };
    let disks = Disks::make(&options)?;
    disks.prove(1)?;
    let mut cluster = Cluster::start(&options)?;
    let a = ExtraMount::start(&cluster, "mount-a", SETTINGS)?;
    let b = ExtraMount::start(&cluster, "mount-b", SETTINGS)?;
    let mut random = Random::seeded(seed);
    let mut failed = Vec::new();
    for number in 1..=rounds(context) {
        let mut round =
            Round { number, points: [a.point(), b.point()], random: Random::seeded(random.next()) };
        if !round.run(context, &mut cluster, &disks)? {
            failed.push(number);
        }
        if let Some(old) = number.checked_sub(ROUNDS_KEPT).filter(|old| *old > 0) {
            fs::remove_dir_all(a.point().join(place_of(old)))
                .with_context(|| format!("remove the files of round {old}"))?;
        }
    }
    ensure!(
        failed.is_empty(),
        "seed {seed}: wrong in {} of {} rounds: {failed:?}\n{}",
        failed.len(),
        rounds(context),
        cluster.last_words()
    );
    a.stop()?;
    b.stop()?;
    Ok(Outcome::Passed)
}

/// Where a round's files are, below a mount point.
fn place_of(round: u32) -> String {
    format!("round-{round}")
}

/// A load, a cut in its midst, an audit. Each has files of its own.
struct Round<'a> {
    number: u32,
    points: [&'a Path; 2],
    random: Random,
}

impl Round<'_> {
    /// Answers whether everything was right; an error is one of the suite's own, or a cluster that does not come back.
    fn run(&mut self, context: &Context, cluster: &mut Cluster, disks: &Disks) -> Result<bool> {
        let begun = Instant::now();
        let mut load = Load::start(self.points, &place_of(self.number), &mut self.random)?;
        wait::let_run(self.between(BEFORE_MS))?;
        let (early, _) = load.findings();
        let victims = self.victims();
        let how = self.cut(cluster, disks, &load, &victims)?;
        wait::let_run(self.between(AFTER_MS))?;
        load.stop().map_err(|error| error.context(cluster.last_words()))?;
        let (told, mut wrong) = load.findings();
        wrong.extend(early.iter().map(|text| format!("told before any cut: {text}")));
        if victims.len() == 1 {
            wrong.extend(told.iter().map(|text| format!("told though one copy was always up: {text}")));
        }
        wrong.extend(self.audit(cluster, &load)?);
        println!(
            "cuts: round {}: {how}; {} calls acknowledged, {} errors told, {} wrong; {} s",
            self.number,
            load.acknowledged(),
            told.len(),
            wrong.len(),
            begun.elapsed().as_secs()
        );
        if !wrong.is_empty() {
            let shown = wrong.get(..SHOWN_MAX.min(wrong.len())).unwrap_or_default();
            println!("  {}\n{}", shown.join("\n  "), load.histories(shown));
            load.write_histories(&context.scratch.join(format!("round-{}.log", self.number)))?;
        }
        Ok(wrong.is_empty())
    }

    fn between(&mut self, (least, most): (u64, u64)) -> Duration {
        Duration::from_millis(least + self.random.below(most - least))
    }

    /// One, some or all.
    fn victims(&mut self) -> Vec<u32> {
        let mut servers: Vec<u32> = (1..=CHUNKSERVERS).collect();
        for index in (1..servers.len()).rev() {
            servers.swap(index, self.random.index(index + 1));
        }
        let count = match self.random.below(3) {
            0 => 1,
            1 => 2 + self.random.index(servers.len() - 2),
            _ => servers.len(),
        };
        servers.truncate(count);
        servers
    }

    /// Kills the servers, takes from their disks what was not synced, and starts them again after a while.
    fn cut(&mut self, cluster: &mut Cluster, disks: &Disks, load: &Load, victims: &[u32]) -> Result<String> {
        let name = |number: &u32| format!("chunkserver-{number}");
        load.shared.trouble.store(true, Ordering::SeqCst);
        let at = load.age().as_millis();
        for number in victims {
            cluster.kill(&name(number))?;
        }
        let mut how = Vec::new();
        for number in victims {
            how.push(format!("{number} ({})", disks.cut(*number, &mut self.random)?));
        }
        if victims.len() > 1 {
            load.shared.heavy_cuts.fetch_add(1, Ordering::SeqCst);
        }
        let down = self.between(DOWN_MS);
        wait::let_run(down)?;
        for number in victims {
            cluster.restart(&name(number))?;
        }
        Ok(format!("power of {} cut at {at} ms for {} ms", how.join(", "), down.as_millis()))
    }

    /// Reads everything through a mount that has never seen it, and once more through another.
    fn audit(&self, cluster: &Cluster, load: &Load) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut last = Err(anyhow::anyhow!("fsck was not asked"));
        let clean = wait::quietly(FSCK_LIMIT, || {
            last = shell::stdout(&mut cluster.mooseng(&["fsck"]));
            last.is_ok() || wait::interrupted()
        });
        if !clean && let Err(error) = last {
            wrong.push(format!("fsck: {error:#}"));
        }
        let mut reads = Vec::new();
        for _ in 0..2 {
            wait::check_interrupt()?;
            let mount = ExtraMount::start(cluster, "mount-audit", SETTINGS)?;
            let (bytes, found) = load.audit(mount.point());
            mount.stop()?;
            let news: Vec<String> = found.into_iter().filter(|text| !wrong.contains(text)).collect();
            wrong.extend(news);
            reads.push(bytes);
        }
        let [first, second] = reads.as_slice() else { bail!("two reads were made") };
        for (number, (first, second)) in first.iter().zip(second).enumerate() {
            if first != second {
                wrong.push(format!("file {number} of the round was not the same when read again"));
            }
        }
        Ok(wrong)
    }
}
