//! Files stay small enough to be read in one sitting: product lines and inline tests each have a limit.

use super::Finding;
use super::source::{Tree, is_test_file};

/// Lines outside the inline tests.
const PRODUCT_LINES_MAX: usize = 800;
/// Lines of `mod tests { … }`; more belong into `foo/tests.rs`.
const INLINE_TEST_LINES_MAX: usize = 200;

/// Files that are above a limit today, with what they have: may shrink, may not grow. Meant to stay empty.
const RATCHET: [(&str, usize); 0] = [];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust().filter(|(path, _)| !is_test_file(path)).flat_map(|(path, text)| lengths(path, text)).collect()
}

fn lengths(path: &str, text: &str) -> Vec<Finding> {
    let total = text.lines().count();
    let inline = inline_test_lines(text);
    let product = total - inline;
    let allowed = RATCHET.iter().find(|(known, _)| *known == path).map_or(0, |(_, lines)| *lines);
    let mut findings = Vec::new();
    if product > PRODUCT_LINES_MAX.max(allowed) {
        findings.push(Finding::whole(path, format!("{product} product lines, at most {PRODUCT_LINES_MAX}")));
    }
    if inline > INLINE_TEST_LINES_MAX.max(allowed) {
        findings.push(Finding::whole(
            path,
            format!("{inline} inline test lines, at most {INLINE_TEST_LINES_MAX}: move them to `tests.rs`"),
        ));
    }
    findings
}

fn inline_test_lines(text: &str) -> usize {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("mod tests {"));
    lines.by_ref().take_while(|line| *line != "}").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(product: usize, tests: usize) -> usize {
        let text = format!("{}mod tests {{\n{}}}\n", "x\n".repeat(product), "    y\n".repeat(tests));
        check(&Tree::of(&[("a/src/b.rs", &text)])).len()
    }

    #[test]
    fn long_product_code_is_found_also_below_the_tests() {
        assert_eq!(found(PRODUCT_LINES_MAX - 1, 1), 0);
        assert_eq!(found(PRODUCT_LINES_MAX, 1), 1);
        let below = format!("#[cfg(test)]\nfn x() {{}}\n{}", "y\n".repeat(PRODUCT_LINES_MAX));
        assert_eq!(check(&Tree::of(&[("a/src/b.rs", &below)])).len(), 1);
    }

    #[test]
    fn long_inline_tests_are_found() {
        assert_eq!(found(1, INLINE_TEST_LINES_MAX - 1), 0);
        assert_eq!(found(1, INLINE_TEST_LINES_MAX), 1);
    }

    #[test]
    fn test_files_may_be_long() {
        assert!(check(&Tree::of(&[("a/src/b/tests.rs", &"x\n".repeat(2000))])).is_empty());
    }
}
