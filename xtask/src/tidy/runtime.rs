//! The vocabulary and the namespace are plain values: no async runtime, no clock, no disk, no network in them.

use super::Finding;
use super::source::{Tree, has_word};

const PURE: [&str; 2] = ["mooseng-types/", "mooseng-meta/"];
const FORBIDDEN: [&str; 5] = ["tokio", "std::fs", "std::net", "Instant::now", "SystemTime::now"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let looked_at = |path: &str| {
        PURE.iter().any(|krate| path.starts_with(krate))
            && (path.ends_with(".rs") || path.ends_with("Cargo.toml"))
    };
    for (path, text) in tree.all().filter(|(path, _)| looked_at(path)) {
        for (index, line) in text.lines().enumerate() {
            let code = line.split_once("//").map_or(line, |(code, _)| code);
            if let Some(word) = FORBIDDEN.iter().find(|word| has_word(code, word)) {
                findings.push(Finding::at(path, index + 1, format!("`{word}` in a crate without I/O")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_or_a_clock_in_a_pure_crate_is_found() {
        for line in ["use tokio::sync::Mutex;", "let now = std::time::Instant::now();", "std::fs::read(path)"]
        {
            assert_eq!(check(&Tree::of(&[("mooseng-meta/src/x.rs", line)])).len(), 1, "{line}");
        }
        assert_eq!(check(&Tree::of(&[("mooseng-types/Cargo.toml", "tokio.workspace = true")])).len(), 1);
    }

    #[test]
    fn other_crates_and_comments_pass() {
        assert!(
            check(&Tree::of(&[
                ("mooseng-master/src/x.rs", "use tokio::time;"),
                ("mooseng-meta/src/x.rs", "// no tokio here")
            ]))
            .is_empty()
        );
    }
}
