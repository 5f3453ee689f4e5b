//! Masters and chunkservers in this process: just enough of their contract to test a client against, with faults on
//! demand. All of them share one [`World`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use mooseng_protocol::frame::{FLAG_ERROR, FLAG_ONE_WAY, FLAG_PUSH, FLAG_REPLY, Frame, Header};
use mooseng_protocol::principal::{Keyring, Principal, PrincipalKey, Role};
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::{FrameStream, FrameWriter, Socket};
use mooseng_protocol::{checksum, pb};
use mooseng_types::{BLOCK_SIZE, CHUNK_SIZE, ChunkCause, ChunkId, FsError, INLINE_MAX, Part, ServerId};
use prost::Message;

const CLUSTER_KEY: [u8; 32] = [7; 32];

/// What proves a client to these.
pub(crate) fn key() -> PrincipalKey {
    Keyring::derive(&CLUSTER_KEY).of(Role::Client).clone()
}

type Answer = Result<Bytes, CallError>;

/// What a master does with the next request of a kind instead of answering it.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Names this leader.
    NotLeader(String),
    /// Does it and closes the connection without an answer.
    DoAndReset,
    /// Is not able to.
    Unavailable,
    /// Takes it and never answers.
    Hang,
    /// Refuses.
    Refuse(FsError),
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) attr: pb::Attr,
    pub(crate) children: BTreeMap<Vec<u8>, u64>,
    pub(crate) inline: Option<Vec<u8>>,
    pub(crate) chunks: BTreeMap<u32, Chunk>,
    pub(crate) target: Bytes,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Chunk {
    pub(crate) id: u64,
    pub(crate) version: u32,
    pub(crate) valid_length: u32,
    pub(crate) servers: Vec<u32>,
    pub(crate) lease: Option<u64>,
    committed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// Fails every request that reaches it.
    pub(crate) broken: bool,
    /// Has no room.
    pub(crate) full: bool,
    /// Damages what it reads.
    pub(crate) damaged: bool,
    pub(crate) copies: HashMap<u64, (u32, Vec<u8>)>,
    pub(crate) synced: HashSet<u64>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) servers: BTreeMap<u32, Server>,
    /// Every request to a master and chunkserver, by name, in order.
    pub(crate) log: Vec<&'static str>,
    pub(crate) metas: Vec<(&'static str, pb::RequestMeta)>,
    pub(crate) faults: VecDeque<(&'static str, Fault)>,
    pub(crate) granted: Vec<Vec<u32>>,
    pub(crate) expired: HashSet<u64>,
    answers: HashMap<(u64, u64), Bytes>,
    controls: Vec<Arc<Mutex<FrameWriter>>>,
    next: u64,
    clock: i64,
}

pub(crate) struct World(Mutex<State>);

impl World {
    /// A world with a root directory and this many chunkservers.
    pub(crate) fn new(servers: u32) -> Arc<Self> {
        let mut state = State { next: 100, ..State::default() };
        let root = pb::Attr { inode: 1, kind: 4, mode: 0o755, nlink: 2, ..Default::default() };
        state.nodes.insert(1, Node { attr: root, ..Node::default() });
        let world = Arc::new(Self(Mutex::new(state)));
        for id in 1..=servers {
            let serving = Arc::clone(&world);
            let address = listen(move |stream| serving.serve_chunks(id, stream));
            world.state().servers.insert(id, Server { address, ..Server::default() });
        }
        world
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Starts a master of this world; its address.
    pub(crate) fn master(self: &Arc<Self>) -> String {
        let world = Arc::clone(self);
        listen(move |stream| world.serve_names(stream))
    }

    /// The next request of this kind meets a fault.
    pub(crate) fn fault(&self, request: &'static str, fault: Fault) {
        self.state().faults.push_back((request, fault));
    }

    /// Requests since the last call, keep-alives left out.
    pub(crate) fn take_log(&self) -> Vec<&'static str> {
        let mut log = std::mem::take(&mut self.state().log);
        log.retain(|name| *name != "ResumeSessionRequest");
        log
    }

    /// Pushes to every session.
    pub(crate) fn push<R: Rpc>(&self, message: &R) {
        let header = Header { kind: R::KIND, flags: FLAG_PUSH, ..Header::default() };
        let controls = self.state().controls.clone();
        for control in controls {
            drop(control.lock().unwrap().send(header, message, &[]));
        }
    }

    fn serve_names(&self, (stream, principal): (FrameStream, Principal)) {
        let (mut reader, writer) = stream.split();
        let writer = Arc::new(Mutex::new(writer));
        if principal.node != 0 {
            self.state().controls.push(Arc::clone(&writer));
        }
        while let Ok(frame) = reader.receive() {
            let mut state = self.state();
            let name = rpc::name(frame.header.kind);
            state.log.push(name);
            let fault = state.faults.iter().position(|(of, _)| *of == name);
            let fault = fault.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault);
            let answer = match &fault {
                Some(Fault::NotLeader(leader)) => Err(CallError::NotLeader { leader: Some(leader.clone()) }),
                Some(Fault::Unavailable) => Err(CallError::Unavailable { message: "busy".into() }),
                Some(Fault::Refuse(refusal)) => Err(CallError::Refused(*refusal)),
                Some(Fault::Hang) => continue,
                Some(Fault::DoAndReset) | None => state.once(name, &frame),
            };
            drop(state);
            if matches!(fault, Some(Fault::DoAndReset)) {
                drop(writer.lock().unwrap().socket().shutdown(std::net::Shutdown::Both));
                return;
            }
            if frame.header.flags & FLAG_ONE_WAY == 0 {
                answer_with(&mut writer.lock().unwrap(), &frame, answer, &[]);
            }
        }
    }

    fn serve_chunks(&self, id: u32, (mut stream, _): (FrameStream, Principal)) {
        while let Ok(frame) = stream.reader().receive() {
            let mut payload = vec![0; frame.payload_length];
            if stream.reader().read_payload(&mut payload).is_err() {
                return;
            }
            let mut state = self.state();
            state.log.push(rpc::name(frame.header.kind));
            let mut back = Vec::new();
            let answer = state.chunk_request(id, &frame, &payload, &mut back);
            drop(state);
            answer_with(stream.writer(), &frame, answer, &back);
        }
    }
}

fn listen(serve: impl Fn((FrameStream, Principal)) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || {
                let mut stream = FrameStream::new(Socket::accepted(socket)).unwrap();
                let keys = Keyring::derive(&CLUSTER_KEY);
                let greet = |_: &pb::Hello| Ok(pb::HelloReply::default());
                let Ok(principal) = stream.welcome(&keys, mooseng_env::nonce(), greet) else { return };
                serve((stream, principal));
            });
        }
    });
    address
}

fn answer_with(writer: &mut FrameWriter, to: &Frame, answer: Answer, payload: &[u8]) {
    let (flags, body) = match answer {
        Ok(body) => (FLAG_REPLY, body),
        Err(error) => (FLAG_REPLY | FLAG_ERROR, error.to_reply().encode_to_vec().into()),
    };
    let header = Header { flags, ..to.header };
    let frame = mooseng_protocol::frame::encode(header, &body, payload.len()).unwrap();
    let mut socket = &**writer.socket();
    drop(std::io::Write::write_all(&mut socket, &frame));
    drop(std::io::Write::write_all(&mut socket, payload));
}

fn reply(message: &impl Message) -> Answer {
    Ok(message.encode_to_vec().into())
}

fn ask<R: Rpc>(frame: &Frame) -> R {
    R::decode(frame.body.clone()).unwrap()
}

impl State {
    fn once(&mut self, name: &'static str, frame: &Frame) -> Answer {
        let meta = meta_of(frame);
        if let Some(meta) = &meta {
            self.metas.push((name, *meta));
            if self.expired.contains(&meta.session) {
                return Err(FsError::SessionExpired.into());
            }
            if let Some(answer) = self.answers.get(&(meta.session, meta.seq)) {
                return Ok(answer.clone());
            }
        }
        let answer = self.names_request(frame);
        if let (Some(meta), Ok(answer)) = (meta, &answer) {
            self.answers.insert((meta.session, meta.seq), answer.clone());
        }
        answer
    }

    fn now(&mut self) -> i64 {
        self.clock += 1;
        self.clock
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn node(&mut self, inode: u64) -> Result<&mut Node, CallError> {
        Ok(self.nodes.get_mut(&inode).ok_or(FsError::NotFound)?)
    }

    fn attr(&mut self, inode: u64) -> Answer {
        let attr = self.node(inode)?.attr;
        reply(&pb::AttrReply { attr: Some(attr) })
    }

    fn changed(&mut self, inode: u64) -> Answer {
        let now = self.now();
        let attr = &mut self.node(inode)?.attr;
        (attr.mtime_ns, attr.ctime_ns) = (now, now);
        attr.content_version += 1;
        self.attr(inode)
    }

    fn names_request(&mut self, frame: &Frame) -> Answer {
        match frame.header.kind {
            pb::OpenSessionRequest::KIND => {
                let session = self.id();
                reply(&pb::OpenSessionReply { session, timeout_ms: 60_000, copies: 2 })
            }
            pb::ResumeSessionRequest::KIND => {
                let request: pb::ResumeSessionRequest = ask(frame);
                if self.expired.contains(&request.session) {
                    return Err(FsError::SessionExpired.into());
                }
                reply(&pb::ResumeSessionReply { timeout_ms: 60_000, ..Default::default() })
            }
            pb::LookupRequest::KIND => {
                let request: pb::LookupRequest = ask(frame);
                let child = self.node(request.parent)?.children.get(&request.name[..]).copied();
                self.attr(child.ok_or(FsError::NotFound)?)
            }
            pb::GetAttrRequest::KIND => self.attr(ask::<pb::GetAttrRequest>(frame).inode),
            pb::SetAttrRequest::KIND => self.set_attr(&ask(frame)),
            pb::CreateRequest::KIND => self.create(ask(frame)),
            pb::UnlinkRequest::KIND => {
                let request: pb::UnlinkRequest = ask(frame);
                self.node(request.parent)?.children.remove(&request.name[..]).ok_or(FsError::NotFound)?;
                reply(&pb::Empty {})
            }
            pb::ReaddirRequest::KIND => self.readdir(&ask(frame)),
            pb::ReadlinkRequest::KIND => {
                let target = self.node(ask::<pb::ReadlinkRequest>(frame).inode)?.target.clone();
                reply(&pb::ReadlinkReply { target })
            }
            pb::GetXattrRequest::KIND => Err(FsError::NoAttribute.into()),
            pb::StatFsRequest::KIND => reply(&pb::StatFsReply {
                total_bytes: 1 << 40,
                free_bytes: 1 << 39,
                inodes: 5,
                used_bytes: 0,
            }),
            pb::OpenRequest::KIND => {
                let node = self.node(ask::<pb::OpenRequest>(frame).inode)?;
                let inline = node.inline.clone().map(Into::into);
                reply(&pb::OpenReply { attr: Some(node.attr), inline })
            }
            pb::LocateRequest::KIND => self.locate(&ask(frame)),
            pb::GrantWriteRequest::KIND => self.grant(&ask(frame)),
            pb::CommitWriteRequest::KIND => self.commit(&ask(frame)),
            pb::WriteInlineRequest::KIND => self.write_inline(&ask(frame)),
            pb::ReleaseLeaseRequest::KIND => {
                let request: pb::ReleaseLeaseRequest = ask(frame);
                let session = request.meta.map(|meta| meta.session);
                for index in &request.indexes {
                    let chunk = self.node(request.inode)?.chunks.get_mut(index);
                    if let Some(chunk) = chunk.filter(|chunk| chunk.lease == session) {
                        chunk.lease = None;
                    }
                }
                reply(&pb::Empty {})
            }
            pb::ReleaseRequest::KIND | pb::CloseSessionRequest::KIND | pb::AcknowledgeRecallRequest::KIND => {
                reply(&pb::Empty {})
            }
            _ => Err(FsError::NotSupported.into()),
        }
    }

    fn write_inline(&mut self, request: &pb::WriteInlineRequest) -> Answer {
        let node = self.node(request.inode)?;
        let offset = if request.append { node.attr.size as usize } else { request.offset as usize };
        let end = offset + request.data.len();
        if !node.chunks.is_empty() || end as u64 > INLINE_MAX {
            return Err(FsError::Invalid.into());
        }
        let content = node.inline.get_or_insert_default();
        content.resize(content.len().max(end), 0);
        content[offset..end].copy_from_slice(&request.data);
        node.attr.size = content.len() as u64;
        self.changed(request.inode)
    }

    fn create(&mut self, request: pb::CreateRequest) -> Answer {
        if self.node(request.parent)?.children.contains_key(&request.name[..]) {
            return Err(FsError::Exists.into());
        }
        let (inode, now) = (self.id(), self.now());
        let attr = pb::Attr {
            inode,
            kind: request.kind,
            mode: request.mode,
            uid: request.uid,
            gid: request.gid,
            nlink: 1,
            mtime_ns: now,
            ctime_ns: now,
            ..Default::default()
        };
        self.nodes.insert(inode, Node { attr, target: request.target, ..Node::default() });
        self.node(request.parent)?.children.insert(request.name.to_vec(), inode);
        self.attr(inode)
    }

    fn set_attr(&mut self, request: &pb::SetAttrRequest) -> Answer {
        let node = self.node(request.inode)?;
        if let Some(mode) = request.mode {
            node.attr.mode = mode;
        }
        let Some(size) = request.size else { return self.attr(request.inode) };
        assert!(node.chunks.values().all(|chunk| chunk.lease.is_none()), "truncate under a lease");
        if let Some(content) = &mut node.inline {
            content.resize(size as usize, 0);
        }
        node.attr.size = size;
        for (index, chunk) in &mut node.chunks {
            let inside = size.saturating_sub(u64::from(*index) * CHUNK_SIZE);
            chunk.valid_length = chunk.valid_length.min(inside.min(CHUNK_SIZE) as u32);
        }
        if size == 0 {
            node.chunks.clear();
            node.inline = None;
        }
        self.changed(request.inode)
    }

    fn readdir(&mut self, request: &pb::ReaddirRequest) -> Answer {
        let children: Vec<_> =
            self.node(request.inode)?.children.iter().map(|(name, inode)| (name.clone(), *inode)).collect();
        let mut entries = Vec::new();
        for (cookie, (name, inode)) in (3u64..).zip(children) {
            let attr = self.node(inode)?.attr;
            if cookie > request.cookie && entries.len() < request.entries_max as usize {
                let attr_if = request.plus.then_some(attr);
                entries.push(pb::DirEntry {
                    inode,
                    name: name.into(),
                    kind: attr.kind,
                    cookie,
                    attr: attr_if,
                });
            }
        }
        let end = entries.len() < request.entries_max as usize;
        reply(&pb::ReaddirReply { entries, end, parent: 1 })
    }

    fn addresses(&self, servers: &[u32]) -> Vec<pb::ServerAddress> {
        let address = |server: &u32| self.servers[server].address.clone();
        servers.iter().map(|server| pb::ServerAddress { server: *server, address: address(server) }).collect()
    }

    fn locate(&mut self, request: &pb::LocateRequest) -> Answer {
        let node = self.node(request.inode)?;
        let (attr, inline) = (node.attr, node.inline.clone().map(Into::into));
        let wanted = request.first_index..request.first_index + request.count;
        let chunks: Vec<_> =
            node.chunks.range(wanted).map(|(index, chunk)| (*index, chunk.clone())).collect();
        let chunks = chunks
            .into_iter()
            .filter(|(_, chunk)| chunk.committed)
            .map(|(index, chunk)| pb::ChunkLocation {
                index,
                chunk: chunk.id,
                version: chunk.version,
                valid_length: chunk.valid_length,
                servers: self.addresses(&chunk.servers),
                token: Bytes::new(),
                differs: false,
            })
            .collect();
        reply(&pb::LocateReply { attr: Some(attr), inline, chunks })
    }

    fn grant(&mut self, request: &pb::GrantWriteRequest) -> Answer {
        let session = request.meta.as_ref().unwrap().session;
        self.granted.push(request.failed_servers.clone());
        let all: Vec<u32> = self.servers.keys().copied().collect();
        let id = self.id();
        let node = self.node(request.inode)?;
        let inline = node.inline.clone().map(Into::into);
        let fresh = !node.chunks.contains_key(&request.index);
        let chunk =
            node.chunks.entry(request.index).or_insert(Chunk { id, servers: all, ..Chunk::default() });
        if chunk.lease.is_some_and(|holder| holder != session) {
            return Err(FsError::LeaseHeld.into());
        }
        // The last one stays.
        if chunk.servers.iter().any(|server| !request.failed_servers.contains(server)) {
            chunk.servers.retain(|server| !request.failed_servers.contains(server));
        }
        chunk.version += 1;
        chunk.lease = Some(session);
        let chunk = chunk.clone();
        reply(&pb::GrantWriteReply {
            chunk: chunk.id,
            version: chunk.version,
            servers: self.addresses(&chunk.servers),
            valid_length: chunk.valid_length,
            inline,
            token: Bytes::new(),
            fresh,
            attr: None,
        })
    }

    fn commit(&mut self, request: &pb::CommitWriteRequest) -> Answer {
        let session = request.meta.as_ref().unwrap().session;
        let node = self.node(request.inode)?;
        for committed in &request.chunks {
            let chunk = node.chunks.get_mut(&committed.index).ok_or(FsError::LeaseLost)?;
            if chunk.lease != Some(session) || chunk.version != committed.version {
                return Err(FsError::LeaseLost.into());
            }
            chunk.committed = true;
            let inside = request.size_at_least.saturating_sub(u64::from(committed.index) * CHUNK_SIZE);
            chunk.valid_length = chunk.valid_length.max(inside.min(CHUNK_SIZE) as u32);
            if committed.release {
                chunk.lease = None;
            }
            node.inline = None;
        }
        node.attr.size = node.attr.size.max(request.size_at_least);
        self.changed(request.inode)
    }

    fn chunk_request(&mut self, id: u32, frame: &Frame, payload: &[u8], back: &mut Vec<u8>) -> Answer {
        match frame.header.kind {
            pb::WriteChunkRequest::KIND => {
                let request: pb::WriteChunkRequest = ask(frame);
                let chunk = Part::whole(ChunkId::from_raw(request.chunk));
                let offset = request.offset.into();
                assert!(checksum::matches(chunk, offset, payload, &request.checksums));
                self.along(id, &request.chain, |server| {
                    let copy = server.adopt(request.chunk, request.version)?;
                    let end = request.offset as usize + payload.len();
                    copy.resize(copy.len().max(end), 0);
                    copy[request.offset as usize..end].copy_from_slice(payload);
                    if request.sync {
                        server.synced.insert(request.chunk);
                    } else {
                        server.synced.remove(&request.chunk);
                    }
                    Ok(())
                })?;
                reply(&pb::WriteChunkReply {})
            }
            pb::SyncChunkRequest::KIND => {
                let request: pb::SyncChunkRequest = ask(frame);
                self.along(id, &request.chain, |server| {
                    server.adopt(request.chunk, request.version)?;
                    server.synced.insert(request.chunk);
                    Ok(())
                })?;
                reply(&pb::SyncChunkReply {})
            }
            pb::TruncateChunkRequest::KIND => {
                let request: pb::TruncateChunkRequest = ask(frame);
                self.along(id, &request.chain, |server| {
                    server.adopt(request.chunk, request.version)?.resize(request.length as usize, 0);
                    Ok(())
                })?;
                reply(&pb::TruncateChunkReply {})
            }
            _ => self.read(id, &ask(frame), back),
        }
    }

    fn along(
        &mut self,
        first: u32,
        behind: &[pb::ServerAddress],
        mut act: impl FnMut(&mut Server) -> Result<(), ChunkCause>,
    ) -> Result<(), CallError> {
        for id in std::iter::once(first).chain(behind.iter().map(|server| server.server)) {
            let server = self.servers.get_mut(&id).unwrap();
            let outcome = match (server.broken, server.full) {
                (true, _) => Err(ChunkCause::DiskFailed),
                (_, true) => Err(ChunkCause::Full),
                _ => act(server),
            };
            outcome.map_err(|cause| CallError::Chunk {
                server: (id != first).then_some(ServerId::from_raw(id)),
                cause,
                message: String::new(),
            })?;
        }
        Ok(())
    }

    fn read(&mut self, id: u32, request: &pb::ReadChunkRequest, back: &mut Vec<u8>) -> Answer {
        let server = &self.servers[&id];
        if server.broken {
            return Err(fault(ChunkCause::DiskFailed));
        }
        let (version, copy) = server.copies.get(&request.chunk).ok_or_else(|| fault(ChunkCause::NoCopy))?;
        if *version < request.version {
            return Err(fault(ChunkCause::Stale));
        }
        let block = BLOCK_SIZE as usize;
        let from = (request.offset as usize / block * block).min(copy.len());
        let to = ((request.offset + request.length) as usize).next_multiple_of(block).min(copy.len());
        back.extend_from_slice(&copy[from..to]);
        let checksums = checksum::of_range(Part::whole(ChunkId::from_raw(request.chunk)), from as u64, back);
        if server.damaged
            && let Some(byte) = back.first_mut()
        {
            *byte ^= 1;
        }
        reply(&pb::ReadChunkReply {
            version: *version,
            copy_length: copy.len() as u32,
            offset: from as u32,
            checksums,
        })
    }
}

fn fault(cause: ChunkCause) -> CallError {
    CallError::Chunk { server: None, cause, message: String::new() }
}

impl Server {
    fn adopt(&mut self, chunk: u64, version: u32) -> Result<&mut Vec<u8>, ChunkCause> {
        let (mine, copy) = self.copies.entry(chunk).or_default();
        if *mine > version {
            return Err(ChunkCause::Fenced);
        }
        *mine = version;
        Ok(copy)
    }
}

/// The request's number: field 1 of every mutation is its meta.
fn meta_of(frame: &Frame) -> Option<pb::RequestMeta> {
    match frame.header.kind {
        pb::SetAttrRequest::KIND => ask::<pb::SetAttrRequest>(frame).meta,
        pb::CreateRequest::KIND => ask::<pb::CreateRequest>(frame).meta,
        pb::UnlinkRequest::KIND => ask::<pb::UnlinkRequest>(frame).meta,
        pb::GrantWriteRequest::KIND => ask::<pb::GrantWriteRequest>(frame).meta,
        pb::CommitWriteRequest::KIND => ask::<pb::CommitWriteRequest>(frame).meta,
        pb::WriteInlineRequest::KIND => ask::<pb::WriteInlineRequest>(frame).meta,
        pb::ReleaseLeaseRequest::KIND => ask::<pb::ReleaseLeaseRequest>(frame).meta,
        _ => None,
    }
}
