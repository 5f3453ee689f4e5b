//! Frames on their way to connections.

use std::sync::Arc;

use mooseng_meta::MetaStore;
use mooseng_protocol::frame::{self, FLAG_ERROR, FLAG_ONE_WAY, FLAG_PUSH, FLAG_REPLY, Header};
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_protocol::status::CallError;
use prost::Message;

use super::Effect;
use crate::conn::ConnId;

/// What the edge is to do for the desk.
#[derive(Debug, Default)]
pub(super) struct Outbox(Vec<Effect>);

impl Outbox {
    pub(super) fn reply(&mut self, conn: ConnId, to: Header, answer: Result<&[u8], &CallError>) {
        if to.flags & FLAG_ONE_WAY == 0 {
            self.0.push(Effect::Frame(conn, reply_frame(to, answer)));
        }
    }

    pub(super) fn push<R: Rpc>(&mut self, conn: ConnId, message: &R) {
        self.0.push(Effect::Frame(conn, push_frame(message)));
    }

    /// To every client connected.
    pub(super) fn announce<R: Rpc>(&mut self, message: &R) {
        self.0.push(Effect::Announce(push_frame(message)));
    }

    pub(super) fn cut(&mut self, conn: ConnId) {
        self.0.push(Effect::Cut(conn));
    }

    pub(super) fn check(&mut self, store: Arc<dyn MetaStore>) {
        self.0.push(Effect::Check(store));
    }

    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.0)
    }
}

fn push_frame<R: Rpc>(message: &R) -> Vec<u8> {
    let header = Header { kind: R::KIND, flags: FLAG_PUSH, ..Header::default() };
    // What is pushed names a few chunks or an address; one that did not fit would be as good as lost, which it may be.
    frame::encode(header, &message.encode_to_vec(), 0).unwrap_or_default()
}

/// The frame that answers `to`. An answer that does not fit into a frame, because it has in it what others have stored,
/// becomes an error.
pub(crate) fn reply_frame(to: Header, answer: Result<&[u8], &CallError>) -> Vec<u8> {
    let header = |flags| Header { flags: FLAG_REPLY | flags, deadline_ms: 0, ..to };
    let refuse = |error: &CallError| {
        // An error's text is bounded, so this one fits.
        frame::encode(header(FLAG_ERROR), &error.to_reply().encode_to_vec(), 0).unwrap_or_default()
    };
    match answer.map(|body| frame::encode(header(0), body, 0)) {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            tracing::error!(%error, request = rpc::name(to.kind), "an answer does not fit");
            refuse(&CallError::Rejected { message: format!("the answer does not fit: {error}") })
        }
        Err(error) => refuse(error),
    }
}
