//! The group made anew from one master's data directory, after a majority of the masters was lost for good.
//!
//! ```text
//! before   store: applied a, epoch e         log: .. entries up to n, term t
//! 1        store: applied n + 1, epoch e + 1, this master alone, base (n + 1, e << 32)      one batch: whole or not at all
//! 2        log: begins anew behind (n + 1, e << 32)
//! ```
//!
//! Every entry of the log is applied, also those that a majority may never have had: what was acknowledged is among
//! them if this master had it. The base is a made-up entry that no other master has. So a crash before 1 leaves the old
//! state, and after it the next start, or the next recovery, finds a base that the log does not lead to and does 2.
//!
//! Terms of a later epoch are above all terms of an earlier one (2³² elections in one epoch are more than there is time
//! for): no leader of the old group is ever believed by a member of the new one.

use anyhow::{Context as _, bail, ensure};
use mooseng_env::SystemEntropy;
use mooseng_meta::{Entry, Member, Membership, MetaState};
use mooseng_protocol::group_entry::MemberNote;
use mooseng_types::{ClusterId, MasterId, TimeNs};

use crate::config::Config;
use crate::daemon::claim;
use crate::group::known_group;
use crate::open::{Opened, open_undamaged};
use crate::raft::{LogEntry, MembershipChange, Recovered};

/// How many terms one epoch has, as a power of two.
const TERM_BITS: u32 = 32;
/// The kind of an entry that carries a command; the others change the group.
const COMMAND: u8 = 0;

/// What a stopped master's data directory holds, and so what the group made anew would have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The cluster.
    pub cluster: ClusterId,
    /// This master.
    pub id: MasterId,
    /// Index and term of the last entry of its log.
    pub last: (u64, u64),
    /// The last entry that is in its store already.
    pub applied: u64,
    /// The last entry that this master knows to be on the disks of a majority; those after it may or may not be.
    pub committed: u64,
    /// When the last entry that has a time was proposed, by the clock of the leader of that time. `None` if the log
    /// holds none any more.
    pub stamp: Option<TimeNs>,
    /// The group as of the last entry.
    pub group: Membership,
    /// Its voters without this master.
    pub left_out: Vec<Member>,
    /// The highest term that this master has seen.
    term: u64,
}

impl Plan {
    /// Whether this master is a group of its own already, so that there is nothing to make anew.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.group.voters() == [self.id]
    }

    /// The epoch of the group made anew.
    #[must_use]
    pub fn next_epoch(&self) -> u64 {
        self.group.epoch + 1
    }

    /// Index and term of the entry that the group made anew begins with.
    fn base(&self) -> (u64, u64) {
        (self.last.0 + 1, (self.group.epoch << TERM_BITS).max(self.term + 1))
    }
}

/// What the data directory of `config` holds. The master must be stopped; its directory is opened as at a start, and
/// nothing in it is changed beyond what a start does.
pub fn plan(config: &Config) -> anyhow::Result<Plan> {
    with_directory(config, |config, opened| read_plan(config, &opened))
}

/// Makes the group anew as `plan` says, which must be what the directory still holds. Durable when this returns; after a
/// crash it is as before, or done at the next start.
pub fn recover(config: &Config, plan: &Plan) -> anyhow::Result<()> {
    with_directory(config, |config, opened| {
        let found = read_plan(config, &opened)?;
        ensure!(found == *plan, "{} has changed meanwhile: look at the plan again", config.data.display());
        ensure!(!plan.is_alone(), "this master is alone in its group: there is nothing to make anew");
        ensure!(
            opened.others.is_empty(),
            "{} holds groups of several cells: only that of one can be made anew",
            config.data.display()
        );
        let Opened { root: (mut state, mut recovered), mut segments, .. } = opened;
        begin_anew(config, plan, &mut state, &recovered)?;
        segments.begin_behind(state.cell(), state.base(), &mut recovered).context("begin the log anew")
    })
}

fn with_directory<T>(
    config: &Config,
    f: impl FnOnce(&Config, Opened) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let data = config.data.display();
    ensure!(
        config.data.join("cluster.id").exists(),
        "{data} is no data directory of a master: correct `data`"
    );
    let _lock = claim(&config.data)?;
    let opened = open_undamaged(config, &SystemEntropy).with_context(|| format!("open {data}"))?;
    f(config, opened)
}

fn read_plan(config: &Config, opened: &Opened) -> anyhow::Result<Plan> {
    let Opened { id, root: (state, recovered), .. } = opened;
    let Recovered { hard_state, purged, entries } = recovered;
    let last = entries.last().map_or(*purged, |entry| (entry.index, entry.term));
    ensure!(
        last.0 > 0,
        "{} holds no group of masters: this master was never let in, and knows nothing",
        config.data.display()
    );
    let mut group = known_group(state, &config.peers);
    for entry in entries.iter().filter(|entry| entry.index > state.applied_index()) {
        if entry.kind != COMMAND {
            change_group(&mut group, entry)?;
        }
    }
    let left_out = group.members.iter().filter(|it| it.voter && it.id != *id).cloned().collect();
    let stamp = entries.iter().rev().find_map(stamp_of);
    Ok(Plan {
        cluster: config.cluster,
        id: *id,
        last,
        applied: state.applied_index(),
        committed: hard_state.commit.max(state.applied_index()),
        stamp,
        group,
        left_out,
        term: hard_state.term.max(last.1),
    })
}

fn stamp_of(entry: &LogEntry) -> Option<TimeNs> {
    let command = entry.kind == COMMAND && !entry.data.is_empty();
    command.then(|| Entry::decode(&entry.data).ok()).flatten().map(|entry| entry.stamp)
}

fn change_group(group: &mut Membership, entry: &LogEntry) -> anyhow::Result<()> {
    let decoded = MembershipChange::of_entry(entry)
        .and_then(|(change, context)| Some((change, MemberNote::decode(context)?)));
    let Some((change, told)) = decoded else {
        bail!("entry {} changes the group in a way that this release cannot read", entry.index);
    };
    match change {
        MembershipChange::Remove(id) => group.remove(id),
        MembershipChange::Voter(id) | MembershipChange::Learner(id) => group.put(Member {
            id,
            name: told.name,
            address: told.address,
            voter: matches!(change, MembershipChange::Voter(_)),
            wants_vote: told.wants_vote,
        }),
    }
    Ok(())
}

/// Everything that the log has, and the new group, in one batch of the store.
fn begin_anew(
    config: &Config,
    plan: &Plan,
    state: &mut MetaState,
    recovered: &Recovered,
) -> anyhow::Result<()> {
    for entry in recovered.entries.iter().filter(|entry| entry.index > plan.applied) {
        if entry.kind == COMMAND && !entry.data.is_empty() {
            let command = Entry::decode(&entry.data).with_context(|| {
                format!("read entry {}; use the release that this master ran", entry.index)
            })?;
            state.apply(entry.index, &command);
        } else {
            // The group is replaced below, whatever the changes were.
            state.skip(entry.index);
        }
    }
    let own = config.peers.iter().find(|peer| peer.id == plan.id.number());
    let member = Member {
        id: plan.id,
        name: config.name.clone(),
        address: own.map_or_else(|| config.listen.clone(), |peer| peer.address.clone()),
        voter: true,
        wants_vote: true,
    };
    let (index, term) = plan.base();
    state.begin_anew(index, term, Membership { epoch: plan.next_epoch(), members: vec![member] });
    let Some(batch) = state.freeze() else { bail!("the new state was not taken") };
    state.store().write(&batch);
    state.flushed();
    Ok(())
}

#[cfg(test)]
mod tests;
