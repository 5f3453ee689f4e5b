//! A small world for tests: a state, a session, servers, and commands in few words.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mooseng_types::{
    Attr, CellId, ChunkIndex, ClusterId, FileKind, FileName, FsError, InodeId, RequestId, ServerId,
    SessionId, SetAttr, TimeNs,
};

use crate::command::{
    AttrCommand, ClusterCommand, Command, CommittedChunk, ContentCommand, Entry, NameCommand, Request,
};
use crate::response::{Grant, Response};
use crate::state::MetaState;
use crate::store::{MemoryStore, MetaStore};

/// A state over a store in memory, with a root and one session.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) state: MetaState,
    pub(crate) session: SessionId,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(CellId::ROOT)
    }

    /// The same of another cell.
    pub(crate) fn of(cell: CellId) -> Self {
        let store = Arc::new(MemoryStore::new());
        let state = MetaState::open(Arc::clone(&store) as Arc<dyn MetaStore>, cell).unwrap();
        let mut world = Self { store, state, session: SessionId::from_raw(0) };
        world.done(ClusterCommand::Bootstrap { cluster: ClusterId::from_bytes([7; 16]), copies: 2 });
        world.session = world.open(1);
        world
    }

    pub(crate) fn name(text: &str) -> FileName {
        FileName::parse(text.as_bytes()).unwrap()
    }

    /// A new session of client `client`.
    pub(crate) fn open(&mut self, client: u8) -> SessionId {
        match self.run(ClusterCommand::OpenSession { client: [client; 16], name: "mount".to_owned() }) {
            Response::Session(session) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Applies a command; the stamp is the entry's index.
    pub(crate) fn run(&mut self, command: impl Into<Command>) -> Response {
        self.request(None, command)
    }

    pub(crate) fn request(&mut self, request: Option<Request>, command: impl Into<Command>) -> Response {
        let index = self.state.applied_index() + 1;
        let entry = Entry { stamp: TimeNs::from_raw(index as i64), request, command: command.into() };
        assert_eq!(Entry::decode(&entry.encode()).as_ref(), Ok(&entry));
        self.state.apply(index, &entry)
    }

    /// A request of the world's session.
    pub(crate) fn numbered(&mut self, seq: u64, acked_below: u64, command: impl Into<Command>) -> Response {
        let id = RequestId { session: self.session, seq };
        self.request(Some(Request { id, acked_below }), command)
    }

    pub(crate) fn done(&mut self, command: impl Into<Command>) {
        assert_eq!(self.run(command), Response::Done);
    }

    /// The command is refused, and no row has changed.
    pub(crate) fn refused(&mut self, error: FsError, command: impl Into<Command>) {
        let (before, command) = (self.rows(), command.into());
        assert_eq!(self.run(command.clone()), Response::Refused(error), "{command:?}");
        assert_eq!(self.rows(), before, "{command:?}");
    }

    pub(crate) fn attr(&mut self, command: impl Into<Command>) -> Attr {
        match self.run(command) {
            Response::Attr(attr) => attr,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create(parent: InodeId, name: &str, kind: FileKind) -> NameCommand {
        let target = if kind == FileKind::Symlink { Bytes::from_static(b"target") } else { Bytes::new() };
        NameCommand::Create {
            parent,
            name: Self::name(name),
            kind,
            mode: 0o755,
            uid: 1,
            gid: 2,
            rdev: 0,
            target,
        }
    }

    pub(crate) fn make(&mut self, parent: InodeId, name: &str, kind: FileKind) -> InodeId {
        self.attr(Self::create(parent, name, kind)).inode
    }

    pub(crate) fn lookup(&self, parent: InodeId, name: &str) -> Result<Attr, FsError> {
        self.state.lookup(parent, &Self::name(name))
    }

    pub(crate) fn unlink(parent: InodeId, name: &str) -> NameCommand {
        NameCommand::Unlink { parent, name: Self::name(name) }
    }

    pub(crate) fn truncate(inode: InodeId, size: u64, session: Option<SessionId>) -> AttrCommand {
        AttrCommand::SetAttr { inode, change: SetAttr { size: Some(size), ..SetAttr::default() }, session }
    }

    pub(crate) fn grant_by(session: SessionId, inode: InodeId, index: u32, failed: &[u32]) -> ContentCommand {
        let servers = |list: &[u32]| list.iter().copied().map(ServerId::from_raw).collect();
        let index = ChunkIndex::from_raw(index);
        ContentCommand::GrantWrite {
            session,
            inode,
            index,
            candidates: servers(&[1, 2, 3]),
            failed: servers(failed),
            up: servers(&[1, 2, 3]),
            nothing_written: false,
            renew: false,
        }
    }

    pub(crate) fn grant(&mut self, inode: InodeId, index: u32) -> Grant {
        self.granted(Self::grant_by(self.session, inode, index, &[]))
    }

    pub(crate) fn granted(&mut self, command: impl Into<Command>) -> Grant {
        match self.run(command) {
            Response::Grant(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn commit(
        &self,
        inode: InodeId,
        size: u64,
        index: u32,
        grant: &Grant,
        release: bool,
    ) -> ContentCommand {
        let index = ChunkIndex::from_raw(index);
        let chunk = CommittedChunk { index, chunk: grant.chunk, version: grant.version, release };
        ContentCommand::CommitWrite {
            session: self.session,
            inode,
            size_at_least: size,
            mtime: None,
            chunks: vec![chunk],
        }
    }

    /// All rows, and what is kept besides them.
    pub(crate) fn rows(&self) -> (BTreeMap<Vec<u8>, Vec<u8>>, String) {
        let rows =
            self.state.tables.rows.collect(b"", &[], usize::MAX, |key, value| (key.to_vec(), value.to_vec()));
        let t = &self.state.tables;
        (rows.into_iter().collect(), format!("{:?} {:?} {:?}", t.counters, t.windows, t.settings))
    }

    /// Freezes and writes everything.
    pub(crate) fn flush(&mut self) {
        if let Some(batch) = self.state.freeze() {
            self.store.write(&batch);
            self.state.flushed();
        }
    }

    /// All rows of the store.
    pub(crate) fn stored(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut rows = BTreeMap::new();
        self.store.scan(b"", b"", &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            true
        });
        rows
    }
}
