//! How fast a chain of chunkservers takes and gives data on this machine: servers and client in one process, on the
//! loopback interface. `cargo run --release -p mooseng-chunkserver --example throughput -- DIRECTORY [MiB] [SERVERS]`
//!
//! Writes stream with 8 requests of 1 MiB in flight and end with a sync; reads keep 4 of 1 MiB in flight, first from the
//! disk (the pages are dropped before), then from memory. Each line gives MB/s and the processor seconds of the whole
//! process, client included.

use std::collections::VecDeque;
use std::io::{IoSlice, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mooseng_chunkserver::{ChunkServer, Config};
use mooseng_protocol::frame::FLAG_REPLY;
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::token::{Token, TokenKey};
use mooseng_protocol::transport::FrameStream;
use mooseng_protocol::{PROTOCOL_VERSION, checksum, pb};
use mooseng_types::{CHUNK_SIZE, ChunkId, ChunkVersion, Part, SessionId};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PIECE: u64 = 1 << 20;
const WRITES_IN_FLIGHT: usize = 8;
const READS_IN_FLIGHT: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("usage: throughput DIRECTORY [MiB] [SERVERS]")?;
    let total = arguments.next().map_or(Ok(1024), |text| text.parse::<u64>())? * PIECE;
    let count = arguments.next().map_or(Ok(2), |text| text.parse::<u32>())?;
    let servers = (1..=count)
        .map(|number| start(&Path::new(&directory).join(format!("server-{number}"))))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let chain: Vec<_> = (2u32..)
        .zip(servers.iter().skip(1))
        .map(|(server, it)| pb::ServerAddress { server, address: it.address().to_string() })
        .collect();
    let first = servers.first().context("at least one server")?.address().to_string();
    let mut client = FrameStream::connect(&first, &caller(), TIMEOUT)?.0;
    for round in 0..2u64 {
        let base = 1000 * round;
        measure("write", total, || write_all(&mut client, base, total, &chain))?;
        // Long enough for the server to call the copies at rest, then out of the page cache.
        for server in 1..=count {
            drop_pages(&Path::new(&directory).join(format!("server-{server}")))?;
        }
        measure("read, cold", total, || read_all(&mut client, base, total))?;
        measure("read, warm", total, || read_all(&mut client, base, total))?;
    }
    Ok(())
}

fn start(directory: &Path) -> anyhow::Result<ChunkServer> {
    std::fs::create_dir_all(directory)?;
    let key_file = directory.join("key");
    std::fs::write(&key_file, "42".repeat(32))?;
    let config = Config {
        data: directory.join("data"),
        disks: vec![directory.join("disk")],
        listen: "127.0.0.1:0".into(),
        masters: vec![],
        cluster_id: "01".repeat(16),
        key_file,
        ..Config::default()
    };
    Ok(ChunkServer::start(config)?)
}

fn caller() -> Caller {
    let hello = pb::Hello {
        cluster_id: vec![1; 16].into(),
        protocol_version: PROTOCOL_VERSION,
        role: pb::Role::Client.into(),
        name: "throughput".into(),
        ..Default::default()
    };
    Caller::new(hello, Keyring::derive(&[0x42; 32]).of(Role::Client).clone(), mooseng_env::nonce)
}

fn token(chunk: u64) -> bytes::Bytes {
    let token = Token {
        part: Part::whole(ChunkId::from_raw(chunk)),
        base_version: ChunkVersion::from_raw(1),
        version: ChunkVersion::from_raw(1),
        read: true,
        write: true,
        create: true,
        session: SessionId::from_raw(1),
        expiry_unix_s: u64::MAX,
    };
    TokenKey::new(&[0x42; 32]).sign(&token).to_vec().into()
}

fn measure(what: &str, bytes: u64, body: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    body()?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = bytes as f64 / 1e6 / seconds;
    let cpu = cpu_seconds()? - cpu;
    writeln!(std::io::stdout(), "{what:<12} {rate:7.0} MB/s  {seconds:6.2} s  {cpu:6.2} s of processor")?;
    Ok(())
}

fn cpu_seconds() -> anyhow::Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

fn write_all(
    client: &mut FrameStream,
    base: u64,
    total: u64,
    chain: &[pb::ServerAddress],
) -> anyhow::Result<()> {
    let bytes: Vec<u8> = (0..PIECE).map(|i| (i % 251) as u8).collect();
    let mut in_flight = VecDeque::new();
    for at in (0..total).step_by(PIECE as usize) {
        if in_flight.len() == WRITES_IN_FLIGHT {
            receive_written(client, &mut in_flight)?;
        }
        let (chunk, offset) = (base + 1 + at / CHUNK_SIZE, at % CHUNK_SIZE);
        let request = pb::WriteChunkRequest {
            token: token(chunk),
            chunk,
            version: 1,
            offset: u32::try_from(offset)?,
            checksums: checksum::of_range(Part::whole(ChunkId::from_raw(chunk)), offset, &bytes),
            chain: chain.to_vec(),
            sync: false,
            continues: false,
            exists: false,
            part: 0,
        };
        in_flight.push_back(client.send(&request, &[IoSlice::new(&bytes)], TIMEOUT)?);
    }
    while !in_flight.is_empty() {
        receive_written(client, &mut in_flight)?;
    }
    let syncs = (0..total.div_ceil(CHUNK_SIZE)).map(|index| {
        let chunk = base + 1 + index;
        pb::SyncChunkRequest { token: token(chunk), chunk, version: 1, chain: chain.to_vec(), part: 0 }
    });
    for sync in syncs {
        client.call(&sync, &[], TIMEOUT)?;
    }
    Ok(())
}

/// Takes one answer, whichever comes.
fn receive_written(client: &mut FrameStream, in_flight: &mut VecDeque<u64>) -> anyhow::Result<()> {
    let header = client.reader().receive()?.header;
    anyhow::ensure!(header.flags == FLAG_REPLY, "a write was refused");
    let place = in_flight.iter().position(|id| *id == header.request);
    place.and_then(|place| in_flight.remove(place)).context("an answer to nothing")?;
    Ok(())
}

fn read_all(client: &mut FrameStream, base: u64, total: u64) -> anyhow::Result<()> {
    let mut in_flight = VecDeque::new();
    let mut bytes = vec![0; PIECE as usize];
    for at in (0..total).step_by(PIECE as usize) {
        if in_flight.len() == READS_IN_FLIGHT {
            receive(client, &mut in_flight, &mut bytes)?;
        }
        let chunk = base + 1 + at / CHUNK_SIZE;
        let request = pb::ReadChunkRequest {
            token: token(chunk),
            chunk,
            version: 1,
            offset: u32::try_from(at % CHUNK_SIZE)?,
            length: u32::try_from(PIECE)?,
            verify: false,
            intact: false,
            whole: false,
            part: 0,
        };
        in_flight.push_back((client.send(&request, &[], TIMEOUT)?, chunk));
    }
    while !in_flight.is_empty() {
        receive(client, &mut in_flight, &mut bytes)?;
    }
    Ok(())
}

/// Takes one reply, whichever comes, and verifies it.
fn receive(
    client: &mut FrameStream,
    in_flight: &mut VecDeque<(u64, u64)>,
    bytes: &mut Vec<u8>,
) -> anyhow::Result<()> {
    use prost::Message as _;
    let frame = client.reader().receive()?;
    let place = in_flight.iter().position(|(id, _)| *id == frame.header.request);
    let (_, chunk) = place.and_then(|place| in_flight.remove(place)).context("an answer to nothing")?;
    let reply = pb::ReadChunkReply::decode(frame.body)?;
    bytes.resize(frame.payload_length, 0);
    client.reader().read_payload(bytes)?;
    let intact = checksum::matches(
        Part::whole(ChunkId::from_raw(chunk)),
        reply.offset.into(),
        bytes,
        &reply.checksums,
    );
    anyhow::ensure!(intact && bytes.len() as u64 == PIECE, "bytes do not verify");
    Ok(())
}

fn drop_pages(directory: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            drop_pages(&path)?;
        } else {
            let file = std::fs::File::open(&path)?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
