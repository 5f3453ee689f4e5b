//! A few masters on the loopback interface, and a client that sends every request until somebody answers.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mooseng_env::{Clock, SystemClock, Threads};
use mooseng_master::config::{Config, Peer};
use mooseng_master::server::{Ended, Inbox, Server};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::ClusterId;
use mooseng_types::level::SUPPORTED;

const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);
const CLUSTER_KEY: [u8; 32] = [7; 32];
const LIMIT: Duration = Duration::from_secs(20);

struct Running {
    inbox: Arc<Inbox>,
    thread: JoinHandle<std::io::Result<Ended>>,
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    peers: Vec<Peer>,
    /// Groups that each master hosts.
    pub(crate) cells: u16,
    running: BTreeMap<u64, Running>,
}

impl World {
    pub(crate) fn new(count: u64) -> Self {
        Self::with_cells(count, 1)
    }

    pub(crate) fn with_cells(count: u64, cells: u16) -> Self {
        // Reserved one after the other and released together, so that no two are the same.
        let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let peer = |(id, listener): (u64, &TcpListener)| Peer {
            id,
            name: format!("master-{id}"),
            address: listener.local_addr().unwrap().to_string(),
        };
        let peers = (1..).zip(&held).map(peer).collect();
        drop(held);
        let mut world = Self { dir: tempfile::tempdir().unwrap(), peers, cells, running: BTreeMap::new() };
        (1..=count).for_each(|id| world.start(id));
        world
    }

    /// Starts one more master, which asks to be let in.
    pub(crate) fn start_another(&mut self) -> u64 {
        let id = self.peers.last().unwrap().id + 1;
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        self.peers.push(Peer { id, name: format!("master-{id}"), address });
        self.start(id);
        id
    }

    pub(crate) fn data(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("master-{id}"))
    }

    /// A stopped master loses its disk.
    pub(crate) fn wipe(&self, id: u64) {
        std::fs::remove_dir_all(self.data(id)).unwrap();
    }

    pub(crate) fn config(&self, id: u64) -> Config {
        let data = self.data(id);
        std::fs::create_dir_all(&data).unwrap();
        Config {
            name: format!("master-{id}"),
            number: u16::try_from(id).unwrap(),
            data,
            listen: self.peers.iter().find(|peer| peer.id == id).unwrap().address.clone(),
            grpc_listen: None,
            cluster: CLUSTER,
            secret: mooseng_env::secret::Secret::take(&mut CLUSTER_KEY.clone()),
            peers: self.peers.clone(),
            copies: 2,
            heartbeat: Duration::from_millis(50),
            election: Duration::from_millis(250),
            session_timeout: Duration::from_secs(30),
            repair: mooseng_master::desk::Limits::default(),
            cache_bytes: 1 << 20,
            log_keep_bytes: 4 << 10,
            levels: SUPPORTED,
            cells: self.cells,
            json_logs: false,
        }
    }

    pub(crate) fn start(&mut self, id: u64) {
        self.try_start(id).unwrap();
    }

    pub(crate) fn try_start(&mut self, id: u64) -> anyhow::Result<()> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let threads = Arc::new(Threads::default());
        let server = Server::open(&self.config(id), clock, &threads)?;
        let inbox = server.inbox();
        let thread = std::thread::spawn(move || {
            let served = server.run();
            threads.join();
            served
        });
        self.running.insert(id, Running { inbox, thread });
        Ok(())
    }

    pub(crate) fn stop(&mut self, id: u64) {
        let running = self.running.remove(&id).unwrap();
        running.inbox.stop();
        running.thread.join().unwrap().unwrap();
    }

    /// Waits until a master finds that its log lacks what it had acknowledged.
    pub(crate) fn loses_its_log(&mut self, id: u64) {
        let running = self.running.remove(&id).unwrap();
        assert_eq!(running.thread.join().unwrap().unwrap(), Ended::LostLog);
    }

    /// Waits until a master ends by itself; returns why.
    pub(crate) fn end_of(&mut self, id: u64) -> std::io::Error {
        self.running.remove(&id).unwrap().thread.join().unwrap().unwrap_err()
    }

    pub(crate) fn address(&self, id: u64) -> String {
        self.peers.iter().find(|peer| peer.id == id).unwrap().address.clone()
    }

    /// Waits for something that the masters do by themselves.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < LIMIT, "{what}");
            SystemClock::default().sleep(Duration::from_millis(20));
        }
    }

    /// A client that asks this master only.
    pub(crate) fn client_of(&self, id: u64) -> Client {
        Client { addresses: vec![self.address(id)], id: 1, links: BTreeMap::new() }
    }

    pub(crate) fn client(&self) -> Client {
        Client {
            addresses: self.peers.iter().map(|peer| peer.address.clone()).collect(),
            id: 1,
            links: BTreeMap::new(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left: Vec<u64> = self.running.keys().copied().collect();
        left.into_iter().for_each(|id| self.stop(id));
    }
}

/// Of a test that speaks in this role.
pub(crate) fn hello(role: Role) -> pb::Hello {
    let hello = pb::Hello::new(role.into(), "test", Some(CLUSTER), SUPPORTED);
    pb::Hello { client_id: vec![1; 16].into(), ..hello }
}

/// One that says this, and has the key of its role.
pub(crate) fn saying(hello: pb::Hello) -> Caller {
    let role = Role::said(hello.role()).unwrap();
    Caller::new(hello, Keyring::derive(&CLUSTER_KEY).of(role).clone(), mooseng_env::nonce)
}

pub(crate) fn caller(role: Role) -> Caller {
    saying(hello(role))
}

/// Sends each request in a role that may.
pub(crate) struct Client {
    addresses: Vec<String>,
    /// The id of its sessions, repeated.
    id: u8,
    links: BTreeMap<Role, Link>,
}

/// The connection of one role, to the master that answered last.
#[derive(Default)]
struct Link {
    next: usize,
    stream: Option<FrameStream>,
}

impl Client {
    /// Is another client from now on.
    pub(crate) fn become_client(&mut self, id: u8) {
        if std::mem::replace(&mut self.id, id) != id {
            self.links.remove(&Role::Client);
        }
    }

    /// Sends `request` until it is answered, by whichever master.
    pub(crate) fn call<R: Rpc>(&mut self, request: &R) -> Result<R::Reply, CallError> {
        let start = Instant::now();
        loop {
            let error = match self.try_call(request) {
                Err(error) if error.is_retryable() => error,
                other => return other,
            };
            assert!(start.elapsed() < LIMIT, "no master answers: {error}");
            if !matches!(error, CallError::Unavailable { .. }) {
                let link = self.links.entry(R::SENDERS[0]).or_default();
                link.stream = None;
                link.next += 1;
            }
            // Between two tries there is nothing to wait for but time.
            SystemClock::default().sleep(Duration::from_millis(5));
        }
    }

    fn try_call<R: Rpc>(&mut self, request: &R) -> Result<R::Reply, CallError> {
        let second = Duration::from_secs(1);
        let link = self.links.entry(R::SENDERS[0]).or_default();
        if link.stream.is_none() {
            let address = &self.addresses[link.next % self.addresses.len()];
            let hello = pb::Hello { client_id: vec![self.id; 16].into(), ..hello(R::SENDERS[0]) };
            link.stream = Some(FrameStream::connect(address, &saying(hello), second)?.0);
        }
        link.stream.as_mut().unwrap().call(request, &[], second)
    }

    /// Asks the leader until `enough`.
    pub(crate) fn wait_for(&mut self, what: &str, enough: impl Fn(&pb::ClusterStatusReply) -> bool) {
        let start = Instant::now();
        loop {
            self.call(&pb::StatFsRequest {}).unwrap();
            let status = self.call(&pb::ClusterStatusRequest {}).unwrap();
            if enough(&status) {
                return;
            }
            assert!(start.elapsed() < LIMIT, "{what}: {status:?}");
            SystemClock::default().sleep(Duration::from_millis(20));
        }
    }

    /// The number of the master that leads now.
    pub(crate) fn leader(&mut self) -> u64 {
        self.call(&pb::StatFsRequest {}).unwrap();
        let status = self.call(&pb::ClusterStatusRequest {}).unwrap();
        status.masters.iter().find(|master| master.role == "leader").unwrap().id
    }
}
