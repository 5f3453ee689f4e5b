//! Rows of chunks, dead ones among them.

use mooseng_types::{Level, Part, ServerId};

use super::{FORMAT, RowValue};
use crate::chunk::ChunkRow;
use crate::codec::{CodecError, Reader, Writer};
use crate::layout::{Layout, Stripe};

/// The format of rows that tell parts of a chunk from whole copies.
const WITH_PARTS: u8 = 2;

/// Numbers of the layouts; never used again for another.
mod tag {
    pub(super) const COPIES: u8 = 0;
    pub(super) const STRIPED: u8 = 1;
}

fn put_layout(w: &mut Writer, layout: &Layout) {
    match layout {
        Layout::Copies(servers) => {
            w.u8(tag::COPIES);
            w.list(servers, Writer::server);
        }
        Layout::Striped(stripe) => {
            w.u8(tag::STRIPED);
            w.u8(stripe.k());
            w.u8(stripe.m());
            w.list(stripe.servers(), Writer::server);
        }
    }
}

fn layout(r: &mut Reader<'_>) -> Result<Layout, CodecError> {
    match r.u8()? {
        tag::COPIES => r.list(Reader::server).map(Layout::Copies),
        tag::STRIPED => {
            let (k, m, parts) = (r.u8()?, r.u8()?, r.list(Reader::server)?);
            Stripe::new(k, m, parts).map(Layout::Striped).ok_or(CodecError::Value("stripe"))
        }
        _ => Err(CodecError::Value("layout")),
    }
}

impl ChunkRow {
    /// The row as a cluster of this level has it. Below the level of layouts there are only copies. Should there be a stripe all
    /// the same, its row is of the later format, as the first cannot say it.
    pub(crate) fn encode(&self, level: Level) -> Vec<u8> {
        let plain = match &self.layout {
            Layout::Copies(servers) if level < Level::IDENTITY => Some(servers),
            Layout::Copies(_) | Layout::Striped(_) => None,
        };
        let mut w = Writer::new(if plain.is_some() { FORMAT } else { WITH_PARTS }, 48);
        w.inode(self.inode);
        w.index(self.index);
        w.version(self.committed);
        w.version(self.granted);
        w.option(self.lease, Writer::session);
        match plain {
            Some(servers) => w.list(servers, Writer::server),
            None => put_layout(&mut w, &self.layout),
        }
        w.var(self.valid_length.into());
        w.u8(self.differs.into());
        w.finish()
    }
}

impl RowValue for ChunkRow {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (format, mut r) = Reader::new(bytes)?;
        if !matches!(format, FORMAT | WITH_PARTS) {
            return Err(CodecError::Format(format));
        }
        let row = Self {
            inode: r.inode()?,
            index: r.index()?,
            committed: r.version()?,
            granted: r.version()?,
            lease: r.option(Reader::session)?,
            layout: match format {
                WITH_PARTS => layout(&mut r)?,
                _ => Layout::Copies(r.list(Reader::server)?),
            },
            valid_length: r.narrow()?,
            differs: r.bool()?,
        };
        r.finish(row)
    }
}

/// What is still to be deleted of a dead chunk: on which server, and the index of the part there; 0 is a whole copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeadChunk(pub(crate) Vec<(ServerId, u8)>);

impl DeadChunk {
    /// The row as a cluster of this level has it. Below the level of parts there are only whole copies. Should there be a part all
    /// the same, its row is of the later format, as the first would call it a copy.
    pub(crate) fn encode(&self, level: Level) -> Vec<u8> {
        let with_parts = level >= Level::IDENTITY || self.0.iter().any(|(_, index)| *index != 0);
        let mut w = Writer::new(if with_parts { WITH_PARTS } else { FORMAT }, 16);
        w.list(&self.0, |w, (server, index)| {
            w.server(server);
            if with_parts {
                w.u8(index);
            }
        });
        w.finish()
    }
}

fn part_index(r: &mut Reader<'_>) -> Result<u8, CodecError> {
    let index = r.u8()?;
    if index > Part::INDEX_MAX { Err(CodecError::Value("part")) } else { Ok(index) }
}

impl RowValue for DeadChunk {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (format, mut r) = Reader::new(bytes)?;
        let parts = match format {
            FORMAT => r.list(|r| Ok((r.server()?, 0)))?,
            WITH_PARTS => r.list(|r| Ok((r.server()?, part_index(r)?)))?,
            other => return Err(CodecError::Format(other)),
        };
        r.finish(Self(parts))
    }
}
