//! A cluster of the level before is upgraded under load, as `docs/operations.md` says: part by part, then the level. The
//! parts that are behind are named until none is; a part that comes late is told what to upgrade.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::load::Load;
use super::{Context, Outcome};
use crate::cluster::Cluster;
use crate::extra_mount::ExtraMount;
use crate::random::Random;
use crate::shell::Finished;
use crate::status::{self, Master, Status};
use crate::{shell, wait};

const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const STATE_LIMIT: Duration = Duration::from_secs(30);
/// Load after the level has risen.
const AFTER: Duration = Duration::from_secs(1);
const THREADS: u32 = 2;
/// The mount beside the cluster's own.
const SECOND: &str = "mount-b";
/// A part with this line behaves as one of the first release.
const OLD: &str = "level_max = 1";
const NEW_LEVEL: u32 = 3;
/// What is said of a rise, before and after it.
const RISES: &str = "from 1 to 3";

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let mut cluster = context.cluster()?;
    found_anew(&mut cluster)?;
    let result = story(context, &mut cluster);
    result.with_context(|| cluster.last_words())?;
    cluster.stop()?;
    Ok(Outcome::Passed)
}

/// The cluster that `up` has made begins again with parts of the old release and nothing but its configuration: a new
/// cluster would have the new level.
fn found_anew(cluster: &mut Cluster) -> Result<()> {
    let fresh = Status::ask(cluster.mooseng(&[]))?.level;
    ensure!(fresh == NEW_LEVEL, "a new cluster has level {fresh}");
    cluster.stop()?;
    for name in servers().chain(["mount".to_owned()]) {
        let text = fs::read_to_string(cluster.config(&name))?;
        fs::remove_dir_all(cluster.data().join(&name))?;
        fs::create_dir_all(cluster.data().join(&name))?;
        fs::write(cluster.config(&name), text)?;
        hold_back(cluster, &name)?;
    }
    cluster.launch()
}

fn servers() -> impl Iterator<Item = String> {
    ["master", "chunkserver"]
        .into_iter()
        .flat_map(|kind| (1..=3).map(move |number| format!("{kind}-{number}")))
}

fn story(context: &Context, cluster: &mut Cluster) -> Result<()> {
    let mut second = ExtraMount::start(cluster, SECOND, "")?;
    let points = [cluster.mount_point().to_path_buf(), second.point().to_path_buf()];
    let place = |thread: u32, point: &PathBuf| point.join("upgrade").join(format!("t{thread}"));
    let places = points
        .iter()
        .zip([0, THREADS])
        .flat_map(|(point, first)| (first..first + THREADS).map(move |thread| place(thread, point)));
    let seed = context.seed();
    println!("upgrade: seed {seed}");
    let mut random = Random::seeded(seed);
    wait_until_all_hear(cluster)?;
    let mut load = Load::start(context, places.collect(), &mut random)?;
    let mut left: Vec<String> = servers().chain(["mount".to_owned(), SECOND.to_owned()]).collect();
    expect_left(cluster, &left)?;
    while !left.is_empty() {
        let name = left.swap_remove(random.index(left.len()));
        let begun = Instant::now();
        load.reset_stall();
        match name.as_str() {
            "mount" => load.without(&points[0], || {
                renew(cluster, "mount")?;
                cluster.remount()
            })?,
            // It has the settings of the cluster's own mount, which goes on with the old ones until it is started anew.
            SECOND => {
                second = load.without(&points[1], || {
                    second.stop()?;
                    renew(cluster, "mount")?;
                    ExtraMount::start(cluster, SECOND, "")
                })?;
            }
            server => {
                cluster.replace(server, |cluster| renew(cluster, server))?;
                wait_until_all_hear(cluster)?;
            }
        }
        expect_left(cluster, &left)?;
        load.check().with_context(|| format!("{name} was started anew"))?;
        println!(
            "upgrade: {name}: {:.1} s, longest operation {} ms",
            begun.elapsed().as_secs_f64(),
            load.stall().as_millis()
        );
    }
    let done = ask(cluster, &[])?;
    ensure!(
        done.status.success() && done.stdout.contains(RISES),
        "the level does not rise: {}{}",
        done.stdout,
        shell::tail(&done.stderr)
    );
    wait::let_run(AFTER)?;
    load.check()?;
    audit(cluster, load, &points)?;
    latecomers(cluster)?;
    second.stop()?;
    // The mount ends its session while there are masters.
    cluster.stop_one("mount")
}

/// Waits until all masters have what the leader has, and hear all chunkservers: a master that leads without them finds no
/// room for new chunks.
fn wait_until_all_hear(cluster: &Cluster) -> Result<()> {
    let hears = |master: &Master| master.servers_up == Some(cluster.chunkservers().into());
    wait::until(STATE_LIMIT, "all masters to hear all chunkservers", || {
        let status = Status::ask(cluster.mooseng(&[])).ok();
        Ok(status.is_some_and(|status| status.in_sync() && status.masters.iter().all(hears)))
    })
}

fn ask(cluster: &Cluster, words: &[&str]) -> Result<Finished> {
    shell::finish(&mut cluster.mooseng(&[&["cluster", "upgrade"], words].concat()), COMMAND_LIMIT)
}

/// From its next start on, a part behaves as one of the new release.
fn renew(cluster: &Cluster, name: &str) -> Result<()> {
    let config = cluster.config(name);
    let text = fs::read_to_string(&config)?;
    let kept: Vec<&str> = text.lines().filter(|line| *line != OLD).collect();
    Ok(fs::write(&config, kept.join("\n"))?)
}

/// From its next start on, a part behaves as one of the old release.
fn hold_back(cluster: &Cluster, name: &str) -> Result<()> {
    let config = cluster.config(name);
    let text = fs::read_to_string(&config)?;
    // Before the first table.
    Ok(fs::write(&config, format!("{OLD}\n{text}"))?)
}

/// Waits until a dry run names these as behind, and no others; until it says that all can go along, if there are none.
fn expect_left(cluster: &Cluster, left: &[String]) -> Result<()> {
    let mut said = String::new();
    let mounts = left.iter().filter(|name| name.starts_with("mount")).count();
    let are_named = |said: &str| {
        servers().all(|name| said.contains(&format!("{name} (")) == left.contains(&name))
            && said.matches("(client, session").count() == mounts
    };
    let waited = wait::until(STATE_LIMIT, "the dry run to name those that are behind", || {
        let done = ask(cluster, &["--dry-run"])?;
        said = format!("{}{}", done.stdout, done.stderr);
        let leader = Status::ask(cluster.mooseng(&[])).ok().and_then(|it| it.leader).unwrap_or_default();
        let refused = !done.status.success();
        Ok(match () {
            () if left.is_empty() => !refused && said.contains(RISES),
            // It does not know that there is more.
            () if left.contains(&leader) => refused && said.contains("the highest that this release knows"),
            () => refused && said.contains("upgrade ") && are_named(&said),
        })
    });
    waited.with_context(|| format!("left are {left:?}, and it says: {said}"))
}

/// Ends the load and looks at what it has written through the mounts by which it was written, and through the others.
fn audit(cluster: &Cluster, load: Load, points: &[PathBuf; 2]) -> Result<()> {
    let [first, second] = points;
    let mut operations = 0;
    for journal in load.finish()? {
        let mut journal = wait::lock(&journal);
        operations += journal.acknowledged;
        let (here, there) = if journal.place.starts_with(first) { (first, second) } else { (second, first) };
        journal.place = there.join(journal.place.strip_prefix(here)?);
        let wrong = journal.audit()?;
        ensure!(wrong.is_empty(), "through the other mount: {}", wrong.join("\n"));
    }
    println!("upgrade: {operations} operations, none failed, all are there on both mounts");
    let level = status::wait_in_sync(STATE_LIMIT, || cluster.mooseng(&[]))?.level;
    ensure!(level == NEW_LEVEL, "the level is {level}");
    shell::stdout_within(&mut cluster.mooseng(&["fsck"]), COMMAND_LIMIT).map(drop)
}

/// Parts of the old release that come after the level has risen.
fn latecomers(cluster: &mut Cluster) -> Result<()> {
    let status = Status::ask(cluster.mooseng(&[]))?;
    let master = status.follower(0).context("there is no follower")?.to_owned();
    cluster.stop_one(&master)?;
    hold_back(cluster, &master)?;
    let done = shell::finish(&mut cluster.daemon("master", &cluster.config(&master)), STATE_LIMIT)?;
    let said = done.stderr.contains("has level 3, this master knows level 1: run a release that knows it");
    ensure!(!done.status.success() && said, "{master}: {}, {}", done.status, shell::tail(&done.stderr));
    renew(cluster, &master)?;
    cluster.restart(&master)?;
    wait_until_all_hear(cluster)?;

    let server = "chunkserver-1";
    cluster.stop_one(server)?;
    hold_back(cluster, server)?;
    cluster.restart(server)?;
    wait::until(STATE_LIMIT, "a chunkserver to be refused", || is_told(cluster, server, server))?;
    cluster.stop_one(server)?;
    renew(cluster, server)?;
    cluster.restart(server)?;

    let late = "mount-late";
    if ExtraMount::start(cluster, late, OLD).is_ok() {
        bail!("a mount of the old release was let in");
    }
    ensure!(is_told(cluster, late, late)?, "a mount is not told why it is refused");
    println!("upgrade: a master, a chunkserver and a mount of the old release were refused");
    Ok(())
}

/// Whether the log of a part says that its name was refused, by whom and why.
fn is_told(cluster: &Cluster, part: &str, name: &str) -> Result<bool> {
    let log = fs::read_to_string(cluster.data().join("log").join(format!("{part}.log")))?;
    Ok(log.contains(&format!("the cluster has level 3, and {name} knows level 1: upgrade {name}")))
}
