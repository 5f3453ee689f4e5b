//! Appending to one file, as all clients do at once (`O_APPEND`).

use mooseng_client::ClientError;
use mooseng_client::file::{Append, Flush, Occasion};
use mooseng_types::{FsError, InodeId, TimeNs};

use super::process::Process;
use super::{Client, Expired};
use crate::oracle::{Made, RECORD};
use crate::plant::Plant;

/// Its name.
pub(super) const JOURNAL: &str = "journal";

impl Client {
    /// Opens the journal, appends a few records, syncs or not, closes.
    pub(super) async fn append(&mut self) -> Result<(), Expired> {
        let root = self.call.root();
        let attr = match self.call.create(root, JOURNAL, false).await? {
            Err(FsError::Exists) => self.call.lookup(root, JOURNAL).await,
            other => other,
        };
        let Ok(attr) = attr else {
            self.accuse(format!("no_lost_name: {JOURNAL}, which all share, was not found"));
            return Ok(());
        };
        let inode = InodeId::from_raw(attr.inode);
        let process = self.call.process.clone();
        let lost = process.sessions_lost();
        let mut told = match process.open(inode).await {
            Ok(told) => told,
            Err(ClientError::Refused(error)) => {
                self.accuse(format!("no_lost_name: {JOURNAL} was not opened: {error}"));
                return Ok(());
            }
            Err(_) => return Err(Expired),
        };
        let records = 1 + self.call.port.rng(|rng| rng.below(3));
        let mut failed = false;
        for _ in 0..records {
            failed |= !self.append_record(inode).await;
        }
        let (begun, synced) = (self.call.port.now(), self.call.port.rng(|rng| rng.chance(500)));
        let flush = process.with(inode, |file| Flush::new(file, synced, begun));
        let outcome = process.run(inode, flush).await;
        let told = process.with(inode, |file| file.tell(&mut told, Occasion::Sync));
        process.close(inode);
        failed |= outcome.is_err() || told.is_err() || process.sessions_lost() != lost;
        let made = match (failed, synced) {
            (true, _) => Made::Lost,
            (_, true) => Made::Synced,
            (_, false) => Made::Closed,
        };
        self.oracle.borrow_mut().journal.made(self.life, begun, self.call.port.now(), made);
        Ok(())
    }

    async fn append_record(&self, inode: InodeId) -> bool {
        let (process, now) = (&self.call.process, self.call.port.now());
        let number = self.oracle.borrow_mut().journal.begin(self.life, now);
        let data = number.to_le_bytes().repeat(RECORD / 8);
        let mtime = TimeNs::from_raw(i64::try_from(now.as_nanos()).unwrap_or(0));
        if process.plant == Some(Plant::AppendWhereItSeems) {
            process.with(inode, |file| file.write(file.size(), &data, mtime));
            return true;
        }
        let append = process.with(inode, |file| Append::new(file, data.into(), mtime, now));
        process.run(inode, append).await.is_ok()
    }
}

/// The records, each as the numbers in it. `None` if the file could not be read.
pub(super) async fn records_of(process: &Process, inode: InodeId) -> Option<Vec<Vec<u64>>> {
    process.open(inode).await.ok()?;
    let size = process.with(inode, |file| file.size());
    let bytes = process.read(inode, 0, size).await.ok()?;
    let numbers = |record: &[u8]| {
        let words = record.chunks(8).map(|word| word.try_into().map_or(u64::MAX, u64::from_le_bytes));
        let mut numbers: Vec<u64> = words.collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    Some(bytes.chunks(RECORD).map(numbers).collect())
}
