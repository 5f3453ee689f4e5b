//! What the leader does without being asked: founds the state, ends silent sessions, reaps unlinked files that nobody
//! has open, has the chunks of removed files deleted. Everything is found again from the state, so a new leader goes on
//! where the old one stopped.

use std::time::Duration;

use mooseng_meta::{ClusterCommand, RepairCommand};
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
            let command =
                ClusterCommand::Bootstrap { cluster: self.config.cluster, copies: self.config.copies }.into();
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
            self.propose_internal(ClusterCommand::CloseSession { session }.into());
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
            self.propose_internal(RepairCommand::ReapOrphans { inodes }.into());
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
            self.propose_internal(RepairCommand::ForgetDead { chunks: gone }.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_protocol::pb;
    use mooseng_protocol::rpc::Rpc;
    use prost::Message as _;

    use super::super::testing::Leader;
    use super::*;

    const SERVERS: [u8; 2] = [1, 2];

    /// A leader with two chunkservers, and a file of one committed chunk on both, whose lease is given back.
    fn with_a_chunk() -> (Leader, u64, pb::GrantWriteReply) {
        let mut leader = Leader::new();
        assert_eq!(SERVERS.map(|number| leader.serve_chunks(number)), [1, 2]);
        let session = leader.open(1);
        let meta = |seq| Some(pb::RequestMeta { session, seq, acked_below: seq });
        let create =
            pb::CreateRequest { meta: meta(1), parent: 1, name: "f".into(), kind: 8, ..Default::default() };
        let inode = leader.ask(1, &create).unwrap().attr.unwrap().inode;
        let grant =
            leader.ask(1, &pb::GrantWriteRequest { meta: meta(2), inode, ..Default::default() }).unwrap();
        assert!(
            grant.fresh && grant.servers.len() == 2 && grant.attr.is_some_and(|attr| attr.inode == inode)
        );
        let chunk =
            pb::CommittedChunk { index: 0, chunk: grant.chunk, version: grant.version, release: true };
        let commit = pb::CommitWriteRequest {
            meta: meta(3),
            inode,
            size_at_least: 10,
            chunks: vec![chunk],
            mtime_ns: None,
        };
        assert_eq!(leader.ask(1, &commit).unwrap().attr.unwrap().content_version, 1);
        (leader, inode, grant)
    }

    fn report(leader: &mut Leader, server: u8, chunk: u64, in_doubt: bool) {
        let chunks = vec![pb::CopyStatus { chunk, version: 1, in_doubt, part: 0 }];
        let server = server.into();
        let report = pb::ChunkReportRequest { server, full: true, last: true, chunks, ..Default::default() };
        leader.ask(100 + u64::from(server), &report).unwrap();
    }

    fn orders(leader: &mut Leader) -> Vec<(u64, pb::CopyChunk)> {
        let pushed = std::mem::take(&mut leader.pushed).into_iter();
        let orders = pushed.filter(|(_, frame)| frame.header.kind == pb::CopyChunk::KIND);
        orders.map(|(conn, frame)| (conn.0, pb::CopyChunk::decode(frame.body).unwrap())).collect()
    }

    /// Keeps both servers up.
    fn pass(leader: &mut Leader, time: Duration) {
        let until = leader.now.mono + time;
        while leader.now.mono < until {
            for server in SERVERS.map(u32::from) {
                let beat = pb::HeartbeatRequest { server, ..Default::default() };
                leader.ask(100 + u64::from(server), &beat).unwrap();
            }
            leader.pass(Duration::from_millis(500));
        }
    }

    #[test]
    fn a_copy_in_doubt_is_named_last_and_fetched_anew_from_a_whole_one_until_it_is_reported() {
        let (mut leader, inode, grant) = with_a_chunk();
        let locate = pb::LocateRequest { session: 1, inode, first_index: 0, count: 1 };
        let first = |leader: &mut Leader| leader.ask(1, &locate).unwrap().chunks[0].servers[0].server;
        let doubtful = u8::try_from(first(&mut leader)).unwrap();
        let whole = 3 - doubtful;
        report(&mut leader, doubtful, grant.chunk, true);
        pass(&mut leader, Duration::from_secs(1));
        assert_eq!(orders(&mut leader), [], "of no copy is it known that it is whole");
        report(&mut leader, whole, grant.chunk, false);
        assert_eq!(first(&mut leader), u32::from(whole));
        pass(&mut leader, Duration::from_secs(1));
        let given = orders(&mut leader);
        let [(conn, order)] = &given[..] else { panic!("{given:?}") };
        assert_eq!((*conn, order.chunk, order.version), (100 + u64::from(doubtful), grant.chunk, 1));
        assert!(order.replace && order.source == format!("s{whole}:1"), "{order:?}");
        pass(&mut leader, Duration::from_secs(11));
        assert_eq!(orders(&mut leader).len(), 1, "it is given again");
        report(&mut leader, doubtful, grant.chunk, false);
        pass(&mut leader, Duration::from_secs(11));
        assert_eq!(orders(&mut leader), []);
        assert_eq!(first(&mut leader), u32::from(doubtful), "the order of the row");
    }

    #[test]
    fn a_grant_drops_no_server_while_only_those_that_are_down_would_stay() {
        let (mut leader, inode, first) = with_a_chunk();
        let (session, mut seq) = (1, 10);
        let mut grant = |leader: &mut Leader, failed: u32| {
            seq += 1;
            let meta = Some(pb::RequestMeta { session, seq, acked_below: seq });
            let failed_servers = vec![failed];
            leader
                .ask(1, &pb::GrantWriteRequest { meta, inode, failed_servers, ..Default::default() })
                .unwrap()
        };
        let lease = pb::RequestMeta { session, seq: 10, acked_below: 10 };
        leader.ask(1, &pb::GrantWriteRequest { meta: Some(lease), inode, ..Default::default() }).unwrap();
        leader.core.closed(leader.now, crate::core::ConnId(102));
        let kept = grant(&mut leader, 1);
        assert_eq!((kept.chunk, kept.version, kept.servers.len()), (first.chunk, 3, 2));
        assert_eq!(kept.servers[0].server, 1, "who is up is named first");
        let dropped = grant(&mut leader, 2);
        assert_eq!((dropped.version, dropped.servers.len(), dropped.fresh), (4, 1, false));
        let last = grant(&mut leader, 1);
        assert_eq!((last.version, last.servers.len()), (5, 1));
    }
}
