//! Entries of the log: stamp, request, then the command's number and its fields in the order of the type.

use mooseng_types::RequestId;

use super::{FORMAT, open};
use crate::codec::{CodecError, Reader, Writer};
use crate::command::{Command, Entry, Request};

/// Room for an entry without a payload.
const USUAL_SIZE: usize = 96;

impl Entry {
    /// The entry as bytes, for the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, USUAL_SIZE + self.command.payload());
        w.time(self.stamp);
        w.option(self.request, |w, request| {
            w.session(request.id.session);
            w.var(request.id.seq);
            w.var(request.acked_below);
        });
        self.command.encode(&mut w);
        w.finish()
    }

    /// Reads an entry back. Any bytes may be given.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let entry = Self { stamp: r.time()?, request: r.option(request)?, command: Command::decode(&mut r)? };
        r.finish(entry)
    }
}

fn request(r: &mut Reader<'_>) -> Result<Request, CodecError> {
    let id = RequestId { session: r.session()?, seq: r.var()? };
    Ok(Request { id, acked_below: r.var()? })
}
