//! Rules about files that no compiler checks: one rule per file, each with tests that show it biting.
//!
//! A rule sees the whole tree of tracked text as values and answers with findings, so that its tests need no disk.

mod borders;
mod header;
mod layering;
mod length;
mod links;
mod names;
mod orphans;
mod paths;
mod runtime;
mod schema;
mod sockets;
mod source;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use self::source::Tree;

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1; 0 when the whole file is meant.
    line: usize,
    text: String,
}

impl Finding {
    fn at(path: &str, line: usize, text: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, text: text.into() }
    }

    fn whole(path: &str, text: impl Into<String>) -> Finding {
        Finding::at(path, 0, text)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.text),
            line => write!(f, "{}:{line}: {}", self.path, self.text),
        }
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: [(&str, Rule); 12] = [
    ("orphans", orphans::check),
    ("names", names::check),
    ("length", length::check),
    ("header", header::check),
    ("words", words::check),
    ("layering", layering::check),
    ("borders", borders::check),
    ("runtime", runtime::check),
    ("schema", schema::check),
    ("sockets", sockets::check),
    ("links", links::check),
    ("paths", paths::check),
];

/// Runs every rule over the tree at `root` and fails if one of them finds something.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut count = 0_usize;
    for (name, rule) in RULES {
        let mut findings = rule(&tree);
        findings.sort();
        count += findings.len();
        for finding in findings {
            println!("tidy [{name}] {finding}");
        }
    }
    if count > 0 {
        bail!("tidy: {count} findings");
    }
    println!("tidy: {} rules, {} files, nothing found", RULES.len(), tree.len());
    Ok(())
}
