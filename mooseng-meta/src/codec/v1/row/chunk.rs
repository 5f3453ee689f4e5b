//! Rows of chunks, dead ones among them.

use mooseng_types::{Level, Part, ServerId};

use super::{FORMAT, RowValue};
use crate::codec::{CodecError, Reader, Writer};

/// The format of rows that tell parts of a chunk from whole copies.
const WITH_PARTS: u8 = 2;

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
