//! A small file system of its own for each chunkserver, whose power can be cut.
//!
//! Each is an ext4 in a file of the host. To cut its power it is shut down (`FS_IOC_SHUTDOWN`) and mounted again: what was
//! synced, data and names, is there; what was not is gone, but for what happened to be written back. So nothing has to
//! know what a server has synced when: it can lose what a power cut may take, and nothing else.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::Advice;

use super::shutdown::{LastWords, shut_down};
use crate::cluster::Options;
use crate::random::Random;
use crate::{mounts, shell, wait};

const DISK_BYTES: u64 = 768 << 20;
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const UNMOUNTED_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Disks {
    images: PathBuf,
    data: PathBuf,
}

impl Disks {
    /// Makes and mounts a disk for each chunkserver of a cluster that is about to be made.
    pub(super) fn make(options: &Options) -> Result<Disks> {
        let disks = Disks { images: options.data.with_extension("disks"), data: options.data.clone() };
        fs::create_dir_all(&disks.images)?;
        for number in 1..=options.chunkservers {
            let image = disks.image(number);
            File::create(&image)?.set_len(DISK_BYTES)?;
            let mut make = Command::new("mkfs.ext4");
            shell::stdout_within(make.args(["-q", "-F", "-m", "0"]).arg(&image), COMMAND_LIMIT)?;
            fs::create_dir_all(disks.point(number))?;
            disks.mount(number)?;
        }
        Ok(disks)
    }

    fn image(&self, number: u32) -> PathBuf {
        self.images.join(format!("{number}.img"))
    }

    fn point(&self, number: u32) -> PathBuf {
        self.data.join(format!("chunkserver-{number}/disk"))
    }

    fn mount(&self, number: u32) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]).arg(self.image(number)).arg(self.point(number));
        shell::stdout_within(&mut mount, COMMAND_LIMIT).map(drop)
    }

    /// Cuts the power of a disk whose server is dead, and mounts what is left of it. Says how it was cut.
    pub(super) fn cut(&self, number: u32, random: &mut Random) -> Result<&'static str> {
        let (how, last_words) = match random.below(3) {
            0 => ("some written back", LastWords::None),
            1 => ("log written", LastWords::Log),
            _ => ("all lost", LastWords::None),
        };
        if how == "some written back" {
            write_back_some(&self.point(number), random)?;
        }
        self.lose(number, last_words)?;
        Ok(how)
    }

    fn lose(&self, number: u32, last_words: LastWords) -> Result<()> {
        let point = self.point(number);
        shut_down(&point, last_words).with_context(|| format!("shut {} down", point.display()))?;
        // On a busy machine the kernel takes its time to let go of what the dead server had open.
        wait::quietly(UNMOUNTED_WITHIN, || {
            mounts::unmount(&point);
            !mounts::is_mounted(&point)
        });
        self.mount(number).with_context(|| format!("mount disk {number} again"))
    }

    /// Cuts an unused disk's power and looks that it loses what was not synced, and nothing else: an imitation that loses
    /// nothing would prove nothing.
    pub(super) fn prove(&self, number: u32) -> Result<()> {
        let names = ["synced", "not-synced"].map(|name| self.point(number).join(name));
        let content = vec![7; 300_000];
        for name in &names {
            fs::write(name, &content)?;
        }
        let [synced, not_synced] = names;
        File::options().write(true).open(&synced)?.sync_all()?;
        File::options().append(true).open(&synced)?.write_all(&content)?;
        self.lose(number, LastWords::None)?;
        ensure!(fs::read(&synced)? == content, "a cut takes what was synced, or leaves what was not");
        let left = fs::metadata(&not_synced).map_or(0, |metadata| metadata.len());
        ensure!(left == 0, "a cut leaves {left} bytes of a file that was never synced");
        fs::remove_file(&synced)?;
        fs::remove_file(&not_synced).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        Ok(())
    }
}

/// Has the kernel write back random parts of what it holds for the files of a disk, as it may at any time.
fn write_back_some(point: &Path, random: &mut Random) -> Result<()> {
    const PART: u64 = 64 << 10;
    let directories = fs::read_dir(point)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    // Only root has a look into `lost+found`, and we are root.
    for path in directories.filter_map(|path| fs::read_dir(path).ok()).flatten().flatten() {
        let path = path.path();
        if path.extension().is_none_or(|end| end != "data") {
            continue;
        }
        let file = File::open(&path)?;
        for part in 0..file.metadata()?.len().div_ceil(PART) {
            if random.below(2) == 0 {
                // To forget pages, the kernel begins to write the dirty ones.
                rustix::fs::fadvise(&file, part * PART, NonZeroU64::new(PART), Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}
