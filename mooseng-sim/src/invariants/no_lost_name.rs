//! *Every acknowledged name is there until its removal is acknowledged*, under the inode it was given; and no other
//! (DESIGN §1, promise 2).

use std::collections::BTreeMap;

use crate::oracle::{Model, NodeId};

/// What is wrong with the listing of a directory.
pub(crate) fn same_entries(found: &BTreeMap<String, u64>, model: &Model, dir: NodeId) -> Option<String> {
    let expected: BTreeMap<_, _> =
        model.entries(dir).into_iter().map(|(name, node)| (name, model.inode(node))).collect();
    (*found != expected).then(|| format!("no_lost_name: listed {found:?}, expected {expected:?}"))
}
