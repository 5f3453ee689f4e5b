//! Tracked text names no place that exists on one machine only, and no host of a package registry.

use super::Finding;
use super::source::Tree;

/// This file has to write down what it looks for.
const SELF: &str = "xtask/src/tidy/paths.rs";
const MACHINE_PATHS: [&str; 3] = ["/work", "/home", "/Users"];
const HOSTS: [&str; 3] = ["static.crates.io", "index.crates.io", "proxy.golang.org"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.all().filter(|(path, _)| *path != SELF) {
        for (index, line) in text.lines().enumerate() {
            if let Some(place) = MACHINE_PATHS.iter().find(|place| names(line, place)) {
                findings.push(Finding::at(path, index + 1, format!("`{place}/…` is a path of one machine")));
            }
            if let Some(host) = HOSTS.iter().find(|host| line.contains(*host)) {
                findings.push(Finding::at(
                    path,
                    index + 1,
                    format!("{host}: registries are configured outside the repository"),
                ));
            }
        }
    }
    findings
}

/// Whether `place` starts an absolute path in the line.
fn names(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line.get(..at).and_then(|s| s.chars().next_back());
        let after = line.get(at + place.len()..).and_then(|s| s.chars().next());
        let starts = before.is_none_or(|c| c.is_whitespace() || "\"'`(=:,".contains(c));
        starts && after == Some('/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_and_registry_hosts_are_found() {
        for line in
            ["cd /work/x", "path = \"/home/me/x\"", "https://static.crates.io/crates", "see `/work/shared/x`"]
        {
            assert_eq!(check(&Tree::of(&[("a.md", line)])).len(), 1, "{line}");
        }
    }

    #[test]
    fn relative_paths_and_parts_of_words_pass() {
        for line in
            ["mnt/work/t0", "/workspace/x", "registry+https://github.com/rust-lang/crates.io-index", "/homes"]
        {
            assert!(check(&Tree::of(&[("a.md", line)])).is_empty(), "{line}");
        }
    }
}
