//! How the two sides of a connection prove that they belong to one cluster, before anything else is said (RFC 0010).
//!
//! ```text
//! caller                                   called
//!   Hello (role, name, …, nonce)   ──────►
//!                                  ◄──────   Challenge (nonce)
//!   Proof (mac)                    ──────►
//!                                  ◄──────   Welcome (HelloReply, mac)
//!
//! mac of the Proof    HMAC-SHA-256(key of the role, "MNG1call" ‖ called side's nonce ‖ u32 length of Hello ‖ Hello)
//! mac of the Welcome  HMAC-SHA-256(key of the role, "MNG1answ" ‖ called side's nonce ‖ u32 length of Hello ‖ Hello
//!                                                              ‖ u32 length of HelloReply ‖ HelloReply)
//! ```
//!
//! Lengths are little-endian. Hello and HelloReply are covered as the bytes that went over the wire, so that nothing in them
//! can be changed, a field of a later release included: role, name, number, cluster, levels, and the caller's nonce. The
//! labels keep one direction's proof from being used in the other.
//!
//! Frames in, frames out: sockets, clocks and random numbers are the caller's. [`Caller`] begins on one side, [`Opening`] on
//! the other.

mod called;
mod calling;
#[cfg(test)]
mod tests;

use std::time::Duration;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

pub use self::called::{Heard, Opening, Proven};
pub use self::calling::{Asking, Caller, Proving};

use crate::principal::PrincipalKey;

/// How long a caller may take until it has proved its role.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(1);
/// The longest body of a frame from a caller that has not proved its role.
pub const OPENING_MAX: usize = 4 << 10;

/// Random bytes that are used for one connection.
pub type Nonce = [u8; 32];

const CALLING: &[u8; 8] = b"MNG1call";
const ANSWERING: &[u8; 8] = b"MNG1answ";

fn transcript(key: &PrincipalKey, direction: &[u8; 8], nonce: &Nonce, said: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = key.mac().chain_update(direction).chain_update(nonce);
    for bytes in said {
        // Nothing that fits into a frame is longer.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        mac.update(&length.to_le_bytes());
        mac.update(bytes);
    }
    mac
}
