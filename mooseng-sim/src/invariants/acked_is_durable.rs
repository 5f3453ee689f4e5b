//! *What was acknowledged is there after any crash of any or all machines*: every answered operation, and every byte
//! that was synced on all copies and committed, on each copy (DESIGN §1, promises 1 and 4). Of what was never answered,
//! all or nothing is there; a write that was never committed may have reached any of its bytes.

use std::collections::BTreeMap;

use crate::client::Content;
use crate::oracle::{Model, Op, Private};

/// What is wrong with a client's directory, whose objects were found by path (`None`: a directory).
pub(crate) fn judge(life: &Private, tree: &BTreeMap<String, Option<Content>>) -> Vec<String> {
    let without = differences(&life.model, tree, None);
    let Some(pending) = &life.pending else { return without };
    let mut with = life.model.clone();
    if without.is_empty() || with.apply(pending).is_err() {
        return without;
    }
    let with_it = differences(&with, tree, None);
    // The length may have been committed before a sync covered the bytes, by a flush that did not ask for the disks.
    let torn_is_fine = |length: &Model, other: &Model| differences(length, tree, Some(other)).is_empty();
    let torn = matches!(pending, Op::Write { .. })
        && (torn_is_fine(&life.model, &with) || torn_is_fine(&with, &life.model));
    if with_it.is_empty() || torn { Vec::new() } else { without }
}

fn differences(model: &Model, tree: &BTreeMap<String, Option<Content>>, torn: Option<&Model>) -> Vec<String> {
    let paths = model.paths();
    let strangers = tree.keys().filter(|path| !paths.contains_key(*path));
    let mut problems: Vec<_> = strangers.map(|path| format!("{path} should not be there")).collect();
    for (path, node) in &paths {
        match (tree.get(path), model.file(*node)) {
            (None, _) => problems.push(format!("{path} is lost")),
            (Some(None), None) => {}
            (Some(Some(_)), Some(_)) if model.is_unsure(*node) => {}
            (Some(Some(found)), Some((content, links, _))) => {
                let other = torn.and_then(|torn| torn.file(*node)).map(|file| file.0.as_slice());
                let compared = compare(found, content, links, other);
                problems.extend(compared.into_iter().map(|problem| format!("{path}: {problem}")));
            }
            _ => problems.push(format!("{path} is of another kind")),
        }
    }
    problems
}

/// What is wrong with a file. Where `torn` is given, each byte may also be as it is there.
pub(crate) fn compare(found: &Content, content: &[u8], links: u32, torn: Option<&[u8]>) -> Vec<String> {
    let length = content.len();
    if found.size != length as u64 || found.links != links {
        let (size, names) = (found.size, found.links);
        return vec![format!("{size} bytes and {names} names, expected {length} and {links}")];
    }
    let missing = found.missing.iter().map(|missing| format!("a copy is missing: {missing}"));
    let mut problems: Vec<_> = missing.collect();
    for (server, bytes) in &found.copies {
        let byte_of = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
        let wrong = |at: &usize| {
            let byte = byte_of(bytes, *at);
            byte != byte_of(content, *at) && torn.is_none_or(|torn| byte != byte_of(torn, *at))
        };
        if let Some(at) = (0..length).find(wrong) {
            let count = (0..length).filter(wrong).count();
            problems.push(format!("copy {server:?} differs from byte {at} on, in {count} of {length}"));
        }
    }
    problems
}
