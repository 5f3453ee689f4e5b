//! `verify` checks everything that is quick and never writes; `fix` writes what can be repaired by a tool.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{shell, tidy};

/// A cold build of all dependencies on two cores fits into this.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

pub(crate) fn verify(root: &Path) -> Result<()> {
    let start = Instant::now();
    tidy::run(root)?;
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    fuzz_targets(root)?;
    let mut doc = command(root, &["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-Dwarnings -Arustdoc::private_intra_doc_links");
    shell::visible(&mut doc, BUILD_LIMIT)?;
    println!("verify: all good in {} s", start.elapsed().as_secs());
    Ok(())
}

/// They are a workspace of their own, which nothing else builds but `fuzz`. They are not linked here, so what they are
/// linked with, which takes a C++ compiler, need not be there.
fn fuzz_targets(root: &Path) -> Result<()> {
    let words = [
        "check",
        "--locked",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target-dir",
        "target",
        "--bins",
        "--examples",
    ];
    let mut check = command(root, &words);
    check.env("CUSTOM_LIBFUZZER_PATH", "target/libfuzzer.a");
    shell::visible(&mut check, BUILD_LIMIT)
}

pub(crate) fn fix(root: &Path) -> Result<()> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"];
    cargo(root, &clippy)?;
    cargo(root, &["fmt", "--all"])?;
    tidy::run(root)
}

fn cargo(root: &Path, words: &[&str]) -> Result<()> {
    shell::visible(&mut command(root, words), BUILD_LIMIT)
}

/// The cargo that runs us, at the root of the repository.
pub(crate) fn command(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(root);
    command
}
