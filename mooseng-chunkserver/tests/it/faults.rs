//! Trouble with peers and files, as a client sees it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mooseng_protocol::pb;
use mooseng_types::ChunkCause;

use crate::support::{SOON, Server, fault, pattern, read, read_request, start, token, write, write_request};

/// Time after which a written copy is sent from its file.
const COOL: Duration = Duration::from_millis(1100);

fn cool_down() {
    let begun = Instant::now();
    while begun.elapsed() < COOL {
        std::thread::park_timeout(COOL);
    }
}

/// A server with a copy of chunk 5 that is sent from its file, and the file.
fn server_with_copy(bytes: &[u8]) -> (Server, PathBuf) {
    let server = start(vec![]);
    write(&mut server.connect(), &write_request(&token(5, 1, 1, true), 5, 0, bytes, &[]), bytes).unwrap();
    cool_down();
    let paths =
        ["disk-a", "disk-b"].map(|disk| server.dir.path().join(disk).join("05/0000000000000005.data"));
    let path = paths.into_iter().find(|path| path.exists()).unwrap();
    (server, path)
}

fn verified(server: &Server) -> Option<(u32, ChunkCause)> {
    let request = pb::ReadChunkRequest { verify: true, ..read_request(5, 1, 0, 1 << 20) };
    server.connect().call(&request, &[], SOON).err().and_then(|error| fault(&error))
}

#[test]
fn a_file_that_became_too_short_ends_the_copy_also_where_no_byte_passes_the_server() {
    let (server, path) = server_with_copy(&pattern(1 << 20, 1));
    assert!(read(&mut server.connect(), 5, 1, 0, 1 << 20).is_ok());
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
    assert!(read(&mut server.connect(), 5, 1, 0, 1 << 20).is_err(), "half a reply cannot be taken back");
    let begun = Instant::now();
    loop {
        let error = read(&mut server.connect(), 5, 1, 0, 1 << 20).unwrap_err();
        if fault(&error) == Some((0, ChunkCause::Damaged)) {
            return;
        }
        assert!(begun.elapsed() < SOON, "{error}");
    }
}

#[test]
fn damage_that_a_reader_found_is_found_by_the_server_when_it_is_asked_to_verify() {
    let (server, path) = server_with_copy(&pattern(1 << 20, 1));
    assert_eq!(verified(&server), None);
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"rot", 500_000).unwrap();
    assert_eq!(verified(&server), Some((0, ChunkCause::Damaged)));
    let after = read(&mut server.connect(), 5, 1, 0, 10).unwrap_err();
    assert_eq!(fault(&after), Some((0, ChunkCause::Damaged)));
    let made = write_request(&token(5, 1, 1, true), 5, 0, b"again", &[]);
    let made = write(&mut server.connect(), &made, b"again").unwrap_err();
    assert_eq!(fault(&made), Some((0, ChunkCause::Damaged)), "never made again");
}

#[test]
fn bytes_that_a_reader_has_not_taken_do_not_change_under_it_and_the_writer_is_told_to_come_again() {
    let bytes = pattern(1 << 20, 1);
    let (server, _) = server_with_copy(&bytes);
    let mut reader = server.connect();
    let request = read_request(5, 1, 0, 1 << 20);
    // More than the sockets hold, so that the last replies stay with the server.
    let ids: Vec<u64> = (0..4).map(|_| reader.send(&request, &[], SOON).unwrap()).collect();
    let mut writer = server.connect();
    let change = write_request(&token(5, 1, 1, true), 5, 0, b"new", &[]);
    let busy = write(&mut writer, &change, b"new").err();
    for id in ids {
        let reply = reader.receive_reply::<pb::ReadChunkRequest>(id, SOON);
        let Ok(reply) = reply else { break };
        let mut got = vec![0; reader.reader().payload_left()];
        reader.reader().read_payload(&mut got).unwrap();
        let chunk = mooseng_types::Part::whole(mooseng_types::ChunkId::from_raw(5));
        assert!(
            mooseng_protocol::checksum::matches(chunk, reply.offset.into(), &got, &reply.checksums),
            "it changed on its way"
        );
    }
    if let Some(error) = busy {
        assert_eq!(fault(&error), Some((0, ChunkCause::Busy)), "{error}");
        let begun = Instant::now();
        while let Err(error) = write(&mut writer, &change, b"new") {
            assert!(begun.elapsed() < SOON, "{error}");
        }
    }
}

#[test]
fn a_peer_that_trickles_its_hello_is_cut_off() {
    let server = start(vec![]);
    let mut peer = TcpStream::connect(server.address()).unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let begun = Instant::now();
    let mut byte = [0];
    // The first bytes of a frame, one in a while.
    for header in b"\x4d\x4e\x47\x31".iter().chain(&[1; 16]) {
        if peer.write_all(&[*header]).is_err() || matches!(peer.read(&mut byte), Ok(0)) {
            break;
        }
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(9), "{took:?}");
}
