//! Words that promise work instead of doing it, and pictures where words belong.

use super::Finding;
use super::source::Tree;

/// This file has to write down what it looks for.
const SELF: &str = "xtask/src/tidy/words.rs";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.all().filter(|(path, _)| *path != SELF) {
        for (index, line) in text.lines().enumerate() {
            let word = if path.ends_with(".rs") { in_code(line) } else { None };
            if let Some(word) = word.or_else(|| in_any_text(line)) {
                findings.push(Finding::at(path, index + 1, word));
            }
        }
    }
    findings
}

fn in_code(line: &str) -> Option<&'static str> {
    let comment = line.split_once("//").map(|(_, comment)| comment.to_lowercase()).unwrap_or_default();
    if line.contains("todo!") || line.contains("unimplemented!") {
        return Some("`todo!` and `unimplemented!` are not product code");
    }
    if line.contains("FIXME") {
        return Some("FIXME: fix it, or open an issue and write TODO(#number)");
    }
    if line.match_indices("TODO").any(|(at, _)| !has_issue_number(line.get(at + 4..).unwrap_or_default())) {
        return Some("TODO without an issue: write TODO(#number)");
    }
    if comment.contains("for now") {
        return Some("\"for now\": say what holds and why");
    }
    if line.to_lowercase().contains("placeholder") {
        return Some("a placeholder is not an implementation");
    }
    None
}

/// Whether what follows the word is `(#123)`.
fn has_issue_number(rest: &str) -> bool {
    rest.strip_prefix("(#")
        .and_then(|rest| rest.split_once(')'))
        .is_some_and(|(number, _)| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

fn in_any_text(line: &str) -> Option<&'static str> {
    line.chars().any(is_pictograph).then_some("an emoji: use a word")
}

fn is_pictograph(c: char) -> bool {
    matches!(c, '\u{1F000}'..='\u{1FAFF}' | '\u{2600}'..='\u{27BF}' | '\u{2B50}' | '\u{2B55}' | '\u{FE0F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bites(path: &str, line: &str) -> bool {
        !check(&Tree::of(&[(path, line)])).is_empty()
    }

    #[test]
    fn each_word_is_found_in_code() {
        for line in [
            "    todo!()",
            "unimplemented!(\"later\")",
            "// FIXME",
            "// TODO: later",
            "// TODO(#) later",
            "let x = 1; // good enough for now",
            "// a Placeholder",
            "let s = \"\u{1F680}\";",
            "// \u{2705} done",
        ] {
            assert!(bites("a/src/b.rs", line), "{line}");
        }
    }

    #[test]
    fn an_issue_number_and_plain_words_pass() {
        for line in ["// TODO(#12): a second region", "let for_now = for_nowhere;", "// a → b, 3 × 4 ≤ 12"]
        {
            assert!(!bites("a/src/b.rs", line), "{line}");
        }
    }

    #[test]
    fn only_pictures_are_looked_for_outside_code() {
        assert!(!bites("README.md", "The TODO list"));
        assert!(bites("README.md", "\u{1F389}"));
    }
}
