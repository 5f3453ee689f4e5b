//! A file that a program has open and that has no name any more: it is there until it is closed (`unlink(2)`).

use std::time::Duration;

use mooseng_types::InodeId;

use super::data::Written;
use super::{Client, Expired};

/// A client hears of the end of its session within this time, if it can reach the masters; and a session lives longer than
/// this, if its client is silent.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

impl Client {
    /// Makes a file, opens it, removes its name, and reads it for a while.
    pub(super) async fn unlinked(&mut self) -> Result<(), Expired> {
        let root = self.call.root();
        let unique = self.call.port.rng(|rng| rng.below(u64::MAX));
        let name = format!("gone{unique:016x}");
        let process = self.call.process.clone();
        let lost = process.sessions_lost();
        let number = process.begin_create();
        let made = self.call.create_open(root, &name, number).await;
        process.end_create(number, made.as_ref().ok().and_then(|made| made.as_ref().ok()));
        let attr = match made? {
            Ok(attr) => attr,
            Err(error) => {
                self.accuse(format!("no_lost_name: {name} was not made: {error}"));
                return Ok(());
            }
        };
        let data = self.call.port.rng(|rng| {
            let lengths = [0, 0, 1000, 9000];
            let length = lengths[usize::try_from(rng.below(4)).unwrap_or(0)];
            rng.bytes(length)
        });
        let written = match data.as_slice() {
            [] => Written::Yes(attr),
            data => self.call.write_synced(attr.inode, 0, data).await?,
        };
        let inode = InodeId::from_raw(attr.inode);
        // A lost session closes what was open; a request of it may still remove the name.
        let refused = self.call.unlink(root, &name).await?.is_err();
        let looks = if data.is_empty() { 1 } else { 3 };
        let mut alive = self.call.port.now();
        for _ in 0..looks {
            let pause = self.call.port.rng(|rng| rng.ms(0, if looks == 1 { 20 } else { 800 }));
            self.call.port.sleep(pause).await;
            if refused || matches!(written, Written::Lost) {
                break;
            }
            let begun = self.call.port.now();
            if let Some(problem) = self.is_not_there(inode, &data).await {
                let slept = self.call.port.now().saturating_sub(alive) >= NOTICED_WITHIN;
                // The session may have ended without the client's knowing yet, as after a long sleep.
                self.call.port.sleep(NOTICED_WITHIN).await;
                if !slept && process.sessions_lost() == lost && !process.is_renewing() {
                    self.accuse(format!("open_is_kept: {inode}, open and unlinked: {problem}"));
                }
                break;
            }
            alive = begun;
        }
        process.close(inode);
        Ok(())
    }

    async fn is_not_there(&self, inode: InodeId, data: &[u8]) -> Option<String> {
        // The masters are asked, whatever the client has of it.
        if let Err(error) = self.call.getattr(inode.raw()).await {
            return Some(error.to_string());
        }
        let process = &self.call.process;
        let doubtful_reads = process.memory().doubtful_reads;
        let read = process.read(inode, 0, data.len() as u64).await;
        match read {
            Ok(read) if read == data => None,
            // What has rotted in a copy in doubt passes for what was written.
            Ok(_) if process.has_doubted_since(doubtful_reads) && self.oracle.borrow().rot_may_pass => None,
            Ok(read) => Some(format!("{} bytes that are others", read.len())),
            Err(_) if self.oracle.borrow().damaged.is_some() => None,
            Err(error) => Some(error.to_string()),
        }
    }
}
