//! The key space: one prefix byte per table, then big-endian ids, so that byte order is the order of the ids.
//!
//! ```text
//! m  what                    format version (f), applied index (a), counters (c), settings (s), the masters' group (m),
//!                            where the store began (b), rolling hash of all changes (d), level (l), how far table h
//!                            is entered (h)
//! i  inode                   the object
//! d  parent hash name        directory entry; hash is the readdir cookie
//! f  inode index             chunk of a file
//! c  chunk                   the chunk
//! n  inode                   a small file's content
//! t  inode                   a symbolic link's target
//! x  inode name              extended attribute
//! s  session                 session           a  session   window of its stored answers
//! r  session seq             stored answer     l  session chunk   lease
//! k  client                  session of a client
//! o  inode                   orphan: an object without a name
//! g  chunk                   dead chunk: servers that still have to delete it
//! v  server                  chunkserver       u  uuid   id of a chunkserver
//! h  server chunk part       a server has this of a chunk
//! y  class                   storage class     z  class  how many objects have it
//! ```

use mooseng_types::{ChunkId, ChunkIndex, ClassId, FileName, InodeId, NAME_MAX, Part, ServerId, SessionId};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const FORMAT: [u8; 2] = *b"mf";
pub(crate) const APPLIED: [u8; 2] = *b"ma";
pub(crate) const COUNTERS: [u8; 2] = *b"mc";
pub(crate) const SETTINGS: [u8; 2] = *b"ms";
pub(crate) const MEMBERSHIP: [u8; 2] = *b"mm";
/// The row that says what the store began with; every replica has its own.
pub const BASE: [u8; 2] = *b"mb";
pub(crate) const DIGEST: [u8; 2] = *b"md";
pub(crate) const LEVEL: [u8; 2] = *b"ml";
pub(crate) const INDEXED: [u8; 2] = *b"mh";

/// `.` and `..` have the cookies 1 and 2, and 0 is the start of a directory.
const FIRST_HASH: u64 = 3;

/// A key that lives on the stack: an id or two, and a name or the name of an extended attribute.
#[derive(Clone, Copy)]
pub(crate) struct NameKey {
    bytes: [u8; 17 + NAME_MAX],
    length: usize,
}

impl std::ops::Deref for NameKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

const fn one(table: u8, id: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = id.to_be_bytes();
    [table, a, b, c, d, e, f, g, h]
}

fn two(table: u8, first: u64, second: u64) -> [u8; 17] {
    let mut key = [table; 17];
    key[1..9].copy_from_slice(&first.to_be_bytes());
    key[9..].copy_from_slice(&second.to_be_bytes());
    key
}

fn named(prefix: &[u8], name: &[u8]) -> NameKey {
    let mut key = NameKey { bytes: [0; 17 + NAME_MAX], length: prefix.len() + name.len() };
    key.bytes[..prefix.len()].copy_from_slice(prefix);
    key.bytes[prefix.len()..key.length].copy_from_slice(name);
    key
}

/// The readdir cookie of a name: 62 bits, so that it is a positive `off_t`, and none of the reserved 0, 1 and 2.
#[must_use]
pub fn cookie(name: &FileName) -> u64 {
    (xxh3_64(name.as_bytes()) >> 2).max(FIRST_HASH)
}

pub(crate) fn inode(inode: InodeId) -> [u8; 9] {
    one(b'i', inode.raw())
}

pub(crate) fn dentry(parent: InodeId, name: &FileName) -> NameKey {
    named(&two(b'd', parent.raw(), cookie(name)), name.as_bytes())
}

pub(crate) fn dentries(parent: InodeId) -> [u8; 9] {
    one(b'd', parent.raw())
}

pub(crate) fn dentries_from(parent: InodeId, hash: u64) -> [u8; 17] {
    two(b'd', parent.raw(), hash)
}

pub(crate) fn file_chunk(inode: InodeId, index: ChunkIndex) -> [u8; 13] {
    let mut key = [b'f'; 13];
    key[1..9].copy_from_slice(&inode.raw().to_be_bytes());
    key[9..].copy_from_slice(&index.raw().to_be_bytes());
    key
}

pub(crate) fn file_chunks(inode: InodeId) -> [u8; 9] {
    one(b'f', inode.raw())
}

pub(crate) fn chunk(chunk: ChunkId) -> [u8; 9] {
    one(b'c', chunk.raw())
}

pub(crate) fn inline(inode: InodeId) -> [u8; 9] {
    one(b'n', inode.raw())
}

pub(crate) fn target(inode: InodeId) -> [u8; 9] {
    one(b't', inode.raw())
}

/// `name` is at most 255 bytes; a longer one is cut, and so is the key of no attribute that could be set.
pub(crate) fn xattr(inode: InodeId, name: &[u8]) -> NameKey {
    named(&one(b'x', inode.raw()), &name[..name.len().min(NAME_MAX + 8)])
}

pub(crate) fn xattrs(inode: InodeId) -> [u8; 9] {
    one(b'x', inode.raw())
}

pub(crate) fn session(session: SessionId) -> [u8; 9] {
    one(b's', session.raw())
}

pub(crate) fn window(session: SessionId) -> [u8; 9] {
    one(b'a', session.raw())
}

pub(crate) fn response(session: SessionId, seq: u64) -> [u8; 17] {
    two(b'r', session.raw(), seq)
}

pub(crate) fn responses(session: SessionId) -> [u8; 9] {
    one(b'r', session.raw())
}

pub(crate) fn lease(session: SessionId, chunk: ChunkId) -> [u8; 17] {
    two(b'l', session.raw(), chunk.raw())
}

pub(crate) fn leases(session: SessionId) -> [u8; 9] {
    one(b'l', session.raw())
}

fn identity(table: u8, id: &[u8; 16]) -> [u8; 17] {
    let mut key = [table; 17];
    key[1..].copy_from_slice(id);
    key
}

pub(crate) fn client(client: &[u8; 16]) -> [u8; 17] {
    identity(b'k', client)
}

pub(crate) fn server_uuid(uuid: &[u8; 16]) -> [u8; 17] {
    identity(b'u', uuid)
}

pub(crate) fn orphan(inode: InodeId) -> [u8; 9] {
    one(b'o', inode.raw())
}

pub(crate) fn dead_chunk(chunk: ChunkId) -> [u8; 9] {
    one(b'g', chunk.raw())
}

pub(crate) fn server(server: ServerId) -> [u8; 5] {
    let [a, b, c, d] = server.raw().to_be_bytes();
    [b'v', a, b, c, d]
}

/// All that a server has.
pub(crate) fn held_by(server: ServerId) -> [u8; 5] {
    let [a, b, c, d] = server.raw().to_be_bytes();
    [b'h', a, b, c, d]
}

pub(crate) fn held(server: ServerId, part: Part) -> [u8; 14] {
    let mut key = [part.index(); 14];
    key[..5].copy_from_slice(&held_by(server));
    key[5..13].copy_from_slice(&part.chunk().raw().to_be_bytes());
    key
}

/// What a key that [`held`] made says; `None` for any other.
pub(crate) fn held_at(key: &[u8]) -> Option<(ServerId, Part)> {
    let &[b'h', .., index] = key else { return None };
    let part = Part::new(ChunkId::from_raw(number_at(key, 5)), index)?;
    (key.len() == 14).then_some((ServerId::from_raw(short_number_at(key, 1)), part))
}

fn of_class(table: u8, class: ClassId) -> [u8; 3] {
    let [a, b] = class.raw().to_be_bytes();
    [table, a, b]
}

pub(crate) fn class(class: ClassId) -> [u8; 3] {
    of_class(b'y', class)
}

pub(crate) fn class_objects(class: ClassId) -> [u8; 3] {
    of_class(b'z', class)
}

/// The class that a key of the two tables names.
pub(crate) fn class_at(key: &[u8]) -> ClassId {
    let bytes = key.get(1..3).and_then(|bytes| bytes.try_into().ok());
    ClassId::from_raw(bytes.map_or(0, u16::from_be_bytes))
}

/// The big-endian number at `at` of a key; 0 if the key is too short, which no key of ours is.
pub(crate) fn number_at(key: &[u8], at: usize) -> u64 {
    key.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// The big-endian number of 32 bits at `at` of a key.
pub(crate) fn short_number_at(key: &[u8], at: usize) -> u32 {
    key.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}
