//! How the chunks are, as the leader tells it.

use mooseng_protocol::pb;
use serde::Serialize;

use super::{Masters, ask_leader};

/// Sums over all chunks.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ChunkHealth {
    pub(crate) matrix: Vec<ChunkCount>,
    pub(crate) conditions: Vec<ConditionCount>,
    /// Chunks that servers have and that no file has.
    pub(crate) unknown: u64,
    /// Chunks about which something is to be done.
    pub(crate) todo: u64,
    /// The leader has looked at every chunk.
    pub(crate) complete: bool,
    /// Chunks that have changed since, and are looked at again within seconds.
    pub(crate) marked: u64,
}

/// Chunks that should have so many copies and have so many.
#[derive(Debug, Serialize)]
pub(crate) struct ChunkCount {
    pub(crate) wanted: u32,
    pub(crate) live: u32,
    pub(crate) chunks: u64,
}

/// Chunks in a condition.
#[derive(Debug, Serialize)]
pub(crate) struct ConditionCount {
    pub(crate) condition: &'static str,
    pub(crate) chunks: u64,
}

impl ChunkHealth {
    /// How many chunks are in a condition.
    pub(crate) fn count(&self, condition: &str) -> u64 {
        self.conditions.iter().find(|it| it.condition == condition).map_or(0, |it| it.chunks)
    }
}

/// What people call a condition, and what the options of `chunk list` are called.
pub(crate) fn condition_name(condition: pb::ChunkCondition) -> &'static str {
    match condition {
        pb::ChunkCondition::Missing => "missing",
        pb::ChunkCondition::Endangered => "endangered",
        pb::ChunkCondition::UnderGoal => "undergoal",
        pb::ChunkCondition::OverGoal => "overgoal",
        pb::ChunkCondition::InDoubt => "in-doubt",
        pb::ChunkCondition::Misplaced => "misplaced",
    }
}

/// Asks the leader.
pub(crate) fn chunk_health(masters: &Masters) -> anyhow::Result<ChunkHealth> {
    let reply = ask_leader(masters, &pb::ChunkHealthRequest {})?;
    let condition = |it: &pb::ConditionCount| ConditionCount {
        condition: condition_name(it.condition()),
        chunks: it.chunks,
    };
    let count = |it: &pb::ChunkCount| ChunkCount { wanted: it.wanted, live: it.live, chunks: it.chunks };
    Ok(ChunkHealth {
        matrix: reply.matrix.iter().map(count).collect(),
        conditions: reply.conditions.iter().map(condition).collect(),
        unknown: reply.unknown,
        todo: reply.todo,
        complete: reply.complete,
        marked: reply.marked,
    })
}
