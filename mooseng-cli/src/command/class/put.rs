//! `mooseng class create` and `change`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use super::exchange::Definition;
use super::list::ask;
use super::view::Class;
use crate::Target;
use crate::admin::{self, Masters};
use crate::output;
use crate::time;

/// What a class wants.
#[derive(Debug, Args)]
struct Wanted {
    /// Goal of content that is written for the first time; "" for none of its own.
    #[arg(long, value_name = "GOAL")]
    create: Option<String>,
    /// Goal of content that was not changed for long; "" for none of its own.
    #[arg(long, value_name = "GOAL")]
    archive: Option<String>,
    /// Goal of content of deleted files; "" for none of its own.
    #[arg(long, value_name = "GOAL")]
    trash: Option<String>,
    /// How long content is left unchanged before it is archived: 12h, 30d.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    archive_delay: Option<Duration>,
    /// Files with fewer bytes are not archived.
    #[arg(long, value_name = "BYTES")]
    archive_length_min: Option<u64>,
    /// Content of deleted files that are gone sooner keeps its goal: 1h, 7d.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    trash_retention_min: Option<Duration>,
    /// How strictly labels are taken where a goal does not say it.
    #[arg(long, value_parser = ["loose", "std", "strict"])]
    strictness: Option<String>,
    /// Of several classes that want the same chunk the one with the highest has it: 0 to 255.
    #[arg(long)]
    priority: Option<u8>,
    /// For people.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    how: How,
}

/// How a class is put.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct How {
    /// Take it though the servers that are up cannot fulfil it.
    #[arg(long)]
    pub(super) force: bool,
    /// Only say what the servers that are up would make of it.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// For programs.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name.
    name: String,
    /// Goal of content in use, and of all other that has none of its own: `2`, `A,B`, `3[ssd+hdd]/[RACK]`.
    #[arg(long, value_name = "GOAL")]
    keep: String,
    #[command(flatten)]
    wanted: Wanted,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Its name.
    name: String,
    /// A new name.
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// Goal of content in use, and of all other that has none of its own.
    #[arg(long, value_name = "GOAL")]
    keep: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
}

/// What was done.
#[derive(Serialize)]
struct Put {
    schema: u32,
    dry_run: bool,
    class: Class,
}

impl Wanted {
    /// Changes what is named.
    fn apply(&self, to: &mut Definition) -> anyhow::Result<()> {
        let goals =
            [(&self.create, &mut to.create), (&self.archive, &mut to.archive), (&self.trash, &mut to.trash)];
        for (given, goal) in goals {
            if let Some(given) = given {
                *goal = Some(given.clone()).filter(|given| !given.is_empty());
            }
        }
        for (given, seconds) in [
            (self.archive_delay, &mut to.archive_delay_s),
            (self.trash_retention_min, &mut to.trash_retention_min_s),
        ] {
            if let Some(given) = given {
                *seconds = u32::try_from(given.as_secs()).context("a time of more than 136 years")?;
            }
        }
        to.archive_length_min_bytes = self.archive_length_min.unwrap_or(to.archive_length_min_bytes);
        to.priority = self.priority.map_or(to.priority, u32::from);
        if let Some(strictness) = &self.strictness {
            to.strictness.clone_from(strictness);
        }
        if let Some(description) = &self.description {
            to.description.clone_from(description);
        }
        Ok(())
    }
}

pub(super) fn create(target: &Target, args: &CreateArgs) -> anyhow::Result<ExitCode> {
    let mut definition =
        Definition { name: args.name.clone(), keep: args.keep.clone(), ..Definition::default() };
    args.wanted.apply(&mut definition)?;
    put(target, "", definition, args.wanted.how)
}

pub(super) fn change(target: &Target, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let Some(now) = ask(target, &args.name)?.pop() else { bail!("no class is called {}", args.name) };
    let mut definition = now.definition;
    args.wanted.apply(&mut definition)?;
    if let Some(keep) = &args.keep {
        definition.keep.clone_from(keep);
    }
    if let Some(name) = &args.rename {
        definition.name.clone_from(name);
    }
    put(target, &args.name, definition, args.wanted.how)
}

fn put(target: &Target, change: &str, definition: Definition, how: How) -> anyhow::Result<ExitCode> {
    let How { force, dry_run, json } = how;
    let class = send(&admin::masters(target)?, change, definition, force, dry_run)?;
    if json {
        output::json(&Put { schema: 1, dry_run, class })?;
        return Ok(ExitCode::SUCCESS);
    }
    let what = if change.is_empty() { "made" } else { "changed" };
    let name = &class.definition.name;
    output::line(&if dry_run {
        let verdict = if class.is_fulfilled() { "can be fulfilled" } else { "CANNOT be fulfilled" };
        format!("class {name} would be {what}; it {verdict}")
    } else {
        format!("class {name} is {what}")
    });
    class.print_states();
    if !change.is_empty() && !dry_run {
        output::note(
            "chunks that exist get as many copies as the class keeps now, and stay where they are; new ones go by the class",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a class, or changes the one called `change`; as it then is, or would be.
pub(super) fn send(
    masters: &Masters,
    change: &str,
    definition: Definition,
    force: bool,
    dry_run: bool,
) -> anyhow::Result<Class> {
    let class = Some(definition.into());
    let request = pb::PutClassRequest { change: change.to_owned(), class, force, dry_run };
    let reply = admin::ask_leader(masters, &request)?;
    Ok(reply.class.context("the leader has left out the class")?.into())
}
