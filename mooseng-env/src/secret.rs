//! Secrets in files: the key that masters and chunkservers of a cluster share, and those that are made from it for clients
//! and administrators.

use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use zeroize::{Zeroize as _, Zeroizing};

use crate::config::ConfigError;

const SIZE: usize = 32;

/// What to do about a `key_file` that cannot be used.
pub const REMEDY: &str = "copy the cluster's key from a master, or correct key_file";

/// 32 bytes that are nobody else's business: not shown, and overwritten when they are dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; SIZE]>);

impl Secret {
    /// Takes over `bytes`, which are zero afterwards.
    #[must_use]
    pub fn take(bytes: &mut [u8; SIZE]) -> Self {
        let secret = Self(Zeroizing::new(*bytes));
        bytes.zeroize();
        secret
    }

    /// Reads 64 hexadecimal digits; space around them does not count.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().as_bytes();
        if digits.len() != 2 * SIZE {
            return None;
        }
        let mut bytes = Zeroizing::new([0; SIZE]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            for &digit in pair {
                *byte = *byte << 4 | u8::try_from(char::from(digit).to_digit(16)?).ok()?;
            }
        }
        Some(Self(bytes))
    }

    /// Reads the file that a configuration names; `remedy` says what to do if it cannot be used.
    pub fn load(path: &Path, remedy: &str) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let secret = text.map_err(|error| ConfigError::new(error.to_string(), remedy)).and_then(|text| {
            Self::parse(&text).ok_or_else(|| ConfigError::new("not 64 hexadecimal digits", remedy))
        });
        secret.map_err(|error| error.in_file(path))
    }

    /// Writes 64 hexadecimal digits into a file that nobody else may read; one that is there is replaced.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let digits: Zeroizing<String> =
            Zeroizing::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect());
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        // One that was there keeps its mode otherwise.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(digits.as_bytes())
    }

    /// What it is.
    #[must_use]
    pub fn bytes(&self) -> &[u8; SIZE] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_64_hexadecimal_digits() {
        let bytes = |text: &str| Secret::parse(text).map(|secret| *secret.bytes());
        let counted: [u8; SIZE] = std::array::from_fn(|at| at as u8 * 7);
        let digits: String = counted.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes(&digits), Some(counted));
        assert_eq!(bytes(&format!(" {}\n", digits.to_uppercase())), Some(counted));
        for wrong in
            ["", "0f", &digits[1..], &"0f".repeat(33), &"0g".repeat(32), &"+f".repeat(32), &"é".repeat(32)]
        {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_shown_to_nobody() {
        assert_eq!(format!("{:?}", Secret::take(&mut [7; SIZE])), "Secret(..)");
        let mut bytes = [7; SIZE];
        let secret = Secret::take(&mut bytes);
        assert_eq!((bytes, secret.bytes()), ([0; SIZE], &[7; SIZE]));
    }

    #[test]
    fn a_key_file_that_cannot_be_used_is_named_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        let said = || Secret::load(&path, REMEDY).unwrap_err().to_string();
        assert!(said().starts_with(&format!("{}: No such file", path.display())), "{}", said());
        for wrong in ["", "abcd", &"5x".repeat(32)] {
            std::fs::write(&path, wrong).unwrap();
            let expected = format!("{}: not 64 hexadecimal digits: {REMEDY}", path.display());
            assert_eq!(said(), expected);
        }
        std::fs::write(&path, format!("{}\n", "5a".repeat(32))).unwrap();
        assert_eq!(Secret::load(&path, REMEDY).unwrap().bytes(), &[0x5a; SIZE]);
    }

    #[test]
    fn a_saved_secret_is_its_owners_alone_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.key");
        std::fs::write(&path, "everybody's").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        Secret::take(&mut [0x5a; SIZE]).save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Secret::load(&path, REMEDY).unwrap().bytes(), &[0x5a; SIZE]);
    }
}
