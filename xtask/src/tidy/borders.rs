//! The master's modules are borders: imports run one way (`docs/rfcs/0009-groups.md`). Tests may reach up: they drive the
//! whole.

use super::Finding;
use super::source::{Tree, is_test_file};

const MASTER: &str = "mooseng-master/src/";

/// Each module of the master, from below, with those that it may import.
const BORDERS: [(&str, &[&str]); 20] = [
    ("raft", &[]),
    ("cache_config", &[]),
    ("cache_enhanced", &["cache_config"]),
    ("store", &[]),
    ("snapshot", &["raft", "store"]),
    ("group", &["raft"]),
    ("conn", &[]),
    ("multiregion", &[]),
    ("registry", &["conn", "multiregion"]),
    ("sessions", &["conn"]),
    ("callers", &["conn", "group", "registry", "sessions"]),
    ("worker", &["callers", "group", "registry", "sessions"]),
    ("wire", &["group", "raft", "snapshot"]),
    ("desk", &["callers", "conn", "group", "multiregion", "raft", "registry", "sessions", "wire", "worker"]),
    ("core", &["conn", "desk", "group", "raft"]),
    ("config", &["core", "group"]),
    ("open", &["cache_config", "cache_enhanced", "config", "group", "raft", "store"]),
    ("recover", &["config", "daemon", "group", "open", "raft"]),
    (
        "server",
        &["cache_enhanced", "config", "core", "desk", "group", "open", "raft", "snapshot", "store", "wire"],
    ),
    ("daemon", &["config", "server"]),
];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sources = tree.all().filter_map(|(path, text)| Some((path, path.strip_prefix(MASTER)?, text)));
    for (path, below, text) in sources.filter(|(path, ..)| path.ends_with(".rs")) {
        let module = below.split(['/', '.']).next().unwrap_or_default();
        if is_test_file(path) || ["lib", "main"].contains(&module) {
            continue;
        }
        let Some((_, allowed)) = BORDERS.iter().find(|(known, _)| *known == module) else {
            findings.push(Finding::whole(
                path,
                "a module that xtask/src/tidy/borders.rs does not place: add it there and to the RFC",
            ));
            continue;
        };
        for (index, line) in text.lines().take_while(|line| *line != "mod tests {").enumerate() {
            let code = line.split_once("//").map_or(line, |(code, _)| code);
            for name in imports(code).into_iter().filter(|name| *name != module && !allowed.contains(name)) {
                findings.push(Finding::at(path, index + 1, format!("`{module}` must not import `{name}`")));
            }
        }
    }
    findings
}

/// The modules of its own crate that a line names.
fn imports(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        let names = match after.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or(list),
            None => after.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next().unwrap_or_default(),
        };
        found.extend(names.split(',').filter_map(|name| name.trim().split("::").next()));
    }
    found.retain(|name| !name.is_empty() && *name != "self");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn an_import_upwards_is_found_in_every_spelling() {
        for line in [
            "use crate::desk::Desk;",
            "use crate::{raft, server};",
            "pub(crate) use crate::core::Now;",
            "fn f(d: &crate::desk::Desk) {}",
        ] {
            assert_eq!(found("mooseng-master/src/group/x.rs", line), 1, "{line}");
        }
        assert_eq!(
            found("mooseng-master/src/desk.rs", "use crate::group::Group;\nuse crate::raft::Change;"),
            0
        );
    }

    #[test]
    fn tests_and_comments_may_name_what_is_above() {
        let text = "// crate::desk\n#[cfg(test)]\nmod tests {\n    use crate::core::testing::Leader;\n}\n";
        assert_eq!(found("mooseng-master/src/group/x.rs", text), 0);
        assert_eq!(found("mooseng-master/src/worker/tests.rs", "use crate::core::testing::Leader;"), 0);
        assert_eq!(found("mooseng-client/src/x.rs", "use crate::desk;"), 0);
    }

    #[test]
    fn a_module_that_is_placed_nowhere_is_found() {
        assert_eq!(found("mooseng-master/src/elsewhere.rs", ""), 1);
    }
}
