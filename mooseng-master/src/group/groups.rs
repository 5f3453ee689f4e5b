//! All groups of a process.

use std::collections::BTreeMap;

use mooseng_types::{CellId, InodeId, SessionId};

use super::{Group, Unready};

/// The groups that a process hosts, by their cells. The root's is always among them.
#[derive(Debug)]
pub struct Groups {
    root: Group,
    others: BTreeMap<CellId, Group>,
}

impl Groups {
    /// These groups; the first one is the root's.
    #[must_use]
    pub fn new(root: Group, others: impl IntoIterator<Item = Group>) -> Self {
        Self { root, others: others.into_iter().map(|group| (group.cell(), group)).collect() }
    }

    /// The group of the root directory.
    #[must_use]
    pub fn root(&self) -> &Group {
        &self.root
    }

    /// The group of a cell.
    #[must_use]
    pub fn get(&self, cell: CellId) -> Option<&Group> {
        if cell == self.root.cell() { Some(&self.root) } else { self.others.get(&cell) }
    }

    /// The group of a cell, to be changed.
    pub fn get_mut(&mut self, cell: CellId) -> Option<&mut Group> {
        if cell == self.root.cell() { Some(&mut self.root) } else { self.others.get_mut(&cell) }
    }

    /// The group of the root directory, to be changed.
    pub fn root_mut(&mut self) -> &mut Group {
        &mut self.root
    }

    /// All groups but the root's.
    pub fn others(&self) -> impl Iterator<Item = &Group> {
        self.others.values()
    }

    /// All groups, the root's first.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.root).chain(self.others.values())
    }

    /// All groups, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        std::iter::once(&mut self.root).chain(self.others.values_mut())
    }

    /// The group that is to be asked about a cell.
    pub(crate) fn of(&self, cell: CellId) -> Result<&Group, Unready> {
        self.get(cell).ok_or(Unready::OtherCell(cell))
    }

    /// The group that has given out an inode.
    pub(crate) fn of_inode(&self, inode: InodeId) -> Result<&Group, Unready> {
        self.of(inode.cell())
    }

    /// The group that has opened a session.
    pub(crate) fn of_session(&self, session: SessionId) -> Result<&Group, Unready> {
        self.of(session.cell())
    }

    /// Whether this master leads any of them.
    pub(crate) fn lead_any(&self) -> bool {
        self.iter().any(Group::leads)
    }
}
