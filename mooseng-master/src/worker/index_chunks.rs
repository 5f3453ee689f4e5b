//! After an upgrade: enters the chunks that were there before it into the table from servers to chunks, a few at a time.

use mooseng_meta::{ClusterCommand, INDEX_MAX};

use super::{Round, Worker};

/// Where it goes on is in the state.
#[derive(Debug)]
pub(super) struct IndexChunks;

impl Worker for IndexChunks {
    fn name(&self) -> &'static str {
        "index-chunks"
    }

    fn work(&mut self, round: &mut Round<'_>) {
        if let Some(from) = round.state().next_to_index() {
            round.propose(ClusterCommand::IndexChunks { from, count: INDEX_MAX });
        }
    }
}
