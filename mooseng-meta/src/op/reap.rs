//! What is really gone.

use mooseng_types::{ChunkId, ChunkIndex, FileKind, InodeId};

use crate::key;
use crate::response::Response;
use crate::tables::Tables;

/// Chunks of one object that one command takes away: bounds the time for which other commands wait.
const CHUNKS_MAX: usize = 1024;

/// Removes objects that have no name. One with very many chunks loses some and is for the next command to finish; one
/// that has a name is passed over.
pub(crate) fn orphans(t: &mut Tables, inodes: &[InodeId]) -> Response {
    for &inode in inodes {
        if t.rows.contains(&key::orphan(inode)) {
            reap(t, inode);
        }
    }
    Response::Done
}

fn reap(t: &mut Tables, inode: InodeId) {
    let Some(row) = t.inode(inode) else { return };
    if row.is_file() {
        let chunks = t.chunks_from(inode, ChunkIndex::from_raw(0), CHUNKS_MAX + 1);
        for &(_, chunk) in chunks.iter().take(CHUNKS_MAX) {
            if let Some(row) = t.chunk(chunk) {
                t.kill_chunk(chunk, row);
            }
        }
        if chunks.len() > CHUNKS_MAX {
            return;
        }
        if t.rows.contains(&key::inline(inode)) {
            t.rows.delete(&key::inline(inode));
        }
        t.counters.totals.used_bytes -= row.size;
    }
    if row.kind == FileKind::Symlink {
        t.rows.delete(&key::target(inode));
    }
    for key in t.rows.collect(&key::xattrs(inode), &[], usize::MAX, |key, _| key.to_vec()) {
        t.rows.delete(&key);
    }
    t.rows.delete(&key::inode(inode));
    t.leave_class(row.class);
    t.rows.delete(&key::orphan(inode));
    t.counters.totals.inodes -= 1;
}

/// Forgets dead chunks whose copies are all deleted.
pub(crate) fn forget(t: &mut Tables, chunks: &[ChunkId]) -> Response {
    for &chunk in chunks {
        let key = key::dead_chunk(chunk);
        if t.rows.contains(&key) {
            t.rows.delete(&key);
            t.touched.push(chunk);
        }
    }
    Response::Done
}
