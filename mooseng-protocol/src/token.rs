//! The capability for one copy or part of a chunk: made by the leader, carried by the client, checked by a chunkserver on its own.
//!
//! ```text
//! byte  0  u8   format: 1 for a whole copy, 2 for a part
//!       1  u8   rights: 1 read, 2 write, 4 the chunk may be made if it does not exist
//!       2  u8   format 2: index of the part, 1 to 48; format 1: zero
//!       3  u8   zero
//!       4  u32  base version: a copy older than this is stale and must not take part
//!       8  u64  chunk
//!      16  u32  version: what a copy adopts with the first write
//!      20  u32  zero
//!      24  u64  session
//!      32  u64  expiry, seconds since the epoch
//!      40  16 bytes of HMAC-SHA-256 over bytes 0..40
//! ```
//!
//! All little-endian. What keeps a late writer out is the version (a copy refuses a version below its own), not the
//! expiry: that only bounds how long a stolen token is worth anything, and may lie hours ahead.

use hmac::Mac as _;
use mooseng_types::{ChunkId, ChunkVersion, Part, SessionId};
use zeroize::Zeroizing;

use crate::principal::hmac;

/// Bytes of an encoded token.
pub const TOKEN_SIZE: usize = 56;
const SIGNED: usize = 40;
const FORMAT_WHOLE: u8 = 1;
const FORMAT_PART: u8 = 2;
const READ: u8 = 1;
const WRITE: u8 = 2;
const CREATE: u8 = 4;

/// What the bearer may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Which copy or part of which chunk.
    pub part: Part,
    /// A copy older than this must not take part.
    pub base_version: ChunkVersion,
    /// The version of the write lease, or for readers the version that they must at least see.
    pub version: ChunkVersion,
    /// May read.
    pub read: bool,
    /// May write.
    pub write: bool,
    /// May make the copy if there is none.
    pub create: bool,
    /// For whom.
    pub session: SessionId,
    /// Until when, in seconds since the epoch.
    pub expiry_unix_s: u64,
}

/// Why a token was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Not 56 bytes of a known format.
    #[error("malformed chunk token")]
    Malformed,
    /// Not signed with this cluster's key.
    #[error("chunk token has a wrong signature")]
    Forged,
    /// Too old.
    #[error("chunk token has expired")]
    Expired,
}

/// The secret that masters and chunkservers of a cluster share; overwritten when it is dropped. (What HMAC makes of it while
/// it signs is not: the hash has no way to.)
#[derive(Clone)]
pub struct TokenKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

impl TokenKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*secret))
    }

    /// The signed bytes of `token`.
    #[must_use]
    pub fn sign(&self, token: &Token) -> [u8; TOKEN_SIZE] {
        let mut out = [0; TOKEN_SIZE];
        out[0] = if token.part.is_whole() { FORMAT_WHOLE } else { FORMAT_PART };
        out[1] =
            u8::from(token.read) * READ + u8::from(token.write) * WRITE + u8::from(token.create) * CREATE;
        out[2] = token.part.index();
        out[4..8].copy_from_slice(&token.base_version.raw().to_le_bytes());
        out[8..16].copy_from_slice(&token.part.chunk().raw().to_le_bytes());
        out[16..20].copy_from_slice(&token.version.raw().to_le_bytes());
        out[24..32].copy_from_slice(&token.session.raw().to_le_bytes());
        out[32..40].copy_from_slice(&token.expiry_unix_s.to_le_bytes());
        let mac = hmac(&self.0[..]).chain_update(&out[..SIGNED]).finalize().into_bytes();
        out[SIGNED..].copy_from_slice(&mac[..TOKEN_SIZE - SIGNED]);
        out
    }

    /// Checks signature and expiry and reads the token.
    pub fn verify(&self, bytes: &[u8], now_unix_s: u64) -> Result<Token, TokenError> {
        let bytes: &[u8; TOKEN_SIZE] = bytes.try_into().map_err(|_| TokenError::Malformed)?;
        let mac = hmac(&self.0[..]).chain_update(&bytes[..SIGNED]);
        mac.verify_truncated_left(&bytes[SIGNED..]).map_err(|_| TokenError::Forged)?;
        let index = match bytes[..4] {
            [FORMAT_WHOLE, _, 0, 0] => 0,
            [FORMAT_PART, _, index, 0] if index > 0 => index,
            _ => return Err(TokenError::Malformed),
        };
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let token = Token {
            part: Part::new(ChunkId::from_raw(long(8)), index).ok_or(TokenError::Malformed)?,
            base_version: ChunkVersion::from_raw(word(4)),
            version: ChunkVersion::from_raw(word(16)),
            read: bytes[1] & READ != 0,
            write: bytes[1] & WRITE != 0,
            create: bytes[1] & CREATE != 0,
            session: SessionId::from_raw(long(24)),
            expiry_unix_s: long(32),
        };
        if token.expiry_unix_s < now_unix_s { Err(TokenError::Expired) } else { Ok(token) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            part: Part::whole(ChunkId::from_raw(7)),
            base_version: ChunkVersion::from_raw(3),
            version: ChunkVersion::from_raw(4),
            read: true,
            write: true,
            create: false,
            session: SessionId::from_raw(11),
            expiry_unix_s: 1000,
        }
    }

    #[test]
    fn a_token_is_valid_as_it_was_made_until_it_expires() {
        let key = TokenKey::new(&[1; 32]);
        let bytes = key.sign(&token());
        assert_eq!(key.verify(&bytes, 1000), Ok(token()));
        assert_eq!(key.verify(&bytes, 1001), Err(TokenError::Expired));
        assert_eq!(TokenKey::new(&[2; 32]).verify(&bytes, 0), Err(TokenError::Forged));
        assert_eq!(key.verify(&bytes[..55], 0), Err(TokenError::Malformed));
    }

    #[test]
    fn no_bit_of_a_token_may_change() {
        let key = TokenKey::new(&[1; 32]);
        let bytes = key.sign(&token());
        for at in 0..TOKEN_SIZE * 8 {
            let mut changed = bytes;
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(key.verify(&changed, 0), Err(TokenError::Forged), "bit {at}");
        }
    }

    #[test]
    fn the_bytes_of_a_token_never_change() {
        let bytes = TokenKey::new(&[1; 32]).sign(&token());
        assert_eq!(bytes[..8], [1, 3, 0, 0, 3, 0, 0, 0]);
        assert_eq!(
            bytes[8..40],
            [
                7, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0,
                0, 0
            ]
        );
        assert_eq!(bytes[SIGNED..SIGNED + 4], [94, 192, 130, 49]);
    }

    /// `token`'s bytes with others at the beginning, signed again.
    fn resigned(key: &TokenKey, token: &Token, start: [u8; 4]) -> [u8; TOKEN_SIZE] {
        let mut bytes = key.sign(token);
        bytes[..4].copy_from_slice(&start);
        let mac = hmac(&key.0[..]).chain_update(&bytes[..SIGNED]).finalize().into_bytes();
        bytes[SIGNED..].copy_from_slice(&mac[..TOKEN_SIZE - SIGNED]);
        bytes
    }

    #[test]
    fn the_bytes_of_a_token_for_a_part_never_change() {
        let (key, whole) = (TokenKey::new(&[1; 32]), token());
        let part = Token { part: Part::new(whole.part.chunk(), 5).unwrap(), ..whole };
        let bytes = key.sign(&part);
        assert_eq!(bytes[..4], [2, 3, 5, 0]);
        assert_eq!(bytes[4..SIGNED], key.sign(&whole)[4..SIGNED]);
        assert_eq!(bytes[SIGNED..SIGNED + 4], [217, 255, 121, 226]);
        assert_eq!(key.verify(&bytes, 0), Ok(part));
    }

    #[test]
    fn a_token_that_names_its_part_in_no_known_way_is_malformed_though_signed() {
        let (key, token) = (TokenKey::new(&[1; 32]), token());
        let verify = |start| key.verify(&resigned(&key, &token, start), 0).map(|token| token.part.index());
        assert_eq!(verify([1, 3, 0, 0]), Ok(0));
        assert_eq!(verify([2, 3, Part::INDEX_MAX, 0]), Ok(Part::INDEX_MAX));
        let bad = [
            [0, 3, 0, 0],
            [1, 3, 1, 0],
            [1, 3, 0, 1],
            [2, 3, 0, 0],
            [2, 3, 49, 0],
            [2, 3, 1, 1],
            [3, 3, 0, 0],
        ];
        for start in bad {
            assert_eq!(verify(start), Err(TokenError::Malformed), "{start:?}");
        }
    }
}
