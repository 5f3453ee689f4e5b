//! What the machine must have for a mount: `/dev/fuse`, `fusermount3`. What is missing is said with the command that
//! mends it, and as root it is mended.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{UnmountFlags, unmount};

use crate::output;

/// Looks for what a mount needs.
pub(crate) fn check() -> anyhow::Result<()> {
    let root = rustix::process::geteuid().is_root();
    if !Path::new("/dev/fuse").exists() {
        mend(root, "/dev/fuse is missing", "modprobe fuse || mknod -m 666 /dev/fuse c 10 229")?;
    }
    let opened = fs::File::options().read(true).write(true).open("/dev/fuse");
    if opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        mend(root, "/dev/fuse is not open to this user", "chmod 666 /dev/fuse")?;
    }
    if !in_path("fusermount3") {
        let command = if in_path("apt-get") {
            "apt-get update -q && apt-get install -qy --no-install-recommends fuse3"
        } else if in_path("dnf") {
            "dnf install -y fuse3"
        } else {
            bail!("fusermount3 is missing: install the package fuse3");
        };
        mend(root, "fusermount3 is missing", command)?;
    }
    Ok(())
}

fn mend(root: bool, what: &str, command: &str) -> anyhow::Result<()> {
    if !root {
        bail!("{what}: as root, run  {command}");
    }
    output::note(&format!("{what}: running  {command}"));
    let status = Command::new("sh")
        .args(["-c", command])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("run  {command}"))?;
    if !status.success() {
        bail!("{what}, and this did not mend it:  {command}");
    }
    Ok(())
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Whether MooseNG is mounted at `mount`, alive or not.
pub(crate) fn is_mounted(mount: &Path) -> anyhow::Result<bool> {
    let mount = resolved(mount).unwrap_or_else(|| mount.to_owned());
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(table.lines().any(|line| is_ours(line, &mount)))
}

/// The path without symbolic links. Asks nothing of what is mounted there: a mount that is stuck would not answer.
fn resolved(path: &Path) -> Option<PathBuf> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).ok()
}

/// Field 5 is the mount point with blanks as `\040`; the type stands behind the ` - ` (`proc(5)`).
fn is_ours(line: &str, mount: &Path) -> bool {
    let escaped = mount.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    let point = line.split(' ').nth(4) == Some(&escaped);
    // Mounted by root without fusermount3 the type has no second part, and the source tells whose it is.
    let ours = |rest: &str| rest.starts_with("fuse.mooseng ") || rest.starts_with("fuse mooseng ");
    point && line.split_once(" - ").is_some_and(|(_, rest)| ours(rest))
}

/// Takes away the mount of ours whose process is gone, and says so; everything else is left as it is.
pub(crate) fn clear_dead_mount(mount: &Path) -> anyhow::Result<()> {
    if !is_mounted(mount)? || !mooseng_client::is_dead_mount(mount) {
        return Ok(());
    }
    let shown = mount.display();
    detach(mount).with_context(|| format!("{shown} is a dead mount: run  fusermount3 -u -z {shown}"))?;
    output::note(&format!("{shown}: a mount whose process is gone was taken away"));
    Ok(())
}

/// Lazily, because programs may still have files open there.
fn detach(mount: &Path) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(unmount(mount, UnmountFlags::DETACH)?);
    }
    let status = Command::new("fusermount3").args(["-u", "-z"]).arg(mount).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "fusermount3: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_known_by_its_point_and_its_type() {
        let line = "36 35 0:52 / /mnt/a\\040b rw,nosuid - fuse.mooseng mooseng rw,user_id=0";
        assert!(is_ours(line, Path::new("/mnt/a b")));
        assert!(!is_ours(line, Path::new("/mnt/a")));
        assert!(is_ours(&line.replace("fuse.mooseng", "fuse"), Path::new("/mnt/a b")));
        assert!(!is_ours(&line.replace("fuse.mooseng", "ext4"), Path::new("/mnt/a b")));
    }
}
