//! Two mounts of one cluster at once: what one closes, the other opens.
//!
//! Operations in turn from a seed, against a model in memory: no operation begins before the one before has ended, so
//! there is one right answer to each. Before them, loads at the same time: writers and readers of neighbouring blocks on one
//! mount, records appended through both, stores through mappings of closed files, and files that are changed while the other
//! mount still believes what it has seen.

mod content;
mod model;
mod player;
mod reopened;
mod together;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use self::player::Player;
use super::{Context, Outcome};
use crate::cluster::{Cluster, Options};
use crate::extra_mount::ExtraMount;
use crate::{shell, wait};

/// Operations in turn of one round.
const OPERATIONS: u32 = 1000;
/// Names must be right at once; attributes may be believed as long as by default.
const SETTINGS: &str = "entry_timeout_ms = 0";

pub(super) fn rounds(context: &Context) -> u32 {
    context.rounds.unwrap_or(1)
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let seed = context.seed();
    println!("two_mounts: seed {seed}");
    let cluster = Cluster::start(&Options { chunkservers: 6, ..context.options() })?;
    let a = ExtraMount::start(&cluster, "mount-a", SETTINGS)?;
    let b = ExtraMount::start(&cluster, "mount-b", SETTINGS)?;
    let points = [a.point(), b.point()];
    let mut wrong = Vec::new();
    let parts: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("blocks", &|| together::blocks(points, rounds(context))),
        ("appends", &|| together::appends(points, rounds(context))),
        ("mapped", &|| together::mapped(points, rounds(context))),
        ("reopened", &|| on_believing_mounts(&cluster, rounds(context))),
        ("in turn", &|| in_turn(context, points, seed)),
    ];
    // Each tells something that the others do not: all are run.
    for (name, part) in parts {
        wait::check_interrupt()?;
        if let Err(error) = part() {
            println!("two_mounts: {name}: FAILED: {error:#}");
            wrong.push(name);
        }
    }
    ensure!(wrong.is_empty(), "seed {seed}: failed: {}", wrong.join(", "));
    a.stop()?;
    b.stop()?;
    shell::stdout(&mut cluster.mooseng(&["fsck"])).context("after all")?;
    Ok(Outcome::Passed)
}

/// On mounts that believe names, too, for as long as by default: nothing is asked before an open.
fn on_believing_mounts(cluster: &Cluster, rounds: u32) -> Result<()> {
    let a = ExtraMount::start(cluster, "mount-c", "")?;
    let b = ExtraMount::start(cluster, "mount-d", "")?;
    reopened::reopened([a.point(), b.point()], rounds)?;
    a.stop()?;
    b.stop()
}

fn in_turn(context: &Context, points: [&Path; 2], seed: u64) -> Result<()> {
    let log = context.scratch.join("operations.log");
    let mut player = Player::new(points, &log, seed)?;
    let operations = OPERATIONS.saturating_mul(rounds(context));
    for number in 1..=operations {
        wait::check_interrupt()?;
        player.step().map_err(|error| {
            error.context(format!("operation {number}, seed {seed}:\n{}", player.history()))
        })?;
    }
    player.check_everything().with_context(|| format!("at the end, seed {seed}"))?;
    println!("two_mounts: in turn: {operations} operations, all as the model has it");
    Ok(())
}
