//! Storage classes: what there are, changes of them, and which objects have which.

use std::time::Duration;

use bytes::Bytes;
use mooseng_meta::{ClassCommand, Command, MetaState, SET_CLASS_MAX};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::{ClassId, ClassName, ClassState, InodeId, Level, StorageClass};

use super::Desk;
use super::changes::place;
use super::requests::{Answer, Context, answer, at_most, decode};
use crate::group::Group;
use crate::multiregion::placement::{Fit, Placed};

/// Answers a request about classes, or says what has to be agreed on for it. Only the leader knows which servers are up.
pub(super) fn dispatch(
    desk: &Desk,
    group: &Group,
    now: Duration,
    kind: u16,
    body: Bytes,
) -> Result<Answer, CallError> {
    group.must_serve_reads(now)?;
    let level = group.state().level();
    if level < Level::CLASSES {
        return rejected(format!(
            "the cluster is at level {level}, storage classes come with level {}: mooseng cluster upgrade",
            Level::CLASSES
        ));
    }
    match kind {
        pb::ListClassesRequest::KIND => list(desk, group.state(), now, &decode(body)?),
        pb::PutClassRequest::KIND => put(desk, group, now, &decode(body)?),
        pb::RemoveClassRequest::KIND => remove(group, &decode(body)?),
        pb::SetClassRequest::KIND => set(group, decode(body)?),
        pb::ExplainClassRequest::KIND => explain(desk, group.state(), now, &decode(body)?),
        kind => rejected(format!("a master does not serve {kind:#x}")),
    }
}

fn list(
    desk: &Desk,
    state: &MetaState,
    now: Duration,
    it: &pb::ListClassesRequest,
) -> Result<Answer, CallError> {
    let classes = if it.name.is_empty() { state.classes() } else { vec![find(state, &it.name)?] };
    let status = |(id, class): &(ClassId, StorageClass)| status(desk, state, now, Some(*id), class);
    answer(&pb::ListClassesReply { classes: classes.iter().map(status).collect() })
}

/// Makes a class, or changes one.
fn put(desk: &Desk, group: &Group, now: Duration, it: &pb::PutClassRequest) -> Result<Answer, CallError> {
    let state = group.state();
    let class = StorageClass::try_from(&it.class.clone().unwrap_or_default())?;
    let changed = if it.change.is_empty() { None } else { Some(find(state, &it.change)?.0) };
    if let Some((id, _)) = state.class_named(&class.name)
        && changed != Some(id)
    {
        return rejected(format!("there is a class {} already: mooseng class change {0}", class.name));
    }
    if changed.is_some_and(|id| id.raw() == 0) && class.name.as_str() != it.change {
        return rejected(format!("class {} keeps its name: it is what objects have by default", it.change));
    }
    let missed = states(&class).find_map(|content| {
        let fit = fit(desk, now, &class, content);
        (!fit.is_met()).then_some((content, fit))
    });
    if let (Some((content, fit)), false, false) = (missed, it.force, it.dry_run) {
        return rejected(format!(
            "class {} cannot be fulfilled: {content} ({}): {}; with --force it is taken all the same",
            class.name,
            class.goal(content),
            fit.warnings.join("; ")
        ));
    }
    if it.dry_run {
        let status = status(desk, state, now, changed, &class);
        return answer(&pb::PutClassReply { class: Some(status) });
    }
    let class = Box::new(class);
    let command = match changed {
        Some(id) => ClassCommand::Change { id, class },
        None => ClassCommand::Create { class },
    };
    propose(group, command, Context::PutClass)
}

/// The class as it is now.
pub(super) fn put_reply(
    desk: &Desk,
    group: &Group,
    now: Duration,
    id: ClassId,
) -> Result<pb::PutClassReply, CallError> {
    let class = group.state().class(id).ok_or(mooseng_types::FsError::NotFound)?;
    Ok(pb::PutClassReply { class: Some(status(desk, group.state(), now, Some(id), &class)) })
}

fn remove(group: &Group, it: &pb::RemoveClassRequest) -> Result<Answer, CallError> {
    let (id, class) = find(group.state(), &it.name)?;
    match group.state().objects_of(id) {
        None => rejected(format!("class {} stays: it is what objects have by default", class.name)),
        Some(objects) if objects > 0 => rejected(format!(
            "{objects} objects have class {}: give them another with `mooseng file class --set` first",
            class.name
        )),
        Some(_) if it.dry_run => answer(&pb::RemoveClassReply {}),
        Some(_) => propose(group, ClassCommand::Remove { id }, Context::Empty),
    }
}

/// Gives objects a class.
fn set(group: &Group, it: pb::SetClassRequest) -> Result<Answer, CallError> {
    at_most(it.inodes.len(), SET_CLASS_MAX, "inodes")?;
    let (id, _) = find(group.state(), &it.name)?;
    let inodes: Vec<InodeId> = it.inodes.into_iter().map(InodeId::from_raw).collect();
    if let Some(other) = inodes.iter().find(|inode| inode.cell() != group.cell()) {
        return rejected(format!("{other} is of {}, which has no classes yet", other.cell()));
    }
    if it.dry_run {
        let differs = |inode: &&InodeId| group.state().class_of(**inode).is_ok_and(|class| class != id);
        let changed = inodes.iter().filter(differs).count();
        return answer(&pb::SetClassReply { changed: u32::try_from(changed).unwrap_or(u32::MAX) });
    }
    propose(group, ClassCommand::Set { id, inodes }, Context::SetClass)
}

/// Which class objects have; and of the first, where a new chunk of it would go and why.
fn explain(
    desk: &Desk,
    state: &MetaState,
    now: Duration,
    it: &pb::ExplainClassRequest,
) -> Result<Answer, CallError> {
    at_most(it.inodes.len(), SET_CLASS_MAX, "inodes")?;
    let name = |inode: InodeId| {
        let class = state.class_of(inode).ok().and_then(|_| state.class_for(inode));
        class.map_or_else(String::new, |class| class.name.to_string())
    };
    let object = |raw: &u64| pb::ObjectClass { inode: *raw, class: name(InodeId::from_raw(*raw)) };
    let mut reply =
        pb::ExplainClassReply { objects: it.inodes.iter().map(object).collect(), ..Default::default() };
    let first = it.inodes.first().map(|raw| InodeId::from_raw(*raw));
    let first = first.filter(|inode| state.class_of(*inode).is_ok());
    if let Some((inode, class)) = first.and_then(|inode| Some((inode, state.class_for(inode)?))) {
        let choice = place(desk, state, now, inode, &[]);
        reply.goal = class.goal(ClassState::Create).to_string();
        reply.strictness = class.strictness(ClassState::Create).to_string();
        reply.chosen = choice.placed.iter().map(|placed| chosen(desk, placed)).collect();
        let missing = choice.missing.iter().map(ToString::to_string);
        reply.warnings = missing.chain(choice.crowded.iter().map(ToString::to_string)).collect();
        reply.must_wait = choice.must_wait;
    }
    answer(&reply)
}

fn chosen(desk: &Desk, placed: &Placed) -> pb::ChosenServer {
    let mut chosen = pb::ChosenServer {
        copy: count(placed.copy + 1),
        asked: placed.asked.to_string(),
        right: placed.is_right,
        server: placed.server.raw(),
        ..Default::default()
    };
    if let Some(server) = desk.registry.get(placed.server) {
        chosen.name.clone_from(&server.name);
        chosen.labels = server.place.labels.iter().map(ToString::to_string).collect();
        chosen.region.clone_from(&server.place.region);
        chosen.rack.clone_from(&server.place.rack);
        chosen.host = server.host().to_owned();
        chosen.free_bytes = server.free_bytes();
    }
    chosen
}

/// The states that a class has a goal of its own for.
fn states(class: &StorageClass) -> impl Iterator<Item = ClassState> {
    ClassState::ALL.into_iter().filter(|state| class.own_goal(*state).is_some())
}

fn fit(desk: &Desk, now: Duration, class: &StorageClass, state: ClassState) -> Fit {
    Fit::of(class.goal(state), class.strictness, &desk.registry.candidates(now, &[]))
}

fn status(
    desk: &Desk,
    state: &MetaState,
    now: Duration,
    id: Option<ClassId>,
    class: &StorageClass,
) -> pb::ClassStatus {
    let fits = states(class).map(|content| {
        let fit = fit(desk, now, class, content);
        pb::ClassFit {
            state: content.name().to_owned(),
            goal: class.goal(content).to_string(),
            copies: count(fit.copies),
            placed: count(fit.placed),
            substituted: count(fit.substituted),
            matching: count(fit.matching),
            losses_survived: count(fit.losses_survived()),
            is_met: fit.is_met(),
            warnings: fit.warnings,
        }
    });
    pb::ClassStatus {
        id: id.map_or(0, |id| id.raw().into()),
        class: Some(class.into()),
        objects: id.and_then(|id| state.objects_of(id)),
        fits: fits.collect(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn find(state: &MetaState, name: &str) -> Result<(ClassId, StorageClass), CallError> {
    let found = ClassName::parse(name).ok().and_then(|name| state.class_named(&name));
    found.ok_or_else(|| {
        let names: Vec<String> = state.classes().iter().map(|(_, class)| class.name.to_string()).collect();
        CallError::Rejected { message: format!("no class is called {name}: there are {}", names.join(", ")) }
    })
}

fn propose(group: &Group, command: ClassCommand, context: Context) -> Result<Answer, CallError> {
    let command = Box::new(Command::from(command));
    Ok(Answer::Propose { cell: group.cell(), request: None, command, context })
}

fn rejected<T>(message: String) -> Result<T, CallError> {
    Err(CallError::Rejected { message })
}
