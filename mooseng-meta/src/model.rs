//! A naive namespace for tests: plain maps, nothing counted ahead, every question answered by looking everywhere.

use std::collections::{BTreeMap, BTreeSet};

use mooseng_types::{CHUNK_SIZE, FileKind, FsError, INLINE_MAX};

use crate::command::{RenameMode, XattrMode};

pub(crate) const ROOT: u64 = 1;

/// What is done, in the model's words: objects and sessions by number, names by text.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create { parent: u64, name: &'static str, kind: FileKind },
    Link { inode: u64, parent: u64, name: &'static str },
    Unlink { parent: u64, name: &'static str },
    Rmdir { parent: u64, name: &'static str },
    Rename { from: (u64, &'static str), to: (u64, &'static str), mode: RenameMode },
    Chmod { inode: u64, mode: u16 },
    Truncate { inode: u64, size: u64, session: Option<usize> },
    SetXattr { inode: u64, name: &'static str, mode: XattrMode },
    RemoveXattr { inode: u64, name: &'static str },
    Grant { session: usize, inode: u64, index: u32 },
    Commit { session: usize, inode: u64, index: u32, size: u64, release: bool, stale: bool },
    Inline { inode: u64, offset: u32, length: usize },
    Release { session: usize, inode: u64, index: u32 },
    Close { session: usize },
    Reap { inode: u64 },
    Raise { level: u16 },
    Index,
    CreateClass { name: &'static str },
    RemoveClass { id: u16 },
    SetClass { id: u16, inodes: [u64; 2] },
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: FileKind,
    pub(crate) mode: u16,
    pub(crate) size: u64,
    pub(crate) entries: BTreeMap<&'static str, u64>,
    pub(crate) xattrs: BTreeSet<&'static str>,
    pub(crate) inline: Vec<u8>,
    pub(crate) class: u16,
    /// Who has the lease of each chunk.
    pub(crate) chunks: BTreeMap<u32, Option<usize>>,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) created: u64,
    /// From 2 on it has the table from servers to chunks, from 3 on classes.
    pub(crate) level: u16,
    pub(crate) classes: BTreeMap<u16, &'static str>,
    pub(crate) indexed: bool,
}

type Outcome = Result<(), FsError>;

impl Node {
    fn new(kind: FileKind) -> Self {
        let mode = if kind == FileKind::Symlink { 0o777 } else { 0o755 };
        Self {
            kind,
            mode,
            size: if kind == FileKind::Symlink { 6 } else { 0 },
            entries: BTreeMap::new(),
            xattrs: BTreeSet::new(),
            inline: Vec::new(),
            class: 0,
            chunks: BTreeMap::new(),
        }
    }

    fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        let root = Node { mode: 0o777, ..Node::new(FileKind::Directory) };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            created: 1,
            level: 1,
            classes: BTreeMap::new(),
            indexed: false,
        }
    }

    fn names(&self, inode: u64) -> usize {
        self.nodes.values().flat_map(|node| node.entries.values()).filter(|&&to| to == inode).count()
    }

    pub(crate) fn orphan(&self, inode: u64) -> bool {
        inode != ROOT && self.names(inode) == 0
    }

    pub(crate) fn nlink(&self, inode: u64) -> usize {
        let node = &self.nodes[&inode];
        match () {
            () if self.orphan(inode) => 0,
            () if node.is_dir() => 2 + node.entries.values().filter(|to| self.nodes[to].is_dir()).count(),
            () => self.names(inode),
        }
    }

    pub(crate) fn size(&self, inode: u64) -> u64 {
        let node = &self.nodes[&inode];
        if node.is_dir() { node.entries.len() as u64 } else { node.size }
    }

    fn node(&self, inode: u64) -> Result<&Node, FsError> {
        self.nodes.get(&inode).ok_or(FsError::NotFound)
    }

    fn dir(&self, inode: u64) -> Result<&Node, FsError> {
        self.node(inode).and_then(|node| if node.is_dir() { Ok(node) } else { Err(FsError::NotDirectory) })
    }

    fn file(&self, inode: u64) -> Result<&Node, FsError> {
        let node = self.node(inode)?;
        match node.kind {
            FileKind::File => Ok(node),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid),
        }
    }

    fn live_dir(&self, inode: u64) -> Outcome {
        self.dir(inode)?;
        if self.orphan(inode) { Err(FsError::NotFound) } else { Ok(()) }
    }

    fn entry(&self, parent: u64, name: &str) -> Result<u64, FsError> {
        self.dir(parent)?.entries.get(name).copied().ok_or(FsError::NotFound)
    }

    /// `inode` is `dir` or somewhere below it.
    fn contains(&self, dir: u64, inode: u64) -> bool {
        dir == inode || self.nodes[&dir].entries.values().any(|&below| self.contains(below, inode))
    }

    fn change(&mut self, inode: u64) -> &mut Node {
        self.nodes.get_mut(&inode).unwrap()
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Outcome {
        match *op {
            Op::Create { parent, name, kind } => self.create(parent, name, kind),
            Op::Link { inode, parent, name } => self.link(inode, parent, name),
            Op::Unlink { parent, name } => match self.entry(parent, name)? {
                inode if self.nodes[&inode].is_dir() => Err(FsError::IsDirectory),
                _ => self.remove(parent, name),
            },
            Op::Rmdir { parent, name } => match &self.nodes[&self.entry(parent, name)?] {
                node if !node.is_dir() => Err(FsError::NotDirectory),
                node if !node.entries.is_empty() => Err(FsError::NotEmpty),
                _ => self.remove(parent, name),
            },
            Op::Rename { from, to, mode } => self.rename(from, to, mode),
            Op::Chmod { inode, mode } => {
                self.node(inode)?;
                self.change(inode).mode = mode;
                Ok(())
            }
            Op::SetXattr { inode, name, mode } => match (mode, self.node(inode)?.xattrs.contains(name)) {
                (XattrMode::Create, true) => Err(FsError::Exists),
                (XattrMode::Replace, false) => Err(FsError::NoAttribute),
                _ => {
                    self.change(inode).xattrs.insert(name);
                    Ok(())
                }
            },
            Op::RemoveXattr { inode, name } => {
                self.node(inode)?;
                if self.change(inode).xattrs.remove(name) { Ok(()) } else { Err(FsError::NoAttribute) }
            }
            Op::Close { session } => {
                for lease in self.nodes.values_mut().flat_map(|node| node.chunks.values_mut()) {
                    lease.take_if(|holder| *holder == session);
                }
                Ok(())
            }
            Op::Reap { inode } => {
                if self.nodes.contains_key(&inode) && self.orphan(inode) {
                    self.nodes.remove(&inode);
                }
                Ok(())
            }
            Op::Raise { level } => {
                self.level = self.level.max(level);
                if self.level == 3 && self.classes.is_empty() {
                    self.classes.extend([(0, "default"), (1, "2CP"), (2, "3CP")]);
                }
                Ok(())
            }
            Op::Index if self.level < 2 => Err(FsError::Invalid),
            Op::Index if self.indexed => Err(FsError::Stale),
            Op::Index => {
                self.indexed = true;
                Ok(())
            }
            Op::CreateClass { .. } | Op::RemoveClass { .. } | Op::SetClass { .. } => self.apply_to_class(op),
            _ => self.apply_to_file(op),
        }
    }

    fn create(&mut self, parent: u64, name: &'static str, kind: FileKind) -> Outcome {
        self.live_dir(parent)?;
        if self.entry(parent, name).is_ok() {
            return Err(FsError::Exists);
        }
        self.created += 1;
        let inode = self.created;
        let class = self.nodes[&parent].class;
        self.nodes.insert(inode, Node { class, ..Node::new(kind) });
        self.change(parent).entries.insert(name, inode);
        Ok(())
    }

    fn link(&mut self, inode: u64, parent: u64, name: &'static str) -> Outcome {
        let is_dir = self.node(inode)?.is_dir();
        self.live_dir(parent)?;
        if self.entry(parent, name).is_ok() {
            return Err(FsError::Exists);
        }
        if is_dir {
            return Err(FsError::NotPermitted);
        }
        if self.orphan(inode) {
            return Err(FsError::NotFound);
        }
        self.change(parent).entries.insert(name, inode);
        Ok(())
    }

    fn remove(&mut self, parent: u64, name: &str) -> Outcome {
        self.change(parent).entries.remove(name);
        Ok(())
    }

    fn rename(&mut self, from: (u64, &'static str), to: (u64, &'static str), mode: RenameMode) -> Outcome {
        self.dir(from.0)?;
        self.live_dir(to.0)?;
        let moved = self.entry(from.0, from.1)?;
        let there = self.entry(to.0, to.1).ok();
        match (mode, there) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            (_, Some(there)) if there == moved => return Ok(()),
            _ => {}
        }
        if self.contains(moved, to.0) {
            return Err(FsError::Invalid);
        }
        if let (RenameMode::Exchange, Some(there)) = (mode, there) {
            if self.contains(there, from.0) {
                return Err(FsError::Invalid);
            }
            self.change(from.0).entries.insert(from.1, there);
        } else {
            if let Some(there) = there.map(|there| &self.nodes[&there]) {
                match (self.nodes[&moved].is_dir(), there.is_dir()) {
                    (true, false) => return Err(FsError::NotDirectory),
                    (false, true) => return Err(FsError::IsDirectory),
                    _ if !there.entries.is_empty() => return Err(FsError::NotEmpty),
                    _ => {}
                }
            }
            self.change(from.0).entries.remove(from.1);
        }
        self.change(to.0).entries.insert(to.1, moved);
        Ok(())
    }

    fn apply_to_class(&mut self, op: &Op) -> Outcome {
        match *op {
            Op::CreateClass { .. } if self.level < 3 => Err(FsError::NotSupported),
            Op::CreateClass { name } if self.classes.values().any(|known| *known == name) => {
                Err(FsError::Exists)
            }
            Op::CreateClass { name } => {
                let free = (0..).find(|id| !self.classes.contains_key(id)).unwrap();
                self.classes.insert(free, name);
                Ok(())
            }
            Op::RemoveClass { id } => match id {
                _ if !self.classes.contains_key(&id) => Err(FsError::NotFound),
                0 => Err(FsError::NotPermitted),
                _ if self.nodes.values().any(|node| node.class == id) => Err(FsError::InUse),
                _ => {
                    self.classes.remove(&id);
                    Ok(())
                }
            },
            Op::SetClass { id, .. } if !self.classes.contains_key(&id) => Err(FsError::NotFound),
            Op::SetClass { id, inodes } => {
                for inode in inodes {
                    if let Some(node) = self.nodes.get_mut(&inode) {
                        node.class = id;
                    }
                }
                Ok(())
            }
            _ => unreachable!("{op:?} is not about a class"),
        }
    }

    fn apply_to_file(&mut self, op: &Op) -> Outcome {
        match *op {
            Op::Truncate { inode, size, session } => self.truncate(inode, size, session),
            Op::Grant { session, inode, index } => match self.file(inode)?.chunks.get(&index) {
                Some(&Some(holder)) if holder != session => Err(FsError::LeaseHeld),
                _ => {
                    self.change(inode).chunks.insert(index, Some(session));
                    Ok(())
                }
            },
            Op::Commit { session, inode, index, size, release, stale } => {
                if stale || self.file(inode)?.chunks.get(&index) != Some(&Some(session)) {
                    return self.file(inode).and(Err(FsError::LeaseLost));
                }
                let node = self.change(inode);
                node.size = node.size.max(size);
                if release {
                    node.chunks.insert(index, None);
                }
                if index == 0 {
                    node.inline.clear();
                }
                Ok(())
            }
            Op::Inline { inode, offset, length } => {
                let node = self.file(inode)?;
                let end = offset as usize + length;
                match node.chunks.get(&0) {
                    _ if length == 0 || end as u64 > INLINE_MAX => return Err(FsError::Invalid),
                    Some(Some(_)) => return Err(FsError::LeaseHeld),
                    Some(None) => return Err(FsError::Invalid),
                    None => {}
                }
                let node = self.change(inode);
                node.inline.resize(node.inline.len().max(end), 0);
                node.inline[offset as usize..end].fill(b'x');
                node.size = node.size.max(end as u64);
                Ok(())
            }
            Op::Release { session, inode, index } => {
                self.file(inode)?;
                if let Some(lease) = self.change(inode).chunks.get_mut(&index) {
                    lease.take_if(|holder| *holder == session);
                }
                Ok(())
            }
            _ => unreachable!("{op:?} is not about a file"),
        }
    }

    fn truncate(&mut self, inode: u64, size: u64, session: Option<usize>) -> Outcome {
        let file = self.file(inode)?;
        let end = size.min(file.size);
        let ends_after = |index: &u32| (u64::from(*index) + 1) * CHUNK_SIZE > end;
        let shrinks = size < file.size;
        let mut behind = file.chunks.iter().filter(|(index, _)| ends_after(index));
        if size != file.size && behind.any(|(_, holder)| holder.is_some() && *holder != session) {
            return Err(FsError::LeaseHeld);
        }
        let file = self.change(inode);
        file.size = size;
        if shrinks {
            file.chunks.retain(|index, _| u64::from(*index) * CHUNK_SIZE < size);
            for (_, lease) in file.chunks.iter_mut().filter(|(index, _)| ends_after(index)) {
                *lease = None;
            }
        }
        file.inline.truncate(usize::try_from(size).unwrap());
        Ok(())
    }
}
