//! The look back at the end: a fresh client walks every directory that ever was, and what it finds must follow from
//! what was answered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use mooseng_protocol::pb;
use mooseng_types::{CellId, FileKind, FsError, InodeId};

use super::call::Caller;
use super::data::Content;
use super::journal::{JOURNAL, records_of};
use super::process::Process;
use super::slate::cells_of;
use crate::invariants::judge;
use crate::oracle::{Oracle, SLATES};
use crate::task::Port;

/// What is there, by path; `None` for a directory.
type Tree = BTreeMap<String, Option<Content>>;

/// Compares everything that is there with everything that was answered.
pub(crate) async fn audit(port: Port, oracle: Rc<RefCell<Oracle>>, cell: CellId, masters: u64) {
    let process = Process::new(port, Rc::clone(&oracle), cell, masters, None);
    let mut call = Caller::new(process.clone());
    if call.open_session().await.is_err() {
        oracle.borrow_mut().accuse("heals: no session could be opened".into());
        return;
    }
    let lives = oracle.borrow().private.clone();
    let root = call.list(call.root()).await.unwrap_or_default();
    for life in lives {
        let Some(inode) = root.get(&life.name) else {
            if life.founded {
                oracle.borrow_mut().accuse(format!("no_lost_name: the directory {} is gone", life.name));
            }
            continue;
        };
        match call.walk(*inode).await {
            Ok(tree) => {
                let excused = |content: Content| content.excuse(&oracle.borrow());
                let tree = tree.into_iter().map(|(path, content)| (path, content.map(excused))).collect();
                for problem in judge(&life, &tree) {
                    oracle.borrow_mut().accuse(format!("acked_is_durable: {}: {problem}", life.name));
                }
            }
            Err(error) => oracle.borrow_mut().accuse(format!("no_lost_name: walk of {}: {error}", life.name)),
        }
    }
    for which in 0..SLATES {
        let Some(inode) = root.get(&format!("slate{which}")) else { continue };
        audit_slate(&process, &oracle, which, InodeId::from_raw(*inode)).await;
    }
    if let Some(inode) = root.get(JOURNAL) {
        audit_journal(&process, &oracle, InodeId::from_raw(*inode)).await;
    }
}

/// What the journal that all have appended to must hold by now.
async fn audit_journal(process: &Process, oracle: &RefCell<Oracle>, inode: InodeId) {
    let seen = records_of(process, inode).await;
    let mut oracle = oracle.borrow_mut();
    let problems = match seen {
        Some(seen) => oracle.journal.check(&seen),
        None if oracle.damaged.is_some() => return,
        None => vec!["it cannot be read".into()],
    };
    problems.into_iter().for_each(|problem| oracle.accuse(format!("appends_are_whole: {problem}")));
}

/// What every reader of a shared file must see by now.
async fn audit_slate(process: &Process, oracle: &RefCell<Oracle>, which: usize, inode: InodeId) {
    let accuse = |what: String| {
        oracle.borrow_mut().accuse(format!("content_is_current: slate {which} at the end: {what}"));
    };
    let from = process.port.now();
    if let Err(error) = process.open(inode).await {
        return accuse(format!("it cannot be opened: {error}"));
    }
    let Some((seen, look)) = cells_of(process, inode, from).await else {
        // The only copy of a chunk may have rotted.
        if oracle.borrow().damaged.is_none() {
            accuse("it cannot be read".into());
        }
        return;
    };
    for (cell, number) in seen.iter().enumerate().flat_map(|(cell, all)| all.iter().map(move |n| (cell, *n)))
    {
        let problem = oracle.borrow().slates.check(which, cell, number, None, look);
        problem.into_iter().for_each(&accuse);
    }
}

impl Caller {
    /// A directory's entries.
    pub(super) async fn list(&self, inode: u64) -> Result<BTreeMap<String, u64>, FsError> {
        let entries = self.pages(inode, 5).await?;
        Ok(entries.into_iter().map(|(name, inode, _)| (name, inode)).collect())
    }

    /// A directory's entries out of one reply.
    pub(super) async fn list_in_one(
        &self,
        inode: u64,
        entries_max: u32,
    ) -> Result<BTreeMap<String, u64>, FsError> {
        let request = move |_| pb::ReaddirRequest { inode, cookie: 0, entries_max, plus: false };
        let reply = self.ask(request).await?;
        if !reply.end {
            return Err(FsError::Io);
        }
        Ok(reply.entries.iter().map(|entry| (name_of(entry), entry.inode)).collect())
    }

    /// A directory's names, page by page, as they came.
    pub(super) async fn names_in_pages(&self, inode: u64, entries_max: u32) -> Result<Vec<String>, FsError> {
        let entries = self.pages(inode, entries_max).await?;
        Ok(entries.into_iter().map(|(name, ..)| name).collect())
    }

    async fn pages(&self, inode: u64, entries_max: u32) -> Result<Vec<(String, u64, bool)>, FsError> {
        let mut entries = Vec::new();
        let mut cookie = 0;
        loop {
            let request = move |_| pb::ReaddirRequest { inode, cookie, entries_max, plus: false };
            let reply = self.ask(request).await?;
            for entry in &reply.entries {
                let is_dir = entry.kind == u32::from(FileKind::Directory.raw());
                entries.push((name_of(entry), entry.inode, is_dir));
            }
            match reply.entries.last() {
                Some(last) if !reply.end => cookie = last.cookie,
                _ => return Ok(entries),
            }
        }
    }

    async fn walk(&self, root: u64) -> Result<Tree, FsError> {
        let mut tree = Tree::new();
        let mut left = vec![(String::new(), root)];
        while let Some((path, dir)) = left.pop() {
            for (name, inode, is_dir) in self.pages(dir, 5).await? {
                let below = format!("{path}/{name}");
                if is_dir {
                    left.push((below.clone(), inode));
                    tree.insert(below, None);
                } else {
                    let content = self.read_file(inode).await.ok_or(FsError::NotFound)?;
                    tree.insert(below, Some(content));
                }
            }
        }
        Ok(tree)
    }
}

fn name_of(entry: &pb::DirEntry) -> String {
    String::from_utf8_lossy(&entry.name).into_owned()
}
