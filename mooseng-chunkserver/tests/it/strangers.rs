//! Those who do not belong to the cluster, and those who do and ask for what is not theirs.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mooseng_protocol::handshake::{Caller, HANDSHAKE_MAX};
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;

use crate::support::{SOON, caller, hello, read, start, token, write, write_request};

/// What a busy machine may take beyond a limit.
const SLACK: Duration = Duration::from_secs(4);

#[test]
fn a_stranger_is_refused_counted_and_told_nothing_else() {
    let server = start(vec![]);
    let keys = Keyring::derive(&[8; 32]);
    for role in Role::ALL {
        let stranger = Caller::new(hello(role), keys.of(role).clone(), mooseng_env::nonce);
        let begun = Instant::now();
        let error = FrameStream::connect(&server.address(), &stranger, SOON).unwrap_err();
        assert!(matches!(&error, CallError::Rejected { message } if message.contains("key_file")), "{error}");
        assert!(begun.elapsed() < HANDSHAKE_MAX + SLACK);
    }
    let mut silent = TcpStream::connect(server.address()).unwrap();
    let mut garbage = TcpStream::connect(server.address()).unwrap();
    garbage.write_all(&[b'x'; 4096]).unwrap();
    let begun = Instant::now();
    for socket in [&mut garbage, &mut silent] {
        socket.set_read_timeout(Some(SOON)).unwrap();
        assert!(matches!(socket.read(&mut [0; 100]), Ok(0) | Err(_)));
    }
    assert!(begun.elapsed() < HANDSHAKE_MAX + SLACK, "{:?}", begun.elapsed());
    server.server.stop();
    assert_eq!(server.server.door().snapshot().strangers, 6);
}

#[test]
fn only_clients_and_chunkservers_speak_of_chunks_and_the_connection_of_others_goes_on() {
    let server = start(vec![]);
    let request = write_request(&token(1, 1, 1, true), 1, 0, b"x", &[]);
    for role in [Role::Master, Role::Admin] {
        let mut stream = FrameStream::connect(&server.address(), &caller(role), SOON).unwrap().0;
        for _ in 0..2 {
            let error = stream.call(&request, &[IoSlice::new(b"x")], SOON).unwrap_err();
            assert!(matches!(error, CallError::Forbidden { role: refused, kind: 0x401 } if refused == role));
        }
    }
    assert_eq!(server.server.door().snapshot().forbidden, 4);
    for role in [Role::Client, Role::Chunkserver] {
        let mut stream = FrameStream::connect(&server.address(), &caller(role), SOON).unwrap().0;
        write(&mut stream, &request, b"x").unwrap();
        assert_eq!(read(&mut stream, 1, 1, 0, 1).unwrap().1, b"x");
        // A chunkserver is nobody's master.
        let error = stream.call(&pb::DeleteChunks { chunks: vec![1], parts: vec![] }, &[], SOON).unwrap_err();
        assert!(matches!(error, CallError::Forbidden { .. }), "{error}");
    }
}

#[test]
fn strangers_without_end_keep_nobody_from_connecting() {
    let server = start(vec![]);
    let crowd: Vec<_> = (0..400).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    let mut client = server.connect();
    let request = write_request(&token(1, 1, 1, true), 1, 0, b"x", &[]);
    write(&mut client, &request, b"x").unwrap();
    drop(crowd);
}
