//! Every disk full: the writer is told so, soon; what was there stays; deleting makes room again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::stream::MIB;
use super::{Context, Outcome, tree};
use crate::cluster::Cluster;
use crate::random::Random;
use crate::{shell, wait};

/// Each of the three disks; all of them together are what the writer could fill at most.
const DISK_MIB: usize = 128;
const DISKS: usize = 3;
/// From the first byte to ENOSPC.
const FILL_LIMIT: Duration = Duration::from_secs(120);
/// From unlink to the first write that works.
const ROOM_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(context: &Context) -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::Skipped("small disks are mounted, which only root may".to_owned()));
    }
    let options = context.options();
    for number in 1..=DISKS {
        let disk = options.data.join(format!("chunkserver-{number}/disk"));
        fs::create_dir_all(&disk)?;
        let size = format!("size={DISK_MIB}m");
        shell::stdout(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk))?;
    }
    let mut cluster = Cluster::start(&options)?;
    let earlier = cluster.mount_point().join("earlier");
    fs::create_dir(&earlier)?;
    tree::generate(&earlier, 60, 9)?;
    shell::stdout(Command::new("sync").arg("-f").arg(&earlier))?;
    let before = tree::digest(&earlier)?;

    let big = cluster.mount_point().join("big");
    let (written, error) = fill(&big).with_context(|| cluster.last_words())?;
    println!("full_disk: after {written} MiB on {DISKS} disks of {DISK_MIB} MiB: {error}");
    if !matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) {
        bail!("a full disk must be ENOSPC, not: {error}");
    }
    cluster.remount().context("with full disks")?;
    tree::expect_equal("files that were there before", &before, &tree::digest(&earlier)?)?;

    fs::remove_file(&big).context("delete on full disks")?;
    let small = cluster.mount_point().join("small");
    let mut last = None;
    let room = wait::until(ROOM_LIMIT, "room after the delete", || {
        last = write_synced(&small, 4).err();
        Ok(last.is_none())
    });
    room.with_context(|| format!("the last attempt: {last:?}\n{}", cluster.last_words()))?;
    tree::expect_equal("files that were there before", &before, &tree::digest(&earlier)?)?;
    Ok(Outcome::Passed)
}

/// Writes until it is refused; answers how much was written and the refusal. In a thread, because a call that never comes
/// back is exactly what is looked for.
fn fill(path: &Path) -> Result<(usize, io::Error)> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let path: PathBuf = path.to_owned();
    std::thread::spawn(move || {
        let mut written = 0;
        let result = (|| {
            let mut file = File::create(&path)?;
            let mut random = Random::seeded(3);
            while written < DISKS * DISK_MIB * 2 {
                file.write_all(&random.bytes(MIB))?;
                written += 1;
                if written % 8 == 0 {
                    file.sync_all()?;
                }
            }
            file.sync_all()
        })();
        sender.send((written, result)).ok();
    });
    match receiver.recv_timeout(FILL_LIMIT) {
        Ok((written, Err(error))) => Ok((written, error)),
        Ok((written, Ok(()))) => {
            bail!("{written} MiB were acknowledged by fsync on {} MiB of disk", DISKS * DISK_MIB)
        }
        Err(_) => bail!("no answer after {} s on a full disk", FILL_LIMIT.as_secs()),
    }
}

fn write_synced(path: &Path, mib: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&vec![7; mib * MIB])?;
    file.sync_all()
}
