//! Several changes as one request.

use std::time::Duration;

use mooseng_meta::{BATCH_MAX, CommandBatch, Response};
use mooseng_protocol::convert::BadMessage;
use mooseng_protocol::pb;
use mooseng_protocol::pb::batch_change::Change as Item;
use mooseng_protocol::status::CallError;
use prost::Message as _;

use super::Desk;
use super::changes::ChangeRequest;
use super::requests::{Context, at_most, mismatched, take_effect};
use crate::group::Group;

impl TryFrom<pb::BatchRequest> for ChangeRequest {
    type Error = CallError;

    /// What is said in each change of whose request it is does not count.
    fn try_from(it: pb::BatchRequest) -> Result<Self, CallError> {
        at_most(it.changes.len(), BATCH_MAX, "changes")?;
        let (mut commands, mut contexts) = (Vec::new(), Vec::new());
        for change in it.changes {
            let meta = it.meta;
            let ChangeRequest { command, context, .. } =
                match change.change.ok_or(BadMessage { field: "changes" })? {
                    Item::Create(it) => pb::CreateRequest { meta, ..it }.try_into()?,
                    Item::Link(it) => pb::LinkRequest { meta, ..it }.try_into()?,
                    Item::Unlink(it) => pb::UnlinkRequest { meta, ..it }.try_into()?,
                    Item::Rmdir(it) => pb::RmdirRequest { meta, ..it }.try_into()?,
                    Item::Rename(it) => pb::RenameRequest { meta, ..it }.try_into()?,
                    Item::SetAttr(it) => pb::SetAttrRequest { meta, ..it }.try_into()?,
                    Item::SetXattr(it) => pb::SetXattrRequest { meta, ..it }.try_into()?,
                    Item::RemoveXattr(it) => pb::RemoveXattrRequest { meta, ..it }.try_into()?,
                    Item::WriteInline(it) => pb::WriteInlineRequest { meta, ..it }.try_into()?,
                };
            commands.push(command);
            contexts.push(context);
        }
        Ok(ChangeRequest::new(it.meta, CommandBatch::new(commands)?, Context::Batch(contexts)))
    }
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
