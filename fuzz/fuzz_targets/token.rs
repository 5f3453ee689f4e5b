//! Chunk tokens: without the key none is accepted; with the key, every token says the same after it is signed again.
#![no_main]

use hmac::{Hmac, Mac};
use libfuzzer_sys::fuzz_target;
use mooseng_protocol::token::{TOKEN_SIZE, TokenError, TokenKey};
use sha2::Sha256;

const SECRET: [u8; 32] = [7; 32];
const SIGNED: usize = 40;

/// What somebody who has the key could send.
fn signed(bytes: &[u8; SIGNED]) -> [u8; TOKEN_SIZE] {
    let mut out = [0; TOKEN_SIZE];
    out[..SIGNED].copy_from_slice(bytes);
    let mac = Hmac::<Sha256>::new_from_slice(&SECRET).expect("any length is a key").chain_update(bytes);
    out[SIGNED..].copy_from_slice(&mac.finalize().into_bytes()[..TOKEN_SIZE - SIGNED]);
    out
}

fuzz_target!(|data: &[u8]| {
    let key = TokenKey::new(&SECRET);
    let Some((now, bytes)) = data.split_first_chunk::<8>() else { return };
    let now = u64::from_le_bytes(*now);
    // The seeds are signed with another key, so a token is never guessed.
    match key.verify(bytes, now) {
        Err(TokenError::Malformed) => assert_ne!(bytes.len(), TOKEN_SIZE),
        Err(error) => assert_eq!(error, TokenError::Forged),
        Ok(token) => panic!("accepted {token:?} without a signature"),
    }
    let Some(content) = bytes.first_chunk::<SIGNED>() else { return };
    let bytes = signed(content);
    match key.verify(&bytes, now) {
        Ok(token) => {
            assert!(token.expiry_unix_s >= now);
            assert_eq!(key.verify(&key.sign(&token), now), Ok(token));
            let other = TokenKey::new(&[8; 32]);
            assert_eq!(other.verify(&bytes, now), Err(TokenError::Forged));
        }
        Err(TokenError::Malformed) => {
            let known = matches!(content[..4], [1, _, 0, 0] | [2, _, 1..=48, 0]);
            assert!(!known, "only the format and the part may be wrong");
        }
        Err(error) => {
            assert_eq!(error, TokenError::Expired);
            assert!(key.verify(&bytes, 0).is_ok(), "only the time was wrong");
        }
    }
});
