//! Questions that change nothing.

mod chunk;
mod class;
mod cluster;
mod directory;
mod held;
mod lease;
mod object;

pub use directory::{DirEntry, Listing};
pub use lease::LeaseInTheWay;
