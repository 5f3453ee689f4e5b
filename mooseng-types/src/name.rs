//! A directory entry's name, checked once.

use std::fmt;

use crate::{FsError, NAME_MAX};

/// 1 to 255 bytes without `/` and NUL, and neither `.` nor `..`. Any other bytes are allowed: POSIX names are bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Box<[u8]>);

impl FileName {
    /// Checks `bytes`. Refuses with `ENAMETOOLONG` a name that is too long and with `EINVAL` any other bad one.
    pub fn parse(bytes: &[u8]) -> Result<Self, FsError> {
        if bytes.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(FsError::Invalid);
        }
        Ok(Self(bytes.into()))
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_names_are_taken() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(FileName::parse(bad), Err(FsError::Invalid), "{bad:?}");
        }
        assert_eq!(FileName::parse(&[b'x'; 256]), Err(FsError::NameTooLong));
        for good in [&b"a"[..], b"...", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(FileName::parse(good).unwrap().as_bytes(), good);
        }
    }
}
