//! A chunkserver without sockets and threads: one thing at a time, for whoever brings disks, clocks and a network of his
//! own. The simulator drives it; what requests, orders and the masters' answers mean is the same as behind connections.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::{Disk, Entropy};
use mooseng_protocol::frame::PAYLOAD_MAX;
use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkVersion, ClusterId, Part};
use prost::Message as _;

use crate::admin::{Admin, AdminReply};
use crate::buffer::BufferPool;
use crate::copy_events::CopyEvents;
use crate::fetch::Fetch;
use crate::identity::mark_disk;
use crate::keeper::Keepers;
use crate::order::{self, Order};
use crate::request::{Read, Request, Tokens, Work};
use crate::store::{ReadBytes, Store};
use crate::talk::{Place, Teller};

/// The time of a pass over the copies of a disk: a server's default.
const SCRUB_PERIOD: Duration = Duration::from_secs(7 * 86_400);
/// Pieces of copies that are checked in one round of housekeeping: others come in between.
const PIECES_PER_ROUND: usize = 256;

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BytesRead {
    /// The copy's version.
    pub version: u32,
    /// The copy's length in bytes.
    pub copy_length: u64,
    /// Where in the chunk the bytes begin.
    pub offset: u64,
    /// The checksums of their sections.
    pub checksums: Vec<u32>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What the clocks say.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The monotonic one.
    pub mono: Duration,
    /// The wall clock, in seconds since the epoch.
    pub unix_s: u64,
}

/// A chunkserver's decisions and its disks.
#[derive(Debug)]
pub struct ChunkEngine {
    teller: Teller,
    buffers: Arc<BufferPool>,
}

impl ChunkEngine {
    /// Opens the store on `disks`, marking new ones, recovering what a crash left; an error is the disk's.
    pub fn open(
        disks: Vec<(Arc<dyn Disk>, PathBuf)>,
        cluster: ClusterId,
        entropy: &dyn Entropy,
        uuid: [u8; 16],
        address: String,
    ) -> io::Result<Self> {
        for (disk, root) in &disks {
            disk.create_dir_all(root)?;
            mark_disk(&**disk, entropy, root, cluster, ClusterId::from_bytes(uuid))
                .map_err(io::Error::other)?;
        }
        let events = Arc::<CopyEvents>::default();
        let store = Arc::new(Store::open(disks, cluster, 0, Arc::clone(&events))?);
        let keepers = Arc::new(Keepers::new(&store, Some(SCRUB_PERIOD)));
        let teller = Teller {
            store,
            events,
            keepers,
            uuid,
            name: address.clone(),
            place: Place::default(),
            address,
            number: AtomicU32::new(0),
            door: Arc::default(),
        };
        Ok(Self { teller, buffers: BufferPool::new(PAYLOAD_MAX) })
    }

    /// Does this server's part of a request; the bytes of a read.
    pub fn serve(
        &self,
        now: Now,
        tokens: &mut Tokens,
        request: &Request,
        payload: &[u8],
    ) -> Result<Option<BytesRead>, CallError> {
        let store = &self.teller.store;
        match request.admit(store, tokens, now.unix_s, payload.len())? {
            Work::Change(change) => change.perform(store, now.mono, payload).map(|()| None),
            Work::Read(read) => self.read(now, &read).map(Some),
        }
    }

    fn read(&self, now: Now, read: &Read) -> Result<BytesRead, CallError> {
        let answer = read.perform(now.mono, &self.buffers)?;
        let bytes = match answer.bytes {
            ReadBytes::Nothing => Vec::new(),
            ReadBytes::Memory { buffer, from, length } => buffer[from..from + length].to_vec(),
            ReadBytes::File(file) => {
                let mut bytes = vec![0; file.length];
                match file.file.read_exact_at(&mut bytes, file.offset) {
                    Ok(()) => bytes,
                    Err(source) => return Err(file.failed(source).into()),
                }
            }
        };
        Ok(BytesRead {
            version: answer.version.raw(),
            copy_length: answer.copy_length,
            offset: answer.offset,
            checksums: answer.checksums,
            bytes,
        })
    }

    /// Does what a master has pushed; a copy to be fetched is the caller's to drive.
    pub fn obey(&self, now: Now, kind: u16, body: &Bytes) -> Option<Fetch> {
        let Teller { store, events, .. } = &self.teller;
        match Order::decode(kind, body)? {
            Order::Delete(parts) => {
                parts.into_iter().for_each(|id| order::delete(store, events, id));
                None
            }
            Order::Quarantine(copies, keep_s) => {
                let until_unix_s = now.unix_s.saturating_add(keep_s);
                copies.into_iter().for_each(|copy| order::quarantine(store, events, copy, until_unix_s));
                None
            }
            Order::Settle(copy) => {
                order::settle(store, events, copy, now.mono);
                None
            }
            Order::Verify(parts) => {
                for part in parts {
                    order::verify(store, events, &self.teller.keepers, part);
                }
                None
            }
            Order::Copy(part, order) => Fetch::begin(store, events, part, order).unwrap_or_else(|error| {
                tracing::warn!(%error, "copy not fetched");
                None
            }),
        }
    }

    /// The copies that it has: of what, in which version, and whether in doubt.
    #[must_use]
    pub fn copies(&self) -> Vec<(Part, ChunkVersion, bool)> {
        self.teller.store.list().into_iter().map(|copy| (copy.part, copy.version, copy.in_doubt)).collect()
    }

    /// What the masters are told about.
    #[must_use]
    pub fn teller(&self) -> &Teller {
        &self.teller
    }

    /// Does what an administrator asks; the reply's body.
    pub fn administer(&self, now: Now, kind: u16, body: &Bytes) -> Result<Bytes, CallError> {
        let Some(admin) = Admin::decode(kind, body) else {
            return Err(CallError::Rejected { message: format!("a chunkserver does not do {kind:#x}") });
        };
        Ok(match admin?.perform(&self.teller.store, &self.teller.keepers, now)? {
            AdminReply::List(list) => list.encode_to_vec().into(),
            AdminReply::Done => Bytes::new(),
        })
    }

    /// Looks after the disks, checks copies, and makes those clean that have not been written for `idle`.
    pub fn keep_house(&self, now: Now, idle: Duration) {
        let store = &self.teller.store;
        for disk in store.disks().iter().filter(|disk| !disk.failed()) {
            disk.look();
            disk.tidy_quarantine(now.unix_s);
        }
        for keeper in self.teller.keepers.iter() {
            (0..PIECES_PER_ROUND).all(|_| keeper.step(store, &self.teller.events, now));
        }
        store.report_failed_disks();
        let mut chunks = store.idle_chunks(now.mono, idle);
        chunks.sort_by_key(|chunk| chunk.id());
        for chunk in chunks {
            if let Err(error) = chunk.clean_if_idle(now.mono, idle) {
                tracing::warn!(%error, "copy not made clean");
            }
        }
    }
}
