//! The mount point: what may be wrong with it, said in one line with what to do.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// What the kernel reads ahead of programs, in KiB: its own default for FUSE is an eighth of our largest request.
const READ_AHEAD_KB: &str = "2048";

/// Checks that something can be mounted at `path`. Root takes a dead mount out of the way.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    if !Path::new("/dev/fuse").exists() {
        bail!("/dev/fuse is missing: load the module (modprobe fuse), or give the container the device");
    }
    let shown = path.display();
    if is_dead_mount(path) {
        if !rustix::process::geteuid().is_root() {
            bail!("{shown} is the mount of a process that is gone: run fusermount3 -u {shown}");
        }
        unmount(path, UnmountFlags::DETACH)
            .with_context(|| format!("{shown} is a dead mount; run fusermount3 -u {shown}"))?;
        tracing::warn!(mount_point = %shown, "a dead mount was taken away");
    }
    let metadata = fs::metadata(path)
        .with_context(|| format!("{shown} cannot be used; create it (mkdir -p {shown})"))?;
    if !metadata.is_dir() {
        bail!("{shown} is not a directory: name one to mount at");
    }
    let above = path.canonicalize().ok().and_then(|path| fs::metadata(path.parent()?).ok());
    if above.is_some_and(|above| above.dev() != metadata.dev()) {
        bail!("{shown} is in use: something is mounted there (fusermount3 -u {shown} takes it away)");
    }
    if !rustix::process::geteuid().is_root() && !has_fusermount() {
        bail!("fusermount3 is missing: install the package fuse3, or mount as root");
    }
    Ok(())
}

/// Whether the file system there has lost its process.
pub fn is_dead_mount(path: &Path) -> bool {
    // Not stat(2): the kernel answers that from its cache for a second after the process has died. A question that the process
    // was killed over ends with ECONNABORTED, those after it with ENOTCONN.
    matches!(rustix::fs::statfs(path), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

fn has_fusermount() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|dir| dir.join("fusermount3").exists() || dir.join("fusermount").exists())
}

/// Says what to do about a mount that failed.
pub(super) fn explain(path: &Path, error: &io::Error, asks_for_others: bool) -> anyhow::Error {
    let shown = path.display();
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if asks_for_others => {
            "; allow_other needs the line user_allow_other in /etc/fuse.conf"
        }
        Some(libc::EPERM | libc::EACCES) => "; mount as root, or give the container CAP_SYS_ADMIN",
        _ if asks_for_others => "; is user_allow_other in /etc/fuse.conf?",
        _ => "",
    };
    anyhow!("mount at {shown}: {error}{advice}")
}

/// Lets the kernel read further ahead; only root may, and a mount works without.
pub(super) fn raise_read_ahead(path: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(device) = device(&table, &resolved(path)) else {
        tracing::debug!("the mount is not in the kernel's table");
        return;
    };
    let knob = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = fs::write(knob, READ_AHEAD_KB) {
        tracing::debug!(%error, "the kernel's reading ahead stays as it is");
    }
}

/// The path as the kernel has it, without a look at the mount itself.
fn resolved(path: &Path) -> PathBuf {
    let above = path.parent().and_then(|above| fs::canonicalize(above).ok());
    match (above, path.file_name()) {
        (Some(above), Some(name)) => above.join(name),
        _ => path.to_owned(),
    }
}

/// The number of the device that is mounted at `path`, "major:minor", from the kernel's table (`proc(5)`). Not by `stat`:
/// that is a request to this very process, and if it were killed meanwhile it could neither answer nor end.
fn device<'a>(table: &'a str, path: &Path) -> Option<&'a str> {
    let path = path.to_str()?.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    // The last one lies on top.
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(&path))?;
    line.split(' ').nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_a_mount_is_known_without_asking_it() {
        let table = "36 35 0:51 / /mnt/a\\040b rw - fuse x rw\n37 35 0:52 / /mnt/a\\040b rw - fuse x rw\n";
        assert_eq!(device(table, Path::new("/mnt/a b")), Some("0:52"));
        assert_eq!(device(table, Path::new("/mnt/a")), None);
    }

    #[test]
    fn what_is_wrong_with_a_mount_point_is_said_with_what_to_do() {
        if !Path::new("/dev/fuse").exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(check(&file).unwrap_err().to_string().contains("not a directory"));
        let missing = format!("{:#}", check(&dir.path().join("missing")).unwrap_err());
        assert!(missing.contains("mkdir -p"), "{missing}");
        assert!(check(Path::new("/proc")).unwrap_err().to_string().contains("in use"));
    }
}
