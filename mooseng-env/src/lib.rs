//! The one door to the outside: clock, entropy, disk, owned threads, configuration files, logs.
//!
//! Cores take time and randomness as arguments; edges get them here, so that the simulator can put a world of its own
//! behind the same traits.

pub mod clock;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod entropy;
pub mod secret;
pub mod threads;

pub use clock::{Clock, SystemClock};
pub use disk::{Disk, DiskFile, FsDisk, MemoryDisk};
pub use entropy::{Entropy, SystemEntropy, nonce};
pub use threads::Threads;
