//! The chunkserver put together: started in order, stopped in the reverse one.

use std::collections::{HashMap, VecDeque};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_env::daemon::{DirLock, raise_open_files};
use mooseng_env::{Clock, Disk, FsDisk, SystemClock, SystemEntropy, Threads, nonce};
use mooseng_protocol::door::Door;
use mooseng_protocol::frame::{FLAG_ERROR, FLAG_REPLY, Header};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::token::TokenKey;
use mooseng_protocol::transport::{FrameStream, Socket};
use mooseng_types::{ChunkCause, ClusterId};

use crate::completion::fault;
use crate::config::Config;
use crate::connection::{Service, serve};
use crate::copy_events::CopyEvents;
use crate::epoch::Epoch;
use crate::fetcher::Fetcher;
use crate::housekeeping::keep_house;
use crate::identity::Identity;
use crate::io_pool::IoPool;
use crate::keeper::Keepers;
use crate::master_link::{self, LinkContext};
use crate::orders::Orders;
use crate::start::StartError;
use crate::store::Store;
use crate::talk::{Place, Teller};
use crate::write_chain::WriteChain;

/// Connections served at once; each has a thread.
const CONNECTIONS_MAX: usize = 1024;
/// Connections on which nobody has proved a role yet; one more costs the oldest its place. An honest caller is done within
/// milliseconds, so strangers would have to open this many in that time to be in its way.
const STRANGERS_MAX: usize = 256;
/// Time between two looks at what is due from the servers behind this one.
const CHAIN_ROUND: Duration = Duration::from_millis(250);
/// A connection too many has this long to say what it is, so that it can be told.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(200);

/// A running chunkserver. Dropping it stops it.
#[derive(Debug)]
pub struct ChunkServer {
    service: Arc<Service>,
    events: Arc<CopyEvents>,
    fetcher: Arc<Fetcher>,
    connections: Arc<Connections>,
    listener: Arc<TcpListener>,
    address: SocketAddr,
    threads: Threads,
    stopped: AtomicBool,
    /// The locks of the directories; let go by a stop.
    held: Mutex<Option<(Identity, Vec<DirLock>)>>,
}

#[derive(Debug, Default)]
struct Connections {
    open: Mutex<Open>,
    next: AtomicU64,
    stopping: AtomicBool,
    threads: Threads,
}

/// The connections that are open.
#[derive(Debug, Default)]
struct Open {
    sockets: HashMap<u64, Arc<Socket>>,
    /// Those on which nobody has proved yet who it is, from the oldest.
    strangers: VecDeque<u64>,
}

impl ChunkServer {
    /// Starts a chunkserver. It serves when this returns; masters are looked for in the background.
    pub fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let secret = config.read_key()?;
        let keys = Keyring::derive(secret.bytes());
        let disk: Arc<dyn Disk> = Arc::new(FsDisk);
        let identity =
            Identity::load(&*disk, &SystemEntropy, &config.data, ClusterId::parse(&config.cluster_id))?;
        let epoch = Epoch::load(Arc::clone(&disk), &config.data)?;
        let locks = config.disks.iter().map(|root| identity.claim_disk(&*disk, &SystemEntropy, root));
        let disk_locks = locks.collect::<Result<Vec<_>, _>>()?;
        let listener = listen(&config.listen)?;
        let address = listener.local_addr().map_err(StartError::io("ask for the listening address"))?;
        raise_open_files();

        let events = Arc::<CopyEvents>::default();
        let disks = config.disks.iter().map(|root| (Arc::clone(&disk), root.clone())).collect();
        let store = Store::open(disks, identity.cluster, config.reserve_bytes, Arc::clone(&events));
        let store = Arc::new(store.map_err(StartError::io("open the disks"))?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let levels = config.levels()?;
        let hello = pb::Hello::new(pb::Role::Chunkserver, &config.name, Some(identity.cluster), levels);
        let caller = Caller::new(hello, keys.of(Role::Chunkserver).clone(), nonce);
        let pools = start_pools(&config)?;
        let keepers = Arc::new(Keepers::new(&store, config.scrub_period()));
        let service = Arc::new(Service {
            store,
            events: Arc::clone(&events),
            keepers: Arc::clone(&keepers),
            pools,
            chain: WriteChain::new(caller.clone(), Arc::clone(&clock)),
            key: TokenKey::new(secret.bytes()),
            keys,
            clock,
            greeting: pb::HelloReply::new(&config.name, identity.cluster, levels),
            door: Arc::default(),
        });
        let fetcher =
            Fetcher::new(Arc::clone(&service), caller.clone(), config.fetches, config.fetch_bytes_per_s);
        let context = Arc::new(LinkContext {
            teller: Teller {
                store: Arc::clone(&service.store),
                events: Arc::clone(&events),
                keepers,
                uuid: identity.uuid.bytes(),
                name: config.name.clone(),
                place: Place::of(&config),
                address: config.advertised(address),
                number: AtomicU32::new(0),
                door: Arc::clone(&service.door),
            },
            orders: Orders::new(Arc::clone(&service), Arc::clone(&fetcher)),
            caller,
            heartbeat: Duration::from_millis(config.heartbeat_ms),
            configured: config.masters.iter().cloned().collect(),
            told: Mutex::default(),
            epoch,
        });
        let server = Self {
            service,
            events,
            fetcher,
            connections: Arc::default(),
            listener: Arc::new(listener),
            address,
            threads: Threads::default(),
            stopped: AtomicBool::new(false),
            held: Mutex::new(Some((identity, disk_locks))),
        };
        server.spawn_all(&context, config.fetches).map_err(StartError::io("start threads"))?;
        tracing::info!(name = config.name, %address, copies = server.service.store.list().len(), "serving");
        Ok(server)
    }

    /// What has passed its door, and what was turned away, since it was started.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.service.door
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops in order: takes no more requests, finishes what is at work, makes every copy clean and durable. A second
    /// call does nothing.
    pub fn stop(&self) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        self.connections.stop(&self.listener);
        self.fetcher.stop();
        self.events.stop();
        self.threads.join();
        self.service.chain.close();
        for pool in &self.service.pools {
            pool.stop();
        }
        self.fetcher.clear();
        let now = self.service.clock.monotonic();
        self.service.store.close(now);
        for keeper in self.service.keepers.iter() {
            keeper.save(&self.service.store, now, true);
        }
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).take());
        tracing::info!("stopped");
    }

    fn spawn_all(&self, context: &Arc<LinkContext>, fetches: usize) -> std::io::Result<()> {
        let (service, connections) = (Arc::clone(&self.service), Arc::clone(&self.connections));
        let listener = Arc::clone(&self.listener);
        self.threads.spawn("accept", move || accept(&service, &connections, &listener))?;
        let (service, events) = (Arc::clone(&self.service), Arc::clone(&self.events));
        self.threads.spawn("housekeeping", move || keep_house(&service, &events))?;
        let (service, events) = (Arc::clone(&self.service), Arc::clone(&self.events));
        self.threads.spawn("chain", move || {
            while !events.stopping() {
                service.chain.look_after();
                events.wait_for_stop(CHAIN_ROUND);
            }
        })?;
        for _ in 0..fetches {
            let fetcher = Arc::clone(&self.fetcher);
            self.threads.spawn("fetch", move || fetcher.work())?;
        }
        let context = Arc::clone(context);
        self.threads.spawn("master-links", move || master_link::keep_links(&context))
    }
}

impl Drop for ChunkServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start_pools(config: &Config) -> Result<Vec<IoPool>, StartError> {
    (0..config.disks.len())
        .map(|number| IoPool::start(&format!("disk{number}"), config.io_threads_per_disk))
        .collect::<Result<_, _>>()
        .map_err(StartError::io("start the disks' threads"))
}

fn listen(address: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|error| {
        StartError::named(format!(
            "listen: {address}: {error}: stop what uses the port, or choose another address"
        ))
    })
}

fn accept(service: &Arc<Service>, connections: &Arc<Connections>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        if connections.stopping.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((socket, _)) => connections.begin(service, Arc::new(Socket::accepted(socket))),
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                // Out of descriptors, most likely: trying at once would only use up the processor.
                service.clock.sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Connections {
    fn begin(self: &Arc<Self>, service: &Arc<Service>, socket: Arc<Socket>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = self.lock();
            if open.sockets.len() >= CONNECTIONS_MAX {
                drop(open);
                return refuse(&service.door, socket);
            }
            open.sockets.insert(id, Arc::clone(&socket));
            open.strangers.push_back(id);
            if open.strangers.len() > STRANGERS_MAX
                && let Some(oldest) = open.strangers.pop_front()
                && let Some(socket) = open.sockets.get(&oldest)
            {
                // An error means that the connection has ended already.
                drop(socket.shutdown(Shutdown::Both));
            }
        }
        let (this, service) = (Arc::clone(self), Arc::clone(service));
        let spawned = self.threads.spawn("connection", move || {
            serve(&service, socket, || this.is_known(id));
            this.remove(id);
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a connection, it is closed");
            self.remove(id);
        }
    }

    fn is_known(&self, id: u64) {
        self.lock().strangers.retain(|stranger| *stranger != id);
    }

    fn remove(&self, id: u64) {
        let mut open = self.lock();
        open.sockets.remove(&id);
        open.strangers.retain(|stranger| *stranger != id);
    }

    /// Takes no more connections and no more requests, and waits until those at work are done.
    fn stop(&self, listener: &TcpListener) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the accepting thread: on Linux a listener that is shut down refuses to wait.
        if let Err(error) = rustix::net::shutdown(listener, rustix::net::Shutdown::Both) {
            tracing::warn!(%error, "the listener does not close");
        }
        for socket in self.lock().sockets.values() {
            // An error means that the connection has ended already.
            drop(socket.shutdown(Shutdown::Read));
        }
        self.threads.join();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers the hello of a connection too many, so that the other side knows why.
fn refuse(door: &Door, socket: Arc<Socket>) {
    let Ok(mut stream) = FrameStream::new(socket) else { return };
    door.refused().stranger(&stream.reader().peer(), &"too many connections are open");
    let Ok(frame) = stream.reader().receive_within(REFUSAL_TIMEOUT) else { return };
    let message = format!("the server has {CONNECTIONS_MAX} connections, its limit");
    let header = Header { flags: FLAG_REPLY | FLAG_ERROR, ..frame.header };
    // The other side may have gone; nothing is lost by it.
    drop(stream.writer().send(header, &fault(ChunkCause::Busy, message).to_reply(), &[]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use mooseng_protocol::principal::PrincipalKey;
    use mooseng_protocol::status::CallError;

    #[test]
    fn a_connection_too_many_is_told_to_come_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let socket = Socket::accepted(listener.accept().unwrap().0);
            refuse(&Door::default(), Arc::new(socket));
        });
        let caller = Caller::new(pb::Hello::default(), PrincipalKey::new(&[7; 32]), nonce);
        let refused = FrameStream::connect(&address, &caller, Duration::from_secs(5)).unwrap_err();
        assert!(
            matches!(refused, CallError::Chunk { server: None, cause: ChunkCause::Busy, .. }),
            "{refused}"
        );
        server.join().unwrap();
    }
}
