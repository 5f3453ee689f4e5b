//! A generated tree of small files, and what is in a tree, for comparing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::random::Random;

const FILES_PER_DIRECTORY: usize = 50;
/// Most files of a source tree are a few KiB; one in a hundred is larger than a block.
const SMALL_BYTES_MAX: u64 = 8 << 10;
const LARGE_BYTES_MAX: u64 = 256 << 10;

/// Path from the top of the tree, and what is there: mode and contents, told apart by kind.
pub(super) type Digest = BTreeMap<String, String>;

/// Fills `top` with `count` files that depend on the seed alone.
pub(super) fn generate(top: &Path, count: usize, seed: u64) -> Result<()> {
    let mut random = Random::seeded(seed);
    for index in 0..count {
        let directory =
            top.join(format!("a{}/b{}", index / FILES_PER_DIRECTORY % 10, index / FILES_PER_DIRECTORY));
        if index % FILES_PER_DIRECTORY == 0 {
            fs::create_dir_all(&directory)?;
        }
        let most = if index % 100 == 99 { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX };
        let length = random.index(usize::try_from(most)?);
        let path = directory.join(format!("file{index}.txt"));
        fs::write(&path, random.bytes(length))?;
        if index % 7 == 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        if index % 50 == 49 {
            std::os::unix::fs::symlink(format!("file{index}.txt"), directory.join("last"))?;
        }
    }
    Ok(())
}

/// What is below `top`.
pub(super) fn digest(top: &Path) -> Result<Digest> {
    let mut found = Digest::new();
    let mut directories = vec![top.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let path = entry?.path();
            let meta = path.symlink_metadata()?;
            let mode = meta.permissions().mode();
            let what = if meta.is_dir() {
                directories.push(path.clone());
                format!("{mode:o}")
            } else if meta.is_symlink() {
                format!("{mode:o} -> {}", fs::read_link(&path)?.display())
            } else {
                format!("{mode:o} {}", file_hash(&path)?)
            };
            found.insert(path.strip_prefix(top)?.to_string_lossy().into_owned(), what);
        }
    }
    Ok(found)
}

/// SHA-256 of a file's contents in hexadecimal.
pub(super) fn file_hash(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        match buffer.get(..count) {
            Some(bytes) if !bytes.is_empty() => hash.update(bytes),
            _ => return Ok(hex(&hash.finalize())),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fails with the first few differences.
pub(super) fn expect_equal(what: &str, expected: &Digest, found: &Digest) -> Result<()> {
    let names = expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name)));
    let different: Vec<_> = names.filter(|name| expected.get(*name) != found.get(*name)).collect();
    if different.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = different
        .iter()
        .take(5)
        .map(|name| format!("{name}: {:?} became {:?}", expected.get(*name), found.get(*name)))
        .collect();
    bail!("{what}: {} of {} entries differ:\n{}", different.len(), expected.len(), shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_a_changed_mode_and_a_missing_file_are_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path();
        generate(top, 120, 1).unwrap();
        let before = digest(top).unwrap();
        assert!(before.len() >= 120);
        expect_equal("same", &before, &digest(top).unwrap()).unwrap();
        let changes: [fn(&Path); 3] = [
            |path| fs::write(path, "other").unwrap(),
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
            |path| fs::remove_file(path).unwrap(),
        ];
        for change in changes {
            let before = digest(top).unwrap();
            change(&top.join("a0/b0/file1.txt"));
            assert!(expect_equal("changed", &before, &digest(top).unwrap()).is_err());
        }
    }
}
