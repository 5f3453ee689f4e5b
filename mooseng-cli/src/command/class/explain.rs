//! `mooseng class explain`: where a new chunk would go, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::admin;
use crate::command::file::objects;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A file, or a directory for new files in it, on a mounted MooseNG.
    path: PathBuf,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Explained {
    schema: u32,
    path: String,
    inode: u64,
    class: String,
    goal: String,
    strictness: String,
    copies: Vec<Copy>,
    warnings: Vec<String>,
    /// For right servers that have too much to do.
    must_wait: bool,
}

/// A copy's server.
#[derive(Serialize)]
struct Copy {
    copy: u32,
    asked: String,
    right: bool,
    server: String,
    labels: Vec<String>,
    region: String,
    rack: String,
    host: String,
    free_bytes: u64,
}

pub(super) fn run(target: &Target, args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let inode = objects::inode_of(&args.path)?;
    let masters = admin::masters(target)?;
    let reply = admin::ask_leader(&masters, &pb::ExplainClassRequest { inodes: vec![inode] })?;
    let copy = |it: pb::ChosenServer| Copy {
        copy: it.copy,
        asked: it.asked,
        right: it.right,
        server: it.name,
        labels: it.labels,
        region: it.region,
        rack: it.rack,
        host: it.host,
        free_bytes: it.free_bytes,
    };
    let explained = Explained {
        schema: 1,
        path: args.path.display().to_string(),
        inode,
        class: reply.objects.into_iter().next().map_or_else(String::new, |object| object.class),
        goal: reply.goal,
        strictness: reply.strictness,
        copies: reply.chosen.into_iter().map(copy).collect(),
        warnings: reply.warnings,
        must_wait: reply.must_wait,
    };
    if args.json {
        output::json(&explained)?;
    } else {
        print(&explained);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(it: &Explained) {
    output::line(&format!("{}: class {}, goal {} ({})", it.path, it.class, it.goal, it.strictness));
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let row = |copy: &Copy| {
        vec![
            copy.copy.to_string(),
            copy.asked.clone(),
            if copy.right { "yes".into() } else { "NO".into() },
            copy.server.clone(),
            or_none(&copy.labels.join(",")),
            or_none(&copy.region),
            or_none(&copy.rack),
            copy.host.clone(),
            output::bytes(copy.free_bytes),
        ]
    };
    let head = ["COPY", "ASKED", "RIGHT", "SERVER", "LABELS", "REGION", "RACK", "HOST", "FREE"];
    output::table(&head, &it.copies.iter().map(row).collect::<Vec<_>>());
    it.warnings.iter().for_each(|warning| output::line(warning));
    if it.must_wait {
        output::line("a new chunk waits: the right servers have too much to do");
    }
    output::line("of servers that do equally well one is drawn by free space: the next chunk may get others");
}
