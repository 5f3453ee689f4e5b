//! Every Rust file opens by saying what it is for.

use super::Finding;
use super::source::Tree;

/// A header shorter than this says nothing.
const HEADER_CHARS_MIN: usize = 10;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|(_, text)| !has_header(text))
        .map(|(path, _)| Finding::at(path, 1, "the first line must be `//!` and say what the file is for"))
        .collect()
}

fn has_header(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("//!").is_some_and(|words| words.trim().chars().count() >= HEADER_CHARS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_late_or_empty_header_is_found() {
        let files = [
            ("a.rs", "use std::fs;\n"),
            ("b.rs", "\n//! Says enough about itself.\n"),
            ("c.rs", "//! x\n"),
            ("d.rs", ""),
        ];
        assert_eq!(check(&Tree::of(&files)).len(), 4);
    }

    #[test]
    fn a_header_on_the_first_line_passes() {
        assert!(check(&Tree::of(&[("a.rs", "//! Clock, entropy, disk.\n")])).is_empty());
    }
}
