//! Several changes as one request.

use std::time::Duration;

use mooseng_meta::{BATCH_MAX, Command, CommandBatch, MetaState, Response};
use mooseng_protocol::convert::BadMessage;
use mooseng_protocol::pb;
use mooseng_protocol::pb::batch_change::Change as Item;
use mooseng_protocol::status::CallError;
use prost::Message as _;

use super::Desk;
use super::changes::{self, ChangeRequest};
use super::requests::{Context, at_most, mismatched, take_effect};
use crate::group::Group;

/// The command for a batch. What is said in each change of whose request it is does not count.
pub(super) fn changes(state: &MetaState, it: pb::BatchRequest) -> Result<ChangeRequest, CallError> {
    at_most(it.changes.len(), BATCH_MAX, "changes")?;
    let (mut commands, mut contexts) = (Vec::new(), Vec::new());
    for change in it.changes {
        let meta = it.meta;
        let (_, command, context): ChangeRequest =
            match change.change.ok_or(BadMessage { field: "changes" })? {
                Item::Create(it) => changes::create(pb::CreateRequest { meta, ..it })?,
                Item::Link(it) => changes::link(&pb::LinkRequest { meta, ..it })?,
                Item::Unlink(it) => changes::unlink(&pb::UnlinkRequest { meta, ..it })?,
                Item::Rmdir(it) => changes::rmdir(&pb::RmdirRequest { meta, ..it })?,
                Item::Rename(it) => changes::rename(&pb::RenameRequest { meta, ..it })?,
                Item::SetAttr(it) => changes::set_attr(state, &pb::SetAttrRequest { meta, ..it })?,
                Item::SetXattr(it) => changes::set_xattr(pb::SetXattrRequest { meta, ..it })?,
                Item::RemoveXattr(it) => changes::remove_xattr(pb::RemoveXattrRequest { meta, ..it }),
                Item::WriteInline(it) => changes::write_inline(pb::WriteInlineRequest { meta, ..it }),
            };
        commands.push(command);
        contexts.push(context);
    }
    Ok((it.meta, Command::from(CommandBatch::new(commands)?), Context::Batch(contexts)))
}

/// The reply to a batch.
pub(super) fn reply(
    desk: &mut Desk,
    group: &Group,
    now: Duration,
    contexts: &[Context],
    responses: Vec<Response>,
) -> Result<Vec<u8>, CallError> {
    let mut answers = Vec::with_capacity(responses.len());
    for (context, response) in contexts.iter().zip(responses) {
        take_effect(desk, group, now, context, &response);
        answers.push(match response {
            Response::Done => pb::BatchAnswer::default(),
            Response::Attr(attr) => pb::BatchAnswer { attr: Some(attr.into()), refusal: 0 },
            Response::Refused(error) => pb::BatchAnswer { attr: None, refusal: error.code() },
            response => return Err(mismatched(&response)),
        });
    }
    Ok(pb::BatchReply { answers }.encode_to_vec())
}
