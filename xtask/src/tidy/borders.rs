//! The master's modules are borders (`docs/rfcs/0009-groups.md`), and so are the files of a chunkserver's store: imports run
//! one way. Tests may reach up: they drive the whole.

use super::Finding;
use super::source::{Tree, is_test_file};

/// Modules beside each other, of which each has a place in an order.
struct Territory {
    /// Where their files are.
    directory: &'static str,
    /// What one of them writes before the name of another.
    beside: &'static [&'static str],
    /// What to do about one that is not there.
    add_it: &'static str,
    /// Each of them, from below, with those that it may import.
    borders: &'static [(&'static str, &'static [&'static str])],
}

const TERRITORIES: [Territory; 2] = [
    Territory {
        directory: "mooseng-master/src/",
        beside: &["crate::"],
        add_it: "add it to xtask/src/tidy/borders.rs and to the RFC",
        borders: MASTER,
    },
    Territory {
        directory: "mooseng-chunkserver/src/store/",
        beside: &["super::", "crate::store::"],
        add_it: "add it to xtask/src/tidy/borders.rs",
        borders: CHUNK_STORE,
    },
];

const MASTER: &[(&str, &[&str])] = &[
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
    ("repair", &["multiregion", "registry"]),
    ("callers", &["conn", "group", "registry", "sessions"]),
    ("worker", &["callers", "group", "multiregion", "registry", "repair", "sessions"]),
    ("wire", &["group", "raft", "snapshot"]),
    (
        "desk",
        &[
            "callers",
            "conn",
            "group",
            "multiregion",
            "raft",
            "registry",
            "repair",
            "sessions",
            "wire",
            "worker",
        ],
    ),
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

const CHUNK_STORE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("name", &[]),
    ("sidecar", &[]),
    ("open_copies", &[]),
    ("quarantine", &["name", "sidecar"]),
    ("disk", &["error", "name", "quarantine", "sidecar"]),
    ("found", &["disk", "name", "sidecar"]),
    ("chunk", &["disk", "error", "open_copies", "sidecar"]),
    ("open", &["chunk", "error", "sidecar"]),
    ("read", &["chunk", "error"]),
    ("condemn", &["chunk", "error", "quarantine", "sidecar"]),
    ("receive", &["chunk", "error", "sidecar"]),
    ("settle", &["chunk", "error", "open"]),
    ("verify", &["chunk", "error", "open_copies"]),
    ("write", &["chunk", "error"]),
];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    TERRITORIES.iter().flat_map(|territory| territory.check(tree)).collect()
}

impl Territory {
    fn check(&self, tree: &Tree) -> Vec<Finding> {
        let mut findings = Vec::new();
        let sources =
            tree.all().filter_map(|(path, text)| Some((path, path.strip_prefix(self.directory)?, text)));
        for (path, below, text) in sources.filter(|(path, ..)| path.ends_with(".rs")) {
            let module = below.split(['/', '.']).next().unwrap_or_default();
            if is_test_file(path) || ["lib", "main"].contains(&module) {
                continue;
            }
            let Some((_, allowed)) = self.borders.iter().find(|(known, _)| *known == module) else {
                findings.push(Finding::whole(path, format!("a module without a place: {}", self.add_it)));
                continue;
            };
            for (index, line) in text.lines().take_while(|line| *line != "mod tests {").enumerate() {
                let code = line.split_once("//").map_or(line, |(code, _)| code);
                let names = self.beside.iter().flat_map(|beside| imports(code, beside));
                for name in names.filter(|name| *name != module && !allowed.contains(name)) {
                    findings.push(Finding::at(
                        path,
                        index + 1,
                        format!("`{module}` must not import `{name}`"),
                    ));
                }
            }
        }
        findings
    }
}

/// What a line names behind `beside`.
fn imports<'a>(code: &'a str, beside: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for after in code.split(beside).skip(1) {
        let names = match after.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or(list),
            None => after.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default(),
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
    fn a_disk_of_the_chunk_store_knows_nothing_of_the_copies_on_it() {
        let disk = "mooseng-chunkserver/src/store/disk.rs";
        for line in ["use super::chunk::Chunk;", "use super::Chunk;", "fn f(c: &crate::store::Chunk) {}"] {
            assert_eq!(found(disk, line), 1, "{line}");
        }
        assert_eq!(found(disk, "use super::error::StoreError;\nuse crate::changes::Changes;"), 0);
        assert_eq!(found("mooseng-chunkserver/src/store/chunk.rs", "use super::disk::ChunkDisk;"), 0);
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
        assert_eq!(found("mooseng-chunkserver/src/store/elsewhere.rs", ""), 1);
    }
}
