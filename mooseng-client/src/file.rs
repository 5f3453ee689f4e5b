//! What is known of a file and what happens next. Pure: a value without sockets, threads, locks or clocks.
//!
//! Programs write into it and read from it; whoever wants something of it that needs others (a flush, a sync, a lease given
//! back, a truncation, an append, a read) asks again and again what to do next, does that, and tells what came of it:
//!
//! ```text
//! loop {
//!     match operation.next(&mut file, now) {
//!         Step::Do(action) => { let event = edge.carry_out(action); file.happened(event, now)?; }
//!         Step::Wait(until) => /* something of this file is under way elsewhere */,
//!         Step::Done(result) => return result,
//!     }
//! }
//! ```
//!
//! Several may do so at once: each action is handed out to one of them, and a step looks at what there is to do, not at who
//! began it. So a mount's threads do the work of their own callers, and the simulator runs the same code in its world.

pub(crate) mod ahead;
mod append;
pub(crate) mod buffer;
mod content;
mod event;
mod flush;
mod give_back;
mod lease;
pub(crate) mod losses;
mod open;
pub(crate) mod part;
mod read;
mod steps;
mod truncate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_types::{Attr, ChunkCause, ChunkIndex, INLINE_MAX, InodeId, SetAttr, TimeNs};

use crate::chunk::{Commit, Fault, Grant, Granted, Located, Opened};
use crate::{ClientError, Loss};

pub use append::{Append, Appended};
pub use buffer::Piece;
pub use content::{Layout, Pages};
pub use event::At;
pub use flush::{Flush, SendFull};
pub use give_back::GiveBack;
pub use lease::{Prepare, Wish};
pub use losses::{Occasion, Told};
pub use open::Explained;
pub use part::{Ask, PartAnswer, PartRead, PartStep};
pub use read::{Plan, ReadStep, Source, Span};
pub use truncate::Truncate;

use buffer::WriteBuffer;
use content::Content;
use lease::{Lease, Trouble};
use losses::Losses;

/// Something that is wanted of a file and takes several actions.
pub trait Operation {
    /// What it results in.
    type Output;

    /// What to do next.
    fn next(&mut self, file: &mut File, now: Duration) -> Step<Self::Output>;

    /// Whoever waits for it goes on. Called when it ends before it is done.
    fn abandon(&mut self, _file: &mut File) {}
}

/// What one who asked is to do next.
#[derive(Debug)]
pub enum Step<T> {
    /// Carry this out, and tell the file what came of it.
    Do(Action),
    /// Ask again when the file has changed, and at the latest then.
    Wait(Option<Duration>),
    /// It is done, or cannot be.
    Done(Result<T, ClientError>),
}

/// The lease that an action is under: which chunk, and which of its leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseKey {
    /// Which chunk of the file.
    pub index: ChunkIndex,
    number: u64,
}

/// What an edge carries out.
#[derive(Debug)]
pub enum Action {
    /// Ask the masters for a write lease.
    Grant(LeaseKey, Wish),
    /// Make the copies of a new lease ready.
    Prepare(LeaseKey, Arc<Grant>, Prepare),
    /// Send a piece down the chain.
    Write(WriteJob),
    /// Have the chain adopt the lease's version by an empty write, and sync if told so.
    Adopt(SyncJob),
    /// Sync the chain.
    Sync(SyncJob),
    /// Write into the metadata.
    WriteInline(InlineJob),
    /// Tell the masters what was written.
    Commit(CommitJob),
    /// Give back leases under which nothing is uncommitted.
    ReleaseLeases(ReleaseJob),
    /// Ask the masters where chunks are.
    Locate(LocateJob),
    /// Change the file's length, and what else is asked with it.
    SetSize(SetAttr),
}

/// Leases to be given back.
#[derive(Debug)]
pub struct ReleaseJob {
    /// Which.
    pub leases: Vec<LeaseKey>,
    /// They are held here. Otherwise only the masters believe that they are; a change of the file may be under way
    /// meanwhile, which the masters may refuse until they are told.
    pub(super) held: bool,
}

/// A piece to be written.
#[derive(Debug)]
pub struct WriteJob {
    /// Under which lease.
    pub lease: LeaseKey,
    /// Its chain.
    pub grant: Arc<Grant>,
    /// The bytes.
    pub piece: Piece,
    /// Something is confirmed under an earlier version that no sync has covered.
    pub continues: bool,
    /// Something is confirmed under the lease: every copy has it, or has lost it.
    pub exists: bool,
    begun: Duration,
}

impl WriteJob {
    /// Where the piece lies in the chunk.
    #[must_use]
    pub fn offset_in_chunk(&self) -> u64 {
        self.piece.offset - self.lease.index.start()
    }
}

/// A chain to be synced.
#[derive(Debug)]
pub struct SyncJob {
    /// Under which lease.
    pub lease: LeaseKey,
    /// Its chain.
    pub grant: Arc<Grant>,
    /// As in [`WriteJob::continues`].
    pub continues: bool,
    /// As in [`WriteJob::exists`].
    pub exists: bool,
    /// Whether the disks are meant; else only the version.
    pub durable: bool,
    covers: u64,
    begun: Duration,
}

/// A write into the metadata.
#[derive(Debug)]
pub struct InlineJob {
    /// The bytes, and where they lie if they are not appended.
    pub piece: Piece,
    /// At the file's end, wherever that is; the number tells one append from another.
    pub append: Option<u64>,
}

/// A commit, and what it covers.
#[derive(Debug)]
pub struct CommitJob {
    /// What the masters are told.
    pub commit: Commit,
    leases: Vec<(LeaseKey, u64)>,
    /// It is the last part: size and time are in it.
    whole: bool,
}

/// A question where chunks are.
#[derive(Debug)]
pub struct LocateJob {
    /// From here on.
    pub first: ChunkIndex,
    /// So many.
    pub count: u32,
    /// An answer to a question that was asked before the last change says nothing.
    asked: u64,
}

/// What came of an action, with what the masters told and when that was asked for (see [`File::learn`]).
#[derive(Debug)]
pub enum Event {
    /// Of [`Action::Grant`].
    Granted(LeaseKey, Result<Granted, ClientError>),
    /// Of [`Action::Prepare`].
    Prepared(LeaseKey, Arc<Grant>, Result<(), Fault>),
    /// Of [`Action::Write`].
    Wrote(WriteJob, Result<(), Fault>),
    /// Of [`Action::Adopt`] and [`Action::Sync`].
    Synced(SyncJob, Result<(), Fault>),
    /// Of [`Action::WriteInline`].
    WroteInline(InlineJob, Result<Attr, ClientError>),
    /// Of [`Action::Commit`].
    Committed(CommitJob, Result<Attr, ClientError>),
    /// Of [`Action::ReleaseLeases`].
    Released(ReleaseJob, Result<(), ClientError>),
    /// Of [`Action::Locate`].
    Located(LocateJob, Result<(Opened, Vec<Located>), ClientError>),
    /// Of [`Action::SetSize`].
    SizeSet(Result<Attr, ClientError>),
}

/// What a mount has chosen that the file goes by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long something is tried.
    pub patience: Duration,
    /// `fsync` means the disks.
    pub durable: bool,
}

/// A file.
#[derive(Debug)]
pub struct File {
    id: InodeId,
    rules: Rules,
    content: Content,
    /// The end of the file as programs here see it.
    size: u64,
    /// The last write here that no commit has told the masters.
    mtime: Option<TimeNs>,
    /// The highest end of what chunkservers have confirmed since the last commit.
    landed: u64,
    buffer: WriteBuffer,
    leases: BTreeMap<ChunkIndex, Lease>,
    leases_made: u64,
    /// What leases had met that were given back since: who asks again soon has waited for as long.
    troubles: BTreeMap<ChunkIndex, Trouble>,
    /// The chunk that was given up last, as no copy of it can be written, and how many that were.
    given_up: (u64, Option<(ChunkIndex, ChunkCause)>),
    losses: Losses,
    /// A change of the content is on its way to the masters: a commit, an inline write, a new length. One at a time.
    changing: bool,
    /// The change is a write into the metadata, which the masters refuse as long as anybody has a lease of chunk 0.
    writing_inline: bool,
    /// The length is being changed: nothing new begins.
    resizing: bool,
    /// Attributes told while a change of ours was under way that may be the cause of what is new in them, with when they
    /// were asked for and told.
    unexplained: Option<(Attr, u64, u64)>,
    appends: u64,
    /// Where the masters have placed appends whose callers do not know it yet.
    placed: BTreeMap<u64, u64>,
    /// Chunks that one commit may name; 1 while it is looked for which lease is lost.
    commit_width: usize,
    session: u64,
    /// Something has changed that others may wait for.
    news: bool,
}

impl File {
    /// A file of which nothing is known. `seed` names the state of its content in a cache of pieces and must be new for
    /// each `File` of one inode; `session` counts the sessions that the client has lost.
    #[must_use]
    pub fn new(id: InodeId, rules: Rules, seed: u32, session: u64) -> Self {
        Self {
            id,
            rules,
            content: Content::new(seed),
            size: 0,
            mtime: None,
            landed: 0,
            buffer: WriteBuffer::default(),
            leases: BTreeMap::new(),
            leases_made: 0,
            troubles: BTreeMap::new(),
            given_up: (0, None),
            losses: Losses::default(),
            changing: false,
            writing_inline: false,
            resizing: false,
            unexplained: None,
            appends: 0,
            placed: BTreeMap::new(),
            commit_width: mooseng_protocol::limits::COMMIT_MAX,
            session,
            news: false,
        }
    }

    /// Which file.
    #[must_use]
    pub fn id(&self) -> InodeId {
        self.id
    }

    /// The end of the file as programs here see it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes in the write buffer.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.bytes()
    }

    /// Names the state of the content in a cache of pieces; `None` while not all of it is at the chunkservers.
    #[must_use]
    pub fn cache_key(&self) -> Option<u64> {
        self.is_clean().then(|| self.content.cache_key())
    }

    /// Whether the masters know all that was done here.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.buffer.is_empty() && self.mtime.is_none() && !self.leases.values().any(Lease::is_uncommitted)
    }

    /// Whether a flush has something to do or to find out: what waits, or for a handle that `wrote`, whether what the
    /// background has committed since is still there.
    #[must_use]
    pub fn owes_flush(&self, wrote: bool) -> bool {
        !self.is_clean() || (wrote && self.leases.values().any(Lease::is_unsynced))
    }

    /// Whether leases are held or data waits.
    #[must_use]
    pub fn holds_anything(&self) -> bool {
        !self.is_clean() || !self.leases.is_empty()
    }

    /// Whether nothing is had or asked for of this chunk.
    #[must_use]
    pub fn has_no_lease(&self, index: ChunkIndex) -> bool {
        !self.leases.contains_key(&index)
    }

    /// Whether nothing is lost if it is forgotten: nothing is held, and no error waits to be told.
    #[must_use]
    pub fn may_be_forgotten(&self) -> bool {
        !self.holds_anything() && !self.losses.are_untold() && !self.changing && !self.resizing
    }

    /// Whether something has changed since the last call for which others may wait. A step that only waits changes
    /// nothing: those who wait would wake each other without end.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whether a full piece waits to be sent in the background.
    #[must_use]
    pub fn has_full_piece(&self) -> bool {
        !self.buffer.waiting_chunks(buffer::Take::Full).is_empty()
    }

    /// What an open file begins to be told of errors with.
    #[must_use]
    pub fn begin_told(&self) -> Told {
        self.losses.begin()
    }

    /// An error of writing in the background that `told` does not know yet.
    pub fn tell(&mut self, told: &mut Told, occasion: Occasion) -> Result<(), ClientError> {
        self.losses.tell(told, occasion)
    }

    /// The last error of writing in the background and how many there were, once a second at most.
    pub fn take_log(&mut self, now: Duration) -> Option<(&ClientError, u64)> {
        self.losses.take_log(now)
    }

    /// Takes in a write. Tells whether a full piece waits to be sent now.
    pub fn write(&mut self, offset: u64, data: &[u8], mtime: TimeNs) -> bool {
        self.take_in(offset, data, mtime, false)
    }

    fn take_in(&mut self, offset: u64, data: &[u8], mtime: TimeNs, appended: bool) -> bool {
        let full = self.buffer.write(offset, data, appended);
        self.size = self.size.max(offset + data.len() as u64);
        self.mtime = Some(mtime);
        self.content.touch();
        full
    }

    /// The session under which everything here was done has ended: leases end with it, and what was written and not
    /// committed, whether sent or not, is older than whatever others have written since. It is lost, and told.
    pub fn session_lost(&mut self, session: u64) {
        if self.session == session {
            return;
        }
        self.session = session;
        self.news = true;
        let at_stake = |lease: &Lease| lease.is_uncommitted() || lease.is_unsynced();
        let lost = self.buffer.clear() | self.leases.values().any(at_stake);
        self.leases.clear();
        self.mtime = None;
        self.landed = 0;
        self.content.forget_places();
        if let Some(attr) = self.content.attr() {
            self.size = attr.size;
        }
        if lost {
            self.losses.note(Loss::SessionExpired);
        }
    }

    fn lease(&mut self, key: LeaseKey) -> Option<&mut Lease> {
        self.leases.get_mut(&key.index).filter(|lease| lease.number == key.number)
    }

    fn lease_of(&mut self, index: ChunkIndex) -> &mut Lease {
        let number = &mut self.leases_made;
        self.leases.entry(index).or_insert_with(|| {
            *number += 1;
            Lease::new(*number)
        })
    }

    /// Whether all of the file is, or is going to be, in the metadata.
    fn is_small(&self) -> bool {
        self.size <= INLINE_MAX && self.content.may_be_inline() && self.leases.is_empty()
    }

    /// The content of a small file as the metadata has it.
    fn inline(&self) -> Option<&Bytes> {
        self.content.inline()
    }
}
