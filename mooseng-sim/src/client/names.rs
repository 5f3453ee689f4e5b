//! What a client looks at: its own directory, its own files, the names that all share.

use bytes::Bytes;
use mooseng_protocol::pb;
use mooseng_types::{FsError, InodeId};

use super::{Client, Expired};
use crate::invariants::{compare, same_entries};
use crate::oracle::{SharedCall, SharedOp};

fn shared_name(which: usize) -> String {
    format!("shared{which}")
}

impl Client {
    pub(super) async fn shared_op(&mut self, which: usize, op: SharedOp) -> Result<(), Expired> {
        let place = {
            let invoked = self.call.port.now();
            let calls = &mut self.oracle.borrow_mut().shared[which];
            calls.push(SharedCall { invoked, answered: None, op, result: None });
            calls.len() - 1
        };
        let (root, name) = (InodeId::ROOT.raw(), shared_name(which));
        let answer = match op {
            SharedOp::Create => self.call.create(root, &name, false).await?.map(|attr| attr.inode),
            SharedOp::Unlink => self.call.unlink(root, &name).await?.map(|()| 0),
            SharedOp::Lookup => {
                let name = Bytes::from(name);
                let request =
                    move |_: &mut super::Caller| pb::LookupRequest { parent: root, name: name.clone() };
                self.call.ask(request).await.map(|reply| reply.attr.unwrap_or_default().inode)
            }
        };
        match answer {
            Ok(_) | Err(FsError::Exists | FsError::NotFound) => {}
            Err(error) => self.accuse(format!("applied_once: {op:?} of a shared name was refused: {error}")),
        }
        let call = &mut self.oracle.borrow_mut().shared[which][place];
        call.answered = Some(self.call.port.now());
        call.result = answer.ok();
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
        let Some((expected, links, _)) = model.file(file) else { return Ok(()) };
        let Some(found) = self.call.read_file(model.inode(file)).await else {
            self.accuse(format!("no_lost_name: a file with {links} names is gone"));
            return Ok(());
        };
        for problem in compare(&found, expected, links, None) {
            self.accuse(format!("acked_is_durable: {problem}"));
        }
        Ok(())
    }
}
