//! Relative links in Markdown lead somewhere.

use super::Finding;
use super::source::{Tree, directory};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        for (line, target) in targets(text) {
            if !resolves(tree, path, target) {
                findings.push(Finding::at(path, line, format!("the link to {target} leads nowhere")));
            }
        }
    }
    findings
}

/// `(line, target)` of every relative link outside code.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        // Every second part between back quotes is code.
        for part in line.split('`').step_by(2).filter(|_| !fenced) {
            let after = part.split("](").skip(1);
            found.extend(
                after.filter_map(|rest| rest.split_once([')', ' '])).map(|(target, _)| (index + 1, target)),
            );
        }
        // A link whose text holds code is cut by the split above: `[`name`](target)`.
        let cut = line.split("`](").skip(1).filter(|_| !fenced);
        found.extend(
            cut.filter_map(|rest| rest.split_once([')', ' '])).map(|(target, _)| (index + 1, target)),
        );
    }
    found.retain(|(_, target)| {
        !target.contains("://") && !target.starts_with('#') && !target.starts_with("mailto:")
    });
    found.sort_unstable();
    found.dedup();
    found
}

fn resolves(tree: &Tree, from: &str, target: &str) -> bool {
    let target = target.split(['#', '?']).next().unwrap_or(target);
    let mut parts: Vec<&str> = directory(from).split('/').filter(|part| !part.is_empty()).collect();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return false,
            ".." => {}
            name => parts.push(name),
        }
    }
    tree.has(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(text: &str) -> usize {
        check(&Tree::of(&[("docs/a.md", text), ("docs/b.md", ""), ("src/lib.rs", "")])).len()
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        assert_eq!(dead("see [x](c.md) and [`y`](../gone/)"), 2);
        assert_eq!(dead("[out](../../etc)"), 1);
    }

    #[test]
    fn live_links_anchors_and_the_web_pass() {
        assert_eq!(
            dead("[b](b.md#part) [l](../src/lib.rs) [`s`](../src) [w](https://example.org/x) [h](#here)"),
            0
        );
    }

    #[test]
    fn code_is_not_looked_at() {
        assert_eq!(dead("```\n[x](c.md)\n```\nand `[x](c.md)`"), 0);
    }
}
