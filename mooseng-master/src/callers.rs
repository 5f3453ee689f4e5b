//! Levels: which parts are connected and which levels they know, when the cluster's level may rise, and which parts lose
//! their connections when it does (RFC 0008).

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_meta::ClusterCommand;
use mooseng_protocol::status::CallError;
use mooseng_types::{Level, Levels, MasterId};

use crate::conn::ConnId;
use crate::group::Group;
use crate::registry::Registry;
use crate::sessions::Sessions;

/// Parts that are named as what keeps a level from rising; the others are counted.
const NAMED_MAX: usize = 20;

/// The part that speaks over a connection, by its Hello.
#[derive(Debug)]
struct Caller {
    name: String,
    /// Another master.
    master: Option<MasterId>,
    levels: Levels,
}

/// The connections that have said Hello.
#[derive(Debug, Default)]
pub(crate) struct Callers(BTreeMap<ConnId, Caller>);

/// How far the level may rise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Survey {
    /// The cluster's level.
    pub(crate) level: Level,
    /// The highest level that all parts that were heard know.
    pub(crate) highest: Level,
    /// Parts that were not heard: the level cannot rise without them.
    pub(crate) unheard: Vec<String>,
    /// Parts that were heard, and know less than this master.
    pub(crate) behind: Vec<String>,
}

impl Survey {
    /// The level that the cluster can be raised to now.
    pub(crate) fn target(&self) -> Option<Level> {
        (self.unheard.is_empty() && self.highest > self.level).then_some(self.highest)
    }

    /// The command that raises the level as far as all parts can go.
    pub(crate) fn raise_level(&self) -> Result<ClusterCommand, CallError> {
        let refuse = |message| Err(CallError::Rejected { message });
        if let Some(level) = self.target() {
            return Ok(ClusterCommand::RaiseLevel { level });
        }
        let level = self.level;
        if !self.unheard.is_empty() {
            let unheard = listed(&self.unheard);
            return refuse(format!(
                "the level stays {level}: not connected to the leader: {unheard}. Start them, remove them, or wait until their sessions end"
            ));
        }
        if self.behind.is_empty() {
            return refuse(format!("the level is {level} already, the highest that this release knows"));
        }
        refuse(format!("the level stays {level}: upgrade {}", listed(&self.behind)))
    }
}

impl Callers {
    /// A part has said Hello, another master with its id.
    pub(crate) fn called(&mut self, conn: ConnId, name: &str, master: Option<MasterId>, levels: Levels) {
        self.0.insert(conn, Caller { name: name.to_owned(), master, levels });
    }

    fn levels(&self, conn: Option<ConnId>) -> Option<Levels> {
        Some(self.0.get(&conn?)?.levels)
    }

    /// Of a master that has several connections, what it said over the last one.
    fn levels_of_master(&self, id: MasterId) -> Option<Levels> {
        self.0.values().rev().find(|caller| caller.master == Some(id)).map(|caller| caller.levels)
    }

    /// A connection has ended.
    pub(crate) fn hung_up(&mut self, conn: ConnId) {
        self.0.remove(&conn);
    }

    /// What the masters of a group know.
    fn survey_masters(&self, group: &Group) -> Survey {
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
        survey
    }

    /// What all masters of a group, all chunkservers that are registered and all its sessions know.
    pub(crate) fn survey(
        &self,
        group: &Group,
        registry: &Registry,
        sessions: Option<&Sessions>,
        now: Duration,
    ) -> Survey {
        let own = group.config().levels;
        let mut survey = self.survey_masters(group);
        for (id, server) in registry.iter() {
            let levels = self.levels(server.conn).filter(|_| server.is_up(now));
            survey.note(own, levels, || format!("{} (chunkserver {id} at {})", server.name, server.address));
        }
        for row in group.state().sessions() {
            let levels = self.levels(sessions.and_then(|sessions| sessions.conn(row.session)));
            survey.note(own, levels, || format!("{} (client, session {})", row.name, row.session));
        }
        survey
    }

    /// The highest level at which a new cluster may begin, as there is nobody else to ask; `None` before all founders have
    /// been heard: what is missed then is raised by an order only. Chunkservers may have come before the founders were
    /// complete. One that was not heard again, or knows less, keeps the cluster at its first level.
    pub(crate) fn first_level(&self, survey: &Survey, group: &Group) -> Option<Level> {
        let founders = self.survey_masters(group);
        founders.unheard.is_empty().then(|| survey.target().unwrap_or(survey.level))
    }

    /// The level has risen. The connections of parts that came between the survey and now and cannot go along; when they
    /// come again, they are told why they are refused.
    pub(crate) fn take_below(&mut self, level: Level) -> Vec<ConnId> {
        let behind = |(conn, caller): (&ConnId, &Caller)| {
            (!caller.levels.has(level)).then(|| (*conn, caller.name.clone(), caller.levels))
        };
        let behind: Vec<_> = self.0.iter().filter_map(behind).collect();
        for (conn, name, levels) in &behind {
            tracing::warn!(name, %levels, %level, "the cluster's level has risen beyond what this part knows");
            self.0.remove(conn);
        }
        behind.into_iter().map(|(conn, ..)| conn).collect()
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
mod tests;
