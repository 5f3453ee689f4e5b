//! The files that all clients write and read at once, through the product's file cores: cells on both sides of the border
//! between two chunks, and in the first bytes of the file, which live in the metadata at first.

use std::time::Duration;

use mooseng_client::ClientError;
use mooseng_client::file::{Flush, Occasion, Told, Truncate};
use mooseng_types::{CHUNK_SIZE, FsError, InodeId, SetAttr, TimeNs};

use super::process::Process;
use super::{Client, Expired};
use crate::oracle::{CELL, CELLS, Look, Made, SLATES};
use crate::plant::Plant;

/// Cells of which a third is at the beginning of the file, the rest around the border of its first two chunks.
const AT_START: usize = 8;

/// Where a cell lies.
fn offset_of(cell: usize) -> u64 {
    let bytes = (cell * CELL) as u64;
    if cell < AT_START {
        bytes
    } else {
        CHUNK_SIZE - (AT_START * CELL) as u64 + bytes - (AT_START * CELL) as u64
    }
}

/// A slate that this client has open.
#[derive(Clone, Debug)]
pub(super) struct OpenSlate {
    inode: InodeId,
    told: Told,
    lost: u64,
    /// Writes, and how much of the file this process had sent before each.
    written: Vec<(u64, u64)>,
}

impl Client {
    /// Something with one of the shared files.
    pub(super) async fn slate(&mut self) -> Result<(), Expired> {
        let which = self.call.port.rng(|rng| usize::try_from(rng.below(SLATES as u64)).unwrap_or(0));
        let Some(mut slate) = self.open_slate(which).await? else { return Ok(()) };
        let steps = 1 + self.call.port.rng(|rng| rng.below(3));
        for _ in 0..steps {
            match self.call.port.rng(|rng| rng.below(10)) {
                0 => self.truncate_slate(which, &mut slate).await?,
                1..=4 => self.write_slate(which, &mut slate).await?,
                5..=6 => self.read_slate(which, &mut slate).await?,
                7 => drop(self.make_last(which, &mut slate, Made::Closed).await?),
                _ => drop(self.make_last(which, &mut slate, Made::Synced).await?),
            }
        }
        self.make_last(which, &mut slate, Made::Closed).await?;
        if self.call.port.rng(|rng| rng.chance(200)) {
            self.read_slate(which, &mut slate).await?;
        }
        self.call.process.close(slate.inode);
        Ok(())
    }

    /// Only looks at one of them.
    pub(super) async fn peek(&mut self) -> Result<(), Expired> {
        let which = self.call.port.rng(|rng| usize::try_from(rng.below(SLATES as u64)).unwrap_or(0));
        let Some(mut slate) = self.open_slate(which).await? else { return Ok(()) };
        self.read_slate(which, &mut slate).await?;
        self.call.process.close(slate.inode);
        Ok(())
    }

    async fn open_slate(&mut self, which: usize) -> Result<Option<OpenSlate>, Expired> {
        let (root, name) = (self.call.root(), format!("slate{which}"));
        let attr = match self.call.create(root, &name, false).await? {
            Err(FsError::Exists) => self.call.lookup(root, &name).await,
            other => other,
        };
        let Ok(attr) = attr else {
            self.accuse(format!("no_lost_name: {name}, which all share, was not found"));
            return Ok(None);
        };
        let inode = InodeId::from_raw(attr.inode);
        let lost = self.call.process.sessions_lost();
        match self.call.process.open(inode).await {
            Ok(told) => Ok(Some(OpenSlate { inode, told, lost, written: Vec::new() })),
            Err(ClientError::Refused(error)) => {
                self.accuse(format!("no_lost_name: {name} was not opened: {error}"));
                Ok(None)
            }
            Err(_) => Err(Expired),
        }
    }

    async fn write_slate(&mut self, which: usize, slate: &mut OpenSlate) -> Result<(), Expired> {
        self.look_at_session(which, slate);
        let cells = self.call.port.rng(|rng| {
            let first = usize::try_from(rng.below(CELLS as u64)).unwrap_or(0);
            let count = 1 + usize::try_from(rng.below(5)).unwrap_or(0);
            first..(first + count).min(if first < AT_START { AT_START } else { CELLS })
        });
        let (life, now) = (self.life, self.call.port.now());
        let number = self.oracle.borrow_mut().slates.begin(which, life, cells.clone(), now);
        slate.written.push((number, self.call.process.sent(slate.inode)));
        let bytes = number.to_le_bytes().repeat(cells.len() * CELL / 8);
        let mtime = TimeNs::from_raw(i64::try_from(now.as_nanos()).unwrap_or(0));
        self.call.process.with(slate.inode, |file| file.write(offset_of(cells.start), &bytes, mtime));
        if self.call.port.rng(|rng| rng.chance(400)) {
            let send = self.call.process.with(slate.inode, |file| Flush::only_send(file, now));
            // What could not be sent is told by the next sync.
            drop(self.call.process.run(slate.inode, send).await);
            if self.call.process.plant == Some(Plant::SwallowErrors) {
                drop(self.call.process.with(slate.inode, |file| file.tell(&mut slate.told, Occasion::Sync)));
            }
            if self.call.port.rng(|rng| rng.chance(300)) {
                self.idle(1500).await;
            }
        } else if slate.written.len() == 1 && self.call.port.rng(|rng| rng.chance(500)) {
            // Some programs keep for a while what they wrote first.
            let longest = if self.call.port.rng(|rng| rng.chance(300)) { 8000 } else { 1500 };
            self.idle(longest).await;
        }
        Ok(())
    }

    /// Does nothing for a while, with something to lose.
    async fn idle(&self, longest_ms: u64) {
        let pause = self.call.port.rng(|rng| rng.ms(100, longest_ms));
        self.oracle.borrow_mut().idlers.insert(self.number);
        self.call.port.sleep(pause).await;
        self.oracle.borrow_mut().idlers.remove(&self.number);
    }

    /// Cuts the file off where a cell begins, or makes it longer.
    async fn truncate_slate(&mut self, which: usize, slate: &mut OpenSlate) -> Result<(), Expired> {
        self.look_at_session(which, slate);
        let cell = self.call.port.rng(|rng| usize::try_from(rng.below(CELLS as u64 + 1)).unwrap_or(0));
        let (life, now) = (self.life, self.call.port.now());
        let number = self.oracle.borrow_mut().slates.begin_cut(which, life, cell, now);
        let change = SetAttr { size: Some(offset_of(cell)), ..SetAttr::default() };
        let truncate = self.call.process.with(slate.inode, |file| Truncate::new(file, change, now));
        let outcome = self.call.process.run(slate.inode, truncate).await;
        self.look_at_session(which, slate);
        let done = self.call.port.now();
        let slates = &mut self.oracle.borrow_mut().slates;
        match outcome {
            Ok(()) => slates.cut(which, number, done),
            // What it was to cut off was not sent.
            Err(_) => slates.made(which, life, now, done, Made::Lost),
        }
        Ok(())
    }

    /// What was written is over with the session under which it was written.
    fn look_at_session(&mut self, which: usize, slate: &mut OpenSlate) {
        let lost = self.call.process.sessions_lost();
        if std::mem::replace(&mut slate.lost, lost) != lost {
            let renewed = self.call.process.renewed();
            let sent = self.call.process.sent_before_renewal(slate.inode);
            let mut oracle = self.oracle.borrow_mut();
            oracle.slates.made(which, self.life, renewed, renewed, Made::Dead);
            let unsent = slate.written.drain(..).filter(|(_, before)| *before == sent);
            unsent.for_each(|(number, _)| oracle.slates.void(which, number));
        }
    }

    /// Closes or syncs. An error that is told means that what was not synced may be lost.
    async fn make_last(&mut self, which: usize, slate: &mut OpenSlate, what: Made) -> Result<bool, Expired> {
        let begun = self.call.port.now();
        let inode = slate.inode;
        let flush = self.call.process.with(inode, |file| Flush::new(file, what == Made::Synced, begun));
        let outcome = self.call.process.run(inode, flush).await;
        let told = self.call.process.with(inode, |file| file.tell(&mut slate.told, Occasion::Sync));
        self.look_at_session(which, slate);
        let what = if told.and(outcome).is_ok() { what } else { Made::Lost };
        let (life, now) = (self.life, self.call.port.now());
        self.oracle.borrow_mut().slates.made(which, life, begun, now, what);
        Ok(what != Made::Lost)
    }

    async fn read_slate(&mut self, which: usize, slate: &mut OpenSlate) -> Result<(), Expired> {
        // What others have closed is seen from an open on.
        self.call.process.close(slate.inode);
        let from = self.call.port.now();
        let Some(again) = self.open_slate(which).await? else { return Ok(()) };
        // What was told to nobody so far is told to whoever opens the file next.
        (slate.inode, slate.told) = (again.inode, again.told);
        let Some((seen, look)) = cells_of(&self.call.process, slate.inode, from).await else { return Ok(()) };
        let mut problem = self.problem(which, &seen, None, look);
        let own = || self.problem(which, &seen, Some(self.life), look);
        // It may be that a loss of what this client has not closed has yet to be told.
        if problem.is_none() && own().is_some() {
            if !self.make_last(which, slate, Made::Synced).await? {
                return Ok(());
            }
            problem = self.problem(which, &seen, Some(self.life), look);
        }
        match problem {
            Some(problem) => self.accuse(format!("content_is_current: slate {which}: {problem}")),
            None => self.remember(which, &seen, look),
        }
        Ok(())
    }

    /// What one reader has seen no later reader may miss.
    fn remember(&self, which: usize, seen: &[Vec<u64>], look: Look) {
        for (cell, number) in seen.iter().enumerate().filter_map(|(cell, all)| match all.as_slice() {
            [number] => Some((cell, *number)),
            _ => None,
        }) {
            let problem = self.oracle.borrow_mut().slates.saw(which, cell, number, look);
            problem
                .into_iter()
                .for_each(|problem| self.accuse(format!("content_is_current: slate {which}: {problem}")));
        }
    }

    fn problem(&self, which: usize, seen: &[Vec<u64>], reader: Option<usize>, look: Look) -> Option<String> {
        let oracle = self.oracle.borrow();
        let check = |cell, number| oracle.slates.check(which, cell, number, reader, look);
        seen.iter()
            .enumerate()
            .find_map(|(cell, numbers)| numbers.iter().find_map(|number| check(cell, *number)))
    }
}

/// What each cell shows (one number, or several where a power cut has torn a write that was not synced), and how that was
/// read: the file was opened at `from` or later. `None` if the file could not be read now.
pub(super) async fn cells_of(
    process: &Process,
    inode: InodeId,
    from: Duration,
) -> Option<(Vec<Vec<u64>>, Look)> {
    let mut cells = Vec::new();
    let doubtful_reads = process.memory().doubtful_reads;
    for (first, count) in [(0, AT_START), (AT_START, CELLS - AT_START)] {
        let length = (count * CELL) as u64;
        let mut bytes = process.read(inode, offset_of(first), length).await.ok()?;
        bytes.resize(count * CELL, 0);
        for cell in bytes.chunks(CELL) {
            let words = cell.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
            let mut numbers: Vec<u64> = words.collect();
            numbers.sort_unstable();
            numbers.dedup();
            cells.push(numbers);
        }
    }
    let oracle = process.oracle.borrow();
    let in_doubt = process.has_doubted_since(doubtful_reads).then_some(oracle.power_lost);
    let rotten = in_doubt.is_some() && oracle.rot_may_pass;
    Some((cells, Look { from, to: process.port.now(), in_doubt, rotten }))
}
