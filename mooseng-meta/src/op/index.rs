//! The table from servers to chunks: entering what is older than the table.

use mooseng_types::{ChunkId, FsError, Level};

use crate::chunk::ChunkRow;
use crate::codec::v1::row::Indexed;
use crate::key;
use crate::response::Response;
use crate::tables::{Tables, decode};

/// Most chunks that one command looks at: bounds the time for which other commands wait.
pub const INDEX_MAX: u32 = 1024;

/// Enters the next `count` chunks from `from` on. `EINVAL` at a level without the table, `ESTALE` if the table does not go on there:
/// an earlier leader may have asked for the same.
pub(crate) fn chunks(t: &mut Tables, from: ChunkId, count: u32) -> Result<Response, FsError> {
    if t.level < Level::IDENTITY || !(1..=INDEX_MAX).contains(&count) {
        return Err(FsError::Invalid);
    }
    if t.indexed_to() != Some(from) {
        return Err(FsError::Stale);
    }

    let found = t.rows.collect(b"c", &key::chunk(from), count as usize, |key, value| {
        let ChunkRow { layout, .. } = decode(key, value);
        (ChunkId::from_raw(key::number_at(key, 1)), layout)
    });
    for (chunk, layout) in &found {
        for (server, part) in layout.parts(*chunk) {
            t.enter_part(server, part);
        }
    }
    let full = found.len() == count as usize;
    let next = found.last().filter(|_| full).and_then(|(last, _)| last.raw().checked_add(1));
    t.rows.put(&key::INDEXED, Indexed(next.map(ChunkId::from_raw)).encode().into());
    Ok(Response::Done)
}
