//! What all clients use at once: a directory in which they make, remove, rename and list, and a file whose attributes
//! they set. The oracle keeps the histories, and the end tells whether they fit one order.

use mooseng_types::FsError;

use super::{Client, Expired};
use crate::oracle::{Attributes, DirAnswer, DirOp, FILE_MODE, FileOp};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// More than a shared directory ever holds: its listing is one reply.
const WHOLE: u32 = 100;

/// A shared object that this client has found.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Found {
    generation: usize,
    inode: u64,
}

impl Client {
    /// Something in the shared directory; only a look at it, if `looks`.
    pub(super) async fn shared_directory(&mut self, looks: bool) -> Result<(), Expired> {
        let op = self.choose_in_directory(looks);
        let generation = self.oracle.borrow_mut().directory.generation();
        let Some(found) = self.find_shared(self.directory, generation, "commons", true).await? else {
            return Ok(());
        };
        self.directory = found;
        let ticket = self.oracle.borrow_mut().directory.begin(generation, self.call.port.now(), op);
        let inode = found.inode;
        let answer = match op {
            DirOp::Create(name) => {
                let made = self.call.create(inode, name, false).await?;
                made.map(|attr| DirAnswer::Inode(attr.inode))
            }
            DirOp::Unlink(name) => self.call.unlink(inode, name).await?.map(|()| DirAnswer::Done),
            DirOp::Rename(from, to) => {
                self.call.rename((inode, from), (inode, to)).await?.map(|()| DirAnswer::Done)
            }
            DirOp::Lookup(name) => {
                self.call.lookup(inode, name).await.map(|attr| DirAnswer::Inode(attr.inode))
            }
            DirOp::List => self.call.list_in_one(inode, WHOLE).await.map(DirAnswer::Names),
        };
        let answer = answer.unwrap_or_else(DirAnswer::Refused);
        if matches!(answer, DirAnswer::Refused(error) if !matches!(error, FsError::Exists | FsError::NotFound))
        {
            self.accuse(format!("applied_once: {op:?} in the shared directory was answered {answer:?}"));
        }
        self.oracle.borrow_mut().directory.end(ticket, self.call.port.now(), answer);
        if op == DirOp::List {
            self.list_in_pages(inode).await;
        }
        Ok(())
    }

    fn choose_in_directory(&self, looks: bool) -> DirOp {
        self.call.port.rng(|rng| {
            let mut name = || rng.pick(&NAMES).copied().unwrap_or("a");
            let (one, other) = (name(), name());
            match if looks { 6 + rng.below(4) } else { rng.below(10) } {
                0..=2 => DirOp::Create(one),
                3 => DirOp::Unlink(one),
                4..=5 => DirOp::Rename(one, other),
                6..=7 => DirOp::Lookup(one),
                _ => DirOp::List,
            }
        })
    }

    /// Several pages are no single look, but they come to an end, and no name comes twice: pages go by the names' hashes.
    async fn list_in_pages(&mut self, inode: u64) {
        match self.call.names_in_pages(inode, 2).await {
            Ok(mut names) => {
                let count = names.len();
                names.sort_unstable();
                names.dedup();
                if names.len() != count || count > NAMES.len() {
                    self.accuse(format!("no_lost_name: pages of the shared directory list {names:?}"));
                }
            }
            Err(error) => self.accuse(format!("no_lost_name: the shared directory was not listed: {error}")),
        }
    }

    /// Sets the shared file's attributes or reads them; reads only, if `looks`.
    pub(super) async fn shared_file(&mut self, looks: bool) -> Result<(), Expired> {
        let op = self.call.port.rng(|rng| match if looks { 9 } else { rng.below(7) } {
            0 => FileOp::SetMode(0o600 + u32::try_from(rng.below(64)).unwrap_or(0)),
            1..=2 => FileOp::SetSize(rng.below(3000)),
            3 => FileOp::SetMtime(i64::try_from(rng.below(1 << 40)).unwrap_or(0)),
            _ => FileOp::Get,
        });
        let generation = self.oracle.borrow_mut().file.generation();
        let Some(found) = self.find_shared(self.file, generation, "dial", false).await? else {
            return Ok(());
        };
        self.file = found;
        let ticket = self.oracle.borrow_mut().file.begin(generation, self.call.port.now(), op);
        let answer = match op {
            FileOp::Get => self.call.getattr(found.inode).await,
            _ => self.call.set_attr(found.inode, op).await?,
        };
        match answer {
            Ok(attr) => {
                let seen = Attributes { mode: attr.mode, size: attr.size, mtime: Some(attr.mtime_ns) };
                self.oracle.borrow_mut().file.end(ticket, self.call.port.now(), seen);
            }
            Err(error) => self.accuse(format!("applied_once: {op:?} of the shared file: {error}")),
        }
        Ok(())
    }

    /// The shared object of this generation, made by whoever comes first.
    async fn find_shared(
        &mut self,
        known: Found,
        generation: usize,
        kind: &str,
        dir: bool,
    ) -> Result<Option<Found>, Expired> {
        if known.inode != 0 && known.generation == generation {
            return Ok(Some(known));
        }
        let (root, name) = (self.call.root(), format!("{kind}{generation}"));
        let attr = match self.call.create_with(root, &name, dir, FILE_MODE).await? {
            Err(FsError::Exists) => self.call.lookup(root, &name).await,
            other => other,
        };
        match attr {
            Ok(attr) => Ok(Some(Found { generation, inode: attr.inode })),
            Err(error) => {
                self.accuse(format!("no_lost_name: {name}, which all share: {error}"));
                Ok(None)
            }
        }
    }
}
