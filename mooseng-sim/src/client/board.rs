//! The file that all clients write: whole, under a lease that wanders between them.

use mooseng_protocol::pb;
use mooseng_types::{FsError, InodeId};

use super::{Client, Expired};
use crate::invariants::{BoardWrite, board_is_current};

const NAME: &str = "board";
/// Words of eight bytes, so many that the file takes more than one block.
const WORDS: usize = 9000;

impl Client {
    /// Reads the shared file or writes it anew.
    pub(super) async fn board(&mut self) -> Result<(), Expired> {
        let Some(inode) = self.find_board().await? else { return Ok(()) };
        if self.call.port.rng(|rng| rng.chance(500)) {
            self.write_board(inode).await
        } else {
            self.read_board(inode).await
        }
    }

    async fn find_board(&mut self) -> Result<Option<u64>, Expired> {
        let root = InodeId::ROOT.raw();
        match self.call.create(root, NAME, false).await? {
            Ok(attr) => Ok(Some(attr.inode)),
            Err(FsError::Exists) => {
                let request =
                    move |_: &mut super::Caller| pb::LookupRequest { parent: root, name: NAME.into() };
                Ok(self.call.ask(request).await.ok().and_then(|reply| reply.attr).map(|attr| attr.inode))
            }
            Err(error) => {
                self.accuse(format!("applied_once: the shared file was not made: {error}"));
                Ok(None)
            }
        }
    }

    async fn write_board(&mut self, inode: u64) -> Result<(), Expired> {
        let number = {
            let invoked = self.call.port.now();
            let board = &mut self.oracle.borrow_mut().board;
            board.push(BoardWrite { invoked, answered: None });
            board.len()
        };
        let data = (number as u64).to_le_bytes().repeat(WORDS);
        self.call.gives_up_when_held = true;
        let written = self.call.write_chunk(inode, 0, &data).await;
        self.call.gives_up_when_held = false;
        match written? {
            Ok(_) => {
                self.oracle.borrow_mut().board[number - 1].answered = Some(self.call.port.now());
                if self.call.leased.contains(&inode) {
                    self.call.release(inode).await?;
                }
            }
            Err(FsError::LeaseHeld) => {}
            Err(error) => self.accuse(format!("applied_once: the shared file was not written: {error}")),
        }
        Ok(())
    }

    async fn read_board(&mut self, inode: u64) -> Result<(), Expired> {
        let from = self.call.port.now();
        let Some(found) = self.call.read_file(inode).await else {
            self.accuse("no_lost_name: the shared file is gone".into());
            return Ok(());
        };
        for (_, bytes) in &found.copies {
            let problem = board_is_current(&self.oracle.borrow().board, bytes, from);
            problem.into_iter().for_each(|problem| self.accuse(problem));
        }
        Ok(())
    }
}
