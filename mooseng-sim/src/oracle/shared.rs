//! The objects that all clients share, each as simple as it can be said: a name, a directory, a file's attributes.

use std::collections::BTreeMap;

use mooseng_types::FsError;

use crate::invariants::Object;

/// An inode whose maker never learned its number.
const UNKNOWN: u64 = 0;

/// Whether an inode that was seen may be the one that is there; if so, it is known from now on.
fn is(there: u64, seen: u64) -> bool {
    there == seen || there == UNKNOWN
}

/// What was asked about a shared name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NameOp {
    /// Make it; refused if it is there.
    Create,
    /// Remove it; refused if it is not there.
    Unlink,
    /// Look where it leads.
    Lookup,
}

/// A name; its state is the inode it leads to, and an answer is the inode seen (0 from a removal), or none for a
/// refusal.
#[derive(Debug)]
pub(crate) struct Name;

impl Object for Name {
    type Op = NameOp;
    type Answer = Option<u64>;
    type State = Option<u64>;

    fn only_looks(op: &NameOp) -> bool {
        *op == NameOp::Lookup
    }

    fn step(state: &Option<u64>, op: &NameOp, answer: Option<&Option<u64>>) -> Option<Option<u64>> {
        match (op, answer.copied(), *state) {
            (NameOp::Create, None, None) => Some(Some(UNKNOWN)),
            (NameOp::Create, Some(Some(inode)), None) => Some(Some(inode)),
            (NameOp::Create, Some(None), Some(_)) => Some(*state),
            (NameOp::Unlink, None | Some(Some(_)), Some(_))
            | (NameOp::Unlink | NameOp::Lookup, Some(None), None) => Some(None),
            (NameOp::Lookup, Some(Some(seen)), Some(inode)) if is(inode, seen) => Some(Some(seen)),
            _ => None,
        }
    }
}

/// What was asked of the shared directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DirOp {
    Create(&'static str),
    Unlink(&'static str),
    /// What has the new name is replaced.
    Rename(&'static str, &'static str),
    Lookup(&'static str),
    /// All names at once, in one reply.
    List,
}

/// What the shared directory answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DirAnswer {
    Done,
    Inode(u64),
    Names(BTreeMap<String, u64>),
    Refused(FsError),
}

/// The directory; its state is what each name leads to.
#[derive(Debug)]
pub(crate) struct Directory;

type Names = BTreeMap<String, u64>;

impl Object for Directory {
    type Op = DirOp;
    type Answer = DirAnswer;
    type State = Names;

    fn only_looks(op: &DirOp) -> bool {
        matches!(op, DirOp::Lookup(_) | DirOp::List)
    }

    fn step(state: &Names, op: &DirOp, answer: Option<&DirAnswer>) -> Option<Names> {
        use DirAnswer::{Done, Inode, Names as Listed, Refused};
        let mut after = state.clone();
        match (op, answer) {
            (DirOp::Create(name), None | Some(Inode(_))) => {
                let inode = if let Some(Inode(inode)) = answer { *inode } else { UNKNOWN };
                after.insert((*name).into(), inode).is_none().then_some(after)
            }
            (DirOp::Create(name), Some(Refused(FsError::Exists))) => {
                state.contains_key(*name).then_some(after)
            }
            (DirOp::Unlink(name), None | Some(Done)) => after.remove(*name).map(|_| after),
            (DirOp::Rename(from, to), None | Some(Done)) => {
                let inode = after.remove(*from)?;
                after.insert((*to).into(), inode);
                Some(after)
            }
            (
                DirOp::Unlink(name) | DirOp::Rename(name, _) | DirOp::Lookup(name),
                Some(Refused(FsError::NotFound)),
            ) => (!state.contains_key(*name)).then_some(after),
            (DirOp::Lookup(name), Some(Inode(seen))) => {
                let inode = after.get_mut(*name)?;
                is(*inode, *seen).then(|| *inode = *seen)?;
                Some(after)
            }
            (DirOp::List, Some(Listed(seen))) => {
                let same = state.len() == seen.len()
                    && state.iter().zip(seen).all(|(there, seen)| there.0 == seen.0 && is(*there.1, *seen.1));
                same.then(|| seen.clone())
            }
            _ => None,
        }
    }
}

/// What was asked of the shared file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileOp {
    SetMode(u32),
    /// Cuts or extends it; its time of change is then the master's.
    SetSize(u64),
    /// In nanoseconds since 1970.
    SetMtime(i64),
    Get,
}

/// The attributes that clients set; no time where it is the master's and nobody has seen it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Option<i64>,
}

/// The mode of a shared file when it is made.
pub(crate) const FILE_MODE: u32 = 0o755;

impl Default for Attributes {
    fn default() -> Self {
        Self { mode: FILE_MODE, size: 0, mtime: None }
    }
}

/// The file; each answer is its attributes afterwards.
#[derive(Debug)]
pub(crate) struct File;

impl Object for File {
    type Op = FileOp;
    type Answer = Attributes;
    type State = Attributes;

    fn only_looks(op: &FileOp) -> bool {
        *op == FileOp::Get
    }

    fn step(state: &Attributes, op: &FileOp, answer: Option<&Attributes>) -> Option<Attributes> {
        let mut after = *state;
        match op {
            FileOp::SetMode(mode) => after.mode = *mode,
            FileOp::SetSize(size) => {
                after.size = *size;
                after.mtime = None;
            }
            FileOp::SetMtime(mtime) => after.mtime = Some(*mtime),
            FileOp::Get => {}
        }
        let Some(seen) = answer else { return (after != *state).then_some(after) };
        let same = (after.mode, after.size) == (seen.mode, seen.size)
            && (after.mtime.is_none() || after.mtime == seen.mtime);
        same.then_some(*seen)
    }
}

#[cfg(test)]
mod tests;
