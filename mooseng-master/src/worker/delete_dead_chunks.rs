//! Orders the deletion of chunks that no file has any more, and forgets those that all servers have deleted.

use std::time::Duration;

use mooseng_meta::RepairCommand;
use mooseng_types::{ChunkId, Part, ServerId};

use super::{Order, REPEAT_ORDERS, Round, Worker};

/// Chunks looked at in one round.
const DEAD_MAX: usize = 1024;

/// Where the next round begins. A server that is down keeps its chunks on the list until it is back or removed.
#[derive(Debug, Default)]
pub(super) struct DeleteDeadChunks {
    from: u64,
    repeated: Duration,
}

impl Worker for DeleteDeadChunks {
    fn name(&self) -> &'static str {
        "delete-chunks"
    }

    fn begin(&mut self) {
        *self = Self::default();
    }

    fn work(&mut self, round: &mut Round<'_>) {
        if round.now.saturating_sub(self.repeated) >= REPEAT_ORDERS {
            self.repeated = round.now;
            round.registry.forget_deletions();
        }
        let dead = round.state().dead_chunks(ChunkId::from_raw(self.from), DEAD_MAX);
        self.from = if dead.len() < DEAD_MAX { 0 } else { dead.last().map_or(0, |dead| dead.0.raw() + 1) };
        let (mut gone, mut gone_parts) = (Vec::new(), Vec::new());
        let mut orders: Vec<(ServerId, Vec<Part>)> = Vec::new();
        for (chunk, parts) in dead {
            let mut left = 0;
            for &(id, part) in &parts {
                let Some(server) = round.registry.get_mut(id) else { continue };
                if server.confirmed.contains(&part) {
                    continue;
                }
                left += 1;
                if server.is_up(round.now) && server.deleting.insert(part) {
                    match orders.iter_mut().find(|(to, _)| *to == id) {
                        Some((_, parts)) => parts.push(part),
                        None => orders.push((id, vec![part])),
                    }
                }
            }
            if left == 0 {
                gone.push(chunk);
                gone_parts.extend(parts.into_iter().map(|(_, part)| part));
            }
        }
        orders.into_iter().for_each(|(server, parts)| round.order(Order::Delete(server, parts)));
        if !gone.is_empty() {
            round.registry.forget_confirmed(&gone_parts);
            round.propose(RepairCommand::ForgetDead { chunks: gone });
        }
    }
}
