//! `mooseng file class`: which storage class files and directories have, or another one for them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use super::objects::{self, Tree};
use crate::Target;
use crate::admin::{self, Masters};
use crate::output;

/// Objects of one request: as many as a command takes.
const OBJECTS_MAX: usize = 1024;

#[derive(Debug, Args)]
pub(crate) struct ClassArgs {
    /// Files and directories of a mounted MooseNG.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Give them this class. New objects in a directory have its class from then on.
    #[arg(long, value_name = "CLASS")]
    set: Option<String>,
    /// With everything below directories.
    #[arg(short, long)]
    recursive: bool,
    /// Only say what would be changed.
    #[arg(long)]
    dry_run: bool,
    /// For programs: a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Has<'a> {
    path: String,
    inode: u64,
    class: &'a str,
}

#[derive(Serialize)]
struct Changed<'a> {
    schema: u32,
    class: &'a str,
    dry_run: bool,
    /// Objects that were looked at.
    objects: u64,
    /// Those that had another class.
    changed: u64,
}

pub(super) fn run(target: &Target, args: &ClassArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let mut done = (0, 0);
    for path in &args.paths {
        let inode = objects::inode_of(path)?;
        if !args.recursive {
            take(&masters, args, &[(path.clone(), inode)], &mut done)?;
            continue;
        }
        let mut batch = Vec::with_capacity(OBJECTS_MAX);
        for found in Tree::below(path)? {
            batch.push(found?);
            if batch.len() == OBJECTS_MAX {
                take(&masters, args, &batch, &mut done)?;
                batch.clear();
            }
        }
        take(&masters, args, &batch, &mut done)?;
    }
    if let Some(class) = &args.set {
        let ((objects, changed), dry_run) = (done, args.dry_run);
        if args.json {
            output::json_line(&Changed { schema: 1, class, dry_run, objects, changed })?;
        } else {
            let what = if dry_run { "would be given" } else { "were given" };
            output::line(&format!("{changed} of {objects} objects {what} class {class}; the others had it"));
        }
        if changed > 0 && !dry_run {
            output::note(
                "chunks that exist get as many copies as the class keeps, and stay where they are; new ones go by the class",
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows or changes some objects, and counts those seen and those changed.
fn take(
    masters: &Masters,
    args: &ClassArgs,
    objects: &[(PathBuf, u64)],
    (seen, changed): &mut (u64, u64),
) -> anyhow::Result<()> {
    if objects.is_empty() {
        return Ok(());
    }
    let inodes: Vec<u64> = objects.iter().map(|(_, inode)| *inode).collect();
    *seen += inodes.len() as u64;
    if let Some(class) = &args.set {
        let request = pb::SetClassRequest { name: class.clone(), inodes, dry_run: args.dry_run };
        *changed += u64::from(admin::ask_leader(masters, &request)?.changed);
        return Ok(());
    }
    let reply = admin::ask_leader(masters, &pb::ExplainClassRequest { inodes })?;
    for ((path, inode), object) in objects.iter().zip(&reply.objects) {
        // Removed meanwhile.
        if object.class.is_empty() {
            continue;
        }
        if args.json {
            let (path, class) = (path.display().to_string(), object.class.as_str());
            output::json_line(&Has { path, inode: *inode, class })?;
        } else {
            output::line(&format!("{}: {}", path.display(), object.class));
        }
    }
    Ok(())
}
