//! Fields with types of their own, the same in every entry, answer and row.

use mooseng_types::{
    ChunkId, ChunkIndex, ChunkVersion, FileKind, FileName, InodeId, ServerId, SessionId, TimeNs,
};

use super::{CodecError, Reader, Writer};

impl Writer {
    pub(crate) fn inode(&mut self, inode: InodeId) {
        self.var(inode.raw());
    }

    pub(crate) fn session(&mut self, session: SessionId) {
        self.var(session.raw());
    }

    pub(crate) fn chunk(&mut self, chunk: ChunkId) {
        self.var(chunk.raw());
    }

    pub(crate) fn server(&mut self, server: ServerId) {
        self.var(server.raw().into());
    }

    pub(crate) fn index(&mut self, index: ChunkIndex) {
        self.var(index.raw().into());
    }

    pub(crate) fn version(&mut self, version: ChunkVersion) {
        self.var(version.raw().into());
    }

    pub(crate) fn name(&mut self, name: &FileName) {
        self.bytes(name.as_bytes());
    }

    pub(crate) fn time(&mut self, time: TimeNs) {
        self.i64(time.raw());
    }
}

impl Reader<'_> {
    pub(crate) fn inode(&mut self) -> Result<InodeId, CodecError> {
        self.var().map(InodeId::from_raw)
    }

    pub(crate) fn session(&mut self) -> Result<SessionId, CodecError> {
        self.var().map(SessionId::from_raw)
    }

    pub(crate) fn chunk(&mut self) -> Result<ChunkId, CodecError> {
        self.var().map(ChunkId::from_raw)
    }

    pub(crate) fn server(&mut self) -> Result<ServerId, CodecError> {
        self.narrow().map(ServerId::from_raw)
    }

    pub(crate) fn index(&mut self) -> Result<ChunkIndex, CodecError> {
        self.narrow().map(ChunkIndex::from_raw)
    }

    pub(crate) fn version(&mut self) -> Result<ChunkVersion, CodecError> {
        self.narrow().map(ChunkVersion::from_raw)
    }

    pub(crate) fn name(&mut self) -> Result<FileName, CodecError> {
        FileName::parse(self.slice()?).map_err(|_| CodecError::Value("name"))
    }

    pub(crate) fn kind(&mut self) -> Result<FileKind, CodecError> {
        FileKind::from_raw(self.u8()?).ok_or(CodecError::Value("kind"))
    }

    pub(crate) fn time(&mut self) -> Result<TimeNs, CodecError> {
        self.i64().map(TimeNs::from_raw)
    }
}
