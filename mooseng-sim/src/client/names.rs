//! What a client looks at: its own directory, its own files, the names that all share.

use mooseng_types::FsError;

use super::{Client, Expired};
use crate::invariants::{compare, same_entries};
use crate::oracle::{NameOp, SHARED_NAMES};

impl Client {
    pub(super) async fn shared_name(&mut self, op: NameOp) -> Result<(), Expired> {
        let which = self.call.port.rng(|rng| usize::try_from(rng.below(SHARED_NAMES as u64)).unwrap_or(0));
        let (generation, ticket) = {
            let history = &mut self.oracle.borrow_mut().names[which];
            let generation = history.generation();
            (generation, history.begin(generation, self.call.port.now(), op))
        };
        let (root, name) = (self.call.root(), format!("shared{which}-{generation}"));
        let answer = match op {
            NameOp::Create => self.call.create(root, &name, false).await?.map(|attr| attr.inode),
            NameOp::Unlink => self.call.unlink(root, &name).await?.map(|()| 0),
            NameOp::Lookup => self.call.lookup(root, &name).await.map(|attr| attr.inode),
        };
        match answer {
            Ok(_) | Err(FsError::Exists | FsError::NotFound) => {}
            Err(error) => self.accuse(format!("applied_once: {op:?} of a shared name was refused: {error}")),
        }
        self.oracle.borrow_mut().names[which].end(ticket, self.call.port.now(), answer.ok());
        Ok(())
    }

    /// Lists one of its directories: exactly what was put there.
    pub(super) async fn list(&mut self) -> Result<(), Expired> {
        let model = self.model();
        let dirs = model.dirs();
        let Some(dir) = self.call.port.rng(|rng| rng.pick(&dirs).copied()) else { return Ok(()) };
        match self.call.list(model.inode(dir)).await {
            Ok(found) => {
                same_entries(&found, &model, dir).into_iter().for_each(|problem| self.accuse(problem))
            }
            Err(error) => self.accuse(format!("no_lost_name: a directory was not listed: {error}")),
        }
        Ok(())
    }

    /// Reads one of its files from every copy: exactly what was written.
    pub(super) async fn read_back(&mut self) -> Result<(), Expired> {
        let model = self.model();
        let files = model.files();
        let Some(file) = self.call.port.rng(|rng| rng.pick(&files).copied()) else { return Ok(()) };
        let Some((expected, links, _)) = model.file(file).filter(|_| !model.is_unsure(file)) else {
            return Ok(());
        };
        let Some(found) = self.call.read_file(model.inode(file)).await else {
            self.accuse(format!("no_lost_name: a file with {links} names is gone"));
            return Ok(());
        };
        let found = found.excuse(&self.oracle.borrow());
        for problem in compare(&found, expected, links, None) {
            self.accuse(format!("acked_is_durable: {problem}"));
        }
        Ok(())
    }
}
