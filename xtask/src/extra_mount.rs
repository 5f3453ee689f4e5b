//! One more mount of a running cluster, with settings of its own, gone when its guard is dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::{mounts, shell, wait};

const MOUNT_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A mount daemon of ours and where it mounts.
pub(crate) struct ExtraMount {
    child: Child,
    point: PathBuf,
    pid_file: PathBuf,
}

impl ExtraMount {
    /// Mounts the cluster beside its own mount point; `settings` are lines of TOML, added to what the cluster's own mount has.
    pub(crate) fn start(cluster: &Cluster, name: &str, settings: &str) -> Result<ExtraMount> {
        let data = cluster.data();
        let point = cluster.mount_point().with_extension(name);
        fs::create_dir_all(&point)?;
        let own = data.join("mount/config.toml");
        let own = fs::read_to_string(&own).with_context(|| format!("read {}", own.display()))?;
        let config = data.join(name).join("config.toml");
        fs::create_dir_all(data.join(name))?;
        fs::write(&config, configuration(&own, name, &point, settings))?;
        let log =
            File::options().create(true).append(true).open(data.join("log").join(format!("{name}.log")))?;
        let mut command = cluster.daemon("mount", &config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        // Where a sweep finds it when we are killed.
        let pid_file = data.join("run").join(format!("{name}.pid"));
        fs::write(&pid_file, child.id().to_string())?;
        let mut mount = ExtraMount { child, point, pid_file };
        wait::until(MOUNT_LIMIT, &format!("{name} to be mounted"), || {
            if let Some(status) = mount.child.try_wait()? {
                bail!("{name} ended: {status}");
            }
            Ok(mounts::is_mounted(&mount.point))
        })
        .map_err(|error| error.context(cluster.last_words()))?;
        Ok(mount)
    }

    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    /// Stops it in order: what was written is saved.
    pub(crate) fn stop(mut self) -> Result<()> {
        shell::signal(self.child.id(), Signal::TERM);
        let child = &mut self.child;
        wait::until(STOP_LIMIT, "a mount daemon to end", || Ok(child.try_wait()?.is_some()))
    }
}

impl Drop for ExtraMount {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        mounts::unmount(&self.point);
        fs::remove_file(&self.pid_file).ok();
    }
}

/// The cluster's own configuration of a mount with another name and place, and with settings more.
fn configuration(own: &str, name: &str, point: &Path, settings: &str) -> String {
    let replaced = |line: &&str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        !matches!(key, "name" | "mount_point")
    };
    let rest: Vec<&str> = own.lines().filter(replaced).collect();
    format!("name = {name:?}\nmount_point = {point:?}\n{}\n{settings}\n", rest.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_place_are_its_own_and_the_rest_is_the_clusters() {
        let own = "name = \"mount\"\nmasters = [\"a:1\"]\nmount_point = \"/x\"\n";
        assert_eq!(
            configuration(own, "b", Path::new("/y"), "attr_timeout_ms = 0"),
            "name = \"b\"\nmount_point = \"/y\"\nmasters = [\"a:1\"]\nattr_timeout_ms = 0\n"
        );
    }
}
