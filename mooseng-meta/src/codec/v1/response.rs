//! Answers, as they are stored.

use mooseng_types::{ClassId, FsError};

use super::{FORMAT, attr, open, put_attr};
use crate::codec::{CodecError, Reader, Writer};
use crate::response::{Grant, Response};

mod tag {
    pub(super) const DONE: u8 = 0;
    pub(super) const ATTR: u8 = 1;
    pub(super) const SESSION: u8 = 2;
    pub(super) const SERVER: u8 = 3;
    pub(super) const GRANT: u8 = 4;
    pub(super) const REFUSED: u8 = 5;
    pub(super) const BATCH: u8 = 6;
    pub(super) const CLASS: u8 = 7;
    pub(super) const CHANGED: u8 = 8;
}

/// Room for an answer with attributes.
const USUAL_SIZE: usize = 72;

impl Response {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(FORMAT, USUAL_SIZE);
        self.put(&mut w);
        w.finish()
    }

    fn put(&self, w: &mut Writer) {
        match self {
            Self::Done => w.u8(tag::DONE),
            Self::Attr(attr) => {
                w.u8(tag::ATTR);
                put_attr(w, attr);
            }
            Self::Session(session) => {
                w.u8(tag::SESSION);
                w.session(*session);
            }
            Self::Server(server) => {
                w.u8(tag::SERVER);
                w.server(*server);
            }
            Self::Grant(grant) => {
                w.u8(tag::GRANT);
                w.chunk(grant.chunk);
                w.version(grant.base_version);
                w.version(grant.version);
                w.list(&grant.servers, Writer::server);
                w.var(grant.valid_length.into());
                w.option(grant.inline.as_ref(), |w, inline| w.bytes(inline));
                w.u8(grant.fresh.into());
                put_attr(w, &grant.attr);
            }
            Self::Class(class) => {
                w.u8(tag::CLASS);
                w.var(class.raw().into());
            }
            Self::Changed(count) => {
                w.u8(tag::CHANGED);
                w.var((*count).into());
            }
            Self::Batch(answers) => {
                w.u8(tag::BATCH);
                w.var(answers.len() as u64);
                answers.iter().for_each(|answer| answer.put(w));
            }
            Self::Refused(error) => {
                w.u8(tag::REFUSED);
                w.var(error.code().into());
            }
        }
    }

    /// Reads an answer back.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let response = match r.u8()? {
            tag::BATCH => Self::Batch(r.list(|r| {
                let tag = r.u8()?;
                Self::read(tag, r)
            })?),
            tag => Self::read(tag, &mut r)?,
        };
        r.finish(response)
    }

    /// Reads one answer that is not a batch's.
    fn read(tag: u8, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match tag {
            tag::DONE => Self::Done,
            tag::ATTR => Self::Attr(attr(r)?),
            tag::SESSION => Self::Session(r.session()?),
            tag::SERVER => Self::Server(r.server()?),
            tag::GRANT => Self::Grant(Grant {
                chunk: r.chunk()?,
                base_version: r.version()?,
                version: r.version()?,
                servers: r.list(Reader::server)?,
                valid_length: r.narrow()?,
                inline: r.option(|r| r.bytes())?,
                fresh: r.bool()?,
                attr: attr(r)?,
            }),
            tag::CLASS => Self::Class(ClassId::from_raw(r.narrow()?)),
            tag::CHANGED => Self::Changed(r.narrow()?),
            tag::REFUSED => Self::Refused(FsError::from_code(r.narrow()?)),
            _ => return Err(CodecError::Value("answer")),
        })
    }
}
