//! What the file system should look like through both mounts: names, files, and what each mount is bound to know.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::content::Content;

/// A mount, by its index.
pub(super) type Side = usize;
pub(super) type FileNumber = u64;

pub(super) fn other(side: Side) -> Side {
    1 - side
}

/// Sizes that a `stat` without an open may still answer: the kernel believes attributes for one second.
const BELIEVED: Duration = Duration::from_millis(1500);
const SIZES_MAX: usize = 64;

/// A file, with or without a name.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) content: Content,
    /// Whether each mount has opened it since the other changed it: what it reads through a handle is certain then.
    pub(super) knows: [bool; 2],
    /// The handle that has written what no close and no sync has covered yet.
    pub(super) unsaved: Option<u64>,
    sizes: VecDeque<(Instant, u64)>,
}

impl Node {
    /// Notes that `side` changes it now: to be called before the change.
    pub(super) fn changing(&mut self, side: Side) {
        if let Some(knows) = self.knows.get_mut(other(side)) {
            *knows = false;
        }
        self.sizes.push_back((Instant::now(), self.content.size()));
        if self.sizes.len() > SIZES_MAX {
            self.sizes.pop_front();
        }
    }

    /// Whether a `stat` may answer this size.
    pub(super) fn may_have_size(&self, size: u64) -> bool {
        size == self.content.size()
            || self.sizes.iter().any(|(until, old)| *old == size && until.elapsed() < BELIEVED)
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) number: u64,
    pub(super) side: Side,
    pub(super) file: FileNumber,
    pub(super) append: bool,
    /// Shared only while an operation uses it: a copy of the descriptor would save when it is closed.
    pub(super) open: Arc<File>,
}

/// All names and files.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) names: BTreeMap<String, FileNumber>,
    pub(super) files: BTreeMap<FileNumber, Node>,
    pub(super) handles: Vec<Handle>,
}

impl Model {
    /// Forgets files that have neither a name nor a handle.
    pub(super) fn forget(&mut self) {
        let (names, handles) = (&self.names, &self.handles);
        self.files.retain(|number, _| {
            names.values().any(|named| named == number) || handles.iter().any(|handle| handle.file == *number)
        });
    }

    pub(super) fn node(&mut self, file: FileNumber) -> &mut Node {
        self.files.entry(file).or_default()
    }

    /// The handle of that number.
    pub(super) fn handle(&self, number: u64) -> Option<&Handle> {
        self.handles.iter().find(|handle| handle.number == number)
    }
}
