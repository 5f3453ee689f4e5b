//! What the leader does without being asked: founds the state, ends silent sessions, reaps unlinked files that nobody
//! has open, has the chunks of removed files deleted. Everything is found again from the state, so a new leader goes on
//! where the old one stopped.

use std::time::Duration;

use mooseng_meta::Command;
use mooseng_types::{ChunkId, InodeId, ServerId};

use super::{MasterCore, Now, Waiter};
use crate::raft::Role;
use crate::service::servers::Fetch;

/// How often the leader looks around.
const INTERVAL: Duration = Duration::from_millis(50);
/// An order to delete that is not confirmed after this time is given again: the server may have been too busy for it.
const REPEAT_ORDERS: Duration = Duration::from_secs(10);
/// Unlinked files reaped by one command.
const REAP_MAX: usize = 512;
/// Unlinked files looked at in one round: more may be held open.
const ORPHANS_MAX: usize = 4096;
/// Copies in doubt looked at in one round, of each server.
const DOUBTFUL_MAX: usize = 256;
/// Copies that one server fetches anew at the same time.
const SETTLING_MAX: usize = 4;
/// Chunks looked at in one round of deletion.
const DEAD_MAX: usize = 1024;

/// What is under way, so that nothing is ordered twice in a row.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    last: Duration,
    dead_from: u64,
    orders_repeated: Duration,
}

impl MasterCore {
    pub(super) fn keep_house(&mut self, now: Now) {
        let leads = self.node.role() == Role::Leader;
        if !leads || now.mono.saturating_sub(self.housekeeping.last) < INTERVAL {
            return;
        }
        self.housekeeping.last = now.mono;
        // One round at a time: what was proposed must be applied before more of the same is found.
        if !self.node.may_serve_reads(now.mono) || self.has_own_commands_under_way() {
            return;
        }
        if !self.mend_group(now) {
            return;
        }
        if self.state.settings().is_none() {
            if !self.is_group_complete() {
                return;
            }
            let command = Command::Bootstrap { cluster: self.config.cluster, copies: self.config.copies };
            self.propose_internal(command);
            return;
        }
        self.expire_sessions(now);
        self.reap_orphans();
        if now.mono.saturating_sub(self.housekeeping.orders_repeated) >= REPEAT_ORDERS {
            self.housekeeping.orders_repeated = now.mono;
            self.registry.forget_orders();
        }
        self.settle_copies(now);
        self.delete_dead_chunks(now);
    }

    fn has_own_commands_under_way(&self) -> bool {
        let internal = |waiter: &Waiter| matches!(waiter, Waiter::Internal);
        self.gathered.iter().any(|gathered| internal(&gathered.waiter))
            || self.waiting.values().any(|(_, waiter)| internal(waiter))
    }

    fn expire_sessions(&mut self, now: Now) {
        for session in self.sessions.expired(now.mono, self.config.session_timeout) {
            tracing::info!(%session, "a silent session ends");
            self.sessions.closed(session);
            self.propose_internal(Command::CloseSession { session });
        }
    }

    fn reap_orphans(&mut self) {
        if !self.sessions.all_confirmed() {
            return;
        }
        let orphans = self.state.orphans(ORPHANS_MAX);
        let inodes: Vec<InodeId> =
            orphans.into_iter().filter(|inode| !self.sessions.is_open(*inode)).take(REAP_MAX).collect();
        if !inodes.is_empty() {
            self.propose_internal(Command::ReapOrphans { inodes });
        }
    }

    /// Has copies in doubt made anew from whole ones, where nobody writes. A server that is back from a power cut may lack
    /// what it had confirmed.
    fn settle_copies(&mut self, now: Now) {
        for id in self.registry.in_doubt(now.mono) {
            let doubtful = self.registry.get_mut(id).map(|server| server.next_doubtful(DOUBTFUL_MAX));
            for chunk in doubtful.unwrap_or_default() {
                let Some(order) = self.whole_copy_for(now, id, chunk) else { continue };
                if !self.registry.get_mut(id).is_some_and(|server| server.settle(chunk, SETTLING_MAX)) {
                    break;
                }
                self.order_copy(now, id, order);
            }
        }
    }

    /// Where a server can get a copy from instead of its own, if the file has it at all and nobody may be writing it.
    fn whole_copy_for(&self, now: Now, id: ServerId, chunk: ChunkId) -> Option<Fetch> {
        let row = self.state.chunk(chunk)?;
        if row.lease.is_some() || row.is_uncommitted() || !row.servers.contains(&id) {
            return None;
        }
        let (source, version) = self.registry.whole_copy(chunk, row.committed, &row.servers, now.mono)?;
        Some(Fetch { chunk, version, source })
    }

    /// Orders the deletion of chunks that no file has any more, and forgets those that all servers have deleted. A
    /// server that is down keeps its chunks on the list until it is back or removed.
    fn delete_dead_chunks(&mut self, now: Now) {
        let from = ChunkId::from_raw(self.housekeeping.dead_from);
        let dead = self.state.dead_chunks(from, DEAD_MAX);
        self.housekeeping.dead_from =
            if dead.len() < DEAD_MAX { 0 } else { dead.last().map_or(0, |d| d.0.raw() + 1) };
        let mut gone = Vec::new();
        let mut orders: Vec<(ServerId, Vec<ChunkId>)> = Vec::new();
        for (chunk, servers) in dead {
            let mut left = 0;
            for id in servers {
                let Some(server) = self.registry.get_mut(id) else { continue };
                if server.confirmed.contains(&chunk) {
                    continue;
                }
                left += 1;
                if server.is_up(now.mono) && server.deleting.insert(chunk) {
                    match orders.iter_mut().find(|(to, _)| *to == id) {
                        Some((_, chunks)) => chunks.push(chunk),
                        None => orders.push((id, vec![chunk])),
                    }
                }
            }
            if left == 0 {
                gone.push(chunk);
            }
        }
        for (server, chunks) in orders {
            self.order_deletion(server, &chunks);
        }
        if !gone.is_empty() {
            self.registry.forget_confirmed(&gone);
            self.propose_internal(Command::ForgetDead { chunks: gone });
        }
    }
}
