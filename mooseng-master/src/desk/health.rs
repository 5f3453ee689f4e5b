//! How the chunks are: questions that are answered from what the leader keeps, never by a scan.

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{CellId, ChunkId, ServerId};

use super::requests::{Answer, answer};
use super::{CellDesk, Desk};
use crate::group::{Group, Groups, Unready};
use crate::registry::Registry;
use crate::repair::{Condition, CopyState, Subject, assess};

/// Chunks named in one reply.
const LIST_MAX: u32 = 1000;

/// The cells that this master leads, the root's among them.
fn led<'a>(
    desk: &'a Desk,
    groups: &'a Groups,
    now: Duration,
) -> Result<impl Iterator<Item = (&'a Group, &'a CellDesk)>, Unready> {
    groups.root().must_serve_reads(now)?;
    let cell = |group: &'a Group| Some((group, desk.cells.get(&group.cell()).filter(|cell| cell.leads)?));
    Ok(groups.iter().filter_map(cell))
}

/// Sums over all chunks.
pub(super) fn chunk_health(desk: &Desk, groups: &Groups, now: Duration) -> Result<Answer, CallError> {
    let mut matrix: BTreeMap<(u8, u8), u64> = BTreeMap::new();
    let mut conditions = BTreeMap::from(Condition::ALL.map(|condition| (condition, 0)));
    let mut reply = pb::ChunkHealthReply { complete: true, ..Default::default() };
    for (_, cell) in led(desk, groups, now)? {
        let ledger = &cell.ledger;
        for (place, chunks) in ledger.matrix() {
            *matrix.entry(place).or_default() += chunks;
        }
        for (condition, chunks) in &mut conditions {
            *chunks += ledger.count(*condition);
        }
        reply.unknown += ledger.unknown();
        reply.todo += ledger.todo_len() as u64;
        reply.complete &= ledger.is_complete();
        reply.marked += ledger.marked_len() as u64;
    }
    let count = |((wanted, live), chunks): ((u8, u8), u64)| pb::ChunkCount {
        wanted: wanted.into(),
        live: live.into(),
        chunks,
    };
    reply.matrix = matrix.into_iter().map(count).collect();
    let count = |(condition, chunks)| pb::ConditionCount { condition: named(condition).into(), chunks };
    reply.conditions = conditions.into_iter().map(count).collect();
    answer(&reply)
}

/// The chunks in a condition, or one of them, each with its copies.
pub(super) fn list_chunks(
    desk: &Desk,
    groups: &Groups,
    now: Duration,
    it: &pb::ListChunksRequest,
) -> Result<Answer, CallError> {
    let limit = if it.limit == 0 { LIST_MAX } else { it.limit.min(LIST_MAX) } as usize;
    let condition = Condition::ALL.into_iter().find(|&condition| named(condition) == it.condition());
    let condition = condition.ok_or_else(|| CallError::Rejected { message: "no such condition".into() })?;
    let (only, after) = (ChunkId::from_raw(it.only), ChunkId::from_raw(it.after));
    let (mut chunks, mut named) = (Vec::new(), 0);
    // Cells come in the order of their chunks' ids.
    for (group, cell) in led(desk, groups, now)? {
        let wanted: Vec<ChunkId> = if it.only != 0 {
            (only.cell() == group.cell()).then_some(only).into_iter().collect()
        } else {
            cell.ledger.listed(condition, Some(after)).take(limit - named).collect()
        };
        named += wanted.len();
        let status = |chunk| status(group, &desk.registry, cell, chunk);
        chunks.extend(wanted.into_iter().filter_map(status));
    }
    if it.only != 0 && chunks.is_empty() {
        let why = if only.cell() == CellId::ROOT { "" } else { ", or its cell has another leader" };
        let message = format!("no file has {only}{why}");
        return Err(CallError::Rejected { message });
    }
    // Some may be gone since they were listed. The caller goes on behind the last that it is told of.
    answer(&pb::ListChunksReply { end: it.only != 0 || named < limit || chunks.is_empty(), chunks })
}

fn status(group: &Group, registry: &Registry, cell: &CellDesk, chunk: ChunkId) -> Option<pb::ChunkStatus> {
    let Subject::Known { row, view } = Subject::of(group.state(), registry, &cell.ledger, chunk) else {
        return None;
    };
    let tally = assess(&view).map(|(tally, _)| tally);
    let copies = |list: &[(ServerId, CopyState)], counted| -> Vec<pb::CopyPlace> {
        list.iter().map(|(server, state)| place(*server, *state, counted)).collect()
    };
    Some(pb::ChunkStatus {
        chunk: chunk.raw(),
        inode: row.inode.raw(),
        index: row.index.raw(),
        wanted: u32::try_from(view.wanted).unwrap_or(u32::MAX),
        live: tally.map_or(0, |tally| tally.live.into()),
        version: row.committed.raw(),
        leased: view.leased,
        copies: [copies(&view.counted, true), copies(&view.beside, false)].concat(),
        conditions: tally
            .into_iter()
            .flat_map(|tally| tally.conditions())
            .map(|condition| named(condition).into())
            .collect(),
    })
}

fn place(server: ServerId, state: CopyState, counted: bool) -> pb::CopyPlace {
    let name = match state {
        CopyState::Good { .. } => "good",
        CopyState::InDoubt { .. } => "in-doubt",
        CopyState::Stale { .. } => "stale",
        CopyState::Lost => "lost",
        CopyState::Away(_) => "away",
    };
    pb::CopyPlace {
        server: server.raw(),
        state: name.into(),
        version: state.version().map_or(0, |version| version.raw()),
        verified: state.is_verified(),
        counted,
    }
}

fn named(condition: Condition) -> pb::ChunkCondition {
    match condition {
        Condition::Missing => pb::ChunkCondition::Missing,
        Condition::Endangered => pb::ChunkCondition::Endangered,
        Condition::UnderGoal => pb::ChunkCondition::UnderGoal,
        Condition::OverGoal => pb::ChunkCondition::OverGoal,
        Condition::InDoubt => pb::ChunkCondition::InDoubt,
        Condition::Misplaced => pb::ChunkCondition::Misplaced,
    }
}
