//! What the cluster looks like: one picture of the answers of all masters.
//!
//! Masters whose addresses were not given are asked too, at the addresses that the others tell. What a master says of
//! itself counts more than what another says of it; who is in the group, the leader of the latest epoch knows best.

use std::time::Duration;

use anyhow::bail;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::ClusterId;
use serde::Serialize;

use super::door::Door;
use super::{Masters, learn};

/// A master that does not answer at once is shown as unreachable: it is what one wants to know.
const ANSWER: Duration = Duration::from_secs(5);

/// The cluster, as status shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterStatus {
    pub(crate) cluster_id: String,
    pub(crate) epoch: u64,
    /// Of the formats that are written.
    pub(crate) level: u32,
    pub(crate) masters: Vec<Master>,
    pub(crate) joining: Vec<Joining>,
    pub(crate) voters: u64,
    pub(crate) voters_reachable: u64,
    /// How many more voters may be lost before nothing goes on.
    pub(crate) failures_survived: u64,
    pub(crate) servers: Vec<Server>,
    pub(crate) sessions: u64,
    pub(crate) inodes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) chunks: u64,
    pub(crate) orphans: u64,
    /// The leader's background work, by kind.
    pub(crate) workers: Vec<Worker>,
    /// The groups that the masters host.
    pub(crate) cells: Vec<Cell>,
}

/// What one kind of background work has done since the leader's process began.
#[derive(Debug, Serialize)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) under_way: u64,
    pub(crate) applied: u64,
    pub(crate) ordered: u64,
    pub(crate) refused: u64,
    /// Why its last command was refused.
    pub(crate) trouble: String,
}

/// A group, as the master that was believed sees it.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) cell: u32,
    /// The number of the master that leads it; 0 if none is known.
    pub(crate) leader: u64,
    pub(crate) term: u64,
    pub(crate) applied_index: u64,
    /// Masters that vote in its group.
    pub(crate) voters: u32,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Master {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) voter: bool,
    pub(crate) address: String,
    pub(crate) term: u64,
    pub(crate) commit_index: u64,
    pub(crate) applied_index: u64,
    /// Chunkservers that it hears; `None` if it does not answer.
    pub(crate) servers_up: Option<u64>,
    /// What has passed its door; `None` if it does not answer, or is of a release that does not tell.
    pub(crate) door: Option<Door>,
}

/// A master that asks to be let in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Joining {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) address: String,
    /// It takes its own place again, without a command.
    pub(crate) returns: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) address: String,
    pub(crate) total_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) chunks: u64,
    pub(crate) disks: u64,
    pub(crate) disks_failed: u64,
    /// What storage classes call it by.
    pub(crate) labels: Vec<String>,
    pub(crate) region: String,
    pub(crate) rack: String,
    /// What it is there for: normal, draining, maintenance.
    pub(crate) mode: &'static str,
    pub(crate) maintenance_until_ns: i64,
    /// No chunk counts a copy of its; `None` if the master cannot tell.
    pub(crate) empty: Option<bool>,
    /// What has passed its door, as it told last.
    pub(crate) door: Option<Door>,
}

impl ClusterStatus {
    /// Who leads.
    pub(crate) fn leader(&self) -> Option<&Master> {
        self.masters.iter().find(|master| master.role == "leader")
    }

    /// The master of this name or number; while a life of it takes the place of another, the one that answers.
    pub(crate) fn find(&self, master: &str) -> Option<&Master> {
        let named = |it: &&Master| is_called(it.id, &it.name, master) && it.role != "removed";
        let mut found: Vec<&Master> = self.masters.iter().filter(named).collect();
        found.sort_by_key(|it| it.role == "unreachable");
        found.first().copied()
    }

    /// The one of this name or number that asks to be let in.
    pub(crate) fn find_joining(&self, master: &str) -> Option<&Joining> {
        self.joining.iter().find(|it| is_called(it.id, &it.name, master))
    }

    /// The chunkserver of this name or number.
    pub(crate) fn find_server(&self, word: &str) -> anyhow::Result<&Server> {
        let named: Vec<&Server> =
            self.servers.iter().filter(|it| is_called(it.id.into(), &it.name, word)).collect();
        match named.as_slice() {
            [server] => Ok(server),
            [] => {
                let names: Vec<&str> = self.servers.iter().map(|it| it.name.as_str()).collect();
                bail!("no chunkserver is called {word}: there are {}", names.join(", "))
            }
            [first, ..] => bail!(
                "{} chunkservers are called {word}: say a number, as in {} (mooseng server list)",
                named.len(),
                first.id
            ),
        }
    }

    /// The addresses of all masters in it.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.masters.iter().map(|master| master.address.clone()).collect()
    }
}

/// Whether the name or number of a master or a chunkserver is `word`.
fn is_called(id: u64, name: &str, word: &str) -> bool {
    name == word || id.to_string() == word
}

/// One master's answer.
struct Answer {
    reply: pb::ClusterStatusReply,
    /// What it says of itself; `None` if it is reached by an address that it does not know.
    own: Option<pb::MasterStatus>,
}

impl Answer {
    fn new(reply: pb::ClusterStatusReply, address: &str) -> Self {
        let here = |it: &&pb::MasterStatus| it.address == *address;
        let own = reply.masters.iter().chain(&reply.joining).find(here).cloned();
        Self { reply, own }
    }

    fn has_role(&self, role: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.role == role)
    }

    fn servers_up(&self) -> u64 {
        self.reply.servers.iter().filter(|server| server.state == "up").count() as u64
    }

    /// How well it knows the group.
    fn authority(&self) -> (bool, u64, bool, u64) {
        let own = self.own.as_ref();
        let inside = !self.reply.masters.is_empty() && !self.has_role("removed");
        let term = own.map_or(0, |own| own.term);
        (inside, self.reply.epoch, self.has_role("leader"), term)
    }
}

/// The cluster as the leader sees it, or else as any master does. Masters that do not answer are shown as such.
pub(crate) fn cluster_status(masters: &Masters) -> anyhow::Result<ClusterStatus> {
    let mut addresses = masters.addresses.clone();
    let mut answers = Vec::new();
    let mut last = None;
    let mut next = 0;
    while let Some(address) = addresses.get(next).cloned() {
        next += 1;
        match masters.ask(&address, &pb::ClusterStatusRequest {}, ANSWER) {
            Ok(reply) => {
                reply.masters.iter().for_each(|told| learn(&mut addresses, &told.address));
                answers.push(Answer::new(reply, &address));
            }
            // Of several troubles, a refusal says most: that master runs.
            Err(_) if matches!(last, Some(CallError::Rejected { .. })) => {}
            Err(error) => last = Some(error),
        }
    }
    match merge(&answers) {
        Some(status) => Ok(status),
        None => {
            if let Some(CallError::Rejected { message }) = last {
                bail!("the masters at {} refuse: {message}", masters.addresses.join(", "));
            }
            let why = last.map_or_else(String::new, |error| format!(" ({:#})", anyhow::Error::from(error)));
            bail!("no master answers at {}{why}: is the cluster running?", masters.addresses.join(", "))
        }
    }
}

fn merge(answers: &[Answer]) -> Option<ClusterStatus> {
    let best = answers.iter().max_by_key(|answer| answer.authority())?;
    let mut masters: Vec<Master> =
        best.reply.masters.iter().map(|told| shown(told, answers, &best.reply)).collect();
    // One that the group goes on without is still worth a line: somebody should stop it.
    for own in answers.iter().filter(|it| it.has_role("removed")).filter_map(|it| it.own.as_ref()) {
        if !masters.iter().any(|master| master.address == own.address) {
            masters.push(Master { voter: false, ..master(own, None) });
        }
    }
    let voters = masters.iter().filter(|master| master.voter).count() as u64;
    let reachable = |master: &&Master| master.voter && master.role != "unreachable";
    let voters_reachable = masters.iter().filter(reachable).count() as u64;
    let best = &best.reply;
    let members = &best.masters;
    let joining = best.joining.iter().map(|it| Joining {
        id: it.id,
        name: it.name.clone(),
        address: it.address.clone(),
        returns: members.iter().any(|member| member.id == it.id),
    });
    let worker = |it: &pb::WorkerStatus| Worker {
        name: it.name.clone(),
        under_way: it.under_way,
        applied: it.applied,
        ordered: it.ordered,
        refused: it.refused,
        trouble: it.trouble.clone(),
    };
    let cell = |it: &pb::CellStatus| Cell {
        cell: it.cell,
        leader: it.leader,
        term: it.term,
        applied_index: it.applied_index,
        voters: it.voters,
    };
    let cluster_id = <[u8; 16]>::try_from(&best.cluster_id[..]).map(ClusterId::from_bytes);
    Some(ClusterStatus {
        cluster_id: cluster_id.map_or_else(|_| String::new(), |id| id.to_string()),
        epoch: best.epoch,
        level: best.level,
        workers: best.workers.iter().map(worker).collect(),
        cells: best.cells.iter().map(cell).collect(),
        joining: joining.collect(),
        masters,
        voters,
        voters_reachable,
        failures_survived: voters_reachable.saturating_sub(voters / 2 + 1),
        servers: best.servers.iter().map(server).collect(),
        sessions: best.sessions,
        inodes: best.inodes,
        used_bytes: best.used_bytes,
        chunks: best.chunks,
        orphans: best.orphans,
    })
}

fn server(s: &pb::ServerStatus) -> Server {
    Server {
        id: s.id,
        name: s.name.clone(),
        state: s.state.clone(),
        address: s.address.clone(),
        total_bytes: s.total_bytes,
        free_bytes: s.free_bytes,
        chunks: s.chunks,
        disks: s.disks,
        disks_failed: s.disks_failed,
        labels: s.labels.clone(),
        region: s.region.clone(),
        rack: s.rack.clone(),
        mode: match s.mode() {
            pb::ServerMode::Normal => "normal",
            pb::ServerMode::Draining => "draining",
            pb::ServerMode::Maintenance => "maintenance",
        },
        maintenance_until_ns: s.maintenance_until_ns,
        empty: s.empty,
        door: s.door.clone().map(Door::from),
    }
}

/// A master as told of in `status`; `own` is its own answer, if it has given one.
fn master(status: &pb::MasterStatus, own: Option<&Answer>) -> Master {
    Master {
        id: status.id,
        name: status.name.clone(),
        role: status.role.clone(),
        voter: status.voter,
        address: status.address.clone(),
        term: status.term,
        commit_index: status.commit_index,
        applied_index: status.applied_index,
        servers_up: own.map(Answer::servers_up),
        door: own.and_then(|own| own.reply.door.clone()).map(Door::from),
    }
}

/// A member as it says itself that it is, or as `best` tells of it if it does not answer.
fn shown(told: &pb::MasterStatus, answers: &[Answer], best: &pb::ClusterStatusReply) -> Master {
    // While one life of a master takes the place of another, both have its number and its address.
    let twice = best.masters.iter().filter(|other| other.id == told.id).count() > 1;
    let named = |answer: &&Answer| {
        let own = answer.own.as_ref();
        own.is_some_and(|own| own.id == told.id && own.role != "joining")
    };
    let answer = answers.iter().filter(|answer| answer.reply.epoch == best.epoch).find(named);
    match answer.and_then(|answer| Some((answer, answer.own.as_ref()?))) {
        _ if twice => master(told, None),
        Some((answer, own)) => Master { voter: told.voter, ..master(own, Some(answer)) },
        None => Master { role: "unreachable".into(), ..master(told, None) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(id: u64, role: &str) -> pb::MasterStatus {
        pb::MasterStatus {
            id,
            name: format!("m{id}"),
            address: format!("h:{id}"),
            role: role.into(),
            term: 5,
            commit_index: 90,
            applied_index: 90,
            voter: !["learner", "joining"].contains(&role),
        }
    }

    fn answer(from: u64, epoch: u64, masters: &[(u64, &str)], joining: &[u64]) -> Answer {
        let masters = masters.iter().map(|(id, role)| status(*id, role)).collect();
        let joining = joining.iter().map(|id| status(*id, "joining")).collect();
        let door = Some(pb::DoorStatus { strangers: from, ..Default::default() });
        let reply = pb::ClusterStatusReply { epoch, masters, joining, door, ..Default::default() };
        Answer::new(reply, &format!("h:{from}"))
    }

    fn roles(status: &ClusterStatus) -> Vec<(u64, &str)> {
        status.masters.iter().map(|it| (it.id, it.role.as_str())).collect()
    }

    #[test]
    fn the_leader_knows_the_group_and_each_master_its_role() {
        let group = [(1, "leader"), (2, "follower"), (3, "unreachable"), (4, "learner")];
        let old = [(1, "follower"), (2, "candidate"), (3, "follower")];
        let answers = [
            answer(2, 1, &old, &[]),
            answer(1, 1, &group, &[5]),
            answer(4, 1, &[(1, "leader"), (4, "learner")], &[]),
        ];
        let merged = merge(&answers).unwrap();
        assert_eq!(roles(&merged), [(1, "leader"), (2, "candidate"), (3, "unreachable"), (4, "learner")]);
        assert_eq!((merged.voters, merged.voters_reachable, merged.failures_survived), (3, 2, 0));
        let doors: Vec<_> =
            merged.masters.iter().map(|it| it.door.as_ref().map(|door| door.strangers)).collect();
        assert_eq!(doors, [Some(1), Some(2), None, Some(4)], "each tells of its own");
        assert_eq!(merged.find_joining("m5").map(|it| it.returns), Some(false));
        assert_eq!(merged.find("4").map(|it| it.voter), Some(false));
    }

    #[test]
    fn the_group_of_a_later_epoch_counts_whoever_leads_an_earlier_one() {
        let answers = [
            answer(1, 1, &[(1, "leader"), (2, "follower"), (3, "unreachable")], &[]),
            answer(3, 2, &[(3, "leader")], &[]),
        ];
        let merged = merge(&answers).unwrap();
        assert_eq!((roles(&merged), merged.epoch), (vec![(3, "leader")], 2));
        assert_eq!((merged.voters, merged.failures_survived), (1, 0));
    }

    #[test]
    fn a_master_that_was_removed_is_shown_and_does_not_count() {
        let answers = [
            answer(1, 1, &[(1, "leader")], &[]),
            answer(2, 1, &[(1, "leader"), (2, "removed")], &[]),
            answer(6, 0, &[], &[6]),
        ];
        let merged = merge(&answers).unwrap();
        assert_eq!(roles(&merged), [(1, "leader"), (2, "removed")]);
        assert_eq!((merged.voters, merged.voters_reachable), (1, 1));
    }

    #[test]
    fn while_a_master_comes_back_the_leader_is_believed_about_both_its_lives() {
        let group = [(1, "leader"), (2, "unreachable"), (3, "follower"), (2, "learner")];
        let answers = [answer(1, 1, &group, &[]), answer(2, 1, &[(1, "leader"), (2, "follower")], &[])];
        let merged = merge(&answers).unwrap();
        let expected = [(1, "leader"), (2, "unreachable"), (3, "unreachable"), (2, "learner")];
        assert_eq!(roles(&merged), expected);
        assert_eq!(merged.find("m2").map(|it| it.role.as_str()), Some("learner"));
    }
}
