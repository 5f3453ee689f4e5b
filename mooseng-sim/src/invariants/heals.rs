//! *Every chunk comes to its goal by itself, and nothing else stays behind*: what the rows say and what is on the disks of the
//! chunkservers, looked at from outside.

use std::collections::BTreeMap;

use mooseng_meta::{ChunkRow, MetaState, ServerMode};
use mooseng_types::{ChunkId, ChunkVersion, Part, ServerId};

/// What servers have: of what, in which version, and whether in doubt.
pub(crate) type CopiesOnDisk = BTreeMap<ServerId, Vec<(Part, ChunkVersion, bool)>>;

fn copy(on_disk: &CopiesOnDisk, server: ServerId, chunk: ChunkId) -> Option<(ChunkVersion, bool)> {
    let copies = on_disk.get(&server)?;
    let (_, version, in_doubt) = copies.iter().find(|(part, ..)| *part == Part::whole(chunk))?;
    Some((*version, *in_doubt))
}

fn counted(row: &ChunkRow) -> &[ServerId] {
    row.layout.copies().unwrap_or_default()
}

/// Whether every chunk that a server has is on another as well, as new and whole.
pub(crate) fn can_do_without(state: &MetaState, on_disk: &CopiesOnDisk, server: ServerId) -> bool {
    state.chunks(ChunkId::from_raw(0), usize::MAX).into_iter().all(|(chunk, row)| {
        let others = counted(&row).iter().filter(|other| **other != server);
        let newest =
            copy(on_disk, server, chunk).map_or(row.committed, |(version, _)| version.max(row.committed));
        let stands = |other: &&ServerId| {
            copy(on_disk, **other, chunk).is_some_and(|(version, in_doubt)| version >= newest && !in_doubt)
        };
        !counted(&row).contains(&server) || others.filter(stands).count() > 0
    })
}

/// Every chunk that nobody writes has as many copies as are wanted, if one of them is good, and none on a server that is drained.
pub(crate) fn heals(state: &MetaState, on_disk: &CopiesOnDisk) -> Vec<String> {
    let wanted = state.settings().map_or(1, |settings| settings.copies.into());
    let drained: Vec<ServerId> = state
        .servers()
        .into_iter()
        .filter(|row| row.mode == ServerMode::Draining)
        .map(|row| row.server)
        .collect();
    let mut problems = Vec::new();
    for (chunk, row) in state.chunks(ChunkId::from_raw(0), usize::MAX) {
        if row.lease.is_some() {
            problems.push(format!("heals: {chunk} still has a lease"));
        }
        let quiet = row.lease.is_none() && row.committed == row.granted && !row.differs;
        let states: Vec<_> =
            counted(&row).iter().map(|server| (*server, copy(on_disk, *server, chunk))).collect();
        let is_good = |(version, in_doubt): (ChunkVersion, bool)| version >= row.committed && !in_doubt;
        let good = states.iter().filter(|(_, state)| state.is_some_and(is_good)).count();
        if quiet && good > 0 && good < wanted {
            problems.push(format!("heals: {chunk} has {good} of {wanted} copies: {states:?}, {row:?}"));
        }
        if let Some(server) =
            counted(&row).iter().find(|server| quiet && good >= wanted && drained.contains(server))
        {
            problems.push(format!("heals: {chunk} has a copy on {server}, which is drained: {row:?}"));
        }
    }
    problems
}

/// Whether every copy that a row counts is there. Some are not for good: where no copy is without doubt, and where copies may differ and
/// the cluster's level has nothing to settle that.
pub(crate) fn all_are_there(state: &MetaState, on_disk: &CopiesOnDisk) -> bool {
    let rows = state.chunks(ChunkId::from_raw(0), usize::MAX);
    rows.iter().all(|(chunk, row)| counted(row).iter().all(|server| copy(on_disk, *server, *chunk).is_some()))
}

/// No server has a copy that is neither counted nor about to be deleted.
pub(crate) fn no_orphan_chunk(state: &MetaState, on_disk: &CopiesOnDisk) -> Vec<String> {
    let mut problems = Vec::new();
    for (server, copies) in on_disk {
        for (part, version, in_doubt) in
            copies.iter().filter(|(part, ..)| part.chunk().cell() == state.cell())
        {
            let chunk = part.chunk();
            let is_counted = match state.chunk(chunk) {
                // Nothing is taken away while too few stand, or while somebody writes.
                Some(row) => {
                    counted(&row).contains(server)
                        || counted(&row).len() < 2
                        || row.lease.is_some()
                        || row.committed != row.granted
                        || row.differs
                        || has_doubt(on_disk, &row, chunk)
                }
                None => state.is_dead(chunk),
            };
            if !is_counted {
                problems.push(format!(
                    "no_orphan_chunk: {server} has {part} in {version}, in doubt: {in_doubt}: {:?}",
                    state.chunk(chunk)
                ));
            }
        }
    }
    problems
}

/// A counted copy that is not good stays in the way of whatever is beside.
fn has_doubt(on_disk: &CopiesOnDisk, row: &ChunkRow, chunk: ChunkId) -> bool {
    let bad = |server: &ServerId| {
        copy(on_disk, *server, chunk).is_none_or(|(version, in_doubt)| in_doubt || version < row.committed)
    };
    counted(row).iter().any(bad)
}
