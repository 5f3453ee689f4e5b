//! Directories, the objects in them, and what belongs to an object besides chunks.

use std::collections::{BTreeMap, BTreeSet};

use mooseng_types::{FileKind, FileName, INLINE_MAX, InodeId};

use super::{Findings, each};
use crate::inode::{Dentry, InodeRow};
use crate::key;
use crate::tables::decode;

/// What the entries say, to be compared with what the objects say.
#[derive(Default)]
struct Links {
    /// Entries that lead to an object.
    names: BTreeMap<InodeId, u32>,
    /// The last directory found to have an entry for this one.
    above: BTreeMap<InodeId, InodeId>,
    entries: BTreeMap<InodeId, u64>,
    subdirs: BTreeMap<InodeId, u32>,
}

pub(super) fn check(findings: &mut Findings<'_>) {
    let links = check_entries(findings);
    let inodes = std::mem::take(&mut findings.inodes);
    for (inode, row) in &inodes {
        check_object(findings, &links, *inode, row);
    }
    for inode in std::mem::take(&mut findings.orphans) {
        let nameless = inodes.get(&inode).is_some_and(|row| row.nlink == 0);
        findings.demand(nameless, || format!("orphan {inode} has names or does not exist"));
    }
    findings.inodes = inodes;
    check_tree(findings);
    check_belongings(findings);
}

fn check_entries(findings: &mut Findings<'_>) -> Links {
    let mut links = Links::default();
    each(findings.state, b"d", |key, value| {
        let (parent, cookie) = (InodeId::from_raw(key::number_at(key, 1)), key::number_at(key, 9));
        let (name, dentry) = (&key[17..], decode::<Dentry>(key, value));
        let what = || format!("entry {} of {parent}", name.escape_ascii());
        let placed = FileName::parse(name).is_ok_and(|name| key::cookie(&name) == cookie);
        findings.demand(placed, || format!("{} is in the wrong place", what()));
        let live = findings.inodes.get(&parent).is_some_and(|row| row.is_dir() && row.nlink > 0);
        findings.demand(live, || format!("{} is in no directory", what()));
        let kind = findings.inodes.get(&dentry.inode).map(|row| row.kind);
        findings.demand(kind == Some(dentry.kind), || {
            format!("{} says {:?}, {} is {kind:?}", what(), dentry.kind, dentry.inode)
        });
        *links.names.entry(dentry.inode).or_default() += 1;
        *links.entries.entry(parent).or_default() += 1;
        if dentry.kind == FileKind::Directory {
            *links.subdirs.entry(parent).or_default() += 1;
            links.above.insert(dentry.inode, parent);
        }
    });
    links
}

fn check_object(findings: &mut Findings<'_>, links: &Links, inode: InodeId, row: &InodeRow) {
    let names = links.names.get(&inode).copied().unwrap_or(0);
    let orphan = findings.orphans.contains(&inode);
    findings.demand(orphan == (row.nlink == 0), || {
        format!("{inode} has {} links and is {}an orphan", row.nlink, if orphan { "" } else { "not " })
    });
    if !row.is_dir() {
        findings.demand(row.nlink == names, || format!("{inode} has {} links, {names} entries", row.nlink));
        return;
    }
    let root = inode == findings.root();
    let names_wanted = u32::from(!root && !orphan);
    findings.demand(names == names_wanted, || format!("directory {inode} has {names} entries leading to it"));
    let entries = links.entries.get(&inode).copied().unwrap_or(0);
    findings.demand(row.size == entries, || format!("{inode} has {entries} entries, says {}", row.size));
    if orphan {
        return;
    }
    let links_wanted = 2 + links.subdirs.get(&inode).copied().unwrap_or(0);
    findings
        .demand(row.nlink == links_wanted, || format!("{inode} has {} links, not {links_wanted}", row.nlink));
    let above = if root { Some(&inode) } else { links.above.get(&inode) };
    findings.demand(above == Some(&row.parent), || {
        format!("{inode} says it is in {}, its entry is in {above:?}", row.parent)
    });
}

/// From every directory with a name the way up leads to the root. (That files have entries, and entries live
/// directories, is checked where they are counted.)
fn check_tree(findings: &mut Findings<'_>) {
    let mut reached = BTreeSet::from([findings.root()]);
    let dirs: Vec<InodeId> =
        findings.inodes.iter().filter(|(_, row)| row.is_dir() && row.nlink > 0).map(|(&id, _)| id).collect();
    for dir in dirs {
        let mut way = BTreeSet::new();
        let mut at = dir;
        while !reached.contains(&at) && way.insert(at) {
            at = findings.inodes.get(&at).map_or(at, |row| row.parent);
        }
        findings.demand(reached.contains(&at), || format!("{dir} cannot be reached from the root"));
        reached.extend(way);
    }
}

fn check_belongings(findings: &mut Findings<'_>) {
    let rows = &findings.state.tables.rows;
    let sized = |key: &[u8], value: &[u8]| (InodeId::from_raw(key::number_at(key, 1)), value.len() as u64);
    let inlines = rows.collect(b"n", &[], usize::MAX, sized);
    let targets = rows.collect(b"t", &[], usize::MAX, sized);
    for (inode, length) in inlines {
        let fits = findings.is_file(inode) && (1..=INLINE_MAX).contains(&length);
        findings
            .demand(fits, || format!("{inode} has {length} bytes of inline content and is no small file"));
        let size = findings.inodes.get(&inode).map_or(0, |row| row.size);
        findings.demand(length <= size, || format!("{inode} has inline content beyond its end"));
    }
    let symlinks = findings.inodes.iter().filter(|(_, row)| row.kind == FileKind::Symlink);
    let symlinks: Vec<(InodeId, u64)> = symlinks.map(|(&inode, row)| (inode, row.size)).collect();
    findings.demand(symlinks == targets, || "symbolic links and their targets do not match".to_owned());
    let names = rows
        .collect(b"x", &[], usize::MAX, |key, _| (InodeId::from_raw(key::number_at(key, 1)), key.len() - 8));
    let mut listed: BTreeMap<InodeId, u64> = BTreeMap::new();
    for (inode, bytes) in names {
        let exists = findings.inodes.contains_key(&inode);
        findings.demand(exists, || format!("an extended attribute belongs to {inode}, which does not exist"));
        *listed.entry(inode).or_default() += bytes as u64;
    }
    let says: Vec<_> =
        findings.inodes.iter().map(|(&inode, row)| (inode, u64::from(row.xattr_names))).collect();
    for (inode, says) in says {
        let there = listed.get(&inode).copied().unwrap_or(0);
        findings.demand(there == says, || {
            format!("the names of {inode}'s extended attributes have {there} bytes, it says {says}")
        });
    }
}
