//! `mooseng cluster status`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::Target;
use crate::admin::{self, ClusterStatus};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    status: &'a ClusterStatus,
    leader: Option<&'a str>,
}

pub(super) fn run(target: &Target, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = admin::cluster_status(&admin::masters(target)?)?;
    let leader = status.leader().map(|master| master.name.as_str());
    if args.json {
        output::json(&Json { status: &status, leader })?;
    } else {
        print(&status);
    }
    Ok(if leader.is_some() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn print(status: &ClusterStatus) {
    let ClusterStatus { cluster_id, epoch, level, .. } = status;
    output::line(&format!("cluster {cluster_id}, epoch {epoch}, level {level}"));
    output::line("");
    print_masters(status);
    output::line("");
    let rows: Vec<Vec<String>> = status
        .servers
        .iter()
        .map(|s| {
            let disks = format!("{}{}", s.disks, if s.disks_failed > 0 { " (failed!)" } else { "" });
            let (free, total) = (output::bytes(s.free_bytes), output::bytes(s.total_bytes));
            let (copies, labels) = (s.chunks.to_string(), s.labels.join(","));
            vec![s.name.clone(), s.state.clone(), s.address.clone(), free, total, copies, disks, labels]
        })
        .collect();
    output::table(&["CHUNKSERVER", "STATE", "ADDRESS", "FREE", "TOTAL", "COPIES", "DISKS", "LABELS"], &rows);
    output::line("");
    output::line(&format!(
        "{} objects, {} in files, {} chunks, {} sessions",
        status.inodes,
        output::bytes(status.used_bytes),
        status.chunks,
        status.sessions
    ));
}

fn print_masters(status: &ClusterStatus) {
    let rows: Vec<Vec<String>> = status
        .masters
        .iter()
        .map(|m| {
            vec![
                m.name.clone(),
                m.role.clone(),
                m.address.clone(),
                m.term.to_string(),
                m.applied_index.to_string(),
            ]
        })
        .collect();
    output::table(&["MASTER", "ROLE", "ADDRESS", "TERM", "APPLIED"], &rows);
    for it in &status.joining {
        let what = if it.returns {
            "takes its place again by itself".to_owned()
        } else {
            format!("let it in with: mooseng cluster add-master {}", it.name)
        };
        output::line(&format!("{} at {} asks to be let in; {what}", it.name, it.address));
    }
    warnings(status).iter().for_each(|warning| output::line(&format!("warning: {warning}")));
}

/// What an administrator should mend.
fn warnings(status: &ClusterStatus) -> Vec<String> {
    let mut warnings = Vec::new();
    let voters = status.voters;
    let unreachable: Vec<&str> = status
        .masters
        .iter()
        .filter(|master| master.voter && master.role == "unreachable")
        .map(|master| master.name.as_str())
        .collect();
    if !unreachable.is_empty() {
        let needed = voters / 2 + 1;
        let left = match status.failures_survived {
            _ if status.voters_reachable < needed => {
                format!("{needed} of {voters} voters are needed: nothing goes on")
            }
            0 => "the next failure of a voter stops everything".to_owned(),
            more => format!("the failure of {more} more is survived"),
        };
        warnings.push(format!("no answer from {}; {left}", unreachable.join(", ")));
    }
    if voters > 0 && voters.is_multiple_of(2) {
        warnings.push(format!(
            "{voters} voters survive no more failures than {}: add a master, or remove one",
            voters - 1
        ));
    }
    // Whoever leads without them finds no place for new chunks.
    let heard = status.masters.iter().filter_map(|master| master.servers_up).max().unwrap_or(0);
    for master in status.masters.iter().filter(|master| master.voter) {
        if let Some(up) = master.servers_up.filter(|up| *up < heard) {
            let name = &master.name;
            warnings.push(format!("{name} hears {up} of {heard} chunkservers: it should not lead yet"));
        }
    }
    for master in status.masters.iter().filter(|master| master.role == "removed") {
        warnings.push(format!("the group goes on without {}: stop it", master.name));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Master;

    fn status(roles: &[&str]) -> ClusterStatus {
        let master = |(id, role): (u64, &&str)| Master {
            id,
            name: format!("m{id}"),
            role: (*role).into(),
            voter: !["learner", "removed"].contains(role),
            address: String::new(),
            term: 1,
            commit_index: 1,
            applied_index: 1,
            servers_up: (*role != "unreachable").then_some(2),
            door: None,
        };
        let masters: Vec<Master> = (1..).zip(roles).map(master).collect();
        let voters = masters.iter().filter(|it| it.voter).count() as u64;
        let reachable = masters.iter().filter(|it| it.voter && it.role != "unreachable").count() as u64;
        ClusterStatus {
            cluster_id: String::new(),
            epoch: 1,
            level: 1,
            masters,
            joining: Vec::new(),
            voters,
            voters_reachable: reachable,
            failures_survived: reachable.saturating_sub(voters / 2 + 1),
            servers: Vec::new(),
            sessions: 0,
            inodes: 0,
            used_bytes: 0,
            chunks: 0,
            orphans: 0,
            workers: Vec::new(),
            cells: Vec::new(),
        }
    }

    fn check(roles: &[&str], expected: &[&str]) {
        let warnings = warnings(&status(roles));
        assert_eq!(warnings.len(), expected.len(), "{roles:?}: {warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.contains(expected), "{roles:?}: {warning}");
        }
    }

    #[test]
    fn what_should_be_mended_is_said_with_what_it_would_cost() {
        check(&["leader"], &[]);
        check(&["leader", "follower", "follower", "learner"], &[]);
        check(&["leader", "follower", "unreachable"], &["the next failure of a voter stops everything"]);
        check(&["candidate", "unreachable", "unreachable"], &["2 of 3 voters are needed: nothing goes on"]);
        check(&["leader", "follower", "follower", "follower", "unreachable"], &["the failure of 1 more"]);
        check(&["leader", "follower"], &["2 voters survive no more failures than 1"]);
        check(&["leader", "removed"], &["goes on without m2"]);
        let mut restarted = status(&["leader", "follower", "follower"]);
        restarted.masters[2].servers_up = Some(1);
        assert_eq!(warnings(&restarted), ["m3 hears 1 of 2 chunkservers: it should not lead yet"]);
    }
}
