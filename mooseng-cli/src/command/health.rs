//! `mooseng health`: what is wrong with the cluster, how bad that is, and what to do about it.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::Target;
use crate::admin::{self, ChunkHealth, ClusterStatus, Server};
use crate::output;

/// What health takes.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Warning,
    Error,
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    /// For good: what monitoring goes by.
    id: &'static str,
    severity: Severity,
    what: String,
    /// What to do.
    action: String,
}

#[derive(Serialize)]
struct Json<'a> {
    schema: u32,
    findings: &'a [Finding],
}

/// Exit code 0 if all is well, 3 without a leader, 4 for warnings, 5 for errors.
pub(crate) fn run(target: &Target, args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    if status.leader().is_none() {
        output::error(&anyhow::anyhow!("no master leads: are a majority of the masters running?"));
        return Ok(ExitCode::from(3));
    }
    let chunks = admin::chunk_health(&masters.with_told(&status))?;
    let mut findings = of_servers(&status);
    findings.extend(of_chunks(&chunks));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if args.json {
        output::json(&Json { schema: 1, findings: &findings })?;
    } else {
        print(&findings);
    }
    Ok(match findings.first().map(|worst| worst.severity) {
        None => ExitCode::SUCCESS,
        Some(Severity::Warning) => ExitCode::from(4),
        Some(Severity::Error) => ExitCode::from(5),
    })
}

fn print(findings: &[Finding]) {
    if findings.is_empty() {
        output::line("healthy");
    }
    for Finding { id, severity, what, action } in findings {
        let severity = match severity {
            Severity::Warning => "warning",
            Severity::Error => "ERROR",
        };
        output::line(&format!("{severity} {id}: {what}"));
        output::line(&format!("    {action}"));
    }
}

/// Masters and chunkservers.
fn of_servers(status: &ClusterStatus) -> Vec<Finding> {
    let mut findings = Vec::new();
    let silent = status.masters.iter().filter(|master| master.voter && master.role == "unreachable");
    for master in silent {
        findings.push(Finding {
            id: "MASTER_DOWN",
            severity: if status.failures_survived == 0 { Severity::Error } else { Severity::Warning },
            what: format!("{} does not answer; {} more may fail", master.name, status.failures_survived),
            action: format!("start it at {}, or replace it: docs/operations.md", master.address),
        });
    }
    let missed = |server: &&Server| server.state != "up" && server.mode != "maintenance";
    for server in status.servers.iter().filter(missed) {
        findings.push(Finding {
            id: "SERVER_DOWN",
            severity: Severity::Warning,
            what: format!("chunkserver {} at {} does not answer", server.name, server.address),
            action: "start it; if it stays away, its copies are made anew on others by themselves".into(),
        });
    }
    for server in status.servers.iter().filter(|server| server.disks_failed > 0) {
        findings.push(Finding {
            id: "DISK_FAILED",
            severity: Severity::Warning,
            what: format!("{} of {} disks of {} failed", server.disks_failed, server.disks, server.name),
            action: "its copies are made anew on others; replace the disk: docs/operations.md".into(),
        });
    }
    findings
}

/// Chunks without all of their copies.
fn of_chunks(health: &ChunkHealth) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |count: u64, id, severity, what: &str, action: &str| {
        if count > 0 {
            let what = format!("{count} {what}");
            findings.push(Finding { id, severity, what, action: action.to_owned() });
        }
    };
    let count = |name: &str| health.count(name);
    find(
        count("missing"),
        "CHUNKS_MISSING",
        Severity::Error,
        "chunks cannot be read: no copy is there",
        "bring back the servers or disks that have them: mooseng chunk list --missing",
    );
    find(
        count("endangered"),
        "CHUNKS_ENDANGERED",
        Severity::Error,
        "chunks have one copy left",
        "they are copied by themselves if servers with room are up: mooseng chunk list --endangered",
    );
    find(
        count("undergoal"),
        "CHUNKS_UNDER_GOAL",
        Severity::Warning,
        "chunks have fewer copies than they should",
        "they are copied by themselves if servers with room are up: mooseng chunk list --undergoal",
    );
    find(
        count("in-doubt"),
        "CHUNKS_IN_DOUBT",
        Severity::Warning,
        "chunks have a copy that may lack the last writes before its server stopped",
        "such copies are made anew from good ones by themselves: mooseng chunk list --in-doubt",
    );
    if !health.complete {
        findings.push(Finding {
            id: "CHUNKS_NOT_COUNTED",
            severity: Severity::Warning,
            what: "the leader has not looked at all chunks yet: it is new, or a server came or went".into(),
            action: "ask again in a while".into(),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::ConditionCount;

    #[test]
    fn findings_have_ids_and_the_worst_decides() {
        let count = |condition, chunks| ConditionCount { condition, chunks };
        let conditions = vec![count("missing", 0), count("endangered", 2), count("undergoal", 9)];
        let health = ChunkHealth { conditions, complete: true, ..ChunkHealth::default() };
        let found: Vec<_> = of_chunks(&health).into_iter().map(|it| (it.id, it.severity)).collect();
        assert_eq!(found, [("CHUNKS_ENDANGERED", Severity::Error), ("CHUNKS_UNDER_GOAL", Severity::Warning)]);
        let healthy = ChunkHealth { complete: true, ..ChunkHealth::default() };
        assert_eq!(of_chunks(&healthy), []);
    }
}
