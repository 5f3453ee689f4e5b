//! What arrives, and what follows from it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mooseng_chunkserver::{BytesRead, Completion, blame};
use mooseng_master::core::{ConnId, Effect, MasterCore, Now};
use mooseng_master::group::PeerMessages;
use mooseng_master::{desk, group, wire};
use mooseng_protocol::frame::{self, FLAG_ERROR, FLAG_PUSH, Header};
use mooseng_protocol::pb;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_types::{CellId, ServerId};
use prost::Message as _;

use super::group::ADMIN;
use super::hello::principal;
use super::{CLEAN_ROUND, Conn, Event, TICK, World};
use crate::master::{Done, Performed};
use crate::net::Place;
use crate::plant::Plant;
use crate::server::{self, Asker, Forwarded};
use crate::task::{Answer, ChunkRequest, Order};

const FORWARD_TIMEOUT: Duration = Duration::from_secs(1);

impl World {
    /// Lets something happen to a master's core, if its process runs, and does what follows.
    pub(super) fn with_core(&mut self, id: u64, happen: impl FnOnce(&mut MasterCore, Now)) {
        if self.is_frozen(Place::Master(id)) {
            return;
        }
        let time = self.time;
        let Some(master) = self.masters.get_mut(&id) else { return };
        let now = master.now(time);
        let Some(running) = master.running.as_mut() else { return };
        happen(&mut running.core, now);
        running.core.settle(now);
        self.perform(id);
    }

    fn perform(&mut self, id: u64) {
        self.observe(id);
        let plant = self.plant;
        let Some(master) = self.masters.get_mut(&id) else { return };
        let (incarnation, now) = (master.incarnation, master.now(self.time));
        let Some(running) = master.running.as_mut() else { return };
        let Performed { effects, write, flush, installs } = running.perform(now, plant);
        let stalled = master.stalled_until > self.time;
        if installs {
            self.installs(id);
        }
        if write {
            let delay = if stalled {
                self.rng.ms(500, 3000)
            } else {
                self.rng.between(Duration::from_micros(100), self.slowest_disk)
            };
            self.after(delay, Event::Written { master: id, incarnation });
        }
        for cell in flush {
            let delay = self.rng.ms(1, 40);
            self.after(delay, Event::Flushed { master: id, incarnation, cell });
        }
        for effect in effects {
            match effect {
                Effect::Group(cell, effect) => self.perform_for_group(id, cell, effect),
                Effect::Desk(effect) => self.perform_for_desk(id, effect),
                Effect::Send(to, said) => self.send(id, to.number(), said),
                // Every address is known here.
                Effect::Link(_) => {}
            }
        }
    }

    fn perform_for_group(&mut self, id: u64, cell: CellId, effect: group::Effect) {
        match effect {
            group::Effect::SendSnapshot(to, message) => self.send_snapshot(id, cell, to, message),
            group::Effect::OutOfService(why) => {
                self.accuse(format!("state_machine_safety: master {id}, {cell}: {why}"));
            }
            // The disks are performed for elsewhere, and the core has gathered what is said.
            group::Effect::LeftBehind(_)
            | group::Effect::LostLog(_)
            | group::Effect::Relink
            | group::Effect::Send(..)
            | group::Effect::Persist(_)
            | group::Effect::Purge { .. }
            | group::Effect::Flush(..) => {}
        }
    }

    fn perform_for_desk(&mut self, id: u64, effect: desk::Effect) {
        match effect {
            desk::Effect::Frame(conn, bytes) => self.send_frame(id, conn, bytes),
            desk::Effect::Check(_) => self.accuse(format!("nobody has asked master {id} for a check")),
            desk::Effect::Cut(conn) => self.cut_off(id, conn),
            // The client here finds a new leader by asking.
            desk::Effect::Announce(_) => {}
        }
    }

    /// In the frames that go over the wire, each of which may be lost or come twice.
    fn send(&mut self, from: u64, to: u64, said: Vec<PeerMessages>) {
        let Some((conn, open)) = self.connection_to_peer(from, to) else { return };
        for frame in wire::frames(said) {
            for time in self.net.message(self.time, Place::Master(from), Place::Master(to)) {
                self.at(time.max(open), Event::Raft { to, conn, frame: frame.clone() });
            }
        }
    }

    /// Messages of another master have arrived.
    pub(super) fn hear(&mut self, to: u64, conn: u64, frame: pb::RaftFrame) {
        if self.peers.is_shut(conn) {
            return;
        }
        match wire::read(frame) {
            Ok(said) => self.with_core(to, |core, now| {
                said.into_iter().for_each(|said| core.peer_messages(now, said));
            }),
            Err(error) => self.accuse(format!("a master sent what it cannot read: {error}")),
        }
    }

    fn send_frame(&mut self, from: u64, conn: ConnId, bytes: Vec<u8>) {
        if conn == ADMIN {
            return self.told_operator(&bytes);
        }
        let ConnId::Framed(conn) = conn else { return self.accuse("the facade was answered".into()) };
        let conn = conn as u64;
        let Some(known) = self.conns.get(&conn).copied().filter(|known| !known.broken) else { return };
        let Some(slot) = self.tasks.get(&known.task) else { return };
        match self.net.stream(self.time, Place::Master(from), slot.place) {
            Some(time) => self.at(time, Event::Frame { conn, bytes: bytes.into() }),
            None => self.break_conn(conn),
        }
    }

    fn break_conn(&mut self, conn: u64) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.broken = true;
        }
    }

    pub(super) fn tick(&mut self, id: u64, incarnation: u64) {
        if self.masters.get(&id).is_none_or(|m| m.incarnation != incarnation || m.running.is_none()) {
            return;
        }
        self.with_core(id, |core, now| core.tick(now));
        self.after(TICK, Event::Tick { master: id, incarnation });
    }

    pub(super) fn written(&mut self, id: u64, incarnation: u64) {
        let plant = self.plant;
        let time = self.time;
        let Some(master) = self.masters.get_mut(&id).filter(|m| m.incarnation == incarnation) else { return };
        let now = master.now(time);
        let Some(running) = master.running.as_mut() else { return };
        match running.written(now, &mut master.rows, plant) {
            Done::Written(entries) => {
                self.appended(id, &entries);
                self.with_core(id, |_, _| {});
            }
            // A full disk ends the process only, a blown fuse the machine.
            Done::Died => {
                let power = self.disk(Place::Master(id)).is_none_or(crate::disk::FusedDisk::blown);
                self.crash_master(id, power);
            }
        }
    }

    pub(super) fn flushed(&mut self, id: u64, incarnation: u64, cell: CellId) {
        let Some(master) = self.masters.get_mut(&id).filter(|m| m.incarnation == incarnation) else { return };
        if master.disk.is_full() && master.rng.chance(700) {
            // What the store makes of it: rows that are not there end the process.
            return self.crash_master(id, false);
        }
        let now = master.now(self.time);
        master.flushed(now, cell);
        self.with_core(id, |_, _| {});
    }

    pub(super) fn flush(&mut self, id: u64) {
        self.with_core(id, |core, now| core.flush(now.mono));
        let next = self.rng.ms(200, 1500);
        self.after(next, Event::Flush { master: id });
    }

    pub(super) fn request(&mut self, conn: u64, header: Header, body: Bytes) {
        let Some(known) = self.conns.get_mut(&conn) else { return };
        let (task, id, place) = (known.task, known.master, known.place);
        let Some(master) = self.masters.get(&id) else { return };
        let here = *known.incarnation.get_or_insert(master.incarnation);
        if master.running.is_none() || here != master.incarnation {
            // Either a machine that says so, or one that says nothing.
            if self.rng.chance(500) {
                let delay = self.rng.ms(1, 5);
                let why = CallError::Unavailable { message: "connection refused".into() };
                self.after(delay, Event::Refused { task, call: header.request, why });
            }
            return self.break_conn(conn);
        }
        if let Err(why) = self.let_in(conn) {
            return self.refuse(conn, header.request, why);
        }
        self.observe_served(conn);
        let from = principal(place);
        self.with_core(id, |core, now| core.request(now, &from, framed(conn), header, body));
    }

    pub(super) fn frame(&mut self, conn: u64, bytes: &[u8]) {
        let Some(known) = self.conns.get(&conn).copied().filter(|known| !known.broken) else { return };
        let Ok(Some(frame)) = frame::decode(&mut BytesMut::from(bytes)) else {
            return self.accuse("a master sent a frame that does not decode".into());
        };
        if frame.header.flags & FLAG_PUSH != 0 {
            if let Some(slot) = self.tasks.get(&known.task) {
                slot.task.port.push(known.master, frame.header.kind, frame.body);
            }
            return self.poll(known.task);
        }
        let answer = if frame.header.flags & FLAG_ERROR != 0 {
            match pb::ErrorReply::decode(frame.body) {
                Ok(reply) => Err(CallError::from_reply(reply)),
                Err(error) => Err(CallError::Rejected { message: error.to_string() }),
            }
        } else {
            Ok(Answer::Master(frame.body))
        };
        self.answer(known.task, frame.header.request, answer);
    }

    pub(super) fn answer(&mut self, task: u64, call: u64, answer: Result<Answer, CallError>) {
        if let Some(slot) = self.tasks.get(&task) {
            slot.task.port.deliver(call, answer);
            self.poll(task);
        }
    }

    pub(super) fn poll(&mut self, task: u64) {
        let time = self.time;
        let Some(slot) = self.tasks.get_mut(&task) else { return };
        let ended = slot.task.poll(time);
        let (place, orders) = (slot.place, slot.task.port.take_orders());
        for order in orders {
            self.obey(task, place, order);
        }
        if ended {
            self.tasks.remove(&task);
            if let Place::Client(number) = place
                && let Ok(number) = usize::try_from(number)
                && self.clients.remove(&number).is_some()
            {
                self.after(Duration::from_millis(50), Event::StartClient { number });
            }
        }
    }

    fn obey(&mut self, task: u64, place: Place, order: Order) {
        match order {
            Order::WakeAt(time) => self.at(time, Event::Poll { task }),
            Order::Note(line) => self.note(format!("{place:?} {line}")),
            Order::HangUp(master) => self.hang_up(task, place, master),
            Order::ToMaster { call, master, kind, body } => {
                let Some(conn) = self.conn(task, master) else { return };
                if self.conns.get(&conn).is_none_or(|conn| conn.broken) {
                    return;
                }
                let header = Header { kind, request: call, ..Header::default() };
                match self.net.stream(self.time, place, Place::Master(master)) {
                    Some(time) => self.at(time, Event::Request { conn, header, body: body.into() }),
                    None => self.break_conn(conn),
                }
            }
            Order::ToServer { call, address, request } => {
                let Some(index) = server::index_of(&address) else { return };
                if let Some(time) = self.net.stream(self.time, place, Place::Server(index)) {
                    self.at(time, Event::ToServer { index, asker: Asker::Task { task, call }, request });
                }
            }
        }
    }

    fn conn(&mut self, task: u64, master: u64) -> Option<u64> {
        if let Some(conn) = self.links.get(&(task, master)) {
            return Some(*conn);
        }
        let slot = self.tasks.get(&task)?;
        let (place, levels) = (slot.place, slot.levels);
        self.next_conn += 1;
        let conn = Conn { task, master, incarnation: None, place, levels, greeted: false, broken: false };
        self.conns.insert(self.next_conn, conn);
        self.links.insert((task, master), self.next_conn);
        Some(self.next_conn)
    }

    pub(super) fn hang_up(&mut self, task: u64, place: Place, master: u64) {
        let Some(conn) = self.links.remove(&(task, master)) else { return };
        let Some(known) = self.conns.get_mut(&conn) else { return };
        // What is on its way still arrives, answers do not.
        known.broken = true;
        if let Some(incarnation) = known.incarnation
            && let Some(time) = self.net.stream(self.time, place, Place::Master(master))
        {
            self.at(time, Event::Closed { conn, master, incarnation });
        }
    }

    pub(super) fn serve(&mut self, index: u32, asker: Asker, mut request: ChunkRequest) {
        let Some(server) = self.servers.get(&index) else { return };
        let served = server.serve(self.time, &request);
        if self.detail {
            let result = served.as_ref().map(|served| served.as_ref().map(|_| "done"));
            let line = format!("server {index} {}: {result:?}", request.brief());
            self.log.push(format!("{:>10.3?} {line}", self.time));
        }
        let Some(result) = served else {
            if self.rng.chance(500) {
                let refused = TransportError::Closed { peer: server::address(index) };
                self.reply(index, asker, Err(refused.into()));
            }
            return;
        };
        if server.disk.blown() {
            return self.crash_server(index, true);
        }
        let incarnation = server.incarnation;
        let next = match request.what.take_next() {
            Ok(Some(next)) => next,
            Ok(None) => return self.reply(index, asker, result),
            Err(error) => return self.reply(index, asker, Err(error)),
        };
        self.next_conn += 1;
        let call = self.next_conn;
        let mut completion = Completion::new(true);
        // Not the last part: there is one behind.
        drop(completion.here(result.map(drop)));
        let forwarded = Forwarded { asker, completion, next: next.server };
        if let Some(server) = self.servers.get_mut(&index) {
            server.forwarded.insert(call, forwarded);
        }
        let longer = if self.plant == Some(Plant::BlameTheFirst) { 4 } else { 1 };
        self.after(FORWARD_TIMEOUT * longer, Event::ForwardTimeout { index, incarnation, call });
        let Some(to) = server::index_of(&next.address) else { return };
        if let Some(time) = self.net.stream(self.time, Place::Server(index), Place::Server(to)) {
            let asker = Asker::Server { index, incarnation, call };
            self.at(time, Event::ToServer { index: to, asker, request });
        }
    }

    fn reply(&mut self, from: u32, asker: Asker, result: Result<Option<BytesRead>, CallError>) {
        let to = match asker {
            Asker::Task { task, .. } => self.tasks.get(&task).map(|slot| slot.place),
            Asker::Server { index, .. } => Some(Place::Server(index)),
        };
        let worked = self.rng.between(Duration::from_micros(100), self.slowest_disk);
        if let Some(to) = to
            && let Some(time) = self.net.stream(self.time + worked, Place::Server(from), to)
        {
            self.at(time, Event::FromServer { asker, result });
        }
    }

    pub(super) fn served(&mut self, asker: Asker, result: Result<Option<BytesRead>, CallError>) {
        match asker {
            Asker::Task { task, call } => self.answer(task, call, result.map(Answer::Server)),
            Asker::Server { index, incarnation, call } => {
                let server = self.servers.get_mut(&index).filter(|server| server.incarnation == incarnation);
                let Some(mut done) = server.and_then(|server| server.forwarded.remove(&call)) else { return };
                let behind = result.map(drop).map_err(|error| blame(ServerId::from_raw(done.next), error));
                if let Some(outcome) = done.completion.behind(behind) {
                    self.reply(index, done.asker, outcome.map(|()| None));
                }
            }
        }
    }

    pub(super) fn clean_idle(&mut self, index: u32) {
        let Some(server) = self.servers.get(&index) else { return };
        server.keep_house(self.time);
        if server.disk.blown() {
            self.crash_server(index, true);
        }
        self.after(CLEAN_ROUND, Event::CleanIdle { index });
    }
}

/// A connection, as the core knows it.
pub(super) fn framed(conn: u64) -> ConnId {
    ConnId::Framed(usize::try_from(conn).unwrap_or(usize::MAX))
}
