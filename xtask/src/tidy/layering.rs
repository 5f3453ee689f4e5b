//! Who may import whom (DESIGN.md §2), read from the manifests. Dev-dependencies may differ, except that nobody ever
//! imports the simulator.

use super::Finding;
use super::source::{Tree, directory};

const BELOW_CLI: &[&str] = &["types", "meta", "env", "protocol", "master", "chunkserver", "client"];
const BELOW_SIM: &[&str] = &["types", "meta", "env", "protocol", "master", "chunkserver", "client", "cli"];

/// Each crate with what it may import; a crate of ours that is not here is a finding.
const LAYERS: [(&str, &[&str]); 10] = [
    ("mooseng-types", &[]),
    ("mooseng-meta", &["types"]),
    ("mooseng-env", &["types"]),
    ("mooseng-protocol", &["types"]),
    ("mooseng-master", &["types", "meta", "env", "protocol"]),
    ("mooseng-chunkserver", &["types", "env", "protocol"]),
    ("mooseng-client", &["types", "env", "protocol"]),
    ("mooseng-cli", BELOW_CLI),
    ("mooseng-sim", BELOW_SIM),
    ("xtask", &[]),
];

/// Test harnesses outside the layers: they may import anything, and nobody imports them.
const OUTSIDE: [&str; 1] = ["fuzz"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending("Cargo.toml") {
        let krate = directory(path);
        if krate.is_empty() || OUTSIDE.contains(&krate.rsplit('/').next().unwrap_or(krate)) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(known, _)| *known == krate) else {
            findings.push(Finding::whole(
                path,
                "a crate that DESIGN.md §2 does not place: add it there and here",
            ));
            continue;
        };
        for (line, name, for_tests) in imports(text) {
            let known = allowed.contains(&name);
            if name == "sim" || !known && !for_tests {
                findings.push(Finding::at(path, line, format!("{krate} must not import mooseng-{name}")));
            }
        }
    }
    findings
}

/// `(line, name without prefix, whether a dev-dependency)` of every dependency on a crate of ours.
fn imports(manifest: &str) -> Vec<(usize, &str, bool)> {
    let mut found = Vec::new();
    let mut section = "";
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let (for_tests, table) = (section.contains("dev-dependencies"), section.ends_with("dependencies"));
        // `[dependencies.mooseng-x]` names the crate in the section itself.
        let in_section = line.starts_with('[') && section.contains("dependencies.");
        let key = if in_section { section.rsplit('.').next() } else { table.then_some(line) };
        if let Some(name) = key.and_then(|key| key.strip_prefix("mooseng-")) {
            let end = name.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(name.len());
            found.push((index + 1, name.get(..end).unwrap_or(name), for_tests));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bites(krate: &str, manifest: &str) -> bool {
        !check(&Tree::of(&[(&format!("{krate}/Cargo.toml"), manifest)])).is_empty()
    }

    #[test]
    fn an_import_upwards_is_found_in_every_spelling() {
        assert!(bites("mooseng-client", "[dependencies]\nmooseng-master.workspace = true\n"));
        assert!(bites("mooseng-meta", "[dependencies]\nmooseng-env = { path = \"../mooseng-env\" }\n"));
        assert!(bites("mooseng-types", "[dependencies.mooseng-env]\nworkspace = true\n"));
        assert!(bites("mooseng-env", "[build-dependencies]\nmooseng-protocol.workspace = true\n"));
        assert!(bites("mooseng-meta", "[target.'cfg(unix)'.dependencies]\nmooseng-env.workspace = true\n"));
    }

    #[test]
    fn nobody_imports_the_simulator_even_for_tests() {
        assert!(bites("mooseng-cli", "[dev-dependencies]\nmooseng-sim.workspace = true\n"));
    }

    #[test]
    fn what_the_design_allows_passes() {
        assert!(!bites(
            "mooseng-master",
            "[dependencies]\nmooseng-meta.workspace = true\nmooseng-env.workspace = true\n"
        ));
        assert!(!bites("mooseng-client", "[dev-dependencies]\nmooseng-master.workspace = true\n"));
    }

    #[test]
    fn an_unknown_crate_is_found() {
        assert!(bites("mooseng-extra", "[dependencies]\n"));
        assert!(!bites("mooseng-protocol/fuzz", "[dependencies]\nmooseng-protocol.workspace = true\n"));
    }
}
