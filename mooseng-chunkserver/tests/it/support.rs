//! Servers to test, and what a client does.

use std::io::IoSlice;
use std::path::Path;
use std::time::Duration;

use mooseng_chunkserver::{ChunkServer, Config};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::{Token, TokenKey};
use mooseng_protocol::transport::FrameStream;
use mooseng_protocol::{PROTOCOL_VERSION, checksum, pb};
use mooseng_types::{ChunkCause, ChunkId, ChunkVersion, Part, ServerId, SessionId};

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const CLUSTER: &str = "000102030405060708090a0b0c0d0e0f";

/// A server and the directory that it lives in.
pub(crate) struct Server {
    pub(crate) server: ChunkServer,
    pub(crate) dir: tempfile::TempDir,
}

/// The configuration of a server in `dir` that knows `masters`.
pub(crate) fn config(dir: &Path, masters: Vec<String>) -> Config {
    let key_file = dir.join("key");
    std::fs::write(&key_file, "42".repeat(32)).unwrap();
    Config {
        data: dir.join("data"),
        disks: vec![dir.join("disk-a"), dir.join("disk-b")],
        listen: "127.0.0.1:0".into(),
        masters,
        cluster_id: CLUSTER.into(),
        key_file,
        io_threads_per_disk: 2,
        reserve_bytes: 0,
        heartbeat_ms: 20,
        ..Config::default()
    }
}

pub(crate) fn start(masters: Vec<String>) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let server = ChunkServer::start(config(dir.path(), masters)).unwrap();
    Server { server, dir }
}

impl Server {
    pub(crate) fn address(&self) -> String {
        self.server.address().to_string()
    }

    pub(crate) fn connect(&self) -> FrameStream {
        FrameStream::connect(&self.address(), &caller(Role::Client), SOON).unwrap().0
    }
}

pub(crate) fn cluster() -> Vec<u8> {
    (0..16).collect()
}

pub(crate) fn hello(role: Role) -> pb::Hello {
    pb::Hello {
        cluster_id: cluster().into(),
        protocol_version: PROTOCOL_VERSION,
        role: pb::Role::from(role).into(),
        name: "test".into(),
        ..Default::default()
    }
}

pub(crate) fn keys() -> Keyring {
    Keyring::derive(&[0x42; 32])
}

/// One that says this, and has the key of its role.
pub(crate) fn saying(hello: pb::Hello) -> Caller {
    let role = Role::said(hello.role()).unwrap();
    Caller::new(hello, keys().of(role).clone(), mooseng_env::nonce)
}

pub(crate) fn caller(role: Role) -> Caller {
    saying(hello(role))
}

pub(crate) fn token(chunk: u64, base: u32, version: u32, create: bool) -> bytes::Bytes {
    token_for(Part::whole(ChunkId::from_raw(chunk)), base, version, create)
}

pub(crate) fn token_for(part: Part, base: u32, version: u32, create: bool) -> bytes::Bytes {
    let token = Token {
        part,
        base_version: ChunkVersion::from_raw(base),
        version: ChunkVersion::from_raw(version),
        read: true,
        write: true,
        create,
        session: SessionId::from_raw(1),
        expiry_unix_s: u64::MAX,
    };
    TokenKey::new(&[0x42; 32]).sign(&token).to_vec().into()
}

pub(crate) fn write_request(
    token: &bytes::Bytes,
    chunk: u64,
    offset: u32,
    bytes: &[u8],
    chain: &[pb::ServerAddress],
) -> pb::WriteChunkRequest {
    pb::WriteChunkRequest {
        token: token.clone(),
        chunk,
        version: 0,
        offset,
        checksums: checksum::of_range(Part::whole(ChunkId::from_raw(chunk)), offset.into(), bytes),
        chain: chain.to_vec(),
        sync: false,
        continues: false,
        exists: false,
        part: 0,
    }
}

pub(crate) fn write(
    stream: &mut FrameStream,
    request: &pb::WriteChunkRequest,
    bytes: &[u8],
) -> Result<(), CallError> {
    stream.call(request, &[IoSlice::new(bytes)], SOON).map(drop)
}

/// Asks for a range of a copy.
pub(crate) fn read_request(chunk: u64, version: u32, offset: u32, length: u32) -> pb::ReadChunkRequest {
    pb::ReadChunkRequest {
        token: token(chunk, 0, version, false),
        chunk,
        version,
        offset,
        length,
        verify: false,
        intact: false,
        whole: false,
        part: 0,
    }
}

/// Reads a range and verifies what comes: the reply, where its bytes begin, and the bytes.
pub(crate) fn read(
    stream: &mut FrameStream,
    chunk: u64,
    version: u32,
    offset: u32,
    length: u32,
) -> Result<(pb::ReadChunkReply, Vec<u8>), CallError> {
    let request = read_request(chunk, version, offset, length);
    let reply = stream.call(&request, &[], SOON)?;
    let mut bytes = vec![0; stream.reader().payload_left()];
    stream.reader().read_payload(&mut bytes)?;
    let id = Part::whole(ChunkId::from_raw(chunk));
    assert!(checksum::matches(id, reply.offset.into(), &bytes, &reply.checksums), "bytes do not verify");
    Ok((reply, bytes))
}

/// Who is at fault (0: who was asked) and why.
pub(crate) fn fault(error: &CallError) -> Option<(u32, ChunkCause)> {
    match error {
        CallError::Chunk { server, cause, .. } => Some((server.map_or(0, ServerId::raw), *cause)),
        _ => None,
    }
}

pub(crate) fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i / 999) as u8 ^ (i % 253) as u8 ^ seed).collect()
}
