//! Masters and chunkservers as plain values: as much of their contract as a file's core can tell, with power cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use mooseng_types::{
    Attr, CHUNK_SIZE, ChunkCause, ChunkId, ChunkIndex, ChunkVersion, FileKind, FsError, INLINE_MAX, InodeId,
    ServerId, TimeNs,
};

use crate::chunk::{ChunkRef, Fault, Grant, Granted, Located, Opened, Placement};
use crate::file::{
    Action, Ask, At, Event, File, Operation, PartAnswer, PartRead, PartStep, Prepare, ReadStep, Rules,
    Source, Span, Step, Wish,
};
use crate::{ClientError, Result};

/// What the masters know of a chunk.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) chunk: u64,
    pub(super) committed: u32,
    pub(super) granted: u32,
    pub(super) servers: Vec<u32>,
    pub(super) valid_length: u64,
    /// Which client holds the lease.
    pub(super) lease: Option<u32>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Copy {
    pub(super) version: u32,
    pub(super) interrupted: bool,
    pub(super) damaged: bool,
    pub(super) bytes: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) copies: BTreeMap<u64, Copy>,
    pub(super) down: bool,
    /// It takes requests and answers none.
    pub(super) silent: bool,
    pub(super) full: bool,
}

/// One file in a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) now: Duration,
    pub(super) size: u64,
    pub(super) content_version: u64,
    pub(super) inline: Option<Vec<u8>>,
    pub(super) rows: BTreeMap<ChunkIndex, Row>,
    pub(super) servers: BTreeMap<u32, Server>,
    /// Names of the actions that were carried out.
    pub(super) log: Vec<&'static str>,
    /// A chunk for which no server has room.
    pub(super) no_room_for: Option<ChunkIndex>,
    /// Refusals of commits to come.
    pub(super) refuse_commits: u32,
    next_chunk: u64,
    stamp: u64,
}

/// How long a client waits for a chain.
const TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn file() -> File {
    File::new(InodeId::from_raw(7), Rules { patience: PATIENCE, durable: true }, 1, 0)
}

impl Cluster {
    pub(super) fn new(servers: u32) -> Self {
        Self {
            now: Duration::from_secs(1),
            size: 0,
            content_version: 1,
            inline: None,
            rows: BTreeMap::new(),
            servers: (1..=servers).map(|number| (number, Server::default())).collect(),
            log: Vec::new(),
            no_room_for: None,
            refuse_commits: 0,
            next_chunk: 100,
            stamp: 0,
        }
    }

    fn stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    pub(super) fn attr(&self) -> Attr {
        let time = TimeNs::from_raw(1);
        Attr {
            inode: InodeId::from_raw(7),
            generation: 1,
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            size: self.size,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            content_version: self.content_version,
        }
    }

    /// A program opens the file through this client.
    pub(super) fn open(&mut self, file: &mut File) {
        let (asked, told) = (self.stamp(), self.stamp());
        let inline = self.inline.clone().map(Bytes::from);
        file.learn_opened(Opened { attr: self.attr(), inline }, asked, told);
    }

    pub(super) fn write(&mut self, file: &mut File, offset: u64, data: &[u8]) {
        file.write(offset, data, TimeNs::from_raw(2));
    }

    /// Runs an operation to its end, with nobody else at work.
    pub(super) fn run<O: Operation>(
        &mut self,
        client: u32,
        file: &mut File,
        mut operation: O,
    ) -> Result<O::Output> {
        loop {
            match operation.next(file, self.now) {
                Step::Done(result) => {
                    operation.abandon(file);
                    return result;
                }
                Step::Wait(until) => self.now = until.expect("nobody else is at work").max(self.now),
                Step::Do(action) => {
                    if let Err(error) = self.step(client, file, action) {
                        operation.abandon(file);
                        return Err(error);
                    }
                }
            }
        }
    }

    pub(super) fn step(&mut self, client: u32, file: &mut File, action: Action) -> Result<()> {
        let asked = self.stamp();
        let event = self.carry_out(client, action);
        let at = At { now: self.now, asked, told: self.stamp() };
        file.happened(event, at)
    }

    /// Reads as a client does.
    pub(super) fn read(&mut self, client: u32, file: &mut File, offset: u64, length: u64) -> Result<Vec<u8>> {
        loop {
            match file.read(offset, length, self.now) {
                ReadStep::Wait(until) => self.now = until.expect("nobody else is at work").max(self.now),
                ReadStep::Do(action) => self.step(client, file, action)?,
                ReadStep::Ready(plan) => {
                    let mut base = Vec::new();
                    for span in &plan.base {
                        match span {
                            Span::Zeros(length) => base.extend(vec![0; *length as usize]),
                            Span::Here(bytes) => base.extend_from_slice(bytes),
                            Span::Copies(extent, source) => {
                                base.extend(self.read_part(extent.offset, extent.length, source)?);
                            }
                        }
                    }
                    return Ok(plan.finish(base.into()).to_vec());
                }
            }
        }
    }

    fn read_part(&self, offset: u64, length: u64, source: &Source) -> Result<Vec<u8>> {
        let mut read = PartRead::new(offset, length, self.now, Duration::ZERO);
        read.begin(source, |place| place as u64);
        loop {
            match read.next(self.now)? {
                PartStep::Done(bytes) => return Ok(bytes.to_vec()),
                PartStep::Again(_) => return Err(ClientError::Closed),
                PartStep::Ask(Ask { place, offset, length, .. }) => {
                    let server = &self.servers[&source.servers[place].server.raw()];
                    let copy = server.copies.get(&source.chunk.chunk.raw()).filter(|_| !server.down);
                    let answer = match copy {
                        None => PartAnswer::Fault(ChunkCause::Unreachable),
                        Some(copy) if copy.version < source.chunk.version.raw() => {
                            PartAnswer::Fault(ChunkCause::Stale)
                        }
                        Some(copy) if source.intact && copy.interrupted => {
                            PartAnswer::Fault(ChunkCause::Interrupted)
                        }
                        Some(copy) => {
                            let from = copy.bytes.len().min(offset as usize);
                            let to = copy.bytes.len().min((offset + length) as usize);
                            PartAnswer::Bytes {
                                offset,
                                bytes: Bytes::copy_from_slice(&copy.bytes[from..to]),
                                damaged: Vec::new(),
                                copy_length: copy.bytes.len() as u64,
                            }
                        }
                    };
                    read.answered(source, answer);
                }
            }
        }
    }

    /// The server loses what it has not synced, and starts again.
    pub(super) fn power_cut(&mut self, server: u32) {
        for copy in self.servers.get_mut(&server).unwrap().copies.values_mut() {
            copy.interrupted |= copy.bytes != copy.synced;
            copy.bytes = copy.synced.clone();
        }
    }

    pub(super) fn carry_out(&mut self, client: u32, action: Action) -> Event {
        match action {
            Action::Grant(key, wish) => {
                self.log.push("grant");
                Event::Granted(key, self.grant(client, key.index, &wish))
            }
            Action::Prepare(key, grant, Prepare::Cut(length)) => {
                self.log.push("cut");
                let done = self.chain(&grant, false, |copy| copy.bytes.resize(length as usize, 0));
                Event::Prepared(key, grant, done)
            }
            Action::Prepare(key, grant, Prepare::Fill(content)) => {
                self.log.push("fill");
                let done = self.chain(&grant, false, |copy| put(copy, 0, &content));
                Event::Prepared(key, grant, done)
            }
            Action::Write(job) => {
                self.log.push("write");
                let at = job.offset_in_chunk() as usize;
                let done = self.chain(&job.grant, job.continues, |copy| put(copy, at, &job.piece.data));
                Event::Wrote(job, done)
            }
            Action::Adopt(job) => {
                self.log.push("adopt");
                let durable = job.durable;
                let done = self.chain(&job.grant, job.continues, |copy| sync(copy, durable));
                Event::Synced(job, done)
            }
            Action::Sync(job) => {
                self.log.push("sync");
                let done = self.chain(&job.grant, true, |copy| sync(copy, true));
                Event::Synced(job, done)
            }
            Action::WriteInline(job) => {
                self.log.push("inline");
                let done = self.write_inline(job.piece.offset, &job.piece.data, job.append.is_some());
                Event::WroteInline(job, done)
            }
            Action::Commit(job) => {
                self.log.push("commit");
                let done = self.commit(client, &job.commit);
                Event::Committed(job, done)
            }
            Action::ReleaseLeases(job) => {
                self.log.push("release");
                for key in &job.leases {
                    self.end_lease(client, key.index);
                }
                Event::Released(job, Ok(()))
            }
            Action::Locate(job) => {
                self.log.push("locate");
                let found = self.locate(job.first, job.count);
                Event::Located(job, Ok(found))
            }
            Action::SetSize(change) => {
                self.log.push("size");
                self.size = change.size.unwrap_or(self.size);
                self.content_version += 1;
                if let Some(inline) = &mut self.inline {
                    inline.truncate(self.size as usize);
                }
                let size = self.size;
                self.rows.retain(|index, _| index.start() < size);
                for (index, row) in &mut self.rows {
                    row.lease = None;
                    row.valid_length = row.valid_length.min(size - index.start());
                }
                Event::SizeSet(Ok(self.attr()))
            }
        }
    }

    fn grant(&mut self, client: u32, index: ChunkIndex, wish: &Wish) -> Result<Granted> {
        let up = |servers: &BTreeMap<u32, Server>, number: &u32| !servers[number].down;
        let failed: BTreeSet<u32> = wish.failed.iter().map(|server| server.raw()).collect();
        let mut fresh = false;
        if !self.rows.contains_key(&index) {
            let servers: Vec<u32> =
                self.servers.keys().copied().filter(|number| !failed.contains(number)).take(2).collect();
            if servers.is_empty() || self.no_room_for == Some(index) {
                return Err(FsError::NoSpace.into());
            }
            self.next_chunk += 1;
            fresh = true;
            let (chunk, valid_length) = (self.next_chunk, CHUNK_SIZE);
            self.rows
                .insert(index, Row { chunk, committed: 0, granted: 1, servers, valid_length, lease: None });
        }
        let row = self.rows.get_mut(&index).unwrap();
        if row.lease.is_some_and(|holder| holder != client) {
            return Err(FsError::LeaseHeld.into());
        }
        let left: Vec<u32> = row.servers.iter().copied().filter(|number| !failed.contains(number)).collect();
        let some_up = left.iter().any(|number| up(&self.servers, number));
        let renew = !wish.failed.is_empty() || wish.renew || row.lease != Some(client);
        if some_up {
            row.servers = left;
        }
        if !fresh && renew {
            row.granted += 1;
        }
        row.lease = Some(client);
        let place =
            |number: &u32| Placement { server: ServerId::from_raw(*number), address: format!("s{number}") };
        let chunk = ChunkRef {
            chunk: ChunkId::from_raw(row.chunk),
            version: ChunkVersion::from_raw(row.granted),
            token: Bytes::new(),
        };
        let servers = row.servers.iter().map(place).collect();
        let valid_length = row.valid_length;
        let inline = self.inline.clone().filter(|_| index.raw() == 0).map(Bytes::from);
        let grant = Grant { chunk, servers };
        Ok(Granted { grant, valid_length, inline, fresh, attr: Some(self.attr()) })
    }

    fn chain(
        &mut self,
        grant: &Grant,
        continues: bool,
        mut change: impl FnMut(&mut Copy),
    ) -> std::result::Result<(), Fault> {
        let (chunk, version) = (grant.chunk.chunk.raw(), grant.chunk.version.raw());
        if grant.servers.first().is_some_and(|first| self.servers[&first.server.raw()].silent) {
            self.now += TIMEOUT;
            return Err(Fault { server: None, cause: ChunkCause::Silent });
        }
        let mut fault = None;
        for placement in &grant.servers {
            let server = self.servers.get_mut(&placement.server.raw()).unwrap();
            let known = server.copies.get(&chunk).cloned().unwrap_or_default();
            let cause = match () {
                () if server.down => Some(ChunkCause::Unreachable),
                () if server.full => Some(ChunkCause::Full),
                () if known.damaged => Some(ChunkCause::Damaged),
                () if known.version > version => Some(ChunkCause::Fenced),
                () if known.interrupted && (continues || known.version == version) => {
                    Some(ChunkCause::Interrupted)
                }
                () => None,
            };
            match cause {
                Some(cause) => {
                    let at = Fault { server: Some(placement.server), cause };
                    fault.get_or_insert(at);
                }
                None => {
                    let copy = server.copies.entry(chunk).or_default();
                    copy.interrupted &= copy.version == version;
                    copy.version = version;
                    change(copy);
                }
            }
        }
        fault.map_or(Ok(()), Err)
    }

    fn write_inline(&mut self, offset: u64, data: &[u8], append: bool) -> Result<Attr> {
        let offset = if append { self.size } else { offset };
        let end = offset + data.len() as u64;
        if end > INLINE_MAX || self.rows.contains_key(&ChunkIndex::from_raw(0)) || self.size > INLINE_MAX {
            return Err(FsError::Invalid.into());
        }
        let inline = self.inline.get_or_insert_default();
        inline.resize(inline.len().max(end as usize), 0);
        inline[offset as usize..end as usize].copy_from_slice(data);
        self.size = self.size.max(end);
        self.content_version += 1;
        Ok(self.attr())
    }

    fn commit(&mut self, client: u32, commit: &crate::chunk::Commit) -> Result<Attr> {
        if self.refuse_commits > 0 {
            self.refuse_commits -= 1;
            return Err(FsError::LeaseLost.into());
        }
        assert!(commit.chunks.len() <= mooseng_protocol::limits::COMMIT_MAX);
        for chunk in &commit.chunks {
            let row = self.rows.get(&chunk.index).filter(|row| row.lease == Some(client));
            if row.is_none_or(|row| row.granted != chunk.version.raw() || row.chunk != chunk.chunk.raw()) {
                return Err(FsError::LeaseLost.into());
            }
        }
        self.size = self.size.max(commit.size_at_least);
        self.content_version += 1;
        for chunk in &commit.chunks {
            let row = self.rows.get_mut(&chunk.index).unwrap();
            row.committed = row.granted;
            row.valid_length = self.size.saturating_sub(chunk.index.start()).min(CHUNK_SIZE);
            if commit.release {
                row.lease = None;
            }
            if chunk.index.raw() == 0 {
                self.inline = None;
            }
            for number in &row.servers {
                let copy = &self.servers[number].copies[&row.chunk];
                assert_eq!(copy.version, row.committed, "server {number} has not adopted what was committed");
            }
        }
        Ok(self.attr())
    }

    /// The lease ends without a commit.
    pub(super) fn end_lease(&mut self, client: u32, index: ChunkIndex) {
        let size = self.size;
        if let Some(row) = self.rows.get_mut(&index).filter(|row| row.lease == Some(client)) {
            row.lease = None;
            let inside = if row.committed == 0 { 0 } else { size.saturating_sub(index.start()) };
            row.valid_length = row.valid_length.min(inside);
        }
    }

    fn locate(&self, first: ChunkIndex, count: u32) -> (Opened, Vec<Located>) {
        let wanted = first.raw()..first.raw() + count;
        let rows = self.rows.iter().filter(|(index, row)| wanted.contains(&index.raw()) && row.committed > 0);
        let located = rows.map(|(index, row)| Located {
            index: *index,
            chunk: ChunkRef {
                chunk: ChunkId::from_raw(row.chunk),
                version: ChunkVersion::from_raw(row.committed),
                token: Bytes::new(),
            },
            valid_length: row.valid_length,
            servers: row
                .servers
                .iter()
                .map(|number| Placement { server: ServerId::from_raw(*number), address: String::new() })
                .collect(),
            differs: false,
        });
        let located = located.collect();
        let inline = self.inline.clone().filter(|_| first.raw() == 0).map(Bytes::from);
        (Opened { attr: self.attr(), inline }, located)
    }
}

fn put(copy: &mut Copy, at: usize, data: &[u8]) {
    let end = at + data.len();
    if copy.bytes.len() < end {
        copy.bytes.resize(end, 0);
    }
    copy.bytes[at..end].copy_from_slice(data);
}

fn sync(copy: &mut Copy, durable: bool) {
    if durable {
        copy.synced = copy.bytes.clone();
    }
}
