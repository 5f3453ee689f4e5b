//! What operators say of chunkservers: that one is drained, in maintenance, or to be forgotten.

use bytes::Bytes;
use mooseng_meta::{ClusterCommand, Command, ServerMode};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::{CHUNK_SIZE, ClassState, Level, ServerId, TimeNs};

use super::Desk;
use super::requests::{Answer, Context, answer, decode};
use crate::group::{Groups, Now};
use crate::multiregion::placement::Fit;
use crate::registry::KnownServer;

/// Longer than this nobody waits for a server that is in maintenance.
const MAINTENANCE_MAX_S: u64 = 30 * 24 * 3600;

/// Answers a request about a chunkserver, or says what has to be agreed on for it.
pub(super) fn dispatch(
    desk: &Desk,
    groups: &Groups,
    now: Now,
    kind: u16,
    body: Bytes,
) -> Result<Answer, CallError> {
    groups.root().must_serve_reads(now.mono)?;
    let level = groups.root().state().level();
    if level < Level::CLASSES {
        return rejected(format!(
            "the cluster is at level {level}, modes of servers come with level {}: mooseng cluster upgrade",
            Level::CLASSES
        ));
    }
    match kind {
        pb::SetServerModeRequest::KIND => set_mode(desk, groups, now, &decode(body)?),
        pb::ForgetServerRequest::KIND => forget(desk, groups, now, &decode(body)?),
        kind => rejected(format!("a master does not serve {kind:#x}")),
    }
}

fn set_mode(
    desk: &Desk,
    groups: &Groups,
    now: Now,
    it: &pb::SetServerModeRequest,
) -> Result<Answer, CallError> {
    let (server, known) = find(desk, it.server)?;
    let mode = match it.mode() {
        pb::ServerMode::Normal => ServerMode::Normal,
        pb::ServerMode::Draining => ServerMode::Draining,
        pb::ServerMode::Maintenance if (1..=MAINTENANCE_MAX_S).contains(&it.maintenance_s) => {
            let time = i64::try_from(it.maintenance_s * 1_000_000_000).unwrap_or(i64::MAX);
            ServerMode::Maintenance { until: TimeNs::from_raw(now.wall.raw().saturating_add(time)) }
        }
        pb::ServerMode::Maintenance => {
            return rejected("maintenance lasts from a second to 30 days".into());
        }
    };
    if mode == ServerMode::Draining && known.is_up(now.mono) && !known.reported {
        let message = format!("this master has yet to hear what {} has", known.name);
        return Err(CallError::Unavailable { message });
    }
    let warnings =
        if mode == ServerMode::Draining { in_the_way(desk, groups, now, server) } else { Vec::new() };
    if !warnings.is_empty() && !it.force && !it.dry_run {
        let name = &known.name;
        return rejected(format!("{name} cannot be drained: {}; --force tries it", warnings.join("; ")));
    }
    if it.dry_run {
        return answer(&pb::SetServerModeReply { copies: known.copies.len() as u64, warnings });
    }
    propose(groups, ClusterCommand::SetServerMode { server, mode })
}

/// Why the copies of a server have nowhere to go.
fn in_the_way(desk: &Desk, groups: &Groups, now: Now, server: ServerId) -> Vec<String> {
    let all = desk.registry.candidates(now.mono, &[]);
    let others = desk.registry.candidates(now.mono, &[server]);
    let mut found = Vec::new();
    let state = groups.root().state();
    // Of the default class nobody counts the objects.
    let in_use = state.classes().into_iter().filter(|(id, _)| state.objects_of(*id) != Some(0));
    for (_, class) in in_use {
        let fit = |servers| Fit::of(class.goal(ClassState::Keep), class.strictness, servers);
        if fit(&all).is_met() && !fit(&others).is_met() {
            found.push(format!("class {} ({}) needs it", class.name, class.keep));
        }
    }
    let Some(known) = desk.registry.get(server) else { return found };
    // What else is on its disks stays there.
    let most = (known.copies.len() as u64).saturating_mul(CHUNK_SIZE);
    let used = known.total_bytes().saturating_sub(known.free_bytes()).min(most);
    let room = others.iter().map(|other| other.free_bytes).fold(0, u64::saturating_add);
    if used > room {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        found.push(format!(
            "its copies may have {:.1} GiB, and the other servers that are up have room for {:.1} GiB",
            gib(used),
            gib(room)
        ));
    }
    found
}

fn forget(desk: &Desk, groups: &Groups, now: Now, it: &pb::ForgetServerRequest) -> Result<Answer, CallError> {
    let (server, known) = find(desk, it.server)?;
    let name = &known.name;
    if known.is_up(now.mono) {
        return rejected(format!("{name} is up: stop it first"));
    }
    match is_empty(desk, groups, server) {
        Some(true) => propose(groups, ClusterCommand::ForgetServer { server }),
        Some(false) => rejected(format!(
            "chunks count copies that only {name} may have: bring it back, or wait until they are made again: mooseng chunk matrix"
        )),
        None => rejected(format!(
            "this master cannot tell what {name} has: another one leads a cell, or the table of what servers have is not complete; ask again in a while"
        )),
    }
}

/// Whether no chunk counts a copy on this server; `None` if this master cannot tell.
pub(super) fn is_empty(desk: &Desk, groups: &Groups, server: ServerId) -> Option<bool> {
    for group in groups.iter() {
        desk.cells.get(&group.cell()).filter(|cell| cell.leads)?;
        if !group.state().held_by(server, None, 1)?.is_empty() {
            return Some(false);
        }
    }
    Some(true)
}

fn find(desk: &Desk, raw: u32) -> Result<(ServerId, &KnownServer), CallError> {
    let server = ServerId::from_raw(raw);
    let unknown = || CallError::Rejected { message: format!("there is no chunkserver {raw}") };
    desk.registry.get(server).map(|known| (server, known)).ok_or_else(unknown)
}

fn propose(groups: &Groups, command: ClusterCommand) -> Result<Answer, CallError> {
    let command = Box::new(Command::from(command));
    Ok(Answer::Propose { cell: groups.root().cell(), request: None, command, context: Context::Empty })
}

fn rejected<T>(message: String) -> Result<T, CallError> {
    Err(CallError::Rejected { message })
}
