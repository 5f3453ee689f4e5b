//! The file system check: do the tables agree with each other?

mod chunks;
mod classes;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mooseng_types::{CellId, InodeId};

use crate::inode::InodeRow;
use crate::key;
use crate::settings::Totals;
use crate::state::{FormatError, MetaState};
use crate::store::{StoreView, Viewed};
use crate::tables::decode;

/// Something in the metadata that contradicts itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the check has read and found.
struct Findings<'a> {
    state: &'a MetaState,
    inodes: BTreeMap<InodeId, InodeRow>,
    orphans: BTreeSet<InodeId>,
    violations: Vec<Violation>,
}

impl Findings<'_> {
    fn demand(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(Violation(otherwise()));
        }
    }

    fn root(&self) -> InodeId {
        self.state.cell().root()
    }

    fn is_file(&self, inode: InodeId) -> bool {
        self.inodes.get(&inode).is_some_and(InodeRow::is_file)
    }
}

/// What a check has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Everything that contradicts itself; empty if all is well.
    pub violations: Vec<Violation>,
    /// What there is, by the counters.
    pub totals: Totals,
}

/// [`check`] of this cell's store as it stood at one time. Takes a while and wants no lock: for a thread of its own.
pub fn check_view(view: Arc<dyn StoreView>, cell: CellId) -> Result<Checked, FormatError> {
    let state = MetaState::open(Arc::new(Viewed(view)), cell)?;
    Ok(Checked { violations: check(&state), totals: state.totals() })
}

/// Everything in the metadata that contradicts itself; empty if all is well. Takes memory in proportion to the
/// namespace.
#[must_use]
pub fn check(state: &MetaState) -> Vec<Violation> {
    let id = |key: &[u8]| InodeId::from_raw(key::number_at(key, 1));
    let mut findings =
        Findings { state, inodes: BTreeMap::new(), orphans: BTreeSet::new(), violations: Vec::new() };
    each(state, b"i", |key, value| {
        findings.inodes.insert(id(key), decode(key, value));
    });
    each(state, b"o", |key, _| {
        findings.orphans.insert(id(key));
    });
    names::check(&mut findings);
    chunks::check(&mut findings);
    classes::check(&mut findings);
    check_totals(&mut findings);
    findings.violations
}

/// Shows every row of a table, without having them all in memory.
fn each(state: &MetaState, table: &[u8], mut show: impl FnMut(&[u8], &[u8])) {
    state.tables.rows.scan(table, &[], &mut |key, value| {
        show(key, value);
        true
    });
}

fn check_totals(findings: &mut Findings<'_>) {
    let counters = findings.state.tables.counters;
    let inodes = findings.inodes.len() as u64;
    let used: u64 = findings.inodes.values().filter(|row| row.is_file()).map(|row| row.size).sum();
    let totals = counters.totals;
    findings
        .demand(totals.inodes == inodes, || format!("{inodes} objects, the total says {}", totals.inodes));
    findings.demand(totals.used_bytes == used, || {
        format!("files have {used} bytes, the total says {}", totals.used_bytes)
    });
    let ends = [findings.inodes.first_key_value(), findings.inodes.last_key_value()];
    let cell = findings.state.cell();
    for inode in ends.map(|end| end.map(|(&inode, _)| inode)).into_iter().flatten() {
        findings.demand(inode.cell() == cell, || format!("{inode} is of {}, not of {cell}", inode.cell()));
        let given_out = inode.count() < counters.next_inode;
        findings.demand(given_out, || format!("{inode} is given out again"));
    }
}

#[cfg(test)]
mod tests;
