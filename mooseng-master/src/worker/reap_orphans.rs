//! Reaps unlinked files that nobody has open.

use mooseng_meta::RepairCommand;
use mooseng_types::InodeId;

use super::{Round, Worker};

/// Unlinked files reaped by one command.
const REAP_MAX: usize = 512;
/// Unlinked files looked at in one round: more may be held open.
const ORPHANS_MAX: usize = 4096;

/// Nothing is reaped before every session has told what it has open.
#[derive(Debug)]
pub(super) struct ReapOrphans;

impl Worker for ReapOrphans {
    fn name(&self) -> &'static str {
        "reap-orphans"
    }

    fn work(&mut self, round: &mut Round<'_>) {
        if !round.sessions.all_confirmed() {
            return;
        }
        let orphans = round.state().orphans(ORPHANS_MAX).into_iter();
        let inodes: Vec<InodeId> =
            orphans.filter(|inode| !round.sessions.is_open(*inode)).take(REAP_MAX).collect();
        if !inodes.is_empty() {
            round.propose(RepairCommand::ReapOrphans { inodes });
        }
    }
}
