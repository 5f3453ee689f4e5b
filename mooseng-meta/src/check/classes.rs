//! Storage classes: whether those exist that objects have, and how many have them.

use std::collections::{BTreeMap, BTreeSet};

use mooseng_types::{ClassId, Level};

use super::Findings;
use crate::codec::v1::row::Number;
use crate::key;
use crate::tables::decode;

pub(super) fn check(findings: &mut Findings<'_>) {
    let tables = &findings.state.tables;
    if tables.level < Level::CLASSES || tables.settings.is_none() {
        return;
    }
    let classes = tables.classes();
    let counted: BTreeMap<ClassId, u64> = tables
        .rows
        .collect(b"z", &[], usize::MAX, |key, value| (key::class_at(key), decode::<Number>(key, value).0))
        .into_iter()
        .collect();
    let mut names = BTreeSet::new();
    for (id, class) in &classes {
        findings.demand(names.insert(&class.name), || format!("{id} has the name {} too", class.name));
    }
    let has = |id: ClassId| classes.iter().any(|(known, _)| *known == id);
    let default = ClassId::from_raw(0);
    findings.demand(has(default), || "there is no default class".to_owned());
    let mut objects: BTreeMap<ClassId, u64> = BTreeMap::new();
    let having: Vec<_> = findings.inodes.iter().map(|(inode, row)| (*inode, row.class)).collect();
    for (inode, class) in having {
        findings.demand(has(class), || format!("{inode} has {class}, which does not exist"));
        *objects.entry(class).or_default() += u64::from(class != default);
    }
    objects.remove(&default);
    findings.demand(objects == counted, || {
        format!("classes are had by {objects:?} objects, the counts say {counted:?}")
    });
}
