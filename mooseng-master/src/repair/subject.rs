//! What is known of one chunk: its row, and what servers tell.

use mooseng_meta::{ChunkRow, MetaState};
use mooseng_types::{ChunkId, ChunkVersion, Part, ServerId};

use super::moves::Moves;
use super::{ChunkView, Ledger, Standing};
use crate::registry::Registry;

/// A chunk, as it is now.
#[derive(Debug)]
pub(crate) enum Subject {
    /// A row tells of it.
    Known {
        /// The row.
        row: ChunkRow,
        /// Beside what servers tell.
        view: Box<ChunkView>,
    },
    /// No row does, and servers have these copies.
    Unknown(Vec<(ServerId, ChunkVersion)>),
    /// There is nothing to be done about it.
    Nothing,
}

impl Subject {
    /// What is known of a chunk.
    pub(crate) fn of(state: &MetaState, registry: &Registry, ledger: &Ledger, chunk: ChunkId) -> Self {
        let standings = &ledger.standings;
        let told = registry.told(Part::whole(chunk));
        let Some(row) = state.chunk(chunk) else {
            // What is dead is deleted elsewhere. What this state has never given out was made after it: the masters may have
            // gone back in time, and the file that it belongs to may be somewhere still.
            if state.is_dead(chunk) || !state.has_given_out(chunk) {
                return Self::Nothing;
            }
            let serving = told.into_iter().filter(|(server, _)| standings.of(*server) == Standing::Serving);
            let copies: Vec<_> = serving.map(|(server, copy)| (server, copy.version)).collect();
            return if copies.is_empty() { Self::Nothing } else { Self::Unknown(copies) };
        };
        // Nobody makes chunks in parts yet.
        let Ok(servers) = row.layout.copies() else { return Self::Nothing };
        let class = state.class_for(row.inode);
        let wanted = class.as_ref().map_or(1, |class| class.keep.copies().len());
        let settling = ledger.settling(chunk);
        let mut view = ChunkView::new(&row, servers, wanted, settling, &told, |server| standings.of(server));
        if let Some(class) = class {
            view.look_for_moves(|counted, beside| Moves::of(&class.keep, counted, beside, registry));
        }
        Self::Known { row, view: Box::new(view) }
    }
}
