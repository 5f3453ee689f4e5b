//! Calls to chunkservers: pools of connections, checksums, and a short memory of who does not answer.
//!
//! Each request has a connection for itself while it runs, so that eight pieces in flight to one server are eight
//! connections and no answer passes through another thread.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooseng_env::Clock;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::FrameStream;
use mooseng_types::ChunkCause;

use super::door::TimedDoor;
use super::messages::{self, WriteHow};
use super::wire::{self, Own};
use crate::chunk::{Fault, Grant, Placement};
use crate::file::{Ask, PartAnswer, Source};
use crate::lock;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A piece has to pass every server of the chain; a hop that is silent for 3 s is cut by the server before it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A sync waits for the slowest disk of the chain.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that did not answer is asked last for this long.
const PENALTY: Duration = Duration::from_secs(2);
/// Idle connections kept to one server.
const IDLE_MAX: usize = 32;
/// Servers remembered; more addresses than any cluster has, in case they keep changing.
const SERVERS_MAX: usize = 4096;

#[derive(Debug, Default)]
struct ServerConnections {
    idle: Mutex<Vec<FrameStream>>,
    penalty_until: Mutex<Duration>,
}

/// The way to all chunkservers, shared by all threads.
#[derive(Debug)]
pub(crate) struct ChunkClient {
    own: Own,
    door: Arc<TimedDoor>,
    servers: Mutex<HashMap<String, Arc<ServerConnections>>>,
    clock: Arc<dyn Clock>,
}

impl ChunkClient {
    pub(crate) fn new(own: Own, door: Arc<TimedDoor>, clock: Arc<dyn Clock>) -> Self {
        Self { own, door, servers: Mutex::default(), clock }
    }

    /// Writes `data` at `offset` of a chunk on every server of the chain.
    pub(crate) fn write(&self, grant: &Grant, offset: u64, data: &[u8], how: WriteHow) -> Result<(), Fault> {
        let request = messages::write_chunk(grant, offset, data, how);
        let timeout = if how.sync { SYNC_TIMEOUT } else { WRITE_TIMEOUT };
        self.chain_call(grant, &request, data, timeout)
    }

    /// Makes a chunk durable on every server of the chain.
    pub(crate) fn sync(&self, grant: &Grant) -> Result<(), Fault> {
        self.chain_call(grant, &messages::sync_chunk(grant), &[], SYNC_TIMEOUT)
    }

    /// Cuts or extends a chunk to exactly `length` on every server of the chain, whose disks it waits for.
    pub(crate) fn truncate(&self, grant: &Grant, length: u64) -> Result<(), Fault> {
        self.chain_call(grant, &messages::truncate_chunk(grant, length), &[], SYNC_TIMEOUT)
    }

    /// Reads up to 1 MiB of a chunk from one of the source's servers, and verifies it block by block. A server that sent
    /// what does not match is asked to look at its copy.
    pub(crate) fn read(&self, source: &Source, ask: Ask) -> PartAnswer {
        let Some(placement) = source.servers.get(ask.place) else {
            return PartAnswer::Fault(ChunkCause::NoCopy);
        };
        let answer = self.read_once(source, placement, ask, false);
        match &answer {
            PartAnswer::Bytes { damaged, .. } if !damaged.is_empty() => {
                tracing::warn!(
                    chunk = %source.chunk.chunk, server = %placement.server, blocks = ?damaged,
                    "bytes do not match their checksums; the server is asked to look at its copy"
                );
                // Read and verified there: what it says now counts, and what is damaged it reports itself.
                self.read_once(source, placement, ask, true)
            }
            _ => answer,
        }
    }

    fn read_once(&self, source: &Source, placement: &Placement, ask: Ask, verify: bool) -> PartAnswer {
        let (chunk, range) = (&source.chunk, (ask.offset, ask.length));
        let request = messages::read_chunk(source, ask, verify);
        let answer = self.with_stream(&placement.address, |stream| {
            let (reply, payload) = wire::call_for_payload(&self.door, stream, &request, READ_TIMEOUT)?;
            let (begins, length) = (u64::from(reply.offset), u64::from(reply.copy_length));
            Ok(PartAnswer::verified(chunk.chunk, (begins, payload), &reply.checksums, length, range))
        });
        answer.unwrap_or_else(|error| {
            tracing::debug!(chunk = %chunk.chunk, server = %placement.server, %error, "read");
            PartAnswer::Fault(Fault::of(&error).cause)
        })
    }

    /// Ranks a server for reading: the same one first for the same chunk, those that did not answer last.
    pub(crate) fn rank(&self, source: &Source, place: usize) -> u64 {
        let count = source.servers.len().max(1);
        let turn = (place + count - source.chunk.chunk.raw() as usize % count) % count;
        let late = source.servers.get(place).is_some_and(|placement| {
            *lock(&self.server(&placement.address).penalty_until) > self.clock.monotonic()
        });
        turn as u64 + u64::from(late) * count as u64
    }

    fn server(&self, address: &str) -> Arc<ServerConnections> {
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
        grant: &Grant,
        request: &R,
        data: &[u8],
        timeout: Duration,
    ) -> Result<(), Fault> {
        let Some(first) = grant.servers.first() else {
            return Err(Fault { server: None, cause: ChunkCause::NoCopy });
        };
        let parts = [IoSlice::new(data)];
        let payload = if data.is_empty() { &[][..] } else { &parts[..] };
        let door = &self.door;
        self.with_stream(&first.address, |stream| wire::call(door, stream, request, payload, timeout, || false))
            .map(drop)
            .map_err(|error| {
                let fault = Fault::of(&error);
                let chunk = &grant.chunk;
                tracing::warn!(chunk = %chunk.chunk, version = %chunk.version, %fault, %error, "a write chain failed");
                fault
            })
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

    fn penalise(&self, server: &ServerConnections, address: &str, error: CallError) -> CallError {
        tracing::warn!(address, %error, "a chunkserver failed a request");
        *lock(&server.penalty_until) = self.clock.monotonic() + PENALTY;
        error
    }

    fn dial(&self, address: &str) -> Result<FrameStream, CallError> {
        let caller = self.own.caller();
        let connect = || FrameStream::connect(address, &caller, CONNECT_TIMEOUT);
        Ok(self.door.pass::<pb::Hello, _>(connect)?.0)
    }
}
