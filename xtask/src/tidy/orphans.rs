//! Every Rust file is reached from a crate root: a file that no `mod` names is compiled by nobody and tested by nobody.

use super::Finding;
use super::source::{Tree, directory, file_name};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|(path, _)| !is_root(tree, path) && !is_named(tree, path) && !is_included(tree, path))
        .map(|(path, _)| Finding::whole(path, "no `mod` names this file"))
        .collect()
}

/// Whether cargo compiles the file by its place alone, or a manifest names it.
fn is_root(tree: &Tree, path: &str) -> bool {
    let Some(krate) = crate_directory(tree, path) else { return false };
    let inside = path.strip_prefix(&krate).unwrap_or(path).trim_start_matches('/');
    let parts: Vec<&str> = inside.split('/').collect();
    let by_place = matches!(
        parts.as_slice(),
        ["build.rs"]
            | ["src", "main.rs" | "lib.rs"]
            | ["src", "bin", _]
            | ["src", "bin", _, "main.rs"]
            | ["fuzz_targets", _]
            | ["tests" | "benches" | "examples", _]
            | ["tests" | "benches" | "examples", _, "main.rs"]
    );
    let manifest = join(&krate, "Cargo.toml");
    by_place || tree.get(&manifest).is_some_and(|text| text.contains(&format!("path = \"{inside}\"")))
}

/// The nearest directory above the file that has a manifest.
fn crate_directory(tree: &Tree, path: &str) -> Option<String> {
    let mut at = directory(path);
    loop {
        if tree.has(&join(at, "Cargo.toml")) {
            return Some(at.to_owned());
        }
        if at.is_empty() {
            return None;
        }
        at = directory(at);
    }
}

fn is_named(tree: &Tree, path: &str) -> bool {
    let name = file_name(path).trim_end_matches(".rs");
    let place = directory(path);
    // `foo/mod.rs` stands for `foo`; the names rule has its own word about that.
    let (name, place) = if name == "mod" { (file_name(place), directory(place)) } else { (name, place) };
    tree.rust()
        .filter(|(parent, _)| *parent != path)
        .filter(|(parent, _)| {
            let in_same = directory(parent) == place;
            *parent == format!("{place}.rs")
                || in_same && (is_root(tree, parent) || file_name(parent) == "mod.rs")
        })
        .any(|(_, text)| text.lines().any(|line| declares(line, name)))
}

/// Whether a line is `mod name;` with any visibility or attribute before it.
fn declares(line: &str, name: &str) -> bool {
    let line = line.trim();
    line.strip_suffix(';')
        .and_then(|line| line.strip_suffix(name))
        .is_some_and(|before| before.ends_with("mod ") && !line.starts_with("//"))
}

fn is_included(tree: &Tree, path: &str) -> bool {
    let name = file_name(path);
    tree.rust().any(|(from, text)| {
        from != path
            && text.lines().any(|line| {
                (line.contains("include!(") || line.contains("#[path")) && line.contains(&format!("{name}\""))
            })
    })
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphans(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files)).into_iter().map(|finding| finding.path).collect()
    }

    #[test]
    fn a_file_that_no_mod_names_is_found() {
        let files = [
            ("a/Cargo.toml", ""),
            ("a/src/lib.rs", "mod used;\n// mod lost;\n"),
            ("a/src/used.rs", ""),
            ("a/src/lost.rs", ""),
        ];
        assert_eq!(orphans(&files), ["a/src/lost.rs"]);
    }

    #[test]
    fn a_nested_file_is_named_by_the_file_beside_its_directory_only() {
        let files = [
            ("a/Cargo.toml", ""),
            ("a/src/lib.rs", "pub mod x;\nmod y;"),
            ("a/src/x.rs", "pub(crate) mod z;"),
            ("a/src/x/z.rs", ""),
            ("a/src/x/y.rs", ""),
        ];
        assert_eq!(orphans(&files), ["a/src/x/y.rs"]);
    }

    #[test]
    fn roots_and_included_files_are_no_orphans() {
        let files = [
            ("a/Cargo.toml", "[[bin]]\npath = \"odd/place.rs\""),
            ("a/build.rs", ""),
            ("a/odd/place.rs", ""),
            ("a/src/main.rs", "include!(\"gen/table.rs\");"),
            ("a/src/gen/table.rs", ""),
            ("a/src/bin/tool.rs", ""),
            ("a/tests/it/main.rs", "mod one;"),
            ("a/tests/it/one.rs", ""),
            ("a/benches/b.rs", ""),
            ("a/examples/e.rs", ""),
            ("fuzz/Cargo.toml", ""),
            ("fuzz/fuzz_targets/frame.rs", ""),
        ];
        assert_eq!(orphans(&files), Vec::<String>::new());
    }

    #[test]
    fn a_longer_module_name_with_the_same_end_does_not_count() {
        let files = [
            ("a/Cargo.toml", ""),
            ("a/src/lib.rs", "mod big_x;"),
            ("a/src/big_x.rs", ""),
            ("a/src/x.rs", ""),
        ];
        assert_eq!(orphans(&files), ["a/src/x.rs"]);
    }
}
