//! What a call without a result means: a refusal, or a failure that says whether sending it again may help.

use mooseng_types::{ChunkCause, FsError, ServerId};

use crate::frame::FrameError;
use crate::limits::MESSAGE_MAX;
use crate::pb;
use crate::principal::Role;
use crate::rpc;

/// A call without a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The answer is no. Final.
    #[error(transparent)]
    Refused(#[from] FsError),
    /// Not done: only the leader does this. Send it there.
    #[error("not the leader (which is {})", leader.as_deref().unwrap_or("not known yet"))]
    NotLeader {
        /// The leader's address, if known.
        leader: Option<String>,
    },
    /// Not done now, or not known whether done: send the same request again.
    #[error("unavailable: {message}")]
    Unavailable {
        /// Why, for people.
        message: String,
    },
    /// Never to be done: malformed, or of another cluster or version.
    #[error("rejected: {message}")]
    Rejected {
        /// Why, for people.
        message: String,
    },
    /// The one that sent it has a role that must not. Final.
    #[error("a {role} must not send {} ({kind:#x})", rpc::name(*kind))]
    Forbidden {
        /// The role that it proved.
        role: Role,
        /// The request's number.
        kind: u16,
    },
    /// A chunkserver could not do its part.
    #[error("{}{cause}: {message}", server.map(|server| format!("{server}: ")).unwrap_or_default())]
    Chunk {
        /// Which server of the chain; `None`: the one that was asked.
        server: Option<ServerId>,
        /// Why.
        cause: ChunkCause,
        /// More of it, for people.
        message: String,
    },
    /// The connection failed; it is not known whether the request was done. Send the same request again elsewhere.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A connection that is of no more use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The socket failed.
    #[error("{action} {peer}")]
    Io {
        /// What was being done: "connect to", "send to", "receive from".
        action: &'static str,
        /// The other side's address.
        peer: String,
        /// How.
        source: std::io::Error,
    },
    /// The peer closed the connection.
    #[error("{peer} closed the connection")]
    Closed {
        /// The other side's address.
        peer: String,
    },
    /// No answer within the deadline.
    #[error("no answer from {peer} within {deadline_ms} ms")]
    TimedOut {
        /// The other side's address.
        peer: String,
        /// How long it had.
        deadline_ms: u64,
    },
    /// The peer sent something that is no frame.
    #[error("receive from {peer}")]
    Frame {
        /// The other side's address.
        peer: String,
        /// What is wrong.
        source: FrameError,
    },
    /// What was to be sent to the peer does not fit into a frame; nothing was sent.
    #[error("too much to send to {peer} at once")]
    TooLong {
        /// The other side's address.
        peer: String,
        /// What is too long.
        source: FrameError,
    },
    /// The peer sent a frame that does not belong here, or a body that does not decode.
    #[error("unexpected {what} from {peer}")]
    Unexpected {
        /// The other side's address.
        peer: String,
        /// What came.
        what: String,
    },
}

impl CallError {
    /// Whether the same request may succeed when it is sent again, here or elsewhere.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Rejected { .. } | Self::Forbidden { .. } | Self::Chunk { .. } => false,
            Self::Transport(TransportError::TooLong { .. }) => false,
            Self::NotLeader { .. } | Self::Unavailable { .. } | Self::Transport(_) => true,
        }
    }

    /// The call's error reply. A transport's error is the caller's own and is told as unavailable. What is said for people
    /// is cut, as it may repeat what somebody else has sent.
    #[must_use]
    pub fn to_reply(&self) -> pb::ErrorReply {
        let mut reply = pb::ErrorReply { message: self.to_string(), ..Default::default() };
        match self {
            Self::Refused(error) => {
                reply.set_failure(pb::Failure::Refusal);
                reply.refusal = error.code();
            }
            Self::NotLeader { leader } => {
                reply.set_failure(pb::Failure::NotLeader);
                reply.leader_address = leader.clone().unwrap_or_default();
            }
            Self::Unavailable { message } => {
                reply.set_failure(pb::Failure::Unavailable);
                reply.message.clone_from(message);
            }
            Self::Transport(_) => reply.set_failure(pb::Failure::Unavailable),
            Self::Chunk { server, cause, message } => {
                reply.set_failure(pb::Failure::Chunk);
                let server = server.map_or(0, ServerId::raw);
                reply.chunk = Some(pb::ChunkFault { server, cause: cause.code() });
                reply.message.clone_from(message);
            }
            Self::Forbidden { role, kind } => {
                reply.set_failure(pb::Failure::Forbidden);
                let role = pb::Role::from(*role).into();
                reply.forbidden = Some(pb::Forbidden { role, kind: (*kind).into() });
            }
            Self::Rejected { message } => {
                reply.set_failure(pb::Failure::Rejected);
                reply.message.clone_from(message);
            }
        }
        for text in [&mut reply.message, &mut reply.leader_address] {
            text.truncate(text.floor_char_boundary(MESSAGE_MAX));
        }
        reply
    }

    /// What an error reply says. An unknown kind of failure, of a later release, reads as unavailable.
    #[must_use]
    pub fn from_reply(reply: pb::ErrorReply) -> Self {
        match reply.failure() {
            pb::Failure::Refusal => Self::Refused(FsError::from_code(reply.refusal)),
            pb::Failure::NotLeader => {
                Self::NotLeader { leader: Some(reply.leader_address).filter(|address| !address.is_empty()) }
            }
            pb::Failure::Rejected => Self::Rejected { message: reply.message },
            pb::Failure::Forbidden => {
                let said = reply.forbidden.unwrap_or_default();
                match (Role::said(said.role()), u16::try_from(said.kind)) {
                    (Some(role), Ok(kind)) => Self::Forbidden { role, kind },
                    _ => Self::Rejected { message: reply.message },
                }
            }
            pb::Failure::Chunk => {
                let fault = reply.chunk.unwrap_or_default();
                let server = Some(fault.server).filter(|server| *server != 0).map(ServerId::from_raw);
                Self::Chunk { server, cause: ChunkCause::from_code(fault.cause), message: reply.message }
            }
            pb::Failure::Unavailable | pb::Failure::Unknown => Self::Unavailable { message: reply.message },
        }
    }

    /// The gRPC status of the facade.
    #[must_use]
    pub fn to_grpc(&self) -> tonic::Status {
        use tonic::Code;
        let code = match self {
            Self::Refused(FsError::NotFound) => Code::NotFound,
            Self::Refused(FsError::Exists) => Code::AlreadyExists,
            Self::Refused(FsError::NotPermitted | FsError::AccessDenied) | Self::Forbidden { .. } => {
                Code::PermissionDenied
            }
            Self::Refused(FsError::NoSpace | FsError::QuotaExceeded) => Code::ResourceExhausted,
            Self::Refused(FsError::Invalid) | Self::Rejected { .. } => Code::InvalidArgument,
            Self::Refused(_) => Code::FailedPrecondition,
            Self::NotLeader { .. } | Self::Unavailable { .. } | Self::Transport(_) | Self::Chunk { .. } => {
                Code::Unavailable
            }
        };
        let mut status = tonic::Status::new(code, self.to_string());
        if let Self::NotLeader { leader: Some(leader) } = self
            && let Ok(value) = leader.parse()
        {
            status.metadata_mut().insert("mooseng-leader", value);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_repeats_of_others_is_cut() {
        let message = "ü".repeat(8 << 20);
        let reply = CallError::Rejected { message }.to_reply();
        assert_eq!(reply.message.len(), MESSAGE_MAX);
        let far = CallError::NotLeader { leader: Some("a".repeat(8 << 20)) }.to_reply();
        assert!(far.leader_address.len() <= MESSAGE_MAX && far.message.len() <= MESSAGE_MAX);
    }

    #[test]
    fn an_error_reads_back_as_what_it_was() {
        let errors = [
            CallError::Refused(FsError::NotEmpty),
            CallError::NotLeader { leader: Some("127.0.0.1:9421".into()) },
            CallError::NotLeader { leader: None },
            CallError::Unavailable { message: "busy".into() },
            CallError::Rejected { message: "another cluster".into() },
            CallError::Forbidden { role: Role::Client, kind: 0x0504 },
            CallError::Chunk { server: None, cause: ChunkCause::Full, message: "c5".into() },
            CallError::Chunk {
                server: Some(ServerId::from_raw(7)),
                cause: ChunkCause::Interrupted,
                message: "c5".into(),
            },
        ];
        for error in errors {
            let back = CallError::from_reply(error.to_reply());
            assert_eq!(back.to_string(), error.to_string());
            assert_eq!(back.is_retryable(), error.is_retryable());
        }
    }
}
