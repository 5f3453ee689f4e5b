//! The way to the leader beside masters of straw: real sockets, and answers by rule.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use mooseng_env::{SystemClock, SystemEntropy, nonce};
use mooseng_protocol::frame::{FLAG_ERROR, FLAG_REPLY, Header};
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_protocol::transport::{FrameStream, Mux, Socket};

use super::*;

/// Far above what any of it takes, far below the time-outs that a caller must not wait for.
const CLUSTER_KEY: [u8; 32] = [7; 32];
const SOON: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Leads,
    /// Names nobody.
    Follows,
    /// Takes requests and says nothing.
    Frozen,
}

/// A master that answers by a rule; gone when dropped.
struct Straw {
    address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    rule: Mutex<Rule>,
    open: Mutex<Vec<Arc<Socket>>>,
    stopped: std::sync::atomic::AtomicBool,
    asked: SyncSender<u16>,
}

impl Straw {
    /// Also what tells the kind of each request that comes.
    fn start(rule: Rule) -> (Self, Receiver<u16>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, heard) = sync_channel(1000);
        let shared =
            Arc::new(Shared { rule: Mutex::new(rule), open: Mutex::default(), stopped: false.into(), asked });
        let told = Arc::clone(&shared);
        let thread = std::thread::spawn(move || accept(&listener, &told));
        (Self { address, shared, thread: Some(thread) }, heard)
    }

    fn set(&self, rule: Rule) {
        *lock(&self.shared.rule) = rule;
    }
}

impl Drop for Straw {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(&self.address));
        lock(&self.shared.open).drain(..).for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    for socket in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            break;
        }
        let socket = Arc::new(Socket::accepted(socket.unwrap()));
        lock(&shared.open).push(Arc::clone(&socket));
        let shared = Arc::clone(shared);
        threads.push(std::thread::spawn(move || serve(socket, &shared)));
    }
    lock(&shared.open).drain(..).for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn serve(socket: Arc<Socket>, shared: &Shared) {
    let mut stream = FrameStream::new(socket).unwrap();
    shared.asked.try_send(pb::Hello::KIND).ok();
    if *lock(&shared.rule) == Rule::Frozen {
        // Until the other side has had enough.
        drop(stream.reader().receive().and_then(|_| stream.reader().receive()));
        return;
    }
    let keys = Keyring::derive(&CLUSTER_KEY);
    if stream.welcome(&keys, nonce(), |_| Ok(pb::HelloReply::default())).is_err() {
        return;
    }
    let (mut reader, mut writer) = stream.split();
    while let Ok(frame) = reader.receive() {
        shared.asked.try_send(frame.header.kind).ok();
        let rule = *lock(&shared.rule);
        let header = Header { flags: FLAG_REPLY, ..frame.header };
        let sent = match (rule, frame.header.kind) {
            (Rule::Frozen, _) => continue,
            (Rule::Leads, pb::OpenSessionRequest::KIND) => {
                let reply = pb::OpenSessionReply { session: 7, timeout_ms: 10_000, copies: 2 };
                writer.send(header, &reply, &[])
            }
            (Rule::Leads, _) => {
                writer.send(header, &pb::ResumeSessionReply { timeout_ms: 5, ..Default::default() }, &[])
            }
            (Rule::Follows, _) => {
                let reply = CallError::NotLeader { leader: None }.to_reply();
                writer.send(Header { flags: FLAG_REPLY | FLAG_ERROR, ..header }, &reply, &[])
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn client(masters: &[&Straw]) -> Arc<MasterClient> {
    let config = ClientConfig {
        masters: masters.iter().map(|master| master.address.clone()).collect(),
        retry_ms: 30_000,
        ..ClientConfig::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let own = Own::of(&config, Keyring::derive(&CLUSTER_KEY).of(Role::Client).clone(), &SystemEntropy);
    let door = TimedDoor::new(Arc::clone(&clock));
    Arc::new(MasterClient::connect(&config, own, SOON, door, clock, Arc::new(SystemEntropy)).unwrap())
}

fn ask(client: &MasterClient) -> Duration {
    let begun = Instant::now();
    let make = |session| pb::ResumeSessionRequest { session, ..Default::default() };
    assert_eq!(client.query("ask", make).unwrap().timeout_ms, 5);
    begun.elapsed()
}

/// Asks in a thread of its own, and returns once `heard` has the request.
fn ask_in_vain(client: &Arc<MasterClient>, heard: &Receiver<u16>) -> JoinHandle<Duration> {
    heard.try_iter().for_each(drop);
    let asking = Arc::clone(client);
    let caller = std::thread::spawn(move || ask(&asking));
    while heard.recv().unwrap() != pb::ResumeSessionRequest::KIND {}
    caller
}

#[test]
fn the_leader_is_found_wherever_it_is() {
    let ((a, _a), (b, _b), (c, _c)) =
        (Straw::start(Rule::Follows), Straw::start(Rule::Follows), Straw::start(Rule::Leads));
    let client = client(&[&a, &b, &c]);
    assert!(ask(&client) < SOON);
    assert_eq!(*client.leader().0, *c.address);
}

#[test]
fn a_leader_that_dies_costs_no_more_than_until_another_one_leads() {
    let ((a, _a), (b, heard)) = (Straw::start(Rule::Leads), Straw::start(Rule::Follows));
    let client = client(&[&a, &b]);
    ask(&client);
    drop(a);
    let caller = ask_in_vain(&client, &heard);
    b.set(Rule::Leads);
    assert!(caller.join().unwrap() < SOON);
}

#[test]
fn a_leader_that_comes_back_as_another_process_is_asked_again_at_once() {
    let (a, _a) = Straw::start(Rule::Leads);
    let (b, _b) = Straw::start(Rule::Follows);
    let client = client(&[&a, &b]);
    ask(&client);
    // Its connections are reset, and it is there: what a restart looks like to whoever was idle.
    lock(&a.shared.open).drain(..).for_each(|socket| socket.shutdown(Shutdown::Both).unwrap());
    let term = client.leader().1;
    assert!(ask(&client) < SOON);
    assert_eq!(client.leader().1, term, "it was not left for another");
}

#[test]
fn a_caller_of_a_frozen_leader_goes_on_as_soon_as_another_one_announces_itself() {
    let ((a, heard), (b, _b)) = (Straw::start(Rule::Leads), Straw::start(Rule::Leads));
    let client = client(&[&a, &b]);
    ask(&client);
    a.set(Rule::Frozen);
    let caller = ask_in_vain(&client, &heard);
    client.watch().claimed(&b.address);
    assert!(caller.join().unwrap() < SOON);
}

#[test]
fn a_caller_that_missed_the_announcement_finds_the_new_leader_by_asking_around() {
    let ((a, heard), (b, _b)) = (Straw::start(Rule::Leads), Straw::start(Rule::Follows));
    let client = client(&[&a, &b]);
    let (mux, _) = Mux::connect(&b.address, &client.control_caller(), SOON, |_, _| {}).unwrap();
    client.watch().listen(&b.address, &mux);
    a.set(Rule::Frozen);
    let caller = ask_in_vain(&client, &heard);
    b.set(Rule::Leads);
    assert!(caller.join().unwrap() < SOON);
}

#[test]
fn a_caller_that_has_just_dialled_a_frozen_leader_is_woken_too() {
    let ((a, heard), (b, _b)) = (Straw::start(Rule::Leads), Straw::start(Rule::Leads));
    let client = client(&[&a, &b]);
    lock(&client.idle).clear();
    a.set(Rule::Frozen);
    heard.try_iter().for_each(drop);
    let asking = Arc::clone(&client);
    let caller = std::thread::spawn(move || ask(&asking));
    assert_eq!(heard.recv().unwrap(), pb::Hello::KIND);
    client.watch().claimed(&b.address);
    assert!(caller.join().unwrap() < Duration::from_millis(900), "less than the time-out of a hello");
}
