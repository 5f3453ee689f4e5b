//! Encodings of entries, answers and rows: compact, versioned, written by hand.
//!
//! Every encoded value opens with the number of its format, so that a later release can change one kind of row and
//! still read what this one wrote. Decoders take any bytes: they check each length against what is there before they
//! allocate, and never panic.

mod field;
pub(crate) mod v1;

use bytes::Bytes;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// Bytes are left after the value.
    #[error("{0} bytes are left after the value")]
    Trailing(usize),
    /// A format of a later release.
    #[error("format {0} is not known")]
    Format(u8),
    /// A field has a value that it cannot have.
    #[error("bad {0}")]
    Value(&'static str),
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Opens a value of this format.
    pub(crate) fn new(format: u8, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(format);
        Self(bytes)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// LEB128: seven bits to a byte, the lowest first.
    pub(crate) fn var(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Fixed width: times are large.
    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.var(bytes.len() as u64);
        self.raw(bytes);
    }

    /// 0, or 1 and the value.
    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn list<T: Copy>(&mut self, items: &[T], write: impl Fn(&mut Self, T)) {
        self.var(items.len() as u64);
        for &item in items {
            write(self, item);
        }
    }
}

/// Takes fields off the front of a slice.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Opens a value and tells its format.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<(u8, Self), CodecError> {
        let (&format, rest) = bytes.split_first().ok_or(CodecError::Truncated)?;
        Ok((format, Self(rest)))
    }

    pub(crate) fn finish<T>(self, value: T) -> Result<T, CodecError> {
        if self.0.is_empty() { Ok(value) } else { Err(CodecError::Trailing(self.0.len())) }
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CodecError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(CodecError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// One value has one form: no number may end in a needless zero byte.
    pub(crate) fn var(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if (shift == 63 && byte > 1) || (shift > 0 && byte == 0) {
                return Err(CodecError::Value("number"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CodecError::Value("number"))
    }

    /// A number of a narrower type.
    pub(crate) fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, CodecError> {
        T::try_from(self.var()?).map_err(|_| CodecError::Value("number"))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, CodecError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn slice(&mut self) -> Result<&'a [u8], CodecError> {
        let length = self.narrow()?;
        self.raw(length)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, CodecError> {
        self.slice().map(Bytes::copy_from_slice)
    }

    pub(crate) fn text(&mut self) -> Result<String, CodecError> {
        let text = std::str::from_utf8(self.slice()?).map_err(|_| CodecError::Value("text"))?;
        Ok(text.to_owned())
    }

    pub(crate) fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Value("flag")),
        }
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Every item takes a byte or more, so a count above what is left is refused before anything is allocated.
    pub(crate) fn list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count: usize = self.narrow()?;
        if count > self.0.len() {
            return Err(CodecError::Truncated);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
}
