//! A mount that is stuck or dies leaves no dead mount point behind, and one that was left behind is taken away at the next
//! start; and what options a mount has, the kernel knows.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{Context, Outcome};
use crate::cluster::Cluster;
use crate::extra_mount::ExtraMount;
use crate::{mounts, shell};

const TAKEN_AWAY: &str = "a mount whose process is gone was taken away";

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let mut cluster = context.cluster()?;
    options(&cluster)?;
    fs::write(cluster.mount_point().join("file"), "content")?;

    // `up` has to kill it. That nothing is mounted afterwards is a part of an orderly stop.
    shell::signal(cluster.pid("mount")?, Signal::STOP);
    cluster.stop().context("with a stuck mount")?;
    ensure!(cluster.said()?.contains(TAKEN_AWAY), "after a stuck mount `up` said: {}", cluster.said()?);

    cluster.launch()?;
    cluster.kill("mount")?;
    cluster.stop().context("with a dead mount")?;

    cluster.launch()?;
    // The kernel now holds the attributes of the dead mount's root, and `up` must not be misled by them.
    fs::metadata(cluster.mount_point())?;
    cluster.crash();
    ensure!(mounts::is_mounted(cluster.mount_point()), "a crash was to leave a dead mount behind");
    cluster.launch().context("on a dead mount")?;
    ensure!(
        cluster.said()?.contains(TAKEN_AWAY),
        "at its start on a dead mount `up` said: {}",
        cluster.said()?
    );
    ensure!(fs::read(cluster.mount_point().join("file"))? == b"content", "another content");
    cluster.stop()?;
    Ok(Outcome::Passed)
}

fn options(cluster: &Cluster) -> Result<()> {
    let usual =
        flags(&fs::read_to_string("/proc/self/mounts")?, cluster.mount_point().to_str().unwrap_or_default());
    for flag in ["rw", "nodev", "nosuid", "noatime"] {
        ensure!(usual.iter().any(|have| have == flag), "without {flag}: {usual:?}");
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mount =
        ExtraMount::start(cluster, "mount-options", "options = [\"dev\", \"suid\", \"ro\", \"noexec\"]")?;
    let all = flags(&fs::read_to_string("/proc/self/mounts")?, mount.point().to_str().unwrap_or_default());
    for flag in ["ro", "noexec"] {
        ensure!(all.iter().any(|have| have == flag), "without {flag}: {all:?}");
    }
    for flag in ["nodev", "nosuid", "noatime"] {
        ensure!(all.iter().all(|have| have != flag), "with {flag}: {all:?}");
    }
    mount.stop()
}

/// The options of the mount at `point`.
fn flags(table: &str, point: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.split(' ').nth(1) == Some(point));
    let words = line.and_then(|line| line.split(' ').nth(3)).unwrap_or_default();
    words.split(',').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_a_mount_are_found() {
        let table = "proc /proc proc rw 0 0\nmooseng /a/mnt fuse.mooseng ro,noexec,user_id=0 0 0\n";
        assert_eq!(flags(table, "/a/mnt"), ["ro", "noexec", "user_id=0"]);
        assert_eq!(flags(table, "/b"), [""]);
    }
}
