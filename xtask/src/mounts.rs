//! What is mounted where, and taking it down.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{shell, wait};

const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);

/// Every mount point at or below `top`, the deepest first.
pub(crate) fn below(top: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = parse(&table, top);
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

fn parse(table: &str, top: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points.map(PathBuf::from).filter(|path| path.starts_with(top)).collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

pub(crate) fn is_mounted(point: &Path) -> bool {
    below(point).iter().any(|path| path == point)
}

/// Unmounts one point: politely, then lazily, so that a dead daemon or a busy file does not keep it.
pub(crate) fn unmount(point: &Path) {
    let attempts: [(&str, &[&str]); 3] = [("fusermount3", &["-u"]), ("umount", &[]), ("umount", &["-l"])];
    for (program, flags) in attempts {
        if !is_mounted(point) {
            return;
        }
        // What one of them says about a mount of the other's kind is of no interest.
        drop(shell::clean_up(Command::new(program).args(flags).arg(point), UNMOUNT_LIMIT));
        if wait::quietly(Duration::from_millis(200), || !is_mounted(point)) {
            return;
        }
    }
    eprintln!("xtask: {} is still mounted", point.display());
}

/// Takes down everything mounted at or below `top`.
pub(crate) fn unmount_below(top: &Path) {
    for point in below(top) {
        unmount(&point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_below_a_directory_are_found_with_their_spaces() {
        let table = "36 35 98:0 / /tmp/a/mnt rw - fuse x rw\n37 35 0:9 / /tmp/a/b\\040c rw - tmpfs x rw\n38 35 0:9 / /tmp/ab rw - ext4 x rw\n";
        assert_eq!(
            parse(table, Path::new("/tmp/a")),
            [PathBuf::from("/tmp/a/mnt"), PathBuf::from("/tmp/a/b c")]
        );
    }
}
