//! The generated messages (`pb::`) stay at the edges: cores and stores know only our own types.

use super::Finding;
use super::source::{Tree, has_word, is_test_file};

/// Where the schema may be named: the protocol crate, and the files that speak to the wire.
const EDGES: [&str; 11] = [
    "mooseng-protocol/",
    "mooseng-master/src/server",
    // Requests are decoded and answered here; below the desk there are no exemptions.
    "mooseng-master/src/desk",
    "mooseng-master/src/core",
    "mooseng-master/src/wire",
    "mooseng-chunkserver/",
    "mooseng-client/src/edge",
    // A load that speaks to the masters as any client may.
    "mooseng-client/examples/wire.rs",
    "mooseng-client/examples/probe.rs",
    "mooseng-cli/src/",
    "mooseng-sim/src/",
];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| path.starts_with("mooseng-") && !is_test_file(path)) {
        if EDGES.iter().any(|edge| path.starts_with(edge)) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let code = line.split_once("//").map_or(line, |(code, _)| code);
            if code.contains("pb::") && has_word(code, "pb") {
                findings.push(Finding::at(path, index + 1, "`pb::` outside an edge: convert at the border"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_in_a_core_is_found() {
        let files = [
            ("mooseng-meta/src/apply.rs", "use mooseng_protocol::pb::Attr;"),
            ("mooseng-client/src/cache.rs", "let x = pb::Attr::default();"),
            ("mooseng-master/src/group/apply.rs", "use pb::RaftMessage;"),
        ];
        assert_eq!(check(&Tree::of(&files)).len(), 3);
    }

    #[test]
    fn edges_comments_and_other_words_pass() {
        let files = [
            ("mooseng-master/src/desk/metadata.rs", "use pb::Attr;"),
            ("mooseng-client/src/edge/masters/call.rs", "pb::Attr"),
            ("mooseng-meta/src/apply.rs", "httpb::x // pb::y"),
        ];
        assert!(check(&Tree::of(&files)).is_empty());
    }
}
