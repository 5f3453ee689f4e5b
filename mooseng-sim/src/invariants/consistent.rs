//! *The tables of the metadata agree with each other*, on every master: the promise of a file system check (`fsck(8)`).

use mooseng_meta::MetaState;

/// What the check finds on a master.
pub(crate) fn consistent(master: u64, state: &MetaState) -> Vec<String> {
    mooseng_meta::check(state).iter().map(|found| format!("consistent: master {master}: {found}")).collect()
}
