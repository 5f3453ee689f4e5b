//! Test programs from crates.io, installed once into `target/tools`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use crate::{shell, verify};

const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The program of a crate of the same name at exactly that version.
pub(super) fn installed(context: &Context, name: &str, version: &str) -> Result<PathBuf> {
    let place = context.root.join("target/tools");
    let program = place.join("bin").join(name);
    if !program.is_file() {
        let mut install =
            verify::command(&context.root, &["install", name, "--version", version, "--locked", "--root"]);
        install.arg(&place);
        shell::stdout_within(&mut install, INSTALL_LIMIT).with_context(|| format!("install {name}"))?;
    }
    Ok(program)
}
