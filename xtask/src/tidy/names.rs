//! Names of files say what a file is, not how often it was written: no second generation beside a first, no `mod.rs`.

use super::Finding;
use super::source::{Tree, file_name};

const SUFFIXES: [&str; 8] =
    ["_v2", "_new", "_old", "_improved", "_optimized", "_final", "_simple", "_enhanced"];

/// Named by the first description of the system, which fixed this path.
const EXCEPTIONS: [&str; 1] = ["mooseng-master/src/cache_enhanced.rs"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, _) in tree.rust() {
        if file_name(path) == "mod.rs" {
            findings.push(Finding::whole(path, "`foo.rs` beside `foo/`, never `mod.rs`"));
        }
        for part in path.trim_end_matches(".rs").split('/') {
            let bad = SUFFIXES.iter().find(|suffix| part.ends_with(*suffix));
            if let Some(suffix) = bad
                && !EXCEPTIONS.contains(&path)
            {
                findings.push(Finding::whole(
                    path,
                    format!("a name that ends in `{suffix}` tells history, not purpose"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_forbidden_suffix_is_found() {
        for suffix in SUFFIXES {
            let path = format!("a/src/cache{suffix}.rs");
            assert_eq!(check(&Tree::of(&[(&path, "")])).len(), 1, "{path}");
        }
    }

    #[test]
    fn mod_rs_is_found_and_directories_count_too() {
        assert_eq!(check(&Tree::of(&[("a/src/x/mod.rs", ""), ("a/src/store_v2/disk.rs", "")])).len(), 2);
    }

    #[test]
    fn the_one_exception_and_ordinary_names_pass() {
        assert!(
            check(&Tree::of(&[("mooseng-master/src/cache_enhanced.rs", ""), ("a/src/renew.rs", "")]))
                .is_empty()
        );
        assert_eq!(check(&Tree::of(&[("mooseng-client/src/cache_enhanced.rs", "")])).len(), 1);
    }
}
