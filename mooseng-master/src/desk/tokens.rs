//! What lets a session at a chunk.

use bytes::Bytes;
use mooseng_meta::Grant;
use mooseng_protocol::token::{Token, TokenKey};
use mooseng_types::{ChunkId, ChunkVersion, Part, SessionId};

use crate::group::Now;

/// How long a chunk's token is good for, in seconds. Versions fence; this only bounds what a stolen token is worth.
const TOKEN_SECONDS: u64 = 24 * 3600;

/// Signs tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    key: TokenKey,
}

impl Tokens {
    pub(super) fn new(key: TokenKey) -> Self {
        Self { key }
    }

    /// Lets a session read a chunk in at least `version`.
    pub(super) fn for_reading(
        &self,
        now: Now,
        session: SessionId,
        chunk: ChunkId,
        version: ChunkVersion,
    ) -> Bytes {
        self.sign(&Token {
            part: Part::whole(chunk),
            base_version: version,
            version,
            read: true,
            write: false,
            create: false,
            session,
            expiry_unix_s: expiry(now),
        })
    }

    /// Lets a session write what it was granted.
    pub(super) fn for_writing(&self, now: Now, session: SessionId, grant: &Grant) -> Bytes {
        self.sign(&Token {
            part: Part::whole(grant.chunk),
            base_version: grant.base_version,
            version: grant.version,
            read: true,
            write: true,
            // Of a chunk without a commit copies may be made, also by who comes after the one who has made it.
            create: grant.base_version.raw() == 0,
            session,
            expiry_unix_s: expiry(now),
        })
    }

    fn sign(&self, token: &Token) -> Bytes {
        Bytes::copy_from_slice(&self.key.sign(token))
    }
}

fn expiry(now: Now) -> u64 {
    u64::try_from(now.wall.timespec().0).unwrap_or(0) + TOKEN_SECONDS
}
