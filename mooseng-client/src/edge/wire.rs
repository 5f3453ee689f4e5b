//! One request and its reply on a connection that one caller holds.

use std::io::IoSlice;
use std::time::Duration;

use mooseng_env::{Entropy, nonce};
use mooseng_protocol::frame::{FLAG_ERROR, FLAG_REPLY};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::principal::PrincipalKey;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::FrameStream;
use mooseng_types::{ClusterId, Levels};
use prost::Message as _;

use super::door::TimedDoor;
use crate::config::ClientConfig;

/// Who this client is, to all that it connects to.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) name: String,
    /// All zero if it takes the masters' own.
    pub(crate) cluster: ClusterId,
    pub(crate) levels: Levels,
    /// The key of clients.
    pub(crate) key: PrincipalKey,
    /// What its sessions are known by. Only masters are told.
    pub(crate) client_id: [u8; 16],
}

impl Own {
    /// As the configuration has it.
    pub(crate) fn of(config: &ClientConfig, key: PrincipalKey, entropy: &dyn Entropy) -> Self {
        let mut client_id = [0; 16];
        entropy.fill(&mut client_id);
        Self { name: config.name.clone(), cluster: config.cluster(), levels: config.levels(), key, client_id }
    }

    /// How this client calls a chunkserver.
    pub(crate) fn caller(&self) -> Caller {
        let hello = pb::Hello::new(pb::Role::Client, &self.name, Some(self.cluster), self.levels);
        Caller::new(hello, self.key.clone(), nonce)
    }

    /// How this client calls a master. `session` is 0 on connections that want no push; `epoch` is the highest of the masters'
    /// group that was heard of, 0 where nobody asks for it.
    pub(crate) fn caller_of_masters(&self, session: u64, epoch: u64) -> Caller {
        let caller = self.caller();
        let client_id = self.client_id.to_vec().into();
        caller.saying(pb::Hello { epoch, node_id: session, client_id, ..caller.hello.clone() })
    }
}

/// Sends `request` through the door and waits for the reply, as [`exchange`] does.
pub(crate) fn call<R: Rpc>(
    door: &TimedDoor,
    stream: &mut FrameStream,
    request: &R,
    payload: &[IoSlice<'_>],
    slice: Duration,
    keep_waiting: impl FnMut() -> bool,
) -> Result<R::Reply, CallError> {
    door.pass::<R, _>(|| exchange(stream, request, payload, slice, keep_waiting))
}

/// Sends `request` through the door and waits for the reply and the payload that follows it; `timeout` is for each piece.
pub(crate) fn call_for_payload<R: Rpc>(
    door: &TimedDoor,
    stream: &mut FrameStream,
    request: &R,
    timeout: Duration,
) -> Result<(R::Reply, Vec<u8>), CallError> {
    door.pass::<R, _>(|| {
        let reply = exchange(stream, request, &[], timeout, || false)?;
        let mut payload = vec![0; stream.reader().payload_left()];
        stream.reader().read_payload(&mut payload)?;
        Ok((reply, payload))
    })
}

/// Sends `request` and waits for the reply. Every `slice` without a word `keep_waiting` is asked whether to go on; what
/// has been received so far is kept meanwhile. Pushes in between are passed over: the control connection gets them too.
/// Whoever calls has let the request pass the door.
pub(crate) fn exchange<R: Rpc>(
    stream: &mut FrameStream,
    request: &R,
    payload: &[IoSlice<'_>],
    slice: Duration,
    mut keep_waiting: impl FnMut() -> bool,
) -> Result<R::Reply, CallError> {
    let id = stream.send(request, payload, Duration::ZERO)?;
    stream.reader().set_timeout(Some(slice))?;
    let frame = loop {
        match stream.reader().receive() {
            Ok(frame) if frame.header.flags & FLAG_REPLY == 0 => {}
            Ok(frame) if frame.header.request == id => break frame,
            Ok(_) => return Err(unexpected(stream, format!("answer to another request than {}", R::NAME))),
            Err(TransportError::TimedOut { .. }) if keep_waiting() => {}
            Err(error) => return Err(error.into()),
        }
    };
    let bad = |stream: &mut FrameStream| unexpected(stream, format!("body in a reply to {}", R::NAME));
    if frame.header.flags & FLAG_ERROR != 0 {
        let reply = pb::ErrorReply::decode(frame.body).map_err(|_| bad(stream))?;
        return Err(CallError::from_reply(reply));
    }
    R::Reply::decode(frame.body).map_err(|_| bad(stream))
}

/// The peer broke the protocol.
pub(crate) fn unexpected(stream: &mut FrameStream, what: String) -> CallError {
    TransportError::Unexpected { peer: stream.reader().peer().to_owned(), what }.into()
}
