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
use mooseng_types::ClusterId;

use crate::buffer::BufferPool;
use crate::copy_events::CopyEvents;
use crate::identity::mark_disk;
use crate::order::{self, Fetch, Order};
use crate::request::{Read, Request, Tokens, Work};
use crate::store::{ReadBytes, Store};
use crate::talk::{Place, Teller};

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
        let teller = Teller {
            store,
            events,
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
    pub fn obey(&self, kind: u16, body: &Bytes) -> Option<Fetch> {
        let Teller { store, events, .. } = &self.teller;
        match Order::decode(kind, body)? {
            Order::Delete(parts) => {
                parts.into_iter().for_each(|id| order::delete(store, events, id));
                None
            }
            Order::Copy(part, order) => Fetch::begin(store, events, part, order).unwrap_or_else(|error| {
                tracing::warn!(%error, "copy not fetched");
                None
            }),
        }
    }

    /// What the masters are told about.
    #[must_use]
    pub fn teller(&self) -> &Teller {
        &self.teller
    }

    /// Looks after the disks, and makes copies clean that have not been written for `idle`.
    pub fn keep_house(&self, now: Duration, idle: Duration) {
        let store = &self.teller.store;
        store.disks().iter().filter(|disk| !disk.failed()).for_each(|disk| disk.look());
        store.report_failed_disks();
        let mut chunks = store.idle_chunks(now, idle);
        chunks.sort_by_key(|chunk| chunk.id());
        for chunk in chunks {
            if let Err(error) = chunk.clean_if_idle(now, idle) {
                tracing::warn!(%error, "copy not made clean");
            }
        }
    }
}
