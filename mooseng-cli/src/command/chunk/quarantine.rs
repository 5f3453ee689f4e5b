//! `mooseng chunk quarantine`: copies that were set aside, and having one back.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use mooseng_protocol::pb;
use mooseng_types::TimeNs;
use serde::Serialize;

use super::list::number;
use crate::Target;
use crate::admin::{self, Masters, Server};
use crate::output;

/// What can be done with copies in quarantine.
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// What was set aside, on which server, and until when it is kept.
    List(ListArgs),
    /// Put a copy back into use, where no newer one of the same chunk is.
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this chunkserver: its name or number.
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// For programs: one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The chunk: decimal, or hexadecimal after 0x.
    chunk: String,
    /// The chunkserver that has the copy: its name or number.
    #[arg(long, value_name = "SERVER")]
    server: String,
    /// Which version of it [default: the newest].
    #[arg(long, value_name = "VERSION")]
    copy_version: Option<u32>,
    /// Only say what would come back.
    #[arg(long)]
    dry_run: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// A copy in quarantine.
#[derive(Debug, Serialize)]
struct Kept {
    schema: u32,
    server: u32,
    name: String,
    chunk: u64,
    part: u32,
    version: u32,
    length_bytes: u64,
    until_unix_s: u64,
    disk: String,
}

#[derive(Serialize)]
struct Restored<'a> {
    schema: u32,
    restored: &'a Kept,
    dry_run: bool,
}

pub(super) fn run(target: &Target, command: &QuarantineCommand) -> anyhow::Result<ExitCode> {
    match command {
        QuarantineCommand::List(args) => list(target, args),
        QuarantineCommand::Restore(args) => restore(target, args),
    }
}

fn list(target: &Target, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    let servers: Vec<&Server> = match &args.server {
        Some(word) => vec![status.find_server(word)?],
        None => status.servers.iter().collect(),
    };
    let (mut rows, mut silent) = (Vec::new(), Vec::new());
    for server in servers {
        match kept(&masters, server) {
            Ok(copies) if args.json => copies.iter().try_for_each(output::json_line)?,
            Ok(copies) => rows.extend(copies.iter().map(row)),
            Err(error) => silent.push(error),
        }
    }
    if !rows.is_empty() {
        output::table(&["CHUNKSERVER", "CHUNK", "PART", "VERSION", "LENGTH", "KEPT UNTIL"], &rows);
    }
    silent.iter().for_each(output::error);
    Ok(if silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(it: &Kept) -> Vec<String> {
    let until = i64::try_from(it.until_unix_s).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    vec![
        it.name.clone(),
        format!("{:#x}", it.chunk),
        if it.part == 0 { "-".to_owned() } else { it.part.to_string() },
        it.version.to_string(),
        output::bytes(it.length_bytes),
        output::time(TimeNs::from_raw(until)),
    ]
}

/// All that a server has in quarantine.
fn kept(masters: &Masters, server: &Server) -> anyhow::Result<Vec<Kept>> {
    let (mut after, mut copies) = (None, Vec::new());
    loop {
        let reply = masters.ask_server(server, &pb::ListQuarantineRequest { after, limit: 0 })?;
        after = reply.copies.last().cloned();
        let copy = |it: pb::QuarantinedCopy| Kept {
            schema: 1,
            server: server.id,
            name: server.name.clone(),
            chunk: it.chunk,
            part: it.index,
            version: it.version,
            length_bytes: it.length_bytes,
            until_unix_s: it.until_unix_s,
            disk: it.disk,
        };
        copies.extend(reply.copies.into_iter().map(copy));
        if !reply.more || after.is_none() {
            return Ok(copies);
        }
    }
}

fn restore(target: &Target, args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let chunk = number(&args.chunk)?;
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    let server = status.find_server(&args.server)?;
    let is_meant =
        |it: &Kept| it.chunk == chunk && args.copy_version.is_none_or(|version| version == it.version);
    let mut found: Vec<Kept> = kept(&masters, server)?.into_iter().filter(is_meant).collect();
    found.sort_by_key(|it| it.version);
    let copy = found.pop().with_context(|| format!("{} has no such copy in quarantine", server.name))?;
    if found.iter().any(|other| other.part != copy.part) {
        bail!("{} has several parts of chunk {chunk:#x} in quarantine", server.name);
    }
    if !args.dry_run {
        let request = pb::RestoreQuarantinedRequest { chunk, index: copy.part, version: copy.version };
        masters.ask_server(server, &request)?;
    }
    if args.json {
        output::json(&Restored { schema: 1, restored: &copy, dry_run: args.dry_run })?;
    } else {
        let done = if args.dry_run { "would come back" } else { "is back" };
        output::line(&format!("version {} of chunk {chunk:#x} {done} on {}", copy.version, server.name));
    }
    Ok(ExitCode::SUCCESS)
}
