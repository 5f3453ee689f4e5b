//! Clients and chains of servers.

use mooseng_chunkserver::ChunkServer;
use mooseng_protocol::frame::FLAG_REPLY;
use mooseng_protocol::pb;
use mooseng_protocol::principal::Role;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::ChunkCause;
use std::io::IoSlice;

use crate::support::{
    SOON, Server, config, fault, hello, pattern, read, read_request, saying, start, token, write,
    write_request,
};

fn chain_of(servers: &[Server]) -> Vec<pb::ServerAddress> {
    let numbered = servers.iter().enumerate().skip(1);
    numbered.map(|(i, s)| pb::ServerAddress { server: i as u32 + 1, address: s.address() }).collect()
}

#[test]
fn what_is_written_down_a_chain_reads_back_from_each_server_and_a_dead_one_is_named() {
    let mut servers: Vec<Server> = (0..3).map(|_| start(vec![])).collect();
    let chain = chain_of(&servers);
    let token_1 = token(7, 1, 1, true);
    let mut client = servers[0].connect();
    let bytes = pattern(3 << 20, 1);
    // Several in flight, out of one connection: they take effect in the order sent.
    let mut ids = Vec::new();
    for (i, piece) in bytes.chunks(1 << 20).enumerate() {
        let request = write_request(&token_1, 7, (i << 20) as u32, piece, &chain);
        ids.push(client.send(&request, &[IoSlice::new(piece)], SOON).unwrap());
    }
    // Answers come in any order.
    while !ids.is_empty() {
        let header = client.reader().receive().unwrap().header;
        assert_eq!(header.flags, FLAG_REPLY);
        ids.retain(|id| *id != header.request);
    }
    let mut synced = write_request(&token_1, 7, 100, b"over", &chain);
    synced.sync = true;
    write(&mut client, &synced, b"over").unwrap();
    let sync =
        pb::SyncChunkRequest { token: token_1.clone(), chunk: 7, version: 1, chain: chain.clone(), part: 0 };
    client.call(&sync, &[], SOON).unwrap();
    let cut = pb::TruncateChunkRequest {
        token: token_1.clone(),
        chunk: 7,
        version: 1,
        length: 2_500_000,
        chain: chain.clone(),
        part: 0,
    };
    client.call(&cut, &[], SOON).unwrap();

    let mut expected = bytes[..2_500_000].to_vec();
    expected[100..104].copy_from_slice(b"over");
    for server in &servers {
        let mut client = server.connect();
        for at in (0..2_500_000u32).step_by(1 << 20) {
            let (reply, got) = read(&mut client, 7, 1, at, 1 << 20).unwrap();
            assert_eq!((reply.copy_length, reply.version, reply.offset), (2_500_000, 1, at));
            let end = expected.len().min(at as usize + (1 << 20));
            assert!(got == expected[at as usize..end]);
        }
        let (reply, got) = read(&mut client, 7, 1, 99, 6).unwrap();
        assert_eq!(reply.offset, 99);
        assert_eq!(got, expected[99..105]);
        assert!(read(&mut client, 7, 1, 3 << 20, 10).unwrap().1.is_empty());
        let stale = read(&mut client, 7, 2, 0, 10).unwrap_err();
        assert_eq!(fault(&stale), Some((0, ChunkCause::Stale)), "{stale}");
    }

    servers[1].server.stop();
    let error = write(&mut client, &write_request(&token_1, 7, 0, b"x", &chain), b"x").unwrap_err();
    assert_eq!(fault(&error), Some((2, ChunkCause::Unreachable)), "{error}");
    // The survivors go on under a new version; the one who was away is stale now.
    let token_2 = token(7, 1, 2, false);
    write(&mut client, &write_request(&token_2, 7, 0, b"go on", &chain[1..]), b"go on").unwrap();
    servers[1].server =
        ChunkServer::start(config(servers[1].dir.path(), vec![])).unwrap_or_else(|e| panic!("{e}"));
    let mut late = servers[1].connect();
    assert_eq!(fault(&read(&mut late, 7, 2, 0, 5).unwrap_err()), Some((0, ChunkCause::Stale)));
    let fenced = write(&mut client, &write_request(&token_1, 7, 0, b"late", &[]), b"late").unwrap_err();
    assert_eq!(fault(&fenced), Some((0, ChunkCause::Fenced)), "{fenced}");
    let mut third = servers[2].connect();
    assert_eq!(read(&mut third, 7, 2, 0, 5).unwrap().1, b"go on");
}

#[test]
fn a_failure_further_down_names_the_server_that_failed_and_the_connection_goes_on() {
    let servers: Vec<Server> = (0..3).map(|_| start(vec![])).collect();
    let chain = chain_of(&servers);
    let mut client = servers[0].connect();
    let token_1 = token(8, 1, 1, true);
    write(&mut client, &write_request(&token_1, 8, 0, b"all", &chain), b"all").unwrap();
    servers[2].server.stop();
    let error = write(&mut client, &write_request(&token_1, 8, 3, b"!", &chain), b"!").unwrap_err();
    assert_eq!(fault(&error), Some((3, ChunkCause::Unreachable)), "{error}");
    // A copy that missed a lease is named as well.
    write(&mut client, &write_request(&token(8, 1, 2, false), 8, 0, b"two", &[]), b"two").unwrap();
    let stale = write_request(&token(8, 2, 3, false), 8, 0, b"tri", &chain[..1]);
    let error = write(&mut client, &stale, b"tri").unwrap_err();
    assert_eq!(fault(&error), Some((2, ChunkCause::Stale)), "{error}");
    // One that has seen a newer lease, too: and it is the lease that is at fault.
    write(&mut servers[1].connect(), &write_request(&token(8, 1, 7, false), 8, 0, b"new", &[]), b"new")
        .unwrap();
    let late = write_request(&token(8, 1, 3, false), 8, 0, b"tri", &chain[..1]);
    let error = write(&mut client, &late, b"tri").unwrap_err();
    assert_eq!(fault(&error), Some((2, ChunkCause::Fenced)), "{error}");
}

#[test]
fn what_is_not_allowed_is_refused_and_the_connection_goes_on() {
    let server = start(vec![]);
    let mut client = server.connect();
    let good = token(1, 1, 1, true);
    let mut forged = good.to_vec();
    forged[8] ^= 1;
    let bytes = [5; 100];
    for (request, expected) in [
        (write_request(&forged.into(), 1, 0, &bytes, &[]), "wrong signature"),
        (write_request(&good, 2, 0, &bytes, &[]), "token is for c1"),
        (pb::WriteChunkRequest { version: 9, ..write_request(&good, 1, 0, &bytes, &[]) }, "does not allow"),
        (write_request(&token(1, 1, 1, false), 1, 0, &bytes, &[]), "no copy here"),
        (
            pb::WriteChunkRequest { checksums: vec![1], ..write_request(&good, 1, 0, &bytes, &[]) },
            "damaged on the way",
        ),
        (write_request(&good, 1, (64 << 20) - 1, &bytes, &[]), "beyond the chunk"),
        (write_request(&good, 1, 0, &bytes, &vec![pb::ServerAddress::default(); 99]), "at most 15"),
    ] {
        let error = write(&mut client, &request, &bytes).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(fault(&read(&mut client, 3, 1, 0, 1).unwrap_err()), Some((0, ChunkCause::NoCopy)));
    write(&mut client, &write_request(&good, 1, 0, &bytes, &[]), &bytes).unwrap();
    assert!(matches!(read(&mut client, 1, 1, 0, 2 << 20), Err(CallError::Rejected { .. })));
    assert_eq!(read(&mut client, 1, 1, 0, 1000).unwrap().1, bytes);

    let foreign = saying(pb::Hello { cluster_id: vec![9; 16].into(), ..hello(Role::Client) });
    let error = FrameStream::connect(&server.address(), &foreign, SOON).unwrap_err();
    assert!(error.to_string().contains("another cluster"), "{error}");
}

#[test]
fn a_stopped_server_has_everything_clean_when_it_starts_again() {
    let mut server = start(vec![]);
    let bytes = pattern(1 << 20, 9);
    {
        let mut client = server.connect();
        for chunk in 1..20u64 {
            let request = write_request(&token(chunk, 1, 1, true), chunk, 0, &bytes, &[]);
            write(&mut client, &request, &bytes).unwrap();
        }
    }
    let busy = ChunkServer::start(config(server.dir.path(), vec![])).unwrap_err();
    assert!(busy.to_string().contains("in use"), "{busy}");
    server.server.stop();
    let used = ["disk-a", "disk-b"].map(|name| {
        let files = walk(&server.dir.path().join(name));
        files.iter().filter(|path| path.extension().is_some_and(|e| e == "data")).count()
    });
    assert_eq!(used[0] + used[1], 19);
    assert!(used[0] > 0 && used[1] > 0, "both disks are used: {used:?}");
    for path in walk(server.dir.path()).iter().filter(|path| path.extension().is_some_and(|e| e == "meta")) {
        assert_eq!(std::fs::read(path).unwrap()[10], 0, "{} is dirty", path.display());
    }
    server.server = ChunkServer::start(config(server.dir.path(), vec![])).unwrap();
    let mut client = server.connect();
    for chunk in 1..20u64 {
        assert!(read(&mut client, chunk, 1, 0, 1 << 20).unwrap().1 == bytes);
    }
}

#[test]
fn a_client_that_takes_nothing_holds_up_nobody_else() {
    let server = start(vec![]);
    let bytes = pattern(1 << 20, 4);
    let mut good = server.connect();
    write(&mut good, &write_request(&token(5, 1, 1, true), 5, 0, &bytes, &[]), &bytes).unwrap();
    let mut slow: Vec<FrameStream> = (0..3).map(|_| server.connect()).collect();
    let request = read_request(5, 1, 0, 1 << 20);
    for stream in &mut slow {
        for _ in 0..100 {
            stream.send(&request, &[], SOON).unwrap();
        }
    }
    for _ in 0..50 {
        // Below the time after which a server gives up a receiver.
        let reply = good.call(&request, &[], std::time::Duration::from_secs(5)).unwrap();
        assert_eq!(reply.copy_length, 1 << 20);
    }
    // Neither does it hold up the writer: the copy is hot, its readers get it from memory.
    write(&mut good, &write_request(&token(5, 1, 1, true), 5, 0, b"new", &[]), b"new").unwrap();
    for stream in slow {
        let (reader, writer) = stream.split();
        writer.socket().shutdown(std::net::Shutdown::Both).unwrap();
        drop(reader);
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn an_empty_write_makes_every_copy_of_a_chain_take_on_the_leases_version() {
    let servers: Vec<Server> = (0..2).map(|_| start(vec![])).collect();
    let chain = chain_of(&servers);
    let mut client = servers[0].connect();
    let first = token(7, 1, 1, true);
    write(&mut client, &write_request(&first, 7, 0, b"content", &chain), b"content").unwrap();
    let second = token(7, 1, 2, false);
    let mut empty = write_request(&second, 7, 0, b"", &chain);
    empty.version = 2;
    empty.sync = true;
    write(&mut client, &empty, b"").unwrap();
    for server in &servers {
        let (reply, got) = read(&mut server.connect(), 7, 2, 0, 100).unwrap();
        assert_eq!((reply.version, &got[..]), (2, &b"content"[..]));
    }
}
