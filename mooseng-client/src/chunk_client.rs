//! Calls to chunkservers: pools of connections, checksums, and a short memory of who does not answer.
//!
//! Each request has a connection for itself while it runs, so that eight pieces in flight to one server are eight
//! connections and no answer passes through another thread.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mooseng_env::Clock;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::FrameStream;
use mooseng_protocol::{checksum, pb};
use mooseng_types::{ChunkCause, ChunkId, ChunkVersion, ClusterId, ServerId};

use crate::master_client::Placement;
use crate::{lock, wire};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A piece has to pass every server of the chain.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A sync waits for the slowest disk of the chain.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that did not answer is asked last for this long.
const PENALTY: Duration = Duration::from_secs(2);
/// Idle connections kept to one server.
const IDLE_MAX: usize = 32;
/// Servers remembered; more addresses than any cluster has, in case they keep changing.
const SERVERS_MAX: usize = 4096;

/// What names a chunk to its servers.
#[derive(Debug, Clone)]
pub(crate) struct ChunkRef {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    pub(crate) token: Bytes,
}

/// Why a chain could not take a request.
#[derive(Debug)]
pub(crate) enum ChainError {
    /// The lease is not valid any more, or the token: ask for a new one.
    LeaseLost(CallError),
    /// This server is in the way.
    Failed(ServerId, CallError),
    /// This server's disks are full. It stays in the chain: leaving it out would cost a copy of what it has already.
    Full(ServerId, CallError),
}

#[derive(Debug, Default)]
struct Server {
    idle: Mutex<Vec<FrameStream>>,
    penalty_until: Mutex<Duration>,
}

/// The way to all chunkservers, shared by all threads.
#[derive(Debug)]
pub(crate) struct ChunkClient {
    cluster: ClusterId,
    name: String,
    servers: Mutex<HashMap<String, Arc<Server>>>,
    clock: Arc<dyn Clock>,
}

impl ChunkClient {
    pub(crate) fn new(cluster: ClusterId, name: String, clock: Arc<dyn Clock>) -> Self {
        Self { cluster, name, servers: Mutex::default(), clock }
    }

    /// Writes `data` at `offset` of a chunk on every server of the chain.
    pub(crate) fn write(
        &self,
        chunk: &ChunkRef,
        chain: &[Placement],
        offset: u64,
        data: &[u8],
        sync: bool,
    ) -> Result<(), ChainError> {
        let request = pb::WriteChunkRequest {
            token: chunk.token.clone(),
            chunk: chunk.chunk.raw(),
            version: chunk.version.raw(),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            checksums: checksum::of_range(chunk.chunk, offset, data),
            chain: behind_first(chain),
            sync,
            continues: false,
        };
        let timeout = if sync { SYNC_TIMEOUT } else { WRITE_TIMEOUT };
        self.chain_call(chain, &request, data, timeout)
    }

    /// Makes a chunk durable on every server of the chain.
    pub(crate) fn sync(&self, chunk: &ChunkRef, chain: &[Placement]) -> Result<(), ChainError> {
        let request = pb::SyncChunkRequest {
            token: chunk.token.clone(),
            chunk: chunk.chunk.raw(),
            version: chunk.version.raw(),
            chain: behind_first(chain),
        };
        self.chain_call(chain, &request, &[], SYNC_TIMEOUT)
    }

    /// Cuts or extends a chunk to exactly `length` on every server of the chain.
    pub(crate) fn truncate(
        &self,
        chunk: &ChunkRef,
        chain: &[Placement],
        length: u64,
    ) -> Result<(), ChainError> {
        let request = pb::TruncateChunkRequest {
            token: chunk.token.clone(),
            chunk: chunk.chunk.raw(),
            version: chunk.version.raw(),
            length: u32::try_from(length).unwrap_or(u32::MAX),
            chain: behind_first(chain),
        };
        self.chain_call(chain, &request, &[], WRITE_TIMEOUT)
    }

    /// Reads up to `length` bytes (at most 1 MiB) at `offset` of a chunk from one server, verified. Fewer bytes come
    /// back where the copy ends: beyond it the chunk reads as zero.
    pub(crate) fn read(
        &self,
        chunk: &ChunkRef,
        address: &str,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, CallError> {
        let request = pb::ReadChunkRequest {
            token: chunk.token.clone(),
            chunk: chunk.chunk.raw(),
            version: chunk.version.raw(),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            length: u32::try_from(length).unwrap_or(u32::MAX),
            verify: false,
        };
        self.with_stream(address, |stream| {
            let reply = wire::call(stream, &request, &[], READ_TIMEOUT, || false)?;
            let mut payload = vec![0; stream.reader().payload_left()];
            stream.reader().read_payload(&mut payload)?;
            // A damaged copy says nothing about the connection, but it makes the reader go to another server.
            cut_out(chunk.chunk, &reply, payload, offset, length)
                .map_err(|what| wire::unexpected(stream, what))
        })
    }

    /// Orders `servers` for reading: the same one first for the same chunk, those that did not answer last.
    pub(crate) fn in_reading_order<'a>(
        &self,
        chunk: ChunkId,
        servers: &'a [Placement],
    ) -> Vec<&'a Placement> {
        let now = self.clock.monotonic();
        let start = if servers.is_empty() { 0 } else { chunk.raw() as usize % servers.len() };
        let mut order: Vec<_> = servers.iter().cycle().skip(start).take(servers.len()).collect();
        order.sort_by_key(|(_, address)| *lock(&self.server(address).penalty_until) > now);
        order
    }

    fn server(&self, address: &str) -> Arc<Server> {
        let mut servers = lock(&self.servers);
        if let Some(server) = servers.get(address) {
            return Arc::clone(server);
        }
        if servers.len() >= SERVERS_MAX {
            servers.clear();
        }
        Arc::clone(servers.entry(address.to_owned()).or_default())
    }

    fn chain_call<R: Rpc>(
        &self,
        chain: &[Placement],
        request: &R,
        data: &[u8],
        timeout: Duration,
    ) -> Result<(), ChainError> {
        let Some((first, address)) = chain.first() else {
            let message = "the masters gave a lease without a server".to_owned();
            return Err(ChainError::LeaseLost(CallError::Unavailable { message }));
        };
        let parts = [IoSlice::new(data)];
        let payload = if data.is_empty() { &[][..] } else { &parts[..] };
        self.with_stream(address, |stream| wire::call(stream, request, payload, timeout, || false))
            .map(drop)
            .map_err(|error| blame(*first, chain, error))
    }

    /// Runs `exchange` on a connection. One that was closed while idle is replaced once.
    fn with_stream<T>(
        &self,
        address: &str,
        mut exchange: impl FnMut(&mut FrameStream) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let server = self.server(address);
        let idle = lock(&server.idle).pop();
        let mut outcome = None;
        if let Some(mut stream) = idle {
            match exchange(&mut stream) {
                Err(CallError::Transport(TransportError::Closed { .. } | TransportError::Io { .. })) => {
                    lock(&server.idle).clear();
                }
                other => outcome = Some((other, stream)),
            }
        }
        let (outcome, stream) = match outcome {
            Some(done) => done,
            None => match self.dial(address) {
                Ok(mut stream) => (exchange(&mut stream), stream),
                Err(error) => return Err(self.penalise(&server, address, error)),
            },
        };
        match outcome {
            Err(error @ CallError::Transport(_)) => Err(self.penalise(&server, address, error)),
            other => {
                let mut idle = lock(&server.idle);
                if idle.len() < IDLE_MAX {
                    idle.push(stream);
                }
                other
            }
        }
    }

    fn penalise(&self, server: &Server, address: &str, error: CallError) -> CallError {
        tracing::warn!(address, %error, "a chunkserver failed a request");
        *lock(&server.penalty_until) = self.clock.monotonic() + PENALTY;
        error
    }

    fn dial(&self, address: &str) -> Result<FrameStream, CallError> {
        let hello = wire::hello(self.cluster, &self.name, 0, 0);
        Ok(FrameStream::connect(address, &hello, CONNECT_TIMEOUT)?.0)
    }
}

fn behind_first(chain: &[Placement]) -> Vec<pb::ServerAddress> {
    chain
        .iter()
        .skip(1)
        .map(|(server, address)| pb::ServerAddress { server: server.raw(), address: address.clone() })
        .collect()
}

/// Says which server of the chain to leave out, if any: the one that is named, else the one that was asked.
fn blame(first: ServerId, chain: &[Placement], error: CallError) -> ChainError {
    let CallError::Chunk { server, cause, .. } = &error else { return ChainError::Failed(first, error) };
    let culprit = server.filter(|named| chain.iter().any(|(server, _)| server == named)).unwrap_or(first);
    match cause {
        ChunkCause::Fenced | ChunkCause::TokenExpired | ChunkCause::TokenInvalid => {
            ChainError::LeaseLost(error)
        }
        ChunkCause::Full => ChainError::Full(culprit, error),
        _ => ChainError::Failed(culprit, error),
    }
}

/// Verifies a payload and cuts the wanted range out of it.
fn cut_out(
    chunk: ChunkId,
    reply: &pb::ReadChunkReply,
    payload: Vec<u8>,
    offset: u64,
    length: u64,
) -> Result<Bytes, String> {
    let begins = u64::from(reply.offset);
    if !checksum::matches(chunk, begins, &payload, &reply.checksums) {
        return Err(format!("bytes of {chunk} at {offset}, which do not match their checksums,"));
    }
    let wanted_end = (offset + length).min(reply.copy_length.into());
    if wanted_end <= offset {
        return Ok(Bytes::new());
    }
    if begins > offset || begins + (payload.len() as u64) < wanted_end {
        return Err(format!("range of {chunk} instead of {length} bytes at {offset}"));
    }
    let range = (offset - begins) as usize..(wanted_end - begins) as usize;
    Ok(Bytes::from(payload).slice(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Placement> {
        (1..=3).map(|n| (ServerId::from_raw(n), format!("s{n}"))).collect()
    }

    fn failed(error: CallError) -> Option<u32> {
        match blame(ServerId::from_raw(1), &chain(), error) {
            ChainError::Failed(server, _) => Some(server.raw()),
            ChainError::LeaseLost(_) | ChainError::Full(..) => None,
        }
    }

    fn full(error: CallError) -> Option<u32> {
        match blame(ServerId::from_raw(1), &chain(), error) {
            ChainError::Full(server, _) => Some(server.raw()),
            ChainError::LeaseLost(_) | ChainError::Failed(..) => None,
        }
    }

    #[test]
    fn the_server_that_is_named_is_to_blame_and_else_the_first() {
        let fault = |server: Option<u32>, cause| CallError::Chunk {
            server: server.map(ServerId::from_raw),
            cause,
            message: String::new(),
        };
        assert_eq!(failed(fault(Some(3), ChunkCause::Silent)), Some(3));
        assert_eq!(failed(fault(None, ChunkCause::Busy)), Some(1));
        assert_eq!(failed(fault(Some(77), ChunkCause::Unreachable)), Some(1));
        assert_eq!(failed(CallError::Unavailable { message: "stopping".into() }), Some(1));
        assert_eq!(full(fault(None, ChunkCause::Full)), Some(1));
        assert_eq!(full(fault(Some(3), ChunkCause::Full)), Some(3));
        assert_eq!(failed(fault(None, ChunkCause::Stale)), Some(1), "it missed something: without it, then");
        assert_eq!(failed(fault(Some(2), ChunkCause::Fenced)), None);
    }

    #[test]
    fn only_verified_bytes_of_the_wanted_range_pass() {
        let chunk = ChunkId::from_raw(5);
        let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let reply = pb::ReadChunkReply {
            version: 1,
            copy_length: 100_000,
            offset: 0,
            checksums: checksum::of_range(chunk, 0, &data),
        };
        let cut = cut_out(chunk, &reply, data.clone(), 70_000, 1000).unwrap();
        assert_eq!(cut, data[70_000..71_000]);
        assert_eq!(cut_out(chunk, &reply, data.clone(), 99_990, 1000).unwrap().len(), 10);
        assert!(cut_out(chunk, &reply, data.clone(), 100_000, 1000).unwrap().is_empty());
        let mut damaged = data.clone();
        damaged[5] ^= 1;
        assert!(cut_out(chunk, &reply, damaged, 70_000, 1000).is_err());
        let short = pb::ReadChunkReply { checksums: checksum::of_range(chunk, 0, &data[..65536]), ..reply };
        assert!(cut_out(chunk, &short, data[..65536].to_vec(), 60_000, 10_000).is_err());
    }
}
