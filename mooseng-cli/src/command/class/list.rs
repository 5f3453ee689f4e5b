//! `mooseng class list` and `show`.

use std::process::ExitCode;

use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use super::view::Class;
use crate::Target;
use crate::admin;
use crate::output;
use crate::time;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Its name.
    name: String,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    schema: u32,
    classes: &'a [Class],
}

/// All classes, or the one with this name; sorted by name.
pub(super) fn ask(target: &Target, name: &str) -> anyhow::Result<Vec<Class>> {
    let request = pb::ListClassesRequest { name: name.to_owned() };
    let reply = admin::ask_leader(&admin::masters(target)?, &request)?;
    let mut classes: Vec<Class> = reply.classes.into_iter().map(Class::from).collect();
    classes.sort_by(|one, other| one.definition.name.cmp(&other.definition.name));
    Ok(classes)
}

pub(super) fn list(target: &Target, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let classes = ask(target, "")?;
    if args.json {
        output::json(&Json { schema: 1, classes: &classes })?;
    } else {
        output::table(&Class::HEAD, &classes.iter().map(Class::row).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(target: &Target, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let classes = ask(target, &args.name)?;
    if args.json {
        output::json(&Json { schema: 1, classes: &classes })?;
    } else {
        classes.iter().for_each(print);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(class: &Class) {
    let it = &class.definition;
    let objects = class.objects.map_or_else(String::new, |objects| format!(", {objects} objects"));
    output::line(&format!("class {} (number {}){objects}", it.name, class.id));
    if !it.description.is_empty() {
        output::line(&it.description);
    }
    output::line(&format!("labels are taken: {}; priority {}", it.strictness, it.priority));
    output::line(&format!(
        "archived after {} without a change, from {} on; in the trash if it stays for {}",
        time::seconds(it.archive_delay_s),
        output::bytes(it.archive_length_min_bytes),
        time::seconds(it.trash_retention_min_s)
    ));
    output::line("");
    class.print_states();
}
