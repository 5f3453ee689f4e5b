//! What a request means: decoded, its token checked, its chunk found or given a place, and then the work on the store.
//! No sockets, no threads, no clock: connections and the simulator go through here alike.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::convert;
use mooseng_protocol::frame::PAYLOAD_MAX;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::token::{TOKEN_SIZE, Token, TokenError, TokenKey};
use mooseng_types::{BLOCK_SIZE, ChunkCause, ChunkVersion, Part};

use crate::buffer::BufferPool;
use crate::completion::fault;
use crate::store::{Chunk, Follows, ReadAnswer, ReadRequest, Store, StoreError};

/// Servers behind the first of a chain.
const CHAIN_MAX: usize = 15;
/// Verified tokens that are remembered for one peer: a client writes to few chunks at a time.
const TOKENS_KEPT: usize = 16;
/// Checksums of the longest payload that is cut at block borders.
const CHECKSUMS_MAX: usize = PAYLOAD_MAX / BLOCK_SIZE as usize + 1;

/// A request, decoded.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is the message of its name")]
pub enum Request {
    Write(pb::WriteChunkRequest),
    Sync(pb::SyncChunkRequest),
    Truncate(pb::TruncateChunkRequest),
    Read(pb::ReadChunkRequest),
}

impl Request {
    /// Decodes the body of a frame.
    pub fn decode(kind: u16, body: &Bytes) -> Result<Self, CallError> {
        match kind {
            pb::WriteChunkRequest::KIND => decode(body).map(Self::Write),
            pb::SyncChunkRequest::KIND => decode(body).map(Self::Sync),
            pb::TruncateChunkRequest::KIND => decode(body).map(Self::Truncate),
            pb::ReadChunkRequest::KIND => decode(body).map(Self::Read),
            kind => Err(CallError::Rejected { message: format!("a chunkserver does not do {kind:#x}") }),
        }
    }

    /// Takes the server that comes next off the chain.
    pub fn take_next(&mut self) -> Result<Option<pb::ServerAddress>, CallError> {
        let chain = match self {
            Self::Write(it) => &mut it.chain,
            Self::Sync(it) => &mut it.chain,
            Self::Truncate(it) => &mut it.chain,
            Self::Read(_) => return Ok(None),
        };
        if chain.len() > CHAIN_MAX {
            return Err(CallError::Rejected {
                message: format!("a chain has at most {CHAIN_MAX} more servers"),
            });
        }
        Ok(if chain.is_empty() { None } else { Some(chain.remove(0)) })
    }

    /// Checks the token and finds the copy, or a place for it; a payload of `payload_length` bytes follows.
    pub(crate) fn admit(
        &self,
        store: &Store,
        tokens: &mut Tokens,
        now_unix_s: u64,
        payload_length: usize,
    ) -> Result<Work, CallError> {
        let (token, chunk, index, version) = match self {
            Self::Write(it) => (&it.token, it.chunk, it.part, it.version),
            Self::Sync(it) => (&it.token, it.chunk, it.part, it.version),
            Self::Truncate(it) => (&it.token, it.chunk, it.part, it.version),
            Self::Read(it) => (&it.token, it.chunk, it.part, it.version),
        };
        let id = convert::part(chunk, index)?;
        let token = tokens.check(token, id, now_unix_s)?;
        let what = match self {
            Self::Read(it) => return admit_read(store, &token, it).map(Work::Read),
            Self::Write(it) => {
                // An empty write only takes on the version of its token.
                if payload_length > PAYLOAD_MAX || it.checksums.len() > CHECKSUMS_MAX {
                    let message = format!("a write has at most 1 MiB, not {payload_length} bytes");
                    return Err(CallError::Rejected { message });
                }
                What::Write {
                    offset: it.offset.into(),
                    checksums: it.checksums.clone(),
                    sync: it.sync,
                    follows: match (it.continues, it.exists) {
                        (true, _) => Follows::Unsynced,
                        (false, true) => Follows::Something,
                        (false, false) => Follows::Nothing,
                    },
                }
            }
            Self::Sync(_) => What::Sync,
            Self::Truncate(it) => What::Truncate { length: it.length.into() },
        };
        // A version of 0 leaves it to the token.
        if !token.write || (version != 0 && version != token.version.raw()) {
            let message = "the token does not allow to write this version of the chunk";
            return Err(fault(ChunkCause::TokenInvalid, message));
        }
        let has_lost = matches!(&what, What::Write { follows, .. } if *follows != Follows::Nothing);
        let chunk = match store.find(id) {
            Some(chunk) => chunk,
            None if token.create && !has_lost => store.find_or_place(id)?,
            None => return Err(StoreError::NotFound { part: id }.into()),
        };
        Ok(Work::Change(Change { chunk, token, what }))
    }
}

fn decode<R: Rpc>(body: &Bytes) -> Result<R, CallError> {
    R::decode(body.clone()).map_err(|error| CallError::Rejected { message: format!("{}: {error}", R::NAME) })
}

fn admit_read(store: &Store, token: &Token, read: &pb::ReadChunkRequest) -> Result<Read, CallError> {
    if !token.read {
        return Err(fault(ChunkCause::TokenInvalid, "the token does not allow to read"));
    }
    let chunk = store.find(token.part).ok_or(StoreError::NotFound { part: token.part })?;
    let range = ReadRequest {
        oldest: ChunkVersion::from_raw(read.version).max(token.base_version),
        offset: read.offset.into(),
        length: read.length.into(),
        verify: read.verify,
        intact: read.intact,
        whole: read.whole,
    };
    Ok(Read { chunk, range })
}

/// What is to be done here for a request that was admitted.
#[derive(Debug)]
pub(crate) enum Work {
    Change(Change),
    Read(Read),
}

/// A change of a chunk. Those of one chunk are to be done in the order in which they came.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) chunk: Arc<Chunk>,
    token: Token,
    what: What,
}

#[derive(Debug)]
enum What {
    Write { offset: u64, checksums: Vec<u32>, sync: bool, follows: Follows },
    Sync,
    Truncate { length: u64 },
}

impl Change {
    /// Does it. `payload` is that of a write.
    pub(crate) fn perform(&self, store: &Store, now: Duration, payload: &[u8]) -> Result<(), CallError> {
        let (chunk, token) = (&self.chunk, &self.token);
        let done = match &self.what {
            What::Write { offset, checksums, sync, follows } => chunk
                .write(now, token, *follows, *offset, payload, checksums)
                .and_then(|()| if *sync { chunk.sync(now, token) } else { Ok(()) }),
            What::Sync => chunk.sync(now, token),
            What::Truncate { length } => chunk.truncate(now, token, *length),
        };
        if done.is_err() {
            store.forget_if_gone(chunk);
        }
        Ok(done?)
    }
}

/// A read of a chunk.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) chunk: Arc<Chunk>,
    range: ReadRequest,
}

impl Read {
    /// Does it.
    pub(crate) fn perform(&self, now: Duration, buffers: &Arc<BufferPool>) -> Result<ReadAnswer, CallError> {
        Ok(self.chunk.read(now, &self.range, buffers)?)
    }
}

/// The tokens of one peer that were verified.
#[derive(Debug)]
pub struct Tokens {
    key: TokenKey,
    known: Vec<([u8; TOKEN_SIZE], Token)>,
    /// Which remembered token is forgotten next.
    next: usize,
}

impl Tokens {
    /// None yet.
    #[must_use]
    pub fn new(key: TokenKey) -> Self {
        Self { key, known: Vec::new(), next: 0 }
    }

    /// The verified token for `part`.
    fn check(&mut self, bytes: &[u8], part: Part, now_unix_s: u64) -> Result<Token, CallError> {
        let known = self.known.iter().find(|(known, _)| known == bytes).map(|(_, token)| *token);
        let token = match known.filter(|token| token.expiry_unix_s >= now_unix_s) {
            Some(token) => token,
            None => {
                let token = self.key.verify(bytes, now_unix_s).map_err(|bad| {
                    let expired = bad == TokenError::Expired;
                    let cause = if expired { ChunkCause::TokenExpired } else { ChunkCause::TokenInvalid };
                    fault(cause, bad.to_string())
                })?;
                self.remember(bytes, token);
                token
            }
        };
        if token.part != part {
            let message = format!("the token is for {}, not for {part}", token.part);
            return Err(fault(ChunkCause::TokenInvalid, message));
        }
        Ok(token)
    }

    fn remember(&mut self, bytes: &[u8], token: Token) {
        let Ok(bytes) = <[u8; TOKEN_SIZE]>::try_from(bytes) else { return };
        if self.known.len() < TOKENS_KEPT {
            self.known.push((bytes, token));
        } else if let Some(slot) = self.known.get_mut(self.next) {
            *slot = (bytes, token);
            self.next = (self.next + 1) % TOKENS_KEPT;
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::{ChunkId, SessionId};

    use super::*;

    fn whole(chunk: u64) -> Part {
        Part::whole(ChunkId::from_raw(chunk))
    }

    fn token(chunk: u64, expiry_unix_s: u64) -> Token {
        Token {
            part: whole(chunk),
            base_version: ChunkVersion::from_raw(1),
            version: ChunkVersion::from_raw(1),
            read: true,
            write: true,
            create: true,
            session: SessionId::from_raw(1),
            expiry_unix_s,
        }
    }

    fn cause(error: CallError) -> ChunkCause {
        match error {
            CallError::Chunk { server: None, cause, .. } => cause,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_token_that_ran_out_is_told_from_one_that_was_never_good_and_remembering_changes_nothing() {
        let key = TokenKey::new(&[1; 32]);
        let signed = key.sign(&token(1, 100));
        let mut tokens = Tokens::new(key);
        let chunk = whole(1);
        for _ in 0..2 {
            tokens.check(&signed, chunk, 100).unwrap();
        }
        assert_eq!(cause(tokens.check(&signed, chunk, 101).unwrap_err()), ChunkCause::TokenExpired);
        let other = tokens.check(&signed, whole(2), 100).unwrap_err();
        assert_eq!(cause(other), ChunkCause::TokenInvalid);
        let mut forged = signed;
        forged[8] ^= 1;
        assert_eq!(cause(tokens.check(&forged, chunk, 0).unwrap_err()), ChunkCause::TokenInvalid);
        for other in 2..100 {
            let bytes = TokenKey::new(&[1; 32]).sign(&token(other, 100));
            tokens.check(&bytes, whole(other), 1).unwrap();
        }
        assert_eq!(tokens.known.len(), TOKENS_KEPT);
    }

    #[test]
    fn a_token_for_one_part_opens_no_other() {
        let key = TokenKey::new(&[1; 32]);
        let parts = [0, 1, 2].map(|index| Part::new(whole(1).chunk(), index).unwrap());
        let mut tokens = Tokens::new(key.clone());
        for mine in parts {
            let signed = key.sign(&Token { part: mine, ..token(1, 100) });
            for part in parts {
                match tokens.check(&signed, part, 1) {
                    Ok(token) => assert_eq!((token.part, part), (mine, mine)),
                    Err(error) => {
                        assert_ne!(part, mine);
                        assert!(
                            error.to_string().ends_with(&format!("the token is for {mine}, not for {part}"))
                        );
                        assert_eq!(cause(error), ChunkCause::TokenInvalid);
                    }
                }
            }
        }
    }

    #[test]
    fn a_request_about_a_part_that_no_chunk_has_is_refused_before_its_token_is_looked_at() {
        let store = Store::open(Vec::new(), mooseng_types::ClusterId::from_bytes([1; 16]), 0, Arc::default());
        let (store, mut tokens) = (store.unwrap(), Tokens::new(TokenKey::new(&[1; 32])));
        for part in [49, 256, u32::MAX] {
            let requests = [
                Request::Write(pb::WriteChunkRequest { chunk: 1, part, ..Default::default() }),
                Request::Sync(pb::SyncChunkRequest { chunk: 1, part, ..Default::default() }),
                Request::Truncate(pb::TruncateChunkRequest { chunk: 1, part, ..Default::default() }),
                Request::Read(pb::ReadChunkRequest { chunk: 1, part, ..Default::default() }),
            ];
            for request in requests {
                match request.admit(&store, &mut tokens, 1, 0) {
                    Err(CallError::Rejected { message }) => assert_eq!(
                        message,
                        format!("c1 has no part {part}: 0 is a whole copy, parts have numbers from 1 to 48")
                    ),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
