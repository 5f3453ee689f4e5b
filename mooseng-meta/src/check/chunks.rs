//! Chunks, their places and their leases.

use std::collections::{BTreeMap, BTreeSet};

use mooseng_types::{ChunkId, ChunkIndex, InodeId, Level, SessionId};

use super::{Findings, each};
use crate::chunk::{ChunkRow, FULL_LENGTH};
use crate::codec::v1::row::Number;
use crate::key;
use crate::layout::Layout;
use crate::tables::decode;

pub(super) fn check(findings: &mut Findings<'_>) {
    let rows = &findings.state.tables.rows;
    let id = |key: &[u8]| ChunkId::from_raw(key::number_at(key, 1));
    let mut chunks: BTreeMap<ChunkId, ChunkRow> = BTreeMap::new();
    each(findings.state, b"c", |key, value| drop(chunks.insert(id(key), decode(key, value))));
    let dead = rows.collect(b"g", &[], usize::MAX, |key, _| id(key));
    let places = rows.collect(b"f", &[], usize::MAX, |key, value| {
        let place =
            (InodeId::from_raw(key::number_at(key, 1)), ChunkIndex::from_raw(key::short_number_at(key, 9)));
        (place, decode::<Number>(key, value).chunk())
    });
    let places: BTreeMap<(InodeId, ChunkIndex), ChunkId> = places.into_iter().collect();
    let leases = rows.collect(b"l", &[], usize::MAX, |key, _| {
        (SessionId::from_raw(key::number_at(key, 1)), ChunkId::from_raw(key::number_at(key, 9)))
    });
    let leases: BTreeSet<(SessionId, ChunkId)> = leases.into_iter().collect();

    for (&(inode, index), chunk) in &places {
        findings.demand(findings.is_file(inode), || format!("{inode} has {chunk} and is no file"));
        let agrees = chunks.get(chunk).is_some_and(|row| (row.inode, row.index) == (inode, index));
        findings.demand(agrees, || format!("{inode} {index:?} leads to {chunk}, which is not its own"));
    }
    for (&chunk, row) in &chunks {
        let placed = places.get(&(row.inode, row.index)) == Some(&chunk);
        findings.demand(placed, || format!("{chunk} is not in {} {:?}", row.inode, row.index));
        check_row(findings, &leases, chunk, row);
    }
    for &(session, chunk) in &leases {
        let held = chunks.get(&chunk).is_some_and(|row| row.lease == Some(session));
        findings.demand(held, || format!("{session} is listed with a lease of {chunk} it does not hold"));
    }
    check_held(findings, &chunks);
    for chunk in &dead {
        findings.demand(!chunks.contains_key(chunk), || format!("{chunk} is dead and alive"));
    }
    let (counted, counters) = (chunks.len() as u64, findings.state.tables.counters);
    let total = counters.totals.chunks;
    findings.demand(total == counted, || format!("{counted} chunks, the total says {total}"));
    let newest = chunks.last_key_value().map(|(&chunk, _)| chunk).max(dead.last().copied());
    let cell = findings.state.cell();
    for chunk in chunks.first_key_value().map(|(&chunk, _)| chunk).into_iter().chain(newest) {
        findings.demand(chunk.cell() == cell, || format!("{chunk} is of {}, not of {cell}", chunk.cell()));
        findings.demand(chunk.count() < counters.next_chunk, || format!("{chunk} is given out again"));
    }
}

/// The table from servers to chunks says what the chunks' rows say, as far as it is entered.
fn check_held(findings: &mut Findings<'_>, chunks: &BTreeMap<ChunkId, ChunkRow>) {
    let tables = &findings.state.tables;
    let kept = tables.level >= Level::IDENTITY;
    let mut held = BTreeSet::new();
    each(findings.state, b"h", |key, _| {
        let entry = key::held_at(key);
        let is_true = entry.is_some_and(|(server, part)| {
            let mut parts =
                chunks.get(&part.chunk()).into_iter().flat_map(|row| row.layout.parts(part.chunk()));
            kept && parts.any(|of_row| of_row == (server, part))
        });
        findings.demand(is_true, || format!("no chunk has {entry:?}, as its server's table says"));
        held.extend(entry);
    });
    let entered = |chunk: ChunkId| kept && tables.indexed_to().is_none_or(|next| chunk < next);
    for (&chunk, row) in chunks.iter().filter(|(chunk, _)| entered(**chunk)) {
        for (server, part) in row.layout.parts(chunk) {
            let listed = held.contains(&(server, part));
            findings.demand(listed, || format!("{part} is missing in the table of {server}"));
        }
    }
}

fn check_row(
    findings: &mut Findings<'_>,
    leases: &BTreeSet<(SessionId, ChunkId)>,
    chunk: ChunkId,
    row: &ChunkRow,
) {
    findings.demand(row.committed <= row.granted, || {
        format!("{chunk} has {} committed, {} granted", row.committed, row.granted)
    });
    findings.demand(row.layout.parts(chunk).next().is_some(), || format!("{chunk} is on no server"));
    let twice = match &row.layout {
        Layout::Copies(servers) => servers.iter().collect::<BTreeSet<_>>().len() < servers.len(),
        // Two parts on one server are a matter of safety, not of sense.
        Layout::Striped(_) => false,
    };
    findings.demand(!twice, || format!("{chunk} is on one server twice"));
    findings.demand(row.valid_length <= FULL_LENGTH, || format!("{chunk} is longer than a chunk"));
    if let Some(session) = row.lease {
        let listed = leases.contains(&(session, chunk));
        findings.demand(listed, || format!("the lease of {chunk} is not listed with {session}"));
        let known = findings.state.session_exists(session);
        findings.demand(known, || format!("{session} holds {chunk} and does not exist"));
    }
    let double = row.index.raw() == 0
        && row.committed.raw() > 0
        && findings.state.tables.rows.contains(&key::inline(row.inode));
    findings.demand(!double, || format!("{} has its first bytes twice, inline and in {chunk}", row.inode));
}
