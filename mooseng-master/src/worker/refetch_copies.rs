//! Has copies in doubt made anew from whole ones, where nobody writes. A server that is back from a power cut may lack what
//! it had confirmed.

use std::time::Duration;

use mooseng_types::{ChunkId, ServerId};

use super::{Fetch, Order, REPEAT_ORDERS, Round, Worker};

/// Copies in doubt looked at in one round, of each server.
const DOUBTFUL_MAX: usize = 256;
/// Copies that one server fetches anew at the same time.
const REFETCHING_MAX: usize = 4;

/// When orders were last forgotten, to be given again.
#[derive(Debug, Default)]
pub(super) struct RefetchCopies {
    repeated: Duration,
}

impl Worker for RefetchCopies {
    fn name(&self) -> &'static str {
        "refetch-copies"
    }

    fn begin(&mut self) {
        *self = Self::default();
    }

    fn work(&mut self, round: &mut Round<'_>) {
        if round.now.saturating_sub(self.repeated) >= REPEAT_ORDERS {
            self.repeated = round.now;
            round.registry.forget_refetching();
        }
        for id in round.registry.in_doubt(round.now) {
            let doubtful = round.registry.get_mut(id).map(|server| server.next_doubtful(DOUBTFUL_MAX));
            for chunk in doubtful.unwrap_or_default() {
                let Some(fetch) = whole_copy_for(round, id, chunk) else { continue };
                if !round.registry.get_mut(id).is_some_and(|server| server.refetch(chunk, REFETCHING_MAX)) {
                    break;
                }
                round.order(Order::Fetch(id, fetch));
            }
        }
    }
}

/// Where a server can get a copy from instead of its own, if the file has it at all and nobody may be writing it.
fn whole_copy_for(round: &Round<'_>, id: ServerId, chunk: ChunkId) -> Option<Fetch> {
    let row = round.state().chunk(chunk)?;
    // Of a chunk in parts there are no whole copies.
    let copies = row.layout.copies().ok()?;
    if row.lease.is_some() || row.is_uncommitted() || !copies.contains(&id) {
        return None;
    }
    let (source, version) = round.registry.whole_copy(chunk, row.committed, copies, round.now)?;
    Some(Fetch { chunk, version, source })
}
