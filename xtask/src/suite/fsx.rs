//! fsx: random reads, writes, truncations and mapped accesses of one file, each read checked against a copy in memory.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Context, Outcome, tools};
use crate::shell;

const SEEDS: [u32; 3] = [1, 2, 3];
/// Four operations in nine wait for disks (those of three masters for a truncation, of two copies for an `msync`): from 1 ms
/// for each operation on a quiet machine to 3 ms where disks are slow.
const OPERATIONS: u32 = 25_000;
const SEED_LIMIT: Duration = Duration::from_secs(240);

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let program = tools::installed(context, "fsx", "0.3.2")?;
    let operations = if context.quick { OPERATIONS / 5 } else { OPERATIONS };
    let cluster = context.cluster()?;
    for seed in SEEDS {
        let file = cluster.mount_point().join(format!("fsx-{seed}"));
        let mut fsx = Command::new(&program);
        fsx.args(["-S", &seed.to_string(), "-N", &operations.to_string(), "-P"])
            .arg(&context.scratch)
            .arg(&file);
        let done = shell::finish(&mut fsx, SEED_LIMIT).with_context(|| cluster.last_words())?;
        if !done.status.success() {
            bail!(
                "fsx with seed {seed}: {}\n{}{}",
                done.status,
                shell::tail(&done.stdout),
                shell::tail(&done.stderr)
            );
        }
        println!("fsx: seed {seed}, {operations} operations, clean");
        std::fs::remove_file(&file)?;
    }
    Ok(Outcome::Passed)
}
