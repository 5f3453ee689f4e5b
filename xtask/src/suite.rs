//! The end-to-end suites: each drives a real, mounted cluster from outside, as a user would, and has a limit on its time.

mod bad_start;
mod cuts;
mod dead_mount;
mod failover;
mod fsx;
mod full_disk;
mod heal;
mod journal;
mod kill_all;
mod kill_chunkserver;
mod load;
mod membership;
mod pjdfstest;
mod smoke;
mod stream;
mod syscall;
mod tools;
mod tree;
mod two_mounts;
mod upgrade;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{Cluster, Options};
use crate::random::Random;

/// The exit code of a suite that could not run here, as test harnesses have it.
pub(crate) const SKIPPED: u8 = 77;

/// How a suite ended that did not fail.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    Skipped(String),
}

/// What a suite is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) root: PathBuf,
    pub(crate) binary: PathBuf,
    /// A directory of its own, removed afterwards; whatever is mounted below it is taken down.
    pub(crate) scratch: PathBuf,
    /// The first of a hundred ports that no other suite uses.
    pub(crate) port_base: u16,
    pub(crate) quick: bool,
    /// How often a suite does what it does, if the caller said so.
    pub(crate) rounds: Option<u32>,
    /// What chance is made of, if the caller said so.
    pub(crate) seed: Option<u64>,
}

/// How far apart two clusters of one suite are in ports.
const PORTS_PER_CLUSTER: u16 = 50;

impl Context {
    /// The seed of this run; to be printed.
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(Random::fresh_seed)
    }

    /// The cluster most suites use: three of each.
    fn options(&self) -> Options {
        self.options_for(0)
    }

    /// The n-th cluster of a suite, with directories and ports of its own.
    fn options_for(&self, number: u16) -> Options {
        let place = self.scratch.join(format!("cluster-{number}"));
        Options {
            binary: self.binary.clone(),
            data: place.join("data"),
            mount: place.join("mnt"),
            port_base: self.port_base + number * PORTS_PER_CLUSTER,
            masters: 3,
            chunkservers: 3,
        }
    }

    fn cluster(&self) -> Result<Cluster> {
        Cluster::start(&self.options())
    }

    /// Takes down what any cluster of this suite left behind.
    pub(crate) fn sweep(&self) {
        for number in 0..2 {
            let options = self.options_for(number);
            crate::cluster::sweep(&options.data, &options.mount);
        }
        crate::mounts::unmount_below(&self.scratch);
        failover::sweep_leftovers();
    }
}

/// One suite.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) limit: fn(&Context) -> Duration,
    pub(crate) run: fn(&Context) -> Result<Outcome>,
}

const fn suite(
    name: &'static str,
    limit: fn(&Context) -> Duration,
    run: fn(&Context) -> Result<Outcome>,
) -> Suite {
    Suite { name, limit, run }
}

pub(crate) const SUITES: [Suite; 14] = [
    suite("smoke", |_| minutes(8), smoke::run),
    suite("kill_all", |context| minutes(2 + kill_all::rounds(context)), kill_all::run),
    suite("kill_chunkserver", |_| minutes(5), kill_chunkserver::run),
    suite("heal", |context| minutes(if context.quick { 8 } else { 20 }), heal::run),
    suite("full_disk", |_| minutes(5), full_disk::run),
    suite("bad_start", |_| minutes(6), bad_start::run),
    suite("pjdfstest", |_| minutes(6), pjdfstest::run),
    suite("membership", |_| minutes(5), membership::run),
    suite("upgrade", |_| minutes(4), upgrade::run),
    suite("fsx", |_| minutes(8), fsx::run),
    suite("failover", failover::limit, failover::run),
    suite("dead_mount", |_| minutes(4), dead_mount::run),
    suite("two_mounts", |context| minutes(5 + 2 * two_mounts::rounds(context)), two_mounts::run),
    suite("cuts", |context| minutes(3 + 4 * cuts::rounds(context)), cuts::run),
];

fn minutes(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_names_of_their_own() {
        let mut names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUITES.len());
    }
}
