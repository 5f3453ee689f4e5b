//! Values of rows.
//!
//! An object's row is of fixed width, because nearly every command reads and writes one:
//!
//! ```text
//! 0 format | 1 kind | 2 mode u16 | 4 uid u32 | 8 gid u32 | 12 nlink u32 | 16 rdev u32 | 20 size u64
//! 28 atime i64 | 36 mtime i64 | 44 ctime i64 | 52 btime i64 | 60 parent u64 | 68 content u64
//! 76 bytes of the names of extended attributes, with a NUL each, u32 | 80 end of format 1
//! 80 class u16 | 82 end of format 2                                                     all little-endian
//! ```

pub(crate) mod chunk;
pub(crate) mod class;

use bytes::Bytes;
use mooseng_types::{ChunkId, ClassId, ClusterId, InodeId, Level, MasterId, ServerId, SessionId};

use super::{FORMAT, open};
use crate::codec::{CodecError, Reader, Writer};
use crate::counters::Counters;
use crate::inode::{Dentry, InodeRow};
use crate::membership::{Member, Membership};
use crate::server::{ServerMode, ServerPlace, ServerRow};
use crate::session::{SessionRecord, Window};
use crate::settings::{Settings, Totals};

/// Bytes of an object's row in its first format.
const INODE_SIZE: usize = 80;
/// The format of an object's row that says its class, and its bytes.
const INODE_WITH_CLASS: u8 = 2;
const INODE_WITH_CLASS_SIZE: usize = 82;

/// The format of a chunkserver's row that says where it stands.
const SERVER_WITH_PLACE: u8 = 2;

/// A value of a row: what the tables are made of.
pub(crate) trait RowValue: Sized {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

fn put<const N: usize>(row: &mut [u8; INODE_WITH_CLASS_SIZE], at: usize, bytes: [u8; N]) {
    row[at..at + N].copy_from_slice(&bytes);
}

impl InodeRow {
    /// The row as a cluster of this level has it.
    pub(crate) fn encode(&self, level: Level) -> Bytes {
        let mut row = [0; INODE_WITH_CLASS_SIZE];
        let has_class = level >= Level::IDENTITY;
        row[0] = if has_class { INODE_WITH_CLASS } else { FORMAT };
        row[1] = self.kind.raw();
        put(&mut row, 2, self.mode.to_le_bytes());
        put(&mut row, 4, self.uid.to_le_bytes());
        put(&mut row, 8, self.gid.to_le_bytes());
        put(&mut row, 12, self.nlink.to_le_bytes());
        put(&mut row, 16, self.rdev.to_le_bytes());
        put(&mut row, 20, self.size.to_le_bytes());
        put(&mut row, 28, self.atime.raw().to_le_bytes());
        put(&mut row, 36, self.mtime.raw().to_le_bytes());
        put(&mut row, 44, self.ctime.raw().to_le_bytes());
        put(&mut row, 52, self.btime.raw().to_le_bytes());
        put(&mut row, 60, self.parent.raw().to_le_bytes());
        put(&mut row, 68, self.content.to_le_bytes());
        put(&mut row, 76, self.xattr_names.to_le_bytes());
        put(&mut row, 80, self.class.raw().to_le_bytes());
        Bytes::copy_from_slice(if has_class { &row } else { &row[..INODE_SIZE] })
    }
}

impl RowValue for InodeRow {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (format, mut r) = Reader::new(bytes)?;
        if !matches!(format, FORMAT | INODE_WITH_CLASS) {
            return Err(CodecError::Format(format));
        }
        let row = Self {
            kind: r.kind()?,
            mode: u16::from_le_bytes(r.array()?),
            uid: u32::from_le_bytes(r.array()?),
            gid: u32::from_le_bytes(r.array()?),
            nlink: u32::from_le_bytes(r.array()?),
            rdev: u32::from_le_bytes(r.array()?),
            size: u64::from_le_bytes(r.array()?),
            atime: r.time()?,
            mtime: r.time()?,
            ctime: r.time()?,
            btime: r.time()?,
            parent: InodeId::from_raw(u64::from_le_bytes(r.array()?)),
            content: u64::from_le_bytes(r.array()?),
            xattr_names: u32::from_le_bytes(r.array()?),
            class: ClassId::from_raw(match format {
                INODE_WITH_CLASS => u16::from_le_bytes(r.array()?),
                _ => 0,
            }),
        };
        r.finish(row)
    }
}

impl Dentry {
    pub(crate) fn encode(&self) -> [u8; 10] {
        let [a, b, c, d, e, f, g, h] = self.inode.raw().to_le_bytes();
        [FORMAT, self.kind.raw(), a, b, c, d, e, f, g, h]
    }
}

impl RowValue for Dentry {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let kind = r.kind()?;
        let inode = InodeId::from_raw(u64::from_le_bytes(r.array()?));
        r.finish(Self { inode, kind })
    }
}

impl SessionRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 18 + self.name.len());
        w.raw(&self.client);
        w.bytes(self.name.as_bytes());
        w.finish()
    }
}

impl RowValue for SessionRecord {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self { client: r.array()?, name: r.text()? };
        r.finish(row)
    }
}

impl Window {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 16);
        w.var(self.acked_below);
        w.var(self.highest);
        w.finish()
    }
}

impl RowValue for Window {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self { acked_below: r.var()?, highest: r.var()?, dirty: false };
        r.finish(row)
    }
}

impl ServerRow {
    /// The row as a cluster of this level has it.
    pub(crate) fn encode(&self, level: Level) -> Vec<u8> {
        let has_place = level >= Level::CLASSES;
        let format = if has_place { SERVER_WITH_PLACE } else { FORMAT };
        let mut w = Writer::new(format, 48 + self.name.len() + self.address.len());
        w.server(self.server);
        w.raw(&self.uuid);
        w.bytes(self.name.as_bytes());
        w.bytes(self.address.as_bytes());
        if has_place {
            w.place(&self.place);
            w.mode(self.mode);
        }
        w.finish()
    }
}

impl RowValue for ServerRow {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (format, mut r) = Reader::new(bytes)?;
        if !matches!(format, FORMAT | SERVER_WITH_PLACE) {
            return Err(CodecError::Format(format));
        }
        let (server, uuid, name, address) = (r.server()?, r.array()?, r.text()?, r.text()?);
        let (place, mode) = match format {
            SERVER_WITH_PLACE => (r.place()?, r.mode()?),
            _ => (ServerPlace::default(), ServerMode::Normal),
        };
        r.finish(Self { server, uuid, name, address, place, mode })
    }
}

impl Settings {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 18);
        w.raw(&self.cluster.bytes());
        w.u8(self.copies);
        w.finish()
    }
}

impl RowValue for Settings {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self { cluster: ClusterId::from_bytes(r.array()?), copies: r.u8()? };
        r.finish(row)
    }
}

impl Counters {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 48);
        for number in [
            self.next_inode,
            self.next_chunk,
            self.next_session,
            self.next_server.into(),
            self.totals.inodes,
            self.totals.used_bytes,
            self.totals.chunks,
        ] {
            w.var(number);
        }
        w.finish()
    }
}

impl RowValue for Counters {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self {
            next_inode: r.var()?,
            next_chunk: r.var()?,
            next_session: r.var()?,
            next_server: r.narrow()?,
            totals: Totals { inodes: r.var()?, used_bytes: r.var()?, chunks: r.var()? },
        };
        r.finish(row)
    }
}

fn member(r: &mut Reader<'_>) -> Result<Member, CodecError> {
    Ok(Member {
        id: MasterId::from_raw(r.var()?),
        name: r.text()?,
        address: r.text()?,
        voter: r.bool()?,
        wants_vote: r.bool()?,
    })
}

impl Membership {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 12 + 48 * self.members.len());
        w.var(self.epoch);
        w.var(self.members.len() as u64);
        for member in &self.members {
            w.var(member.id.raw());
            w.bytes(member.name.as_bytes());
            w.bytes(member.address.as_bytes());
            w.u8(member.voter.into());
            w.u8(member.wants_vote.into());
        }
        w.finish()
    }
}

impl RowValue for Membership {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self { epoch: r.var()?, members: r.list(member)? };
        // Looked up by halving, so the order counts.
        if !row.members.is_sorted_by(|one, next| one.id < next.id) {
            return Err(CodecError::Value("order of members"));
        }
        r.finish(row)
    }
}

/// Index and term of the entry that a store began with: the group's founding, or that of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

impl Base {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 21);
        w.var(self.index);
        w.var(self.term);
        w.finish()
    }
}

impl RowValue for Base {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self { index: r.var()?, term: r.var()? };
        r.finish(row)
    }
}

/// The rolling hash of all changes up to the applied index; of fixed width, as a hash is large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Digest(pub(crate) u64);

impl Digest {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 9);
        w.raw(&self.0.to_le_bytes());
        w.finish()
    }
}

impl RowValue for Digest {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self(u64::from_le_bytes(r.array()?));
        r.finish(row)
    }
}

/// How far the table from servers to chunks is entered: from this chunk on what is older than the table is missing; `None`: it
/// is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Indexed(pub(crate) Option<ChunkId>);

impl Indexed {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 11);
        w.option(self.0, Writer::chunk);
        w.finish()
    }
}

impl RowValue for Indexed {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self(r.option(Reader::chunk)?);
        r.finish(row)
    }
}

/// A row that is one number: an id that a key leads to, or the applied index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Number(pub(crate) u64);

impl Number {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, 11);
        w.var(self.0);
        w.finish()
    }

    pub(crate) fn chunk(self) -> ChunkId {
        ChunkId::from_raw(self.0)
    }

    pub(crate) fn session(self) -> SessionId {
        SessionId::from_raw(self.0)
    }

    /// `None` if the number is no server's.
    pub(crate) fn server(self) -> Option<ServerId> {
        u32::try_from(self.0).ok().map(ServerId::from_raw)
    }
}

impl RowValue for Number {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let row = Self(r.var()?);
        r.finish(row)
    }
}
