//! A master for the tests beside its parts.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mooseng_env::{Entropy, SystemEntropy};
use mooseng_meta::{MemoryStore, MetaState};
use mooseng_protocol::frame::{self, FLAG_ERROR, Header};
use mooseng_protocol::pb;
use mooseng_protocol::principal::{Principal, Role};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_types::{CellId, ClusterId, Levels, TimeNs};
use prost::Message as _;

use super::{ConnId, CoreConfig, DeskConfig, Effect, GroupConfig, Limits, MasterCore, Now};
use crate::group::testing::{NOW, config};
use crate::raft::Recovered;
use crate::{desk, group};

/// What the desk of a test knows.
pub(crate) fn desk_config() -> DeskConfig {
    let cluster = ClusterId::from_bytes([1; 16]);
    DeskConfig { cluster, copies: 2, session_timeout: Duration::from_secs(5), repair: Limits::default() }
}

/// One with an empty store.
pub(crate) fn core(group: GroupConfig, recovered: Recovered) -> MasterCore {
    let state = MetaState::open(Arc::new(MemoryStore::new()), CellId::ROOT).unwrap();
    let key = TokenKey::new(&[0; 32]);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let config = CoreConfig { group, desk: desk_config() };
    MasterCore::new(&config, key, (state, recovered), Vec::new(), NOW.mono, &entropy)
}

/// A part with this role.
pub(crate) fn principal(role: Role) -> Principal {
    Principal { role, name: role.name().into(), node: 0, client: None }
}

/// The connection with this number.
pub(crate) fn framed(number: u64) -> ConnId {
    ConnId::Framed(usize::try_from(number).unwrap())
}

/// The number of a connection.
pub(crate) fn number(conn: ConnId) -> u64 {
    match conn {
        ConnId::Framed(number) => number as u64,
        ConnId::Facade(number) => panic!("request {number} of the facade"),
    }
}

/// The only master of a group, which serves, with disks that are done at once.
pub(crate) struct Leader {
    pub(crate) core: MasterCore,
    pub(crate) now: Now,
    /// Frames that were no answers.
    pub(crate) pushed: Vec<(ConnId, frame::Frame)>,
    /// Connections that it has closed.
    pub(crate) cut: Vec<ConnId>,
}

impl Leader {
    pub(crate) fn new() -> Self {
        Self::with(core(config(1), Recovered::default()))
    }

    /// The same in a cluster that was founded by a master that knew these levels.
    pub(crate) fn founded_by(levels: Levels) -> Self {
        Self::with(core(GroupConfig { levels, ..config(1) }, Recovered::default()))
    }

    /// The same with a log that it has from before.
    pub(crate) fn with(core: MasterCore) -> Self {
        let mut leader = Self { core, now: NOW, pushed: Vec::new(), cut: Vec::new() };
        while leader.core.groups.root().must_serve_reads(leader.now.mono).is_err() {
            leader.pass(MasterCore::next_tick());
            assert!(leader.now.mono < Duration::from_secs(60), "it does not serve");
        }
        // What its workers have to do first is done.
        leader.pass(Duration::from_millis(200));
        leader
    }

    /// Lets time pass, in steps that a process would make. What was answered meanwhile.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<(ConnId, frame::Frame)> {
        let until = self.now.mono + time;
        let mut answers = Vec::new();
        while self.now.mono < until {
            self.now.mono += MasterCore::next_tick();
            let passed = i64::try_from((self.now.mono - NOW.mono).as_nanos()).unwrap();
            self.now.wall = TimeNs::from_raw(NOW.wall.raw() + passed);
            self.core.tick(self.now);
            answers.extend(self.perform());
        }
        answers
    }

    fn perform(&mut self) -> Vec<(ConnId, frame::Frame)> {
        let mut answers = Vec::new();
        loop {
            self.core.settle(self.now);
            let effects = self.core.take_effects();
            if effects.is_empty() {
                return answers;
            }
            for effect in effects {
                match effect {
                    Effect::Group(_, group::Effect::Persist(batch)) => {
                        self.core.persisted(CellId::ROOT, batch.number)
                    }
                    Effect::Group(_, group::Effect::Flush(store, batch)) => {
                        store.write(&batch);
                        self.core.flushed(self.now, CellId::ROOT);
                    }
                    Effect::Desk(desk::Effect::Frame(conn, bytes)) => {
                        let frame = frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
                        let pushed = frame.header.flags & frame::FLAG_PUSH != 0;
                        if pushed { self.pushed.push((conn, frame)) } else { answers.push((conn, frame)) }
                    }
                    Effect::Desk(desk::Effect::Cut(conn)) => self.cut.push(conn),
                    _ => {}
                }
            }
        }
    }

    /// Asks over connection `conn` and waits for the answer.
    pub(crate) fn ask<R: Rpc>(&mut self, conn: u64, request: &R) -> Result<R::Reply, CallError> {
        let mut answers = self.send(conn, 1, request);
        for _ in 0..200 {
            if answers.is_empty() {
                answers = self.pass(MasterCore::next_tick());
            }
        }
        let [(_, frame)] = &answers[..] else { panic!("{} answers to {}", answers.len(), R::NAME) };
        Self::read::<R>(frame)
    }

    /// Sends a request with this number over connection `conn`. What is answered at once, to it and to others.
    pub(crate) fn send<R: Rpc>(
        &mut self,
        conn: u64,
        number: u64,
        request: &R,
    ) -> Vec<(ConnId, frame::Frame)> {
        self.send_with(conn, Header { kind: R::KIND, request: number, ..Header::default() }, request)
    }

    /// The same with this header.
    pub(crate) fn send_with<R: Rpc>(
        &mut self,
        conn: u64,
        header: Header,
        request: &R,
    ) -> Vec<(ConnId, frame::Frame)> {
        self.send_as(&principal(R::SENDERS[0]), conn, header, request)
    }

    /// The same of this sender; the others' requests come from a role that may send them.
    pub(crate) fn send_as<R: Rpc>(
        &mut self,
        from: &Principal,
        conn: u64,
        header: Header,
        request: &R,
    ) -> Vec<(ConnId, frame::Frame)> {
        self.core.request(self.now, from, framed(conn), header, request.encode_to_vec().into());
        self.perform()
    }

    /// What an answer says.
    pub(crate) fn read<R: Rpc>(frame: &frame::Frame) -> Result<R::Reply, CallError> {
        if frame.header.flags & FLAG_ERROR != 0 {
            return Err(CallError::from_reply(pb::ErrorReply::decode(frame.body.clone()).unwrap()));
        }
        Ok(R::Reply::decode(frame.body.clone()).unwrap())
    }

    /// A new session, over connection `conn`.
    pub(crate) fn open(&mut self, client: u8) -> u64 {
        let request = pb::OpenSessionRequest { client_id: vec![client; 16].into(), ..Default::default() };
        self.ask(client.into(), &request).unwrap().session
    }

    /// A chunkserver, over connection `100 + number`.
    pub(crate) fn serve_chunks(&mut self, number: u8) -> u32 {
        let disk = pb::DiskStatus { total_bytes: 1 << 40, free_bytes: 1 << 40, ..Default::default() };
        let request = pb::RegisterServerRequest {
            uuid: vec![number; 16].into(),
            address: format!("s{number}:1"),
            disks: vec![disk],
            ..Default::default()
        };
        self.ask(100 + u64::from(number), &request).unwrap().server
    }
}
