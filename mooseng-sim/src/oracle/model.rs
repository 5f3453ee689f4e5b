//! A client's directory as it has to be: a tree in memory, simple enough to be right.

use std::collections::BTreeMap;
use std::fmt;

use mooseng_types::{FsError, INLINE_MAX};

pub(crate) type NodeId = usize;

/// An operation in a client's own directory.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Mkdir { dir: NodeId, name: String },
    Create { dir: NodeId, name: String },
    Unlink { dir: NodeId, name: String },
    Rmdir { dir: NodeId, name: String },
    Link { node: NodeId, dir: NodeId, name: String },
    Rename { dir: NodeId, name: String, new_dir: NodeId, new_name: String },
    WriteInline { node: NodeId, offset: usize, data: Vec<u8> },
    Write { node: NodeId, offset: usize, data: Vec<u8> },
    Truncate { node: NodeId, size: usize },
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Dir(BTreeMap<String, NodeId>),
    File {
        content: Vec<u8>,
        links: u32,
        /// It may have a first chunk, so its content may not be in the metadata any more.
        chunked: bool,
        /// An error was told: nobody knows what it holds, until it is cut to nothing.
        unsure: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Known once the answer has come.
    pub(crate) inode: Option<u64>,
}

/// The tree; node 0 is the directory itself.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mkdir { dir, name } => write!(f, "mkdir {dir}/{name}"),
            Self::Create { dir, name } => write!(f, "create {dir}/{name}"),
            Self::Unlink { dir, name } => write!(f, "unlink {dir}/{name}"),
            Self::Rmdir { dir, name } => write!(f, "rmdir {dir}/{name}"),
            Self::Link { node, dir, name } => write!(f, "link {node} as {dir}/{name}"),
            Self::Rename { dir, name, new_dir, new_name } => {
                write!(f, "rename {dir}/{name} to {new_dir}/{new_name}")
            }
            Self::WriteInline { node, offset, data } => {
                write!(f, "write {} inline bytes at {offset} of {node}", data.len())
            }
            Self::Write { node, offset, data } => {
                write!(f, "write {} bytes at {offset} of {node}", data.len())
            }
            Self::Truncate { node, size } => write!(f, "truncate {node} to {size}"),
        }
    }
}

impl Op {
    /// The existing object that it changes, where the answer has its attributes.
    pub(crate) fn target(&self) -> Option<NodeId> {
        match self {
            Self::Link { node, .. }
            | Self::WriteInline { node, .. }
            | Self::Write { node, .. }
            | Self::Truncate { node, .. } => Some(*node),
            _ => None,
        }
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        let root = Node { kind: Kind::Dir(BTreeMap::new()), inode: None };
        Self { nodes: BTreeMap::from([(0, root)]), next: 1 }
    }

    pub(crate) fn inode(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).and_then(|node| node.inode).unwrap_or(0)
    }

    pub(crate) fn set_inode(&mut self, node: NodeId, inode: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.inode = Some(inode);
        }
    }

    pub(crate) fn entries(&self, dir: NodeId) -> BTreeMap<String, NodeId> {
        match self.nodes.get(&dir).map(|node| &node.kind) {
            Some(Kind::Dir(entries)) => entries.clone(),
            _ => BTreeMap::new(),
        }
    }

    pub(crate) fn find(&self, dir: NodeId, name: &str) -> Option<NodeId> {
        self.entries(dir).get(name).copied()
    }

    pub(crate) fn is_dir(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| matches!(node.kind, Kind::Dir(_)))
    }

    /// A file's content, number of names, and whether it may have a chunk.
    pub(crate) fn file(&self, node: NodeId) -> Option<(&Vec<u8>, u32, bool)> {
        match &self.nodes.get(&node)?.kind {
            Kind::File { content, links, chunked, .. } => Some((content, *links, *chunked)),
            Kind::Dir(_) => None,
        }
    }

    /// Whether nobody knows what a file holds.
    pub(crate) fn is_unsure(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| matches!(node.kind, Kind::File { unsure: true, .. }))
    }

    /// A write was told lost: any part of it may be there.
    pub(crate) fn lose(&mut self, node: NodeId) {
        if let Some(Node { kind: Kind::File { unsure, chunked, .. }, .. }) = self.nodes.get_mut(&node) {
            (*unsure, *chunked) = (true, true);
        }
    }

    pub(crate) fn dirs(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|node| self.is_dir(*node)).collect()
    }

    pub(crate) fn files(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|node| self.file(*node).is_some()).collect()
    }

    /// Everything by path.
    pub(crate) fn paths(&self) -> BTreeMap<String, NodeId> {
        let mut paths = BTreeMap::new();
        let mut left = vec![(String::new(), 0)];
        while let Some((path, dir)) = left.pop() {
            for (name, node) in self.entries(dir) {
                let below = format!("{path}/{name}");
                if self.is_dir(node) {
                    left.push((below.clone(), node));
                }
                paths.insert(below, node);
            }
        }
        paths
    }

    /// Does what `op` says, or says why not; a new object's node is returned.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<Option<NodeId>, FsError> {
        match op {
            Op::Mkdir { dir, name } => self.make(*dir, name, Kind::Dir(BTreeMap::new())).map(Some),
            Op::Create { dir, name } => {
                let kind = Kind::File { content: Vec::new(), links: 1, chunked: false, unsure: false };
                self.make(*dir, name, kind).map(Some)
            }
            Op::Unlink { dir, name } => {
                let node = self.find(*dir, name).ok_or(FsError::NotFound)?;
                if self.is_dir(node) {
                    return Err(FsError::IsDirectory);
                }
                self.set(*dir, name, None);
                self.drop_link(node);
                Ok(None)
            }
            Op::Rmdir { dir, name } => {
                let node = self.find(*dir, name).ok_or(FsError::NotFound)?;
                if !self.is_dir(node) {
                    return Err(FsError::NotDirectory);
                }
                if !self.entries(node).is_empty() {
                    return Err(FsError::NotEmpty);
                }
                self.set(*dir, name, None);
                self.nodes.remove(&node);
                Ok(None)
            }
            Op::Link { node, dir, name } => {
                if self.find(*dir, name).is_some() {
                    return Err(FsError::Exists);
                }
                self.set(*dir, name, Some(*node));
                if let Some(Node { kind: Kind::File { links, .. }, .. }) = self.nodes.get_mut(node) {
                    *links += 1;
                }
                Ok(None)
            }
            Op::Rename { dir, name, new_dir, new_name } => self.rename((*dir, name), (*new_dir, new_name)),
            Op::WriteInline { node, offset, data } => self.write_inline(*node, *offset, data),
            Op::Write { node, offset, data } => {
                if let Some((content, chunked)) = self.content_mut(*node) {
                    *chunked = true;
                    put(content, *offset, data);
                }
                Ok(None)
            }
            Op::Truncate { node, size } => {
                if let (0, Some(Node { kind: Kind::File { unsure, .. }, .. })) =
                    (*size, self.nodes.get_mut(node))
                {
                    *unsure = false;
                }
                if let Some((content, chunked)) = self.content_mut(*node) {
                    *chunked &= *size > 0 || content.is_empty();
                    content.resize(*size, 0);
                }
                Ok(None)
            }
        }
    }

    fn write_inline(&mut self, node: NodeId, offset: usize, data: &[u8]) -> Result<Option<NodeId>, FsError> {
        let too_long = (offset + data.len()) as u64 > INLINE_MAX;
        match self.content_mut(node) {
            Some((_, true)) => Err(FsError::Invalid),
            Some(_) if too_long || data.is_empty() => Err(FsError::Invalid),
            Some((content, _)) => {
                put(content, offset, data);
                Ok(None)
            }
            None => Err(FsError::IsDirectory),
        }
    }

    fn content_mut(&mut self, node: NodeId) -> Option<(&mut Vec<u8>, &mut bool)> {
        match &mut self.nodes.get_mut(&node)?.kind {
            Kind::File { content, chunked, .. } => Some((content, chunked)),
            Kind::Dir(_) => None,
        }
    }

    fn make(&mut self, dir: NodeId, name: &str, kind: Kind) -> Result<NodeId, FsError> {
        if self.find(dir, name).is_some() {
            return Err(FsError::Exists);
        }
        let node = self.next;
        self.next += 1;
        self.nodes.insert(node, Node { kind, inode: None });
        self.set(dir, name, Some(node));
        Ok(node)
    }

    fn set(&mut self, dir: NodeId, name: &str, node: Option<NodeId>) {
        if let Some(Node { kind: Kind::Dir(entries), .. }) = self.nodes.get_mut(&dir) {
            match node {
                Some(node) => entries.insert(name.to_owned(), node),
                None => entries.remove(name),
            };
        }
    }

    fn drop_link(&mut self, node: NodeId) {
        if let Some(Node { kind: Kind::File { links, .. }, .. }) = self.nodes.get_mut(&node) {
            *links -= 1;
            if *links == 0 {
                self.nodes.remove(&node);
            }
        }
    }

    fn rename(&mut self, old: (NodeId, &str), new: (NodeId, &str)) -> Result<Option<NodeId>, FsError> {
        let moved = self.find(old.0, old.1).ok_or(FsError::NotFound)?;
        let there = self.find(new.0, new.1);
        if there == Some(moved) {
            return Ok(None);
        }
        if let Some(there) = there {
            match (self.is_dir(moved), self.is_dir(there)) {
                (false, true) => return Err(FsError::IsDirectory),
                (true, false) => return Err(FsError::NotDirectory),
                (true, true) if !self.entries(there).is_empty() => return Err(FsError::NotEmpty),
                (true, true) => drop(self.nodes.remove(&there)),
                (false, false) => self.drop_link(there),
            }
        }
        self.set(old.0, old.1, None);
        self.set(new.0, new.1, Some(moved));
        Ok(None)
    }
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}
