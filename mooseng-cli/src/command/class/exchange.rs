//! `mooseng class export` and `import`: classes as a TOML file, with a `[[class]]` for each.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use mooseng_protocol::pb;
use mooseng_types::{StorageClass, Strictness};
use serde::{Deserialize, Serialize};

use super::list::ask;
use super::put::{How, send};
use crate::Target;
use crate::admin;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// For programs: JSON in place of TOML. `import` reads TOML.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// What `export` has printed.
    file: PathBuf,
    /// Also change classes that exist already and differ.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    how: How,
}

/// A class as people write it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) keep: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) create: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) archive: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trash: Option<String>,
    pub(super) archive_delay_s: u32,
    pub(super) archive_length_min_bytes: u64,
    pub(super) trash_retention_min_s: u32,
    pub(super) strictness: String,
    pub(super) priority: u32,
    pub(super) description: String,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            name: String::new(),
            keep: String::new(),
            create: None,
            archive: None,
            trash: None,
            archive_delay_s: StorageClass::ARCHIVE_DELAY_S,
            archive_length_min_bytes: 0,
            trash_retention_min_s: 0,
            strictness: Strictness::default().name().to_owned(),
            priority: 0,
            description: String::new(),
        }
    }
}

impl From<pb::StorageClass> for Definition {
    fn from(told: pb::StorageClass) -> Self {
        let goal = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            name: told.name,
            keep: told.keep,
            create: goal(told.create),
            archive: goal(told.archive),
            trash: goal(told.trash),
            archive_delay_s: told.archive_delay_s,
            archive_length_min_bytes: told.archive_length_min_bytes,
            trash_retention_min_s: told.trash_retention_min_s,
            strictness: told.strictness,
            priority: told.priority,
            description: told.description,
        }
    }
}

impl From<Definition> for pb::StorageClass {
    fn from(it: Definition) -> Self {
        Self {
            name: it.name,
            keep: it.keep,
            create: it.create.unwrap_or_default(),
            archive: it.archive.unwrap_or_default(),
            trash: it.trash.unwrap_or_default(),
            archive_delay_s: it.archive_delay_s,
            archive_length_min_bytes: it.archive_length_min_bytes,
            trash_retention_min_s: it.trash_retention_min_s,
            strictness: it.strictness,
            priority: it.priority,
            description: it.description,
        }
    }
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Classes {
    class: Vec<Definition>,
}

/// What an import has done, or would do.
#[derive(Default, Serialize)]
struct Imported {
    schema: u32,
    dry_run: bool,
    made: Vec<String>,
    changed: Vec<String>,
    /// They are as the file says already.
    unchanged: Vec<String>,
}

pub(super) fn export(target: &Target, args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let class = ask(target, "")?.into_iter().map(|class| class.definition).collect();
    let classes = Classes { class };
    if args.json {
        output::json(&classes)?;
    } else {
        output::line(toml::to_string(&classes)?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn import(target: &Target, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let what = || format!("read {}", args.file.display());
    let Classes { class } =
        toml::from_str(&fs::read_to_string(&args.file).with_context(what)?).with_context(what)?;
    let known: Vec<Definition> = ask(target, "")?.into_iter().map(|class| class.definition).collect();
    let mut names = BTreeSet::new();
    let differs = |it: &Definition| known.iter().any(|known| known.name == it.name && known != it);
    for it in &class {
        if !names.insert(&it.name) {
            bail!("{} has class {} twice", args.file.display(), it.name);
        }
        if !args.replace && differs(it) {
            bail!("class {} exists and is not as the file says; --replace changes it", it.name);
        }
    }
    let masters = admin::masters(target)?;
    let How { force, dry_run, json } = args.how;
    let mut done = Imported { schema: 1, dry_run, ..Imported::default() };
    for it in class {
        let exists = known.iter().any(|known| known.name == it.name);
        if exists && !differs(&it) {
            done.unchanged.push(it.name);
            continue;
        }
        let name = it.name.clone();
        let change = if exists { name.as_str() } else { "" };
        let class =
            send(&masters, change, it.clone(), force, dry_run).with_context(|| format!("class {name}"))?;
        if !class.is_fulfilled() {
            output::note(&format!("class {name} cannot be fulfilled by the servers that are up"));
        }
        if exists { done.changed.push(name) } else { done.made.push(name) }
    }
    if json {
        output::json(&done)?;
    } else {
        let would = if dry_run { "would be " } else { "" };
        for (names, what) in [(&done.made, "made"), (&done.changed, "changed")] {
            names.iter().for_each(|name| output::line(&format!("class {name} {would}{what}")));
        }
        output::line(&format!(
            "{} {would}made, {} {would}changed, {} unchanged",
            done.made.len(),
            done.changed.len(),
            done.unchanged.len()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_a_name_and_a_goal_and_says_the_rest_if_it_likes() {
        let text = "[[class]]\nname = \"gold\"\nkeep = \"A,B\"\ntrash = \"1\"\n";
        let Classes { class } = toml::from_str(text).unwrap();
        let wanted = Definition {
            name: "gold".into(),
            keep: "A,B".into(),
            trash: Some("1".into()),
            ..Definition::default()
        };
        assert_eq!(class[0], wanted);
        let again: Classes = toml::from_str(&toml::to_string(&Classes { class }).unwrap()).unwrap();
        assert_eq!((again.class.len(), &again.class[0]), (1, &wanted));
        assert_eq!(Definition::from(pb::StorageClass::from(wanted.clone())), wanted);
        assert!(toml::from_str::<Classes>("[[class]]\nkeeps = \"2\"\n").is_err());
    }
}
