//! Masters come and go: snapshots on their way, disks that are lost for good, members that are replaced, leadership that
//! is handed over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_master::core::ConnId;
use mooseng_master::raft::Message;
use mooseng_master::snapshot::{Flaw, MemorySink, Receiving, SnapshotError, SnapshotFrame, frames};
use mooseng_meta::{MemoryStore, MetaStore, applied_index_of};
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Principal, Role};
use mooseng_protocol::rpc::Rpc;
use mooseng_types::{CellId, MasterId};

use super::{Event, Happening, World};
use crate::net::Place;
use crate::plant::Plant;
use crate::rows::Rows;

/// The administrator's connection. What has to happen is asked for until it has; of the answers, only those about the level
/// are listened to.
pub(super) const ADMIN: ConnId = ConnId::Framed(1 << 60);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A snapshot on its way.
#[derive(Debug)]
pub(super) struct Transfer {
    cell: CellId,
    from: u64,
    from_incarnation: u64,
    to: u64,
    to_incarnation: u64,
    /// As the receiver's core knows itself and as the sender's knows it.
    peer: MasterId,
    message: Message,
    store: Arc<MemoryStore>,
}

impl World {
    /// The leader's store as of now, row by row as it goes over the wire; it arrives later, or not.
    pub(super) fn send_snapshot(&mut self, from: u64, cell: CellId, peer: MasterId, message: Message) {
        let Some(master) = self.masters.get(&from) else { return };
        let from_incarnation = master.incarnation;
        let Some(running) = master.running.as_ref() else { return };
        let (Some(group), Some(rows)) = (running.core.groups().get(cell), master.rows.get(&cell)) else {
            return;
        };
        let view = group.state().store().view();
        let planted = match self.plant {
            Some(Plant::StaleSnapshot) => rows.older(&*view),
            Some(Plant::SnapshotWithoutAnswers) => Some(Rows::without_answers(&*view)),
            _ => None,
        };
        let view = planted.map_or(view, |planted| planted.view());
        let said = message.snapshot_index();
        if applied_index_of(&*view) != said {
            return self.after(
                Duration::ZERO,
                Event::SnapshotSent { cell, from, from_incarnation, peer, arrived: false },
            );
        }
        let to = peer.number();
        let (to_incarnation, levels) =
            self.masters.get(&to).map_or((0, self.release(Place::Master(to))), |m| (m.incarnation, m.levels));
        let mut received = None;
        let mut receiving = None;
        let sent = frames(cell, &*view, message.clone(), &mut |frame| {
            match frame {
                SnapshotFrame::Begin(_, begin) => {
                    receiving = Some(Receiving::begin(begin, MemorySink::default(), levels)?)
                }
                SnapshotFrame::Rows(rows) => {
                    receiving.as_mut().map_or(Ok(()), |receiving| receiving.rows(rows))?
                }
                SnapshotFrame::End(end) => {
                    received = receiving.take().map(|receiving| receiving.end(end)).transpose()?
                }
            }
            Ok(())
        });
        let store = match (sent, received) {
            (Ok(_), Some(received)) => Arc::new(received.store),
            (Err(SnapshotError::Refused { flaw: Flaw::Level { .. }, .. }), _) => {
                self.counting.counts.add(Happening::Refusal, 1);
                self.note(format!("master {to} does not know the level of a snapshot of master {from}"));
                return self.after(
                    Duration::ZERO,
                    Event::SnapshotSent { cell, from, from_incarnation, peer, arrived: false },
                );
            }
            (Err(error), _) => return self.accuse(format!("a snapshot cannot be sent: {error}")),
            (Ok(_), None) => return self.accuse("a snapshot has no end".into()),
        };
        self.note(format!("master {from} sends master {to} a snapshot of {said}"));
        let transfer = Transfer { cell, from, from_incarnation, to, to_incarnation, peer, message, store };
        let takes = self.rng.ms(5, 900);
        self.after(takes, Event::Snapshot(Box::new(transfer)));
    }

    pub(super) fn snapshot(&mut self, transfer: Transfer) {
        let Transfer { cell, from, from_incarnation, to, to_incarnation, peer, message, store } = transfer;
        let there = self.masters.get(&to).is_some_and(|master| {
            master.running.is_some() && master.incarnation == to_incarnation && master.id() == peer
        });
        let reached = self.net.stream(self.time, Place::Master(from), Place::Master(to)).is_some();
        let arrives = there && reached && !self.is_frozen(Place::Master(to)) && self.rng.chance(900);
        if arrives {
            if let Some(running) = self.masters.get_mut(&to).and_then(|master| master.running.as_mut()) {
                running.incoming.insert(cell, Arc::clone(&store));
            }
            let store: Arc<dyn MetaStore> = store;
            self.with_core(to, |core, now| core.snapshot_received(now, cell, message, store));
        }
        self.after(
            Duration::ZERO,
            Event::SnapshotSent { cell, from, from_incarnation, peer, arrived: arrives },
        );
    }

    pub(super) fn snapshot_sent(
        &mut self,
        cell: CellId,
        from: u64,
        from_incarnation: u64,
        peer: MasterId,
        arrived: bool,
    ) {
        if self.masters.get(&from).is_some_and(|master| master.incarnation == from_incarnation) {
            self.with_core(from, |core, _| core.snapshot_sent(cell, peer, arrived));
        }
    }

    /// A master takes a snapshot for its rows and its log; often its power goes while it does.
    pub(super) fn installs(&mut self, id: u64) {
        let operations = self.rng.below(4);
        if self.time < self.faults_until
            && self.rng.chance(300)
            && let Some(master) = self.masters.get(&id)
        {
            master.disk.arm(operations);
        }
        let stopped = self.frozen.keys().any(|place| matches!(place, Place::Master(_)));
        let down = self.masters.values().any(|master| master.running.is_none());
        let counts = &mut self.counting.counts;
        counts.add(Happening::Snapshot, 1);
        counts.add(Happening::SnapshotAmidFaults, u64::from(stopped || down || self.net.is_cut()));
    }

    /// Whether all masters, perhaps but one, are voters of every group in the life that they have, and each of them has that in its store:
    /// one may then be lost for good. While the others could forget that a change counts, it is one of the old group.
    fn vote_all_but(&self, one: Option<u64>) -> bool {
        let others = || self.masters.values().filter(|master| Some(master.number) != one);
        others().all(|master| {
            let Some(cells) = master.stored_voters() else { return false };
            cells.iter().all(|voters| others().all(|other| voters.contains(&other.id())))
        })
    }

    /// A master loses its disk for good.
    pub(super) fn wipe_master(&mut self, id: u64) {
        if self.masters.len() < 3 || !self.replacing.is_empty() || !self.vote_all_but(None) {
            return;
        }
        self.crash_master(id, true);
        if let Some(master) = self.masters.get_mut(&id) {
            master.wipe();
        }
        self.note(format!("master {id} has lost its disk"));
    }

    /// The administrator takes a master out of the group, and lets it in again with a new disk.
    pub(super) fn replace_master(&mut self, id: u64) {
        let Some(old) = self.masters.get(&id).map(crate::master::Master::id) else { return };
        if self.masters.len() < 3 || !self.replacing.is_empty() {
            return;
        }
        self.note(format!("master {id} is to leave the group"));
        self.replacing.insert(id, old);
        self.after(Duration::ZERO, Event::Replace { master: id });
    }

    /// Goes on with it, as far as the group has agreed.
    pub(super) fn replace(&mut self, id: u64) {
        let Some(old) = self.replacing.get(&id).copied() else { return };
        let Some(own) = self.masters.get(&id).map(crate::master::Master::id) else { return };
        let group = self.leader().and_then(|leader| self.masters.get(&leader)).and_then(|master| {
            master.running.as_ref().map(|running| running.core.state().membership().clone())
        });
        match group {
            None => {}
            Some(group) if group.get(old).is_some() => {
                if self.leader() == Some(id) {
                    self.admin(&pb::TransferLeaderRequest::default());
                } else if self.vote_all_but(Some(id)) {
                    self.admin(&pb::RemoveMasterRequest { master: id.to_string(), dry_run: false });
                }
            }
            Some(_) if own == old => {
                self.crash_master(id, true);
                if let Some(master) = self.masters.get_mut(&id) {
                    master.wipe();
                }
                self.note(format!("master {id} has left and comes back with a new disk"));
            }
            Some(group) if group.get(own).is_some() => {
                self.replacing.remove(&id);
                return self.counting.counts.add(Happening::Replacement, 1);
            }
            Some(_) => self.admin(&pb::AddMasterRequest { master: id.to_string(), ..Default::default() }),
        }
        self.after(ASK_AGAIN, Event::Replace { master: id });
    }

    pub(super) fn transfer_leader(&mut self, to: u64) {
        self.note(format!("master {to} is to lead"));
        if let Some(leader) = self.leader()
            && self.rng.chance(200)
        {
            // The word to take over may be the last that passes, or not even that.
            self.net.cut(Place::Master(leader), Place::Master(to));
            self.heal_later();
        }
        self.admin(&pb::TransferLeaderRequest { master: to.to_string(), dry_run: false });
    }

    /// A request of the administrator reaches the leader.
    pub(super) fn admin<R: Rpc>(&mut self, request: &R) {
        let Some(leader) = self.leader() else { return };
        let body: Bytes = request.encode_to_vec().into();
        let header = Header { kind: R::KIND, ..Header::default() };
        let from = Principal { role: Role::Admin, name: "mooseng".into(), node: 0, client: None };
        self.with_core(leader, |core, now| core.request(now, &from, ADMIN, header, body));
    }
}
