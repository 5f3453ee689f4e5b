//! Cores for the tests beside their parts.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mooseng_env::SystemEntropy;
use mooseng_meta::{Member, MemoryStore, MetaState};
use mooseng_protocol::frame::{self, FLAG_ERROR, Header};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::TokenKey;
use mooseng_types::{ClusterId, MasterId, TimeNs};
use prost::Message as _;

use super::{ConnId, CoreConfig, Effect, MasterCore, Now};
use crate::config::Peer;
use crate::raft::Recovered;

pub(super) const NOW: Now = Now { mono: Duration::ZERO, wall: TimeNs::from_raw(0) };

/// Master 1 of so many.
pub(super) fn config(masters: u64) -> CoreConfig {
    let peer = |id| Peer { id, name: format!("m{id}"), address: format!("m{id}:1") };
    CoreConfig {
        id: MasterId::from_raw(1),
        name: "m1".into(),
        address: "m1:1".into(),
        log_keep_bytes: 1 << 20,
        lost_group: false,
        levels: mooseng_types::level::SUPPORTED,
        peers: (1..=masters).map(peer).collect(),
        cluster: ClusterId::from_bytes([1; 16]),
        copies: 2,
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(250),
        session_timeout: Duration::from_secs(5),
    }
}

/// Master `number` as a voter of its first life.
pub(super) fn voter(number: u16) -> Member {
    Member {
        id: MasterId::new(number, 0),
        name: format!("m{number}"),
        address: format!("m{number}:1"),
        voter: true,
        wants_vote: true,
    }
}

/// One with an empty store.
pub(super) fn core(config: CoreConfig, recovered: Recovered) -> MasterCore {
    let state = MetaState::open(Arc::new(MemoryStore::new())).unwrap();
    let (key, entropy) = (TokenKey::new(&[0; 32]), Arc::new(SystemEntropy));
    MasterCore::new(config, key, state, recovered, NOW.mono, entropy)
}

/// The only master of a group, which serves, with disks that are done at once.
pub(super) struct Leader {
    pub(super) core: MasterCore,
    pub(super) now: Now,
    /// Frames that were no answers.
    pub(super) pushed: Vec<(ConnId, frame::Frame)>,
    /// Connections that it has closed.
    pub(super) cut: Vec<ConnId>,
}

impl Leader {
    pub(super) fn new() -> Self {
        Self::with(core(config(1), Recovered::default()))
    }

    /// The same with a log that it has from before.
    pub(super) fn with(core: MasterCore) -> Self {
        let mut leader = Self { core, now: NOW, pushed: Vec::new(), cut: Vec::new() };
        while leader.core.must_serve_reads(leader.now).is_err() {
            leader.pass(MasterCore::next_tick());
            assert!(leader.now.mono < Duration::from_secs(60), "it does not serve");
        }
        leader
    }

    /// Lets time pass, in steps that a process would make. What was answered meanwhile.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<(ConnId, frame::Frame)> {
        let until = self.now.mono + time;
        let mut answers = Vec::new();
        while self.now.mono < until {
            self.now.mono += MasterCore::next_tick();
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
                    Effect::Persist(batch) => self.core.persisted(batch.number),
                    Effect::Flush(store, batch) => {
                        store.write(&batch);
                        self.core.flushed(self.now);
                    }
                    Effect::Frame(conn, bytes) => {
                        let frame = frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
                        let pushed = frame.header.flags & frame::FLAG_PUSH != 0;
                        if pushed { self.pushed.push((conn, frame)) } else { answers.push((conn, frame)) }
                    }
                    Effect::Cut(conn) => self.cut.push(conn),
                    _ => {}
                }
            }
        }
    }

    /// Asks over connection `conn` and waits for the answer.
    pub(super) fn ask<R: Rpc>(&mut self, conn: u64, request: &R) -> Result<R::Reply, CallError> {
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
    pub(super) fn send<R: Rpc>(
        &mut self,
        conn: u64,
        number: u64,
        request: &R,
    ) -> Vec<(ConnId, frame::Frame)> {
        self.send_with(conn, Header { kind: R::KIND, request: number, ..Header::default() }, request)
    }

    /// The same with this header.
    pub(super) fn send_with<R: Rpc>(
        &mut self,
        conn: u64,
        header: Header,
        request: &R,
    ) -> Vec<(ConnId, frame::Frame)> {
        self.core.request(self.now, ConnId(conn), header, request.encode_to_vec().into());
        self.perform()
    }

    /// What an answer says.
    pub(super) fn read<R: Rpc>(frame: &frame::Frame) -> Result<R::Reply, CallError> {
        if frame.header.flags & FLAG_ERROR != 0 {
            return Err(CallError::from_reply(pb::ErrorReply::decode(frame.body.clone()).unwrap()));
        }
        Ok(R::Reply::decode(frame.body.clone()).unwrap())
    }

    /// A new session, over connection `conn`.
    pub(super) fn open(&mut self, client: u8) -> u64 {
        let request = pb::OpenSessionRequest { client_id: vec![client; 16].into(), ..Default::default() };
        self.ask(client.into(), &request).unwrap().session
    }

    /// A chunkserver, over connection `100 + number`.
    pub(super) fn serve_chunks(&mut self, number: u8) -> u32 {
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
