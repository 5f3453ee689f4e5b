//! The side that opens a connection.

use bytes::Bytes;
use hmac::Mac as _;
use prost::Message as _;

use super::{ANSWERING, CALLING, Nonce, transcript};
use crate::pb;
use crate::principal::{PrincipalKey, finish};
use crate::status::CallError;

/// What a part calls others with.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What it says of itself. The nonce is drawn for each connection.
    pub hello: pb::Hello,
    key: PrincipalKey,
    draw: fn() -> Nonce,
}

impl Caller {
    /// Whoever says this, and proves its role by this key. `draw` gives random bytes that nobody can foretell.
    #[must_use]
    pub fn new(hello: pb::Hello, key: PrincipalKey, draw: fn() -> Nonce) -> Self {
        Self { hello, key, draw }
    }

    /// The same caller, which says something else.
    #[must_use]
    pub fn saying(&self, hello: pb::Hello) -> Self {
        Self { hello, ..self.clone() }
    }

    /// Begins on a connection.
    #[must_use]
    pub fn begin(&self) -> Asking {
        let nonce = Bytes::copy_from_slice(&(self.draw)());
        Asking { hello: pb::Hello { nonce, ..self.hello.clone() }, key: self.key.clone() }
    }
}

/// The Hello is to be sent, and a Challenge to come.
#[derive(Debug)]
pub struct Asking {
    hello: pb::Hello,
    key: PrincipalKey,
}

impl Asking {
    /// What is to be sent first.
    #[must_use]
    pub fn hello(&self) -> &pb::Hello {
        &self.hello
    }

    /// The Challenge has come.
    pub fn challenged(self, challenge: &pb::Challenge) -> Result<Proving, CallError> {
        let Ok(nonce) = Nonce::try_from(&challenge.nonce[..]) else {
            return Err(CallError::Rejected { message: "the challenge is malformed".into() });
        };
        Ok(Proving { hello: self.hello.encode_to_vec(), nonce, key: self.key })
    }
}

/// The Proof is to be sent, and a Welcome to come.
#[derive(Debug)]
pub struct Proving {
    hello: Vec<u8>,
    nonce: Nonce,
    key: PrincipalKey,
}

impl Proving {
    /// What is to be sent next.
    #[must_use]
    pub fn proof(&self) -> pb::Proof {
        let mac = transcript(&self.key, CALLING, &self.nonce, &[&self.hello]);
        pb::Proof { mac: Bytes::copy_from_slice(&finish(mac)) }
    }

    /// The Welcome has come: what the other side says of itself, if it has the key too.
    pub fn welcomed(self, welcome: &pb::Welcome) -> Result<pb::HelloReply, CallError> {
        let reject = |message: &str| CallError::Rejected { message: message.into() };
        let mac = transcript(&self.key, ANSWERING, &self.nonce, &[&self.hello, &welcome.reply]);
        mac.verify_slice(&welcome.mac).map_err(|_| {
            reject("it has not proved that it belongs to this cluster: correct its address, or its key")
        })?;
        pb::HelloReply::decode(welcome.reply.clone()).map_err(|_| reject("its welcome is malformed"))
    }
}
