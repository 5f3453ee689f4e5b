//! The side to which a connection was opened.

use std::time::Duration;

use bytes::Bytes;
use hmac::Mac as _;
use prost::Message as _;

use super::{ANSWERING, CALLING, HANDSHAKE_MAX, Nonce, transcript};
use crate::principal::{Keyring, Principal, PrincipalKey, finish};
use crate::rpc::Rpc as _;
use crate::status::CallError;
use crate::{PROTOCOL_VERSION, pb};

/// A connection over which nothing has been proved yet.
#[derive(Debug)]
pub struct Opening {
    since: Duration,
    nonce: Nonce,
    turn: Turn,
}

#[derive(Debug)]
enum Turn {
    Hello,
    Proof(Box<Said>),
    /// It has ended well, or will not any more.
    Over,
}

/// The caller's Hello, read and as it came.
#[derive(Debug)]
struct Said {
    hello: pb::Hello,
    bytes: Bytes,
    principal: Principal,
}

/// What a frame leads to.
#[derive(Debug)]
pub enum Heard {
    /// This is the answer, and a Proof is to come.
    Challenge(pb::Challenge),
    /// The caller has proved its role; it is to be welcomed, or refused for another reason.
    Proven(Box<Proven>),
}

impl Opening {
    /// A connection begins. `nonce` must be random, and used for no other.
    #[must_use]
    pub fn new(now: Duration, nonce: Nonce) -> Self {
        Self { since: now, nonce, turn: Turn::Hello }
    }

    /// Whether the caller has taken too long.
    #[must_use]
    pub fn is_overdue(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= HANDSHAKE_MAX
    }

    /// A frame has come. An error is the answer, and the end of the connection.
    pub fn hear(&mut self, keys: &Keyring, kind: u16, body: &Bytes) -> Result<Heard, CallError> {
        match (std::mem::replace(&mut self.turn, Turn::Over), kind) {
            (Turn::Hello, pb::Hello::KIND) => {
                self.turn = Turn::Proof(Box::new(Said::read(body)?));
                Ok(Heard::Challenge(pb::Challenge { nonce: Bytes::copy_from_slice(&self.nonce) }))
            }
            (Turn::Proof(said), pb::Proof::KIND) => {
                let key = keys.of(said.principal.role).clone();
                let mac = transcript(&key, CALLING, &self.nonce, &[&said.bytes]);
                let proof = pb::Proof::decode(body.clone()).unwrap_or_default();
                // In the same time for every wrong proof.
                mac.verify_slice(&proof.mac).map_err(|_| reject(UNPROVEN))?;
                Ok(Heard::Proven(Box::new(Proven { said: *said, nonce: self.nonce, key })))
            }
            _ => Err(reject("a connection begins with a hello and a proof")),
        }
    }
}

/// All that a caller learns whose proof is wrong.
const UNPROVEN: &str = "you have not proved that you belong to this cluster: give masters and chunkservers its key (key_file), \
    mounts its client key (client_key_file) and the command line its admin key (--key-file), or correct the addresses";

fn reject(message: &str) -> CallError {
    CallError::Rejected { message: message.into() }
}

impl Said {
    fn read(body: &Bytes) -> Result<Self, CallError> {
        let hello = pb::Hello::decode(body.clone()).map_err(|_| reject("the hello is malformed"))?;
        if hello.protocol_version != PROTOCOL_VERSION {
            let message = format!(
                "you speak protocol version {}, this is version {PROTOCOL_VERSION}: run the same release everywhere",
                hello.protocol_version
            );
            return Err(CallError::Rejected { message });
        }
        let principal = Principal::of(&hello).filter(|_| hello.nonce.len() == size_of::<Nonce>());
        let principal = principal.ok_or_else(|| reject("the hello names no role, or has no nonce"))?;
        Ok(Self { hello, bytes: body.clone(), principal })
    }
}

/// A caller that has proved its role.
#[derive(Debug)]
pub struct Proven {
    said: Said,
    nonce: Nonce,
    key: PrincipalKey,
}

impl Proven {
    /// What it has said of itself.
    #[must_use]
    pub fn hello(&self) -> &pb::Hello {
        &self.said.hello
    }

    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.said.principal
    }

    /// Says `reply`, and proves that this side has the key too.
    #[must_use]
    pub fn welcome(&self, reply: &pb::HelloReply) -> pb::Welcome {
        let reply: Bytes = reply.encode_to_vec().into();
        let mac = transcript(&self.key, ANSWERING, &self.nonce, &[&self.said.bytes, &reply]);
        pb::Welcome { reply, mac: Bytes::copy_from_slice(&finish(mac)) }
    }
}
