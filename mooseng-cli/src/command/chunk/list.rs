//! `mooseng chunk list` and `mooseng chunk show`: chunks with their files and copies.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::admin::{self, Masters, condition_name};
use crate::output;

/// Which chunks are listed.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    condition: Condition,
    /// For programs: one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Condition {
    /// No copy can be read.
    #[arg(long)]
    missing: bool,
    /// One copy can be read, and more are wanted.
    #[arg(long)]
    endangered: bool,
    /// Fewer copies than are wanted.
    #[arg(long)]
    undergoal: bool,
    /// More copies than are wanted.
    #[arg(long)]
    overgoal: bool,
    /// A copy may lack what was written before its server stopped.
    #[arg(long)]
    in_doubt: bool,
    /// A copy is to be on another server: its own is drained, or its storage class wants another.
    #[arg(long)]
    misplaced: bool,
}

/// Which chunk is shown.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Its number: decimal, or hexadecimal after 0x.
    chunk: String,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// A chunk, as it is listed.
#[derive(Debug, Serialize)]
struct Chunk {
    schema: u32,
    chunk: u64,
    inode: u64,
    index: u32,
    wanted: u32,
    live: u32,
    version: u32,
    leased: bool,
    conditions: Vec<&'static str>,
    copies: Vec<Copy>,
}

#[derive(Debug, Serialize)]
struct Copy {
    server: u32,
    name: String,
    state: String,
    version: u32,
    verified: bool,
    counted: bool,
}

impl Condition {
    fn wanted(&self) -> pb::ChunkCondition {
        match self {
            Self { missing: true, .. } => pb::ChunkCondition::Missing,
            Self { endangered: true, .. } => pb::ChunkCondition::Endangered,
            Self { undergoal: true, .. } => pb::ChunkCondition::UnderGoal,
            Self { overgoal: true, .. } => pb::ChunkCondition::OverGoal,
            Self { misplaced: true, .. } => pb::ChunkCondition::Misplaced,
            Self { .. } => pb::ChunkCondition::InDoubt,
        }
    }
}

impl Chunk {
    fn new(it: pb::ChunkStatus, names: &BTreeMap<u32, String>) -> Self {
        let conditions = it.conditions().map(condition_name).collect();
        let copy = |copy: pb::CopyPlace| Copy {
            server: copy.server,
            name: names.get(&copy.server).cloned().unwrap_or_else(|| format!("server {}", copy.server)),
            state: copy.state,
            version: copy.version,
            verified: copy.verified,
            counted: copy.counted,
        };
        Self {
            schema: 1,
            chunk: it.chunk,
            inode: it.inode,
            index: it.index,
            wanted: it.wanted,
            live: it.live,
            version: it.version,
            leased: it.leased,
            conditions,
            copies: it.copies.into_iter().map(copy).collect(),
        }
    }

    fn row(&self) -> Vec<String> {
        let copies: Vec<String> = self.copies.iter().map(Copy::describe).collect();
        vec![
            format!("{:#x}", self.chunk),
            self.inode.to_string(),
            self.index.to_string(),
            format!("{}/{}{}", self.live, self.wanted, if self.leased { ", being written" } else { "" }),
            copies.join(", "),
        ]
    }
}

impl Copy {
    fn describe(&self) -> String {
        let beside = if self.counted { "" } else { " beside" };
        let verified = if self.verified { " verified" } else { "" };
        format!("{}:{}{verified}{beside}", self.name, self.state)
    }
}

const HEAD: [&str; 5] = ["CHUNK", "INODE", "INDEX", "LIVE", "COPIES"];

pub(super) fn list(target: &Target, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let (condition, names) = (args.condition.wanted(), names(&masters)?);
    let (mut after, mut rows) = (0, Vec::new());
    loop {
        let request = pb::ListChunksRequest { condition: condition.into(), after, ..Default::default() };
        let reply = admin::ask_leader(&masters, &request)?;
        after = reply.chunks.last().map_or(after, |last| last.chunk);
        for chunk in reply.chunks.into_iter().map(|chunk| Chunk::new(chunk, &names)) {
            if args.json {
                output::line(&serde_json::to_string(&chunk)?);
            } else {
                rows.push(chunk.row());
            }
        }
        if reply.end {
            break;
        }
    }
    if !args.json && !rows.is_empty() {
        output::table(&HEAD, &rows);
        output::note("find a file by its inode in a mount: find MOUNT -inum INODE");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(target: &Target, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let only = number(&args.chunk)?;
    let masters = admin::masters(target)?;
    let names = names(&masters)?;
    let reply = admin::ask_leader(&masters, &pb::ListChunksRequest { only, ..Default::default() })?;
    let chunk = reply.chunks.into_iter().next().map(|chunk| Chunk::new(chunk, &names));
    let chunk = chunk.with_context(|| format!("no file has chunk {only:#x}"))?;
    if args.json {
        output::json(&chunk)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!(
        "chunk {only:#x}: inode {}, index {}, version {}, {} of {} copies live{}{}",
        chunk.inode,
        chunk.index,
        chunk.version,
        chunk.live,
        chunk.wanted,
        if chunk.leased { ", being written" } else { "" },
        chunk.conditions.iter().map(|name| format!(", {name}")).collect::<String>()
    ));
    let row = |copy: &Copy| {
        let version = if copy.version == 0 { "-".to_owned() } else { copy.version.to_string() };
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        vec![copy.name.clone(), copy.state.clone(), version, yes(copy.verified), yes(copy.counted)]
    };
    let rows: Vec<Vec<String>> = chunk.copies.iter().map(row).collect();
    output::table(&["CHUNKSERVER", "COPY", "VERSION", "VERIFIED", "COUNTED"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// The number of a chunk, as it is shown.
pub(super) fn number(word: &str) -> anyhow::Result<u64> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    let number = number.with_context(|| format!("{word:?} is no number of a chunk"))?;
    if number == 0 {
        bail!("no chunk has the number 0");
    }
    Ok(number)
}

/// The servers' names, by number.
fn names(masters: &Masters) -> anyhow::Result<BTreeMap<u32, String>> {
    let status = admin::cluster_status(masters)?;
    Ok(status.servers.into_iter().map(|server| (server.id, server.name)).collect())
}
