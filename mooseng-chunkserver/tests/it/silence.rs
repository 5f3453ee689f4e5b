//! Servers that hang, and servers that are only slow.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mooseng_protocol::frame::{FLAG_REPLY, Header};
use mooseng_protocol::pb;
use mooseng_protocol::transport::{FrameStream, Socket};
use mooseng_types::ChunkCause;

use crate::support::{cluster, fault, keys, pattern, start, token, write, write_request};

/// A next server of a chain that hangs when it is told to; else it answers everything `delay_ms` late.
struct Next {
    address: String,
    hangs: Arc<AtomicBool>,
    delay_ms: Arc<AtomicU64>,
}

impl Next {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (hangs, delay_ms) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (for_thread, delay) = (Arc::clone(&hangs), Arc::clone(&delay_ms));
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok((socket, _)) = listener.accept() {
                if for_thread.load(Ordering::Relaxed) {
                    // As the kernel does it for a process that is stopped.
                    kept.push(socket);
                    continue;
                }
                let (hangs, delay) = (Arc::clone(&for_thread), Arc::clone(&delay));
                let stream = FrameStream::new(Socket::accepted(socket)).unwrap();
                std::thread::spawn(move || answer(stream, &hangs, &delay));
            }
        });
        Self { address, hangs, delay_ms }
    }

    fn chain(&self) -> Vec<pb::ServerAddress> {
        vec![pb::ServerAddress { server: 2, address: self.address.clone() }]
    }
}

fn answer(mut stream: FrameStream, hangs: &AtomicBool, delay_ms: &AtomicU64) {
    let hello = pb::HelloReply { cluster_id: cluster().into(), ..Default::default() };
    if stream.welcome(&keys(), mooseng_env::nonce(), |_| Ok(hello)).is_err() {
        return;
    }
    while let Ok(frame) = stream.reader().receive() {
        while hangs.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let header = Header { flags: FLAG_REPLY, deadline_ms: 0, ..frame.header };
        let until = Instant::now() + Duration::from_millis(delay_ms.load(Ordering::Relaxed));
        while Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        if stream.writer().send(header, &pb::SyncChunkReply {}, &[]).is_err() {
            return;
        }
    }
}

#[test]
fn a_server_that_hangs_is_named_well_before_the_client_gives_up_and_the_one_before_it_is_not() {
    let (first, next) = (start(vec![]), Next::start());
    let lease = token(7, 1, 1, true);
    let mut client = first.connect();
    write(&mut client, &write_request(&lease, 7, 0, b"x", &next.chain()), b"x").unwrap();
    next.hangs.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    // More than the sockets between the two hold: the server is stuck in sending, too.
    let bytes = pattern(1 << 20, 3);
    let mut streams: Vec<_> = (0..12).map(|_| first.connect()).collect();
    let errors: Vec<_> = std::thread::scope(|scope| {
        let (lease, chain, bytes) = (&lease, next.chain(), &bytes);
        let writes: Vec<_> = streams
            .iter_mut()
            .map(|stream| {
                let request = write_request(lease, 7, 0, bytes, &chain);
                scope.spawn(move || write(stream, &request, bytes).unwrap_err())
            })
            .collect();
        writes.into_iter().map(|write| write.join().unwrap()).collect()
    });
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "the client waits for 10 s: {took:?}");
    assert!(errors.iter().any(|error| fault(error) == Some((2, ChunkCause::Silent))));
    for error in &errors {
        let (server, cause) = fault(error).unwrap();
        assert_eq!(server, 2, "{error}");
        assert!(matches!(cause, ChunkCause::Silent | ChunkCause::Unreachable), "{error}");
    }
    // It goes on, and so does the chain.
    next.hangs.store(false, Ordering::Relaxed);
    for _ in 0..50 {
        if write(&mut client, &write_request(&lease, 7, 0, b"y", &next.chain()), b"y").is_ok() {
            return;
        }
    }
    panic!("the next server is not tried again");
}

#[test]
fn a_server_that_is_slow_to_sync_is_not_called_silent() {
    let (first, next) = (start(vec![]), Next::start());
    let lease = token(7, 1, 1, true);
    let mut client = first.connect();
    write(&mut client, &write_request(&lease, 7, 0, b"x", &next.chain()), b"x").unwrap();
    next.delay_ms.store(5000, Ordering::Relaxed);
    let sync = pb::SyncChunkRequest { token: lease, chunk: 7, version: 1, chain: next.chain(), part: 0 };
    client.call(&sync, &[], crate::support::SOON).unwrap();
}
