//! Which parts keep a level from rising, how it rises, and at which one a cluster begins.

use std::sync::Arc;

use mooseng_env::{Entropy, SystemEntropy};
use mooseng_meta::{Membership, MemoryStore, MetaState, MetaStore, ServerRow};
use mooseng_protocol::pb;
use mooseng_protocol::token::TokenKey;
use mooseng_types::{CellId, ServerId};

use super::*;
use crate::core::testing::{Leader, desk_config, framed};
use crate::core::{CoreConfig, Effect, MasterCore};
use crate::group;
use crate::group::testing::{NOW, config, voter};
use crate::group::{GroupConfig, Now, Proposal, Ticket};
use crate::raft::{HardState, Recovered};

const NEW: (u16, u16) = (1, 2);
const OLD: (u16, u16) = (1, 1);

fn range((lowest, highest): (u16, u16)) -> Levels {
    Levels::new(Level::from_raw(lowest), Level::from_raw(highest)).unwrap()
}

fn says_hello(leader: &mut Leader, conn: u64, role: pb::Role, levels: (u16, u16)) {
    let hello = pb::Hello::new(role, "part", None, range(levels));
    leader.core.welcome(framed(conn), &hello).unwrap();
}

/// The leader of a cluster from before the last level with a chunkserver and a session, which know these levels.
fn cluster(server: (u16, u16), client: (u16, u16)) -> Leader {
    let mut leader = Leader::founded_by(range(OLD));
    leader.core.groups.root_mut().upgrade(range(NEW));
    says_hello(&mut leader, 101, pb::Role::Chunkserver, server);
    leader.serve_chunks(1);
    says_hello(&mut leader, 1, pb::Role::Client, client);
    leader.open(1);
    leader
}

fn upgrade(leader: &mut Leader, dry_run: bool) -> Result<(u32, u32), String> {
    let reply = leader.ask(9, &pb::UpgradeRequest { dry_run });
    reply.map(|reply| (reply.level_before, reply.level)).map_err(|error| error.to_string())
}

#[test]
fn a_cluster_is_founded_at_the_highest_level_that_its_founder_knows() {
    assert_eq!(Leader::founded_by(range(NEW)).core.state().level(), Level::IDENTITY);
    assert_eq!(Leader::founded_by(range(OLD)).core.state().level(), Level::FIRST);
}

/// Masters that know these levels and found a cluster together.
struct Founders {
    masters: Vec<MasterCore>,
    now: Now,
}

impl Founders {
    fn new(levels: [(u16, u16); 3]) -> Self {
        let group = || Membership { epoch: 1, members: (1..=3).map(voter).collect() };
        let founder = |(number, levels): (u16, (u16, u16))| {
            let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
            let mut state = MetaState::open(Arc::clone(&store), CellId::ROOT).unwrap();
            state.found(1, 1, group());
            store.write(&state.freeze().unwrap());
            let own = voter(number);
            let group = GroupConfig {
                id: own.id,
                name: own.name,
                address: own.address,
                levels: range(levels),
                ..config(3)
            };
            let hard_state = HardState { term: 1, vote: 0, commit: 1 };
            let recovered = Recovered { hard_state, purged: (1, 1), entries: Vec::new() };
            let state = MetaState::open(store, CellId::ROOT).unwrap();
            let (key, config) = (TokenKey::new(&[0; 32]), CoreConfig { group, desk: desk_config() });
            let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
            MasterCore::new(&config, key, (state, recovered), Vec::new(), NOW.mono, &entropy)
        };
        Self { masters: (1..).zip(levels).map(founder).collect(), now: NOW }
    }

    /// All say Hello to all.
    fn greet(&mut self) {
        let says = |core: &MasterCore| {
            let GroupConfig { id, name, levels, .. } = core.groups.root().config();
            let hello = pb::Hello::new(pb::Role::Master, name, None, *levels);
            (*id, pb::Hello { node_id: id.raw(), ..hello })
        };
        let said: Vec<_> = self.masters.iter().map(says).collect();
        for core in &mut self.masters {
            let own = core.id();
            for (id, hello) in said.iter().filter(|(id, _)| *id != own) {
                core.welcome(framed(id.number()), hello).unwrap();
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.mono + time;
        while self.now.mono < until {
            self.now.mono += MasterCore::next_tick();
            self.masters.iter_mut().for_each(|core| core.tick(self.now));
            while self.perform() {}
        }
    }

    /// Does what the masters want done; `false` if that was nothing.
    fn perform(&mut self) -> bool {
        let mut sent = Vec::new();
        let mut idle = true;
        for core in &mut self.masters {
            core.settle(self.now);
            for effect in core.take_effects() {
                idle = false;
                match effect {
                    Effect::Group(cell, group::Effect::Persist(batch)) => core.persisted(cell, batch.number),
                    Effect::Group(cell, group::Effect::Flush(store, batch)) => {
                        store.write(&batch);
                        core.flushed(self.now, cell);
                    }
                    Effect::Send(to, said) => sent.extend(said.into_iter().map(|said| (to, said))),
                    _ => {}
                }
            }
        }
        for (to, said) in sent {
            if let Some(core) = self.masters.iter_mut().find(|core| core.id() == to) {
                core.peer_messages(self.now, said);
            }
        }
        !idle
    }

    /// The level of each, if it is founded.
    fn levels(&self) -> Vec<Option<u16>> {
        let level = |core: &MasterCore| core.state().settings().map(|_| core.state().level().raw());
        self.masters.iter().map(level).collect()
    }
}

const FOUNDING: Duration = Duration::from_secs(5);

#[test]
fn the_founder_that_knows_least_decides() {
    for (levels, founded) in [([NEW, NEW, NEW], 2), ([OLD, NEW, NEW], 1), ([NEW, NEW, OLD], 1)] {
        let mut founders = Founders::new(levels);
        founders.greet();
        founders.pass(FOUNDING);
        assert_eq!(founders.levels(), [Some(founded); 3]);
    }
}

#[test]
fn nothing_is_founded_before_the_leader_has_heard_all_founders() {
    let mut founders = Founders::new([NEW; 3]);
    founders.pass(FOUNDING);
    assert_eq!(founders.levels(), [None; 3]);
    founders.greet();
    founders.pass(FOUNDING);
    assert_eq!(founders.levels(), [Some(2); 3]);
}

#[test]
fn a_chunkserver_that_came_before_the_founders_and_is_gone_keeps_the_level_down() {
    let mut founders = Founders::new([NEW; 3]);
    let row = ServerRow {
        server: ServerId::from_raw(1),
        uuid: [1; 16],
        name: "s1".into(),
        address: "s1:1".into(),
        place: mooseng_meta::ServerPlace::default(),
        mode: mooseng_meta::ServerMode::Normal,
    };
    founders.masters.iter_mut().for_each(|core| core.desk.know(&row));
    founders.greet();
    founders.pass(FOUNDING);
    assert_eq!(founders.levels(), [Some(1); 3]);
}

#[test]
fn the_level_rises_when_every_part_can_and_a_dry_run_changes_nothing() {
    let mut leader = cluster(NEW, NEW);
    assert_eq!(upgrade(&mut leader, true), Ok((1, 2)));
    assert_eq!(leader.core.state().level(), Level::FIRST);
    assert_eq!(upgrade(&mut leader, false), Ok((1, 2)));
    assert_eq!(leader.core.state().level(), Level::IDENTITY);
    assert!(leader.cut.is_empty());
    assert!(upgrade(&mut leader, false).unwrap_err().contains("the level is 2 already"));
}

#[test]
fn a_part_that_cannot_go_along_is_named_and_nothing_is_done() {
    for (server, client, says) in [
        (OLD, NEW, "upgrade  (chunkserver s1 at s1:1), which knows level 1"),
        (NEW, OLD, "(client, session n1), which knows level 1"),
    ] {
        let mut leader = cluster(server, client);
        let said = upgrade(&mut leader, false).unwrap_err();
        assert!(said.contains(says), "{said}");
        assert_eq!(leader.core.state().level(), Level::FIRST);
    }
}

#[test]
fn a_part_that_is_not_connected_is_named_and_nothing_is_done() {
    let mut leader = cluster(NEW, NEW);
    let now = leader.now;
    leader.core.closed(now, ConnId::Framed(101));
    let said = upgrade(&mut leader, false).unwrap_err();
    assert!(said.contains("not connected to the leader:  (chunkserver s1 at s1:1)"), "{said}");
    assert_eq!(leader.core.state().level(), Level::FIRST);
}

#[test]
fn a_master_refuses_a_part_that_does_not_know_the_clusters_level_and_says_which_to_upgrade() {
    let mut leader = cluster(NEW, NEW);
    upgrade(&mut leader, false).unwrap();
    let hello = pb::Hello::new(pb::Role::Client, "laptop", None, range(OLD));
    let said = leader.core.welcome(framed(7), &hello).unwrap_err().to_string();
    assert!(said.contains("level 2, and laptop knows level 1: upgrade laptop"), "{said}");
    let hello = pb::Hello::new(pb::Role::Client, "laptop", None, range(NEW));
    assert_eq!(leader.core.welcome(framed(8), &hello).unwrap().level, 2);
}

#[test]
fn a_part_that_came_between_the_survey_and_the_entry_is_cut_off() {
    let mut leader = cluster(NEW, NEW);
    let survey = leader.core.desk.survey(leader.core.groups.root(), leader.now.mono);
    says_hello(&mut leader, 50, pb::Role::Client, OLD);
    let command = survey.raise_level().unwrap().into();
    leader.core.groups.root_mut().gather(Proposal { request: None, command, ticket: Ticket(u64::MAX) });
    leader.pass(MasterCore::next_tick());
    assert_eq!(leader.core.state().level(), Level::IDENTITY);
    assert_eq!(leader.cut, [ConnId::Framed(50)]);
}
