//! The tracked text of the repository as values: what every rule looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Files above this size are data, not text anybody wrote.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// All tracked (and not yet added) files: path from the root, and the text of those that are text.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    text: BTreeMap<String, String>,
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads what git tracks, and what it would track, below `root`.
    pub(crate) fn read(root: &Path) -> Result<Tree> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
        let listing = shell::stdout(&mut git)?;
        let mut tree = Tree::default();
        for path in listing.split('\0').filter(|path| !path.is_empty()) {
            let full = root.join(path);
            // Deleted in the working tree, but still in the index; or a link, whose target is looked at on its own.
            let Ok(meta) = full.symlink_metadata() else { continue };
            tree.add_path(path);
            if meta.is_file() && meta.len() <= TEXT_BYTES_MAX {
                let bytes = std::fs::read(&full).with_context(|| format!("read {path}"))?;
                if let Ok(text) = String::from_utf8(bytes) {
                    tree.text.insert(path.to_owned(), text);
                }
            }
        }
        Ok(tree)
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.add_path(path);
            tree.text.insert((*path).to_owned(), (*text).to_owned());
        }
        tree
    }

    fn add_path(&mut self, path: &str) {
        let mut rest = path;
        self.paths.insert(rest.to_owned());
        while let Some((parent, _)) = rest.rsplit_once('/') {
            self.paths.insert(parent.to_owned());
            rest = parent;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether a file or directory of that path is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        path.is_empty() || self.paths.contains(path)
    }

    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        self.text.get(path).map(String::as_str)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub(crate) fn ending(&self, end: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter(move |(path, _)| path.ends_with(end))
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ending(".rs")
    }
}

/// The last part of a path.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The directory of a path, `""` for the root.
pub(crate) fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Whether the file holds nothing but tests: a `tests.rs` beside its module, or anything in `tests/` or `benches/`.
pub(crate) fn is_test_file(path: &str) -> bool {
    file_name(path) == "tests.rs" || path.split('/').any(|part| part == "tests" || part == "benches")
}

/// Where `word` stands in `text` as a word of its own.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|s| s.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|s| s.chars().next());
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}
