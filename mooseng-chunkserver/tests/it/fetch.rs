//! Copies that are fetched from another server, many at once, and what the leader hears of those that do not come.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use mooseng_chunkserver::{ChunkServer, Config};
use mooseng_protocol::pb;

use crate::master::Master;
use crate::support::{Server, config, read, start, token, write, write_request};

fn copy(chunk: u64, version: u32, source: &str) -> pb::CopyChunk {
    let (token, source) = (token(chunk, 1, version, false), source.to_owned());
    pb::CopyChunk { chunk, version, source, token, replace: false, part: 0 }
}

/// A server with 12 copies of 300,000 bytes.
fn source() -> Server {
    let source = start(vec![]);
    for chunk in 1..=12 {
        let bytes = vec![chunk as u8; 300_000];
        let request = write_request(&token(chunk, 1, 1, true), chunk, 0, &bytes, &[]);
        write(&mut source.connect(), &request, &bytes).unwrap();
    }
    source
}

#[test]
fn the_leader_hears_at_once_which_copies_do_not_come_and_why() {
    let source = source();
    let data = |disk: &str| source.dir.path().join(disk).join("02/0000000000000002.data");
    let data = ["disk-a", "disk-b"].map(data).into_iter().find(|path| path.exists()).unwrap();
    std::fs::OpenOptions::new().write(true).open(data).unwrap().write_all_at(b"x", 250_000).unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();

    let mut master = Master::new();
    let server = start(vec![master.address()]);
    master.accept();
    master.next_report(3);
    master.push(&copy(1, 1, &source.address()));
    master.push(&copy(2, 1, &source.address()));
    master.push(&copy(3, 2, &source.address()));
    master.push(&copy(4, 1, &nobody));
    master.push(&copy(99, 1, &source.address()));
    let (mut here, mut failed) = (Vec::new(), BTreeMap::new());
    while here.len() + failed.len() < 5 {
        let report = master.next_report(3);
        here.extend(report.chunks.iter().map(|copy| (copy.chunk, copy.verified)));
        failed.extend(report.failed.into_iter().map(|it| (it.chunk, (it.reason(), it.source))));
    }
    assert_eq!(here, [(1, true)]);
    use pb::FetchFailureReason::{Damaged, Older, Other, Unreachable};
    let expected = [
        (2, (Damaged, source.address())),
        (3, (Older, source.address())),
        (4, (Unreachable, nobody)),
        (99, (Other, source.address())),
    ];
    assert_eq!(failed, BTreeMap::from(expected));
    assert!(read(&mut source.connect(), 2, 1, 0, 1).is_err(), "the source has moved it aside");
    for disk in ["disk-a", "disk-b"] {
        let left = std::fs::read_dir(server.dir.path().join(disk).join("incoming")).unwrap().count();
        assert_eq!(left, 0, "nothing is left of what did not come");
    }
    drop(master);
    server.server.stop();
}

#[test]
fn many_copies_come_at_once_within_the_limit_of_bytes() {
    let source = source();
    let mut master = Master::new();
    let dir = tempfile::tempdir().unwrap();
    let config =
        Config { fetches: 3, fetch_bytes_per_s: 1_200_000, ..config(dir.path(), vec![master.address()]) };
    let server = Server { server: ChunkServer::start(config).unwrap(), dir };
    master.accept();
    master.next_report(3);
    let begun = Instant::now();
    // Twice: what is under way already is not fetched again.
    for chunk in (1..=12).chain(1..=12) {
        master.push(&copy(chunk, 1, &source.address()));
    }
    let mut here = BTreeMap::new();
    while here.len() < 12 {
        let report = master.next_report(3);
        assert!(report.failed.is_empty(), "{report:?}");
        here.extend(report.chunks.iter().map(|copy| (copy.chunk, copy.version)));
    }
    // Of 3.6 MB, those of one second were saved up, and the last pieces need no rest behind them.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    for chunk in 1..=12 {
        let got = read(&mut server.connect(), chunk, 1, 0, 300_000).unwrap().1;
        assert!(got.iter().all(|byte| *byte == chunk as u8), "chunk {chunk}");
    }
    drop(master);
    server.server.stop();
}
