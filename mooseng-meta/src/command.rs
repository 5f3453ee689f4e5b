//! What can be asked of the namespace. A command travels in an [`Entry`] of the masters' log.
//!
//! Whatever is not a function of the log (the time, the servers chosen for a chunk, random ids) is decided by the
//! leader before it proposes and travels along, so that every replica comes to the same rows.

use bytes::Bytes;
use mooseng_types::{
    ChunkId, ChunkIndex, ChunkVersion, ClusterId, FileKind, FileName, InodeId, RequestId, ServerId,
    SessionId, SetAttr, TimeNs,
};

/// One entry of the log that changes the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The leader's wall time; it becomes the time of whatever the command changes.
    pub stamp: TimeNs,
    /// The client's request behind the command; `None` for what the masters do of themselves.
    pub request: Option<Request>,
    /// What is to be done.
    pub command: Command,
}

/// Makes a command happen once, however often it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The session's number for it.
    pub id: RequestId,
    /// Answers to all lower numbers have arrived and may be forgotten. Never above the request's own number.
    pub acked_below: u64,
}

/// How `rename(2)` treats a new name that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// What has the new name is replaced.
    Replace,
    /// Refused (`RENAME_NOREPLACE`).
    NoReplace,
    /// The two names change places (`RENAME_EXCHANGE`).
    Exchange,
}

/// How `setxattr(2)` treats an attribute that exists, or does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Made or replaced.
    Any,
    /// Only made (`XATTR_CREATE`).
    Create,
    /// Only replaced (`XATTR_REPLACE`).
    Replace,
}

/// A chunk of which a session says: its bytes are on every server of the grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommittedChunk {
    /// Which chunk of the file.
    pub index: ChunkIndex,
    /// The chunk, as granted.
    pub chunk: ChunkId,
    /// The version, as granted.
    pub version: ChunkVersion,
    /// The lease ends with the commit.
    pub release: bool,
}

/// What can be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Makes the root directory, once in the life of a cluster.
    Bootstrap {
        /// The cluster's identity.
        cluster: ClusterId,
        /// Copies of a chunk by default.
        copies: u8,
    },
    /// Makes a client known; the same client gets the same session.
    OpenSession {
        /// The client's random identity.
        client: [u8; 16],
        /// For people: host and mount point.
        name: String,
    },
    /// Ends a session and its leases; also how the leader lets one expire.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// Makes a chunkserver known; the same server gets the same id, its name and address are brought up to date.
    RegisterServer {
        /// The server's random identity.
        uuid: [u8; 16],
        /// For people.
        name: String,
        /// Where it serves chunks.
        address: String,
    },
    /// `mkdir(2)`, `mknod(2)`, `symlink(2)` and `open(2)` with `O_CREAT | O_EXCL`.
    Create {
        /// The directory.
        parent: InodeId,
        /// The new name.
        name: FileName,
        /// What to make.
        kind: FileKind,
        /// Permission bits, with the umask already applied.
        mode: u16,
        /// Owner.
        uid: u32,
        /// Group, unless the directory passes on its own.
        gid: u32,
        /// Device number; 0 unless a device is made.
        rdev: u32,
        /// Where a symbolic link leads; empty unless one is made.
        target: Bytes,
    },
    /// `link(2)`.
    Link {
        /// The object.
        inode: InodeId,
        /// The directory of its new name.
        new_parent: InodeId,
        /// The new name.
        new_name: FileName,
    },
    /// `unlink(2)`.
    Unlink {
        /// The directory.
        parent: InodeId,
        /// The name to remove.
        name: FileName,
    },
    /// `rmdir(2)`.
    Rmdir {
        /// The directory above.
        parent: InodeId,
        /// The name to remove.
        name: FileName,
    },
    /// `renameat2(2)`.
    Rename {
        /// The old directory.
        parent: InodeId,
        /// The old name.
        name: FileName,
        /// The new directory.
        new_parent: InodeId,
        /// The new name.
        new_name: FileName,
        /// What to do if the new name is taken.
        mode: RenameMode,
    },
    /// `chmod(2)`, `chown(2)`, `truncate(2)`, `utimensat(2)`.
    SetAttr {
        /// The object.
        inode: InodeId,
        /// The change.
        change: SetAttr,
        /// Who asks: its own leases do not stand in the way of a truncation.
        session: Option<SessionId>,
    },
    /// `setxattr(2)`.
    SetXattr {
        /// The object.
        inode: InodeId,
        /// The attribute, with its namespace (`user.`).
        name: Bytes,
        /// Its new value.
        value: Bytes,
        /// Whether it may, or must, exist.
        mode: XattrMode,
    },
    /// `removexattr(2)`.
    RemoveXattr {
        /// The object.
        inode: InodeId,
        /// The attribute.
        name: Bytes,
    },
    /// Gives a session the write lease of a chunk, with a version of its own; makes the chunk if there is none.
    GrantWrite {
        /// Who wants to write.
        session: SessionId,
        /// The file.
        inode: InodeId,
        /// Which chunk of it.
        index: ChunkIndex,
        /// Servers for a new chunk, chosen by the leader, in chain order.
        candidates: Vec<ServerId>,
        /// Servers that the holder could not write: they lose the chunk, if one that is up still has it then.
        failed: Vec<ServerId>,
        /// Servers that the leader knows to be up.
        up: Vec<ServerId>,
        /// The holder says that no server has confirmed anything that was written under the lease.
        nothing_written: bool,
        /// The holder wants a new version though no server is to be left out: its copies are whole, but one stopped.
        renew: bool,
    },
    /// Makes written bytes part of the file.
    CommitWrite {
        /// Who has written.
        session: SessionId,
        /// The file.
        inode: InodeId,
        /// The file is at least this long now, in bytes.
        size_at_least: u64,
        /// Time of the last write; `None`: the entry's stamp.
        mtime: Option<TimeNs>,
        /// The chunks written.
        chunks: Vec<CommittedChunk>,
    },
    /// Writes into a small file that lives in the metadata.
    WriteInline {
        /// The file.
        inode: InodeId,
        /// Where, in bytes from the start. Without meaning in an append.
        offset: u32,
        /// Write at the file's end, wherever that is when the command is applied.
        append: bool,
        /// What; never empty.
        data: Bytes,
    },
    /// Gives write leases back without a commit.
    ReleaseLease {
        /// Who holds them.
        session: SessionId,
        /// The file.
        inode: InodeId,
        /// Which chunks of it.
        indexes: Vec<ChunkIndex>,
    },
    /// A further server has a full copy.
    AddReplica {
        /// The chunk.
        chunk: ChunkId,
        /// The version of the copy.
        version: ChunkVersion,
        /// The server.
        server: ServerId,
    },
    /// A server's copy is lost or not wanted any more.
    RemoveReplica {
        /// The chunk.
        chunk: ChunkId,
        /// The server.
        server: ServerId,
    },
    /// Removes objects without a name that nobody has open.
    ReapOrphans {
        /// The objects.
        inodes: Vec<InodeId>,
    },
    /// The copies of dead chunks are deleted everywhere.
    ForgetDead {
        /// The chunks.
        chunks: Vec<ChunkId>,
    },
}
