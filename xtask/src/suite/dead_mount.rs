//! A mount that is stuck or dies leaves no dead mount point behind, and one that was left behind is taken away at the next
//! start; and what options a mount has, the kernel knows.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::Signal;

use super::{Context, Outcome};
use crate::cluster::Cluster;
use crate::extra_mount::ExtraMount;
use crate::{mounts, shell, wait};

const ASK_LIMIT: Duration = Duration::from_secs(30);
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

    dies_when_asked(&mut cluster)?;
    second_up(&cluster)?;
    cluster.stop()?;
    Ok(Outcome::Passed)
}

/// A mount that does not answer when `up` asks whether it lives, and dies over the question, is dead.
fn dies_when_asked(cluster: &mut Cluster) -> Result<()> {
    let mount = cluster.pid("mount")?;
    cluster.crash_but(&["mount"]);
    // Only now: a group of processes that has lost its leader and holds a stopped one is ended by the kernel.
    shell::signal(mount, Signal::STOP);
    // One that is being killed is no running part any more for `up`, but its connection to the kernel may still be there.
    fs::remove_file(cluster.data().join("run/mount.pid"))?;
    let pid_file = cluster.up_pid_file();
    fs::remove_file(&pid_file)?;
    let asks = || {
        let Ok(pid) = fs::read_to_string(&pid_file) else { return Ok(false) };
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        Ok(call.split(' ').next() == Some(&libc::SYS_statfs.to_string()))
    };
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let asked = wait::until(ASK_LIMIT, "`up` to ask whether the mount lives", asks);
            shell::signal(mount, Signal::KILL);
            asked
        });
        let launched = cluster.launch();
        let asked = killer.join().map_err(|_| anyhow!("the killer panicked"))?;
        launched.and(asked)
    })?;
    ensure!(cluster.said()?.contains(TAKEN_AWAY), "over a dying mount `up` said: {}", cluster.said()?);
    ensure!(fs::read(cluster.mount_point().join("file"))? == b"content", "another content");
    Ok(())
}

/// A second `up` does not take the mount of the first one for its own.
fn second_up(cluster: &Cluster) -> Result<()> {
    let data = cluster.data().with_file_name("second");
    let words = ["up", "--masters", "1", "--chunkservers", "1", "--mount"];
    let output = cluster.mooseng_elsewhere(&data, &words).arg(cluster.mount_point()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("is in use"), "a second `up` said: {said}");
    Ok(())
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
