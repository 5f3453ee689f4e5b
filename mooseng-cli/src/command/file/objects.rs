//! The objects behind paths of a mounted MooseNG: the number that a mount shows is that of the object.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// `FUSE_SUPER_MAGIC` of `statfs(2)`.
const FUSE: u64 = 0x6573_5546;

/// The object that a path leads to, or the symbolic link that it is.
pub(crate) fn inode_of(path: &Path) -> anyhow::Result<u64> {
    let found = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    // Of a symbolic link that leads elsewhere the directory is what counts.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = if found.is_symlink() { parent } else { path };
    let system = rustix::fs::statfs(place).with_context(|| path.display().to_string())?;
    ensure!(
        u64::try_from(system.f_type).is_ok_and(|kind| kind == FUSE),
        "{} is not on a mounted MooseNG",
        path.display()
    );
    Ok(found.ino())
}

/// A path and everything below it on the same file system, directories before what is in them. It goes down before it goes on, so
/// that it remembers only what lies beside its way.
pub(super) struct Tree {
    device: u64,
    left: Vec<PathBuf>,
}

impl Tree {
    pub(super) fn below(root: &Path) -> anyhow::Result<Self> {
        let found = fs::symlink_metadata(root).with_context(|| root.display().to_string())?;
        Ok(Self { device: found.dev(), left: vec![root.to_owned()] })
    }

    fn step(&mut self, path: PathBuf) -> anyhow::Result<Option<(PathBuf, u64)>> {
        let found = match fs::symlink_metadata(&path) {
            Ok(found) if found.dev() == self.device => found,
            Ok(_) => return Ok(None),
            // Removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if found.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
                self.left.push(entry.with_context(|| path.display().to_string())?.path());
            }
        }
        Ok(Some((path, found.ino())))
    }
}

impl Iterator for Tree {
    type Item = anyhow::Result<(PathBuf, u64)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(path) = self.left.pop() {
            if let Some(found) = self.step(path).transpose() {
                return Some(found);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_everything_below_once_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/up")).unwrap();
        let found: Vec<PathBuf> = Tree::below(dir.path()).unwrap().map(|found| found.unwrap().0).collect();
        let mut wanted = ["", "a", "a/b", "a/up", "a/b/file"].map(|path| dir.path().join(path)).to_vec();
        wanted[0] = dir.path().to_owned();
        let (mut found_sorted, first) = (found.clone(), found[0].clone());
        found_sorted.sort();
        wanted.sort();
        assert_eq!((found_sorted, first), (wanted, dir.path().to_owned()));
    }

    #[test]
    fn what_is_on_another_file_system_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = inode_of(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("is not on a mounted MooseNG"), "{refused}");
    }
}
