//! Randomness.

use std::fmt::Debug;

/// Where random bytes come from.
pub trait Entropy: Send + Sync + Debug + 'static {
    /// Fills `into` with random bytes, good enough for keys.
    fn fill(&self, into: &mut [u8]);

    /// A random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The kernel's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    /// If the kernel has none: nothing safe can be done without.
    fn fill(&self, into: &mut [u8]) {
        if let Err(error) = getrandom::fill(into) {
            panic!("the kernel gives no random numbers: {error}");
        }
    }
}

/// Random bytes for one use, good enough for keys.
///
/// # Panics
/// As [`SystemEntropy`] does.
#[must_use]
pub fn nonce() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes);
    bytes
}
