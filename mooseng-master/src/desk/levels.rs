//! Levels: who is connected and which ones they know, when the cluster's level may rise, and who is cut off when it does
//! (RFC 0008).

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_meta::ClusterCommand;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{Level, Levels, MasterId};

use super::outbox::Outbox;
use crate::conn::ConnId;
use crate::group::Group;
use crate::registry::Registry;
use crate::sessions::Sessions;

/// Parts that are named as what keeps a level from rising; the others are counted.
const NAMED_MAX: usize = 20;

/// Who speaks over a connection, by its Hello.
#[derive(Debug)]
struct Caller {
    name: String,
    /// Another master.
    master: Option<MasterId>,
    levels: Levels,
}

/// The connections that have said Hello.
#[derive(Debug, Default)]
pub(super) struct Callers(BTreeMap<ConnId, Caller>);

/// How far the level may rise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Survey {
    /// The cluster's level.
    pub(super) level: Level,
    /// The highest level that all parts that were heard know.
    pub(super) highest: Level,
    /// Parts that were not heard: the level cannot rise without them.
    pub(super) unheard: Vec<String>,
    /// Parts that were heard, and know less than this master.
    pub(super) behind: Vec<String>,
}

impl Survey {
    /// The level that the cluster can be raised to now.
    pub(super) fn target(&self) -> Option<Level> {
        (self.unheard.is_empty() && self.highest > self.level).then_some(self.highest)
    }

    /// The command that raises the level as far as everybody can go.
    pub(super) fn raise_level(&self) -> Result<ClusterCommand, CallError> {
        let refuse = |message| Err(CallError::Rejected { message });
        if let Some(level) = self.target() {
            return Ok(ClusterCommand::RaiseLevel { level });
        }
        let level = self.level;
        if !self.unheard.is_empty() {
            let who = listed(&self.unheard);
            return refuse(format!(
                "the level stays {level}: not connected to the leader: {who}. Start them, remove them, or wait until their sessions end"
            ));
        }
        if self.behind.is_empty() {
            return refuse(format!("the level is {level} already, the highest that this release knows"));
        }
        refuse(format!("the level stays {level}: upgrade {}", listed(&self.behind)))
    }
}

impl Callers {
    /// A part has said Hello. Levels that make no sense were refused before.
    pub(super) fn called(&mut self, conn: ConnId, hello: &pb::Hello) {
        let Some(levels) = Levels::said(hello.level_lowest, hello.level_highest) else { return };
        let master = (hello.role() == pb::Role::Master).then(|| MasterId::from_raw(hello.node_id));
        self.0.insert(conn, Caller { name: hello.name.clone(), master, levels });
    }

    fn levels(&self, conn: Option<ConnId>) -> Option<Levels> {
        Some(self.0.get(&conn?)?.levels)
    }

    /// Of a master that has several connections, what it said over the last one.
    fn levels_of_master(&self, id: MasterId) -> Option<Levels> {
        self.0.values().rev().find(|caller| caller.master == Some(id)).map(|caller| caller.levels)
    }

    /// A connection has ended.
    pub(super) fn hung_up(&mut self, conn: ConnId) {
        self.0.remove(&conn);
    }

    /// What all masters of the group, all chunkservers that are registered and all sessions know.
    pub(super) fn survey(
        &self,
        group: &Group,
        registry: &Registry,
        sessions: &Sessions,
        now: Duration,
    ) -> Survey {
        let (own, id) = (group.config().levels, group.config().id);
        let mut survey = Survey {
            level: group.state().level(),
            highest: own.highest(),
            unheard: Vec::new(),
            behind: Vec::new(),
        };
        for member in group.members().members.iter().filter(|member| member.id != id) {
            let levels = self.levels_of_master(member.id).filter(|_| group.node().is_active(member.id));
            survey.note(own, levels, || format!("{} (master at {})", member.name, member.address));
        }
        for (id, server) in registry.iter() {
            let levels = self.levels(server.conn).filter(|_| server.is_up(now));
            survey.note(own, levels, || format!("{} (chunkserver {id} at {})", server.name, server.address));
        }
        for row in group.state().sessions() {
            let levels = self.levels(sessions.conn(row.session));
            survey.note(own, levels, || format!("{} (client, session {})", row.name, row.session));
        }
        survey
    }

    /// The level has risen. A part that came between the survey and now and cannot go along loses its connection; when it
    /// comes again, it is told why it is refused.
    pub(super) fn cut_off_below(&mut self, level: Level, out: &mut Outbox) {
        let behind = |(conn, caller): (&ConnId, &Caller)| {
            (!caller.levels.has(level)).then(|| (*conn, caller.name.clone(), caller.levels))
        };
        for (conn, name, levels) in self.0.iter().filter_map(behind).collect::<Vec<_>>() {
            tracing::warn!(name, %levels, %level, "the cluster's level has risen beyond what this part knows");
            self.0.remove(&conn);
            out.cut(conn);
        }
    }
}

impl Survey {
    /// Notes what a part knows; `levels` is `None` if it was not heard.
    fn note(&mut self, own: Levels, levels: Option<Levels>, name: impl FnOnce() -> String) {
        match levels {
            None => self.unheard.push(name()),
            Some(levels) if levels.highest() < own.highest() => {
                self.highest = self.highest.min(levels.highest());
                self.behind.push(format!("{}, which knows {levels}", name()));
            }
            Some(_) => {}
        }
    }
}

fn listed(names: &[String]) -> String {
    let (named, more) = names.split_at(names.len().min(NAMED_MAX));
    let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
    named.join("; ") + &more
}

#[cfg(test)]
mod tests {
    use mooseng_protocol::pb;

    use super::*;
    use crate::core::MasterCore;
    use crate::core::testing::{Leader, framed};
    use crate::group::{Proposal, Ticket};

    const NEW: (u16, u16) = (1, 2);
    const OLD: (u16, u16) = (1, 1);

    fn says_hello(leader: &mut Leader, conn: u64, role: pb::Role, levels: (u16, u16)) {
        let levels = Levels::new(Level::from_raw(levels.0), Level::from_raw(levels.1)).unwrap();
        let hello = pb::Hello::new(role, "part", None, levels);
        leader.core.admit(framed(conn), &hello).unwrap();
    }

    /// A leader with a chunkserver and a session, which know these levels.
    fn cluster(server: (u16, u16), client: (u16, u16)) -> Leader {
        let mut leader = Leader::new();
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
    fn who_cannot_go_along_is_named_and_nothing_is_done() {
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
    fn who_is_not_connected_is_named_and_nothing_is_done() {
        let mut leader = cluster(NEW, NEW);
        let now = leader.now;
        leader.core.closed(now, ConnId::Framed(101));
        let said = upgrade(&mut leader, false).unwrap_err();
        assert!(said.contains("not connected to the leader:  (chunkserver s1 at s1:1)"), "{said}");
        assert_eq!(leader.core.state().level(), Level::FIRST);
    }

    #[test]
    fn a_part_that_came_between_the_survey_and_the_entry_is_cut_off() {
        let mut leader = cluster(NEW, NEW);
        let survey = {
            let MasterCore { group, desk } = &leader.core;
            desk.callers.survey(group, &desk.registry, &desk.sessions, leader.now.mono)
        };
        says_hello(&mut leader, 50, pb::Role::Client, OLD);
        let command = survey.raise_level().unwrap().into();
        leader.core.group.gather(Proposal { request: None, command, ticket: Ticket(u64::MAX) });
        leader.pass(MasterCore::next_tick());
        assert_eq!(leader.core.state().level(), Level::IDENTITY);
        assert_eq!(leader.cut, [ConnId::Framed(50)]);
    }
}
